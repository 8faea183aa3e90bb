"""Predictions that are boxes in, the table of their result out: that of masks without the counts of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.scores import boxes
from refcocom_gpu.scores.example_table import IOU, per_example

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


def box_examples(
    store: MaskStore, absent: NDArray[np.int64], measured: Mapping[str, NDArray[Any]]
) -> pa.Table:
    """Make the table of a result.

    Args:
        store: Ground truth.
        absent: Indices of the examples that had no prediction.
        measured: [N] columns of `scores.boxes`; those of predicted boxes are float64, because nothing is rounded.

    Returns:
        The table of `per_example` without the counts of pixels, which boxes do not have; N rows. A box without an area
        has the status `empty`.
    """
    x0, y0, x1, y1 = (measured[name] for name in boxes.PRED_COLUMNS)
    has_area = ((x1 > x0) & (y1 > y0)).astype(np.int64)
    table = per_example(store, np.stack([0 * has_area, has_area], 1), absent, measured)
    return table.drop_columns([IOU, *boxes.COUNTS])
