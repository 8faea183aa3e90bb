"""A record or a mask in, the box of an instance out; two boxes in, their IoU out. A box is x, y, w, h in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refcocom_gpu.construct.instances import Mask
from refcocom_gpu.dataset.table import Dataset


def stated_box(dataset: Dataset, sample: int) -> tuple[float, float, float, float] | None:
    """Return the box of the record, or None where the source has none."""
    if "bbox" not in dataset.samples.column_names:
        return None
    box: Any = dataset.samples["bbox"][sample].as_py()
    return None if box is None else tuple(box)


def tight_box(mask: Mask) -> tuple[float, float, float, float]:
    """Return the smallest box around the set pixels; zeros where there are none.

    >>> tight_box(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (1.0, 1.0, 2.0, 1.0)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    left, top = float(columns[0]), float(rows[0])
    return left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the IoU of two boxes; 0 where either is empty.

    >>> box_iou((0, 0, 2, 2), (1, 0, 2, 2))
    0.3333333333333333
    """
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)
