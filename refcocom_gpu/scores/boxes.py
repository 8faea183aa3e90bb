"""Boxes of every example in, box scores out: those of referring expression comprehension, pure functions in float64.

The predicted box is the tight box of the predicted mask, or the box itself where predictions are boxes. It is compared
with the box that the record states (`bbox`) or with the tight box of the true mask (`mask`). Boxes are half-open; see
`masks.boxes`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.arrow import to_numpy

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

BOX_TRUTHS = STATED, TIGHT = "bbox", "mask"
"""What predicted boxes are compared with: the box of the record, or that of the true mask."""

THRESHOLD = 0.5
"""The IoU from which on papers on comprehension count a box as right."""

NAMES = ("box_iou", "box_accuracy")
"""The scores of an example, and of a set their means."""

PRED_COLUMNS = ("pred_x0", "pred_y0", "pred_x1", "pred_y1")
TIGHT_COLUMNS = ("target_x0", "target_y0", "target_x1", "target_y1")
STATED_COLUMNS = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")

COUNTS = ("intersection", "pred_area")
"""Columns of every result of masks, and of none whose predictions are boxes."""


def box_iou(pred: ArrayLike, target: ArrayLike, *, empty: float = 1.0) -> Floats:
    """Return the IoU of each pair of boxes.

    Args:
        pred: [N, 4] x0, y0, x1, y1 in pixels.
        target: [N, 4] likewise.
        empty: The value for a pair of boxes that both have no area.

    Returns:
        [N] float64 in 0…1: 0 where one box has no area.

    >>> box_iou([[0, 0, 2, 2], [0, 0, 0, 0]], [[1, 0, 3, 2], [0, 0, 1, 1]])
    array([0.33333333, 0.        ])
    """
    a, b = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    shared = np.concatenate([np.maximum(a, b)[:, :2], np.minimum(a, b)[:, 2:]], 1)
    intersection = _areas(shared)
    union = _areas(a) + _areas(b) - intersection
    iou = np.full(union.shape, float(empty))
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def _areas(boxes: Floats) -> Floats:
    """Return [N] the area of each of [N, 4] boxes; 0 where a side is not positive."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: Floats = sides[:, 0] * sides[:, 1]
    return areas


def corners(boxes: ArrayLike) -> Floats:
    """Return [N, 4] boxes x, y, w, h as x0, y0, x1, y1.

    >>> corners([[10, 20, 3.5, 4]])
    array([[10. , 20. , 13.5, 24. ]])
    """
    given = np.asarray(boxes, np.float64)
    return np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1)


def chosen_truth(box_truth: str | None, *, stated: bool) -> str:
    """Return what boxes are compared with: what was asked for, or `bbox` where all records state a box, or `mask`.

    Args:
        box_truth: `bbox`, `mask` or None.
        stated: Whether every record states a box.

    Raises:
        UsageError: For an unknown name, or `bbox` where a record states no box.

    >>> chosen_truth(None, stated=True), chosen_truth(None, stated=False)
    ('bbox', 'mask')
    """
    if box_truth is None:
        return STATED if stated else TIGHT
    if box_truth not in BOX_TRUTHS:
        raise UsageError(f"box_truth must be {' or '.join(BOX_TRUTHS)}, not {box_truth!r}")
    if box_truth == STATED and not stated:
        raise UsageError(
            "box_truth=bbox needs a box in every record of the dataset, and not all state one; "
            "box_truth=mask compares with the tight boxes of the true masks"
        )
    return box_truth


def check_truth(box_truth: str | None, counted: Collection[str], *, stated: bool) -> None:
    """Refuse a choice of `box_truth` before anything is counted.

    Args:
        box_truth: As of `chosen_truth`.
        counted: The metrics that are counted.
        stated: As of `chosen_truth`.

    Raises:
        UsageError: As `chosen_truth` does, and for a choice where boxes are not counted.
    """
    if box_truth is not None and "boxes" not in counted:
        raise UsageError(
            f"box_truth={box_truth} needs boxes, which are counted with metrics=[iou,boxes]"
        )
    chosen_truth(box_truth, stated=stated)


def are_counted(table: pa.Table) -> bool:
    """Return whether a table of examples holds the predicted boxes."""
    return {*PRED_COLUMNS, *TIGHT_COLUMNS} <= {*table.column_names}


def are_given(table: pa.Table) -> bool:
    """Return whether the predictions of a table of examples are boxes, not masks."""
    return are_counted(table) and {*COUNTS}.isdisjoint(table.column_names)


def refuse_given(table: pa.Table) -> None:
    """Refuse predictions that are boxes where masks are needed.

    Raises:
        UsageError: The predictions of the table are boxes.
    """
    if are_given(table):
        raise UsageError(
            "these predictions are boxes, which have no masks; box_iou and box_accuracy are their scores"
        )


def truth_of(table: pa.Table, box_truth: str | None) -> str:
    """Return what the boxes of a table are compared with, as `chosen_truth` does.

    Raises:
        UsageError: As `chosen_truth` does, and where boxes were not counted.
    """
    if not are_counted(table):
        raise UsageError(
            'boxes were not counted; score with metrics=[iou,boxes] (in Python: metrics=["iou", "boxes"])'
        )
    return chosen_truth(box_truth, stated={*STATED_COLUMNS} <= {*table.column_names})


def box_columns(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the columns of this module from a table of examples, [N] each."""
    names = (*PRED_COLUMNS, *TIGHT_COLUMNS, *STATED_COLUMNS)
    return {name: to_numpy(table.column(name)) for name in names if name in table.column_names}


def box_values(
    columns: Mapping[str, NDArray[Any]], truth: str, empty: float, *, strict: bool = False
) -> dict[str, Floats]:
    """Return what the scores of boxes are means of.

    Args:
        columns: [N] each of `PRED_COLUMNS`, and of `STATED_COLUMNS` or `TIGHT_COLUMNS`.
        truth: From `chosen_truth`.
        empty: As of `box_iou`.
        strict: A box is right if its IoU is above `THRESHOLD`, instead of at or above it.

    Returns:
        [N] float64 each: `box_iou` in 0…1; `box_accuracy`, 1 for a box that is right and 0 for another.
    """
    of_truth = TIGHT_COLUMNS if truth == TIGHT else STATED_COLUMNS
    pred, target = (
        np.stack([columns[name] for name in names], 1) for names in (PRED_COLUMNS, of_truth)
    )
    iou = box_iou(pred, target if truth == TIGHT else corners(target), empty=empty)
    right = iou > THRESHOLD if strict else iou >= THRESHOLD
    return {"box_iou": iou, "box_accuracy": right.astype(np.float64)}
