"""A record or a mask in, the box of an instance out; two boxes in, their IoU out. A box is x, y, w, h in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refcocom_gpu.construct.instances import Mask
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.masks.boxes import mask_boxes
from refcocom_gpu.scores import boxes


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
    height, width = mask.shape
    ((x0, y0, x1, y1),) = mask_boxes(mask[None], np.array([height]), np.array([width])).tolist()
    return float(x0), float(y0), float(x1 - x0), float(y1 - y0)


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the IoU of two boxes; 0 where either is empty.

    >>> box_iou((0, 0, 2, 2), (1, 0, 2, 2))
    0.3333333333333333
    """
    return float(boxes.box_iou(boxes.corners([a]), boxes.corners([b]), empty=0)[0])
