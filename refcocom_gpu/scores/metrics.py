"""Integer counts in, scores out: pure functions.

Counts are int64 arrays over `N` examples: `intersection`, `pred_area`, `target_area`. Floating point enters in one
division in float64, and means are `math.fsum`, whose result does not depend on the order of the examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The thresholds that papers on referring segmentation print."""


def iou(intersection: Ints, pred_area: Ints, target_area: Ints, *, empty: float = 1.0) -> Floats:
    """Intersection over union per example.

    Args:
        intersection: [N] pixels in both masks.
        pred_area: [N] pixels in the predicted mask.
        target_area: [N] pixels in the true mask.
        empty: The value where both masks are empty.

    Returns:
        [N] float64 in 0…1.

    >>> iou(np.array([1, 0]), np.array([2, 0]), np.array([3, 0]))
    array([0.25, 1.  ])
    """
    union = pred_area + target_area - intersection
    result = np.full(union.shape, float(empty))
    np.divide(intersection, union, out=result, where=union > 0)
    return result


def mean(values: Sequence[float] | Floats) -> float:
    """Mean of the exactly rounded sum; NaN of nothing.

    >>> mean([0.1] * 10)
    0.1
    """
    values = np.asarray(values, np.float64)
    return math.fsum(values) / len(values) if len(values) else math.nan


def ciou(intersection: Ints, pred_area: Ints, target_area: Ints, *, empty: float = 1.0) -> float:
    """Cumulative IoU: the sum of intersections over the sum of unions (also printed as oIoU).

    Args:
        intersection: [N].
        pred_area: [N].
        target_area: [N].
        empty: The value where every union is empty.

    >>> ciou(np.array([1, 3]), np.array([2, 3]), np.array([1, 5]))
    0.5714285714285714
    """
    total = int(intersection.sum())
    union = int(pred_area.sum()) + int(target_area.sum()) - total
    return total / union if union else empty


def precision_at(
    ious: Floats, thresholds: Sequence[float] = PRECISION_THRESHOLDS, *, strict: bool = False
) -> dict[float, float]:
    """Share of examples whose IoU reaches a threshold (Pr@X).

    Args:
        ious: [N].
        thresholds: IoU values.
        strict: True counts IoU > X, as CRIS does; False counts IoU ≥ X, as LAVT does.

    Returns:
        Threshold to share.

    >>> precision_at(np.array([0.5, 0.9]), [0.5, 0.7]), precision_at(np.array([0.5, 0.9]), [0.5], strict=True)
    ({0.5: 1.0, 0.7: 0.5}, {0.5: 0.5})
    """
    n = len(ious)
    return {
        x: (int(np.count_nonzero(ious > x if strict else ious >= x)) / n if n else math.nan)
        for x in thresholds
    }


def mean_by(values: Floats, groups: Sequence[Any] | NDArray[Any]) -> dict[Any, float]:
    """Mean within each group, such as a category or a sample.

    Args:
        values: [N].
        groups: [N] labels.

    Returns:
        Label to mean, labels sorted.

    >>> mean_by(np.array([1.0, 0.0, 0.5]), ["cat", "dog", "cat"])
    {'cat': 0.75, 'dog': 0.0}
    """
    labels, member = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(member, kind="stable")
    bounds = np.searchsorted(member[order], np.arange(len(labels) + 1))
    # Python's own floats: groups are often of two or three, where an array costs more than its sum.
    ordered, bounds = values[order].tolist(), bounds.tolist()
    return {
        label: math.fsum(ordered[a:b]) / (b - a)
        for label, a, b in zip(labels.tolist(), bounds[:-1], bounds[1:], strict=True)
    }
