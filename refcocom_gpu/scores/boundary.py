"""Counts of boundaries and contours in, boundary scores out: pure functions of columns of `per_example`.

Boundary IoU is that of Cheng et al. 2021 (bowenc0221/boundary-iou-api, `boundary_iou/utils/boundary_utils.py`): the IoU
of the pixels of each mask within d of its contour, d = max(1, round(0.02 · diagonal)). Boundary F follows DAVIS, with
the definitions of `refcocom_kernels.cpu.contours`: contours of one pixel, which match within t = max(1, round(0.008 ·
diagonal)) along rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.boxes import refuse_given
from refcocom_gpu.utils.arrow import to_numpy

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

IOU_COLUMNS = ("boundary_intersection", "pred_boundary", "target_boundary")
NAMES = ("boundary_iou", "min_mask_boundary_iou", "boundary_f")
"""The scores of an example, and of a set their means."""

LABELS = ("boundary IoU", "min(IoU, boundary IoU)", "boundary F")
"""`NAMES` as people read them."""

F_COLUMNS = ("contour_pred", "contour_target", "contour_pred_matched", "contour_target_matched")
COLUMNS = (*IOU_COLUMNS, *F_COLUMNS)


def boundary_f(
    contour_pred: Ints, contour_target: Ints, contour_pred_matched: Ints, contour_target_matched: Ints
) -> Floats:  # fmt: skip
    """Return the F-measure of each example's contour: 2PR / (P + R), of the shares of pixels that match.

    Args:
        contour_pred: [N] pixels of the predicted contour.
        contour_target: [N] pixels of the true contour.
        contour_pred_matched: [N] pixels of the predicted contour that match: precision P is their share.
        contour_target_matched: [N] pixels of the true contour that match: recall R is their share.

    Returns:
        [N] float64 in 0…1: 1 where both contours are empty, 0 where one is.

    >>> boundary_f(np.array([4, 0, 0]), np.array([8, 0, 3]), np.array([4, 0, 0]), np.array([4, 0, 0])).round(3)
    array([0.667, 1.   , 0.   ])
    """
    precision, recall = np.zeros(contour_pred.shape), np.zeros(contour_pred.shape)
    np.divide(contour_pred_matched, contour_pred, out=precision, where=contour_pred > 0)
    np.divide(contour_target_matched, contour_target, out=recall, where=contour_target > 0)
    f: Floats = ((contour_pred == 0) & (contour_target == 0)).astype(np.float64)
    np.divide(2 * precision * recall, precision + recall, out=f, where=precision + recall > 0)
    return f


def boundary_values(columns: Mapping[str, Ints], iou: Floats, empty: float) -> dict[str, Floats]:
    """Return what the scores of boundaries are means of.

    Args:
        columns: [N] each of `IOU_COLUMNS` and `F_COLUMNS`.
        iou: [N] IoU of the masks.
        empty: Boundary IoU where both boundaries are empty.

    Returns:
        [N] float64 in 0…1 each: `boundary_iou`; `min_mask_boundary_iou`, the lower of it and `iou`, with which Boundary
        AP and Boundary PQ match masks; `boundary_f`.
    """
    edges = metrics.iou(*(columns[name] for name in IOU_COLUMNS), empty=empty)
    return {
        "boundary_iou": edges,
        "min_mask_boundary_iou": np.minimum(iou, edges),
        "boundary_f": boundary_f(*(columns[name] for name in F_COLUMNS)),
    }


def are_counted(table: pa.Table) -> bool:
    """Return whether a table of examples holds the columns of this module."""
    return {*COLUMNS} <= {*table.column_names}


def boundary_columns(table: pa.Table) -> dict[str, Ints]:
    """Return the columns of this module from a table of examples.

    Raises:
        UsageError: When boundaries were not counted.
    """
    refuse_given(table)
    if not are_counted(table):
        raise UsageError(
            "boundaries were not counted; score with metrics=[iou,boundary] "
            '(in Python: metrics=["iou", "boundary"])'
        )
    return {name: to_numpy(table.column(name)) for name in COLUMNS}
