"""Integer counts in, scores out: pure functions.

Counts are int64 arrays over `N` examples: `intersection`, `pred_area`, `target_area`. Floating point enters in one
division, in float64. Means use `math.fsum`, whose result does not depend on the order of the examples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UnknownNameError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The IoU thresholds that papers on referring segmentation print."""


def iou(intersection: Ints, pred_area: Ints, target_area: Ints, *, empty: float = 1.0) -> Floats:
    """Return the intersection over union of each example.

    Args:
        intersection: [N] pixels in both masks.
        pred_area: [N] pixels in the predicted mask.
        target_area: [N] pixels in the true mask.
        empty: The value for an example whose two masks are both empty.

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
    """Return the mean, from the exactly rounded sum; NaN for no values.

    >>> mean([0.1] * 10)
    0.1
    """
    values = np.asarray(values, np.float64)
    # Its memoryview gives floats of Python, twice as fast as the array gives its own.
    return math.fsum(values.data) / len(values) if len(values) else math.nan


def ciou(intersection: Ints, pred_area: Ints, target_area: Ints, *, empty: float = 1.0) -> float:
    """Return the cumulative IoU: the sum of intersections over the sum of unions (also printed as oIoU).

    Args:
        intersection: [N] pixels in both masks.
        pred_area: [N] pixels in the predicted mask.
        target_area: [N] pixels in the true mask.
        empty: The value where every union is empty.

    Returns:
        A number in 0…1; NaN for no examples.

    >>> ciou(np.array([1, 3]), np.array([2, 3]), np.array([1, 5]))
    0.5714285714285714
    """
    if not len(intersection):
        return math.nan
    total = int(intersection.sum())
    union = int(pred_area.sum()) + int(target_area.sum()) - total
    return total / union if union else empty


class ByThreshold(dict[float, float]):
    """Threshold to share: a dict that names its thresholds when it is asked for another.

    >>> ByThreshold({0.5: 1.0})[0.75]
    Traceback (most recent call last):
    refcocom_gpu.errors.UnknownNameError: no score at the threshold 0.75, only at 0.5; metrics.precision_at(...
    """

    def __missing__(self, threshold: Any) -> float:
        raise UnknownNameError(
            f"no score at the threshold {threshold!r}, only at {', '.join(map(str, self))}; "
            f"metrics.precision_at(result.iou, [{threshold!r}]) of refcocom_gpu.scores counts at another"
        )


def precision_at(
    ious: Floats, thresholds: Sequence[float] = PRECISION_THRESHOLDS, *, strict: bool = False
) -> ByThreshold:
    """Return the share of examples whose IoU reaches each threshold (Pr@X).

    Args:
        ious: [N] IoU per example.
        thresholds: IoU values.
        strict: True counts IoU > X, as CRIS does; False counts IoU ≥ X, as LAVT does.

    Returns:
        Threshold to share; asking for a threshold that is not there is an `UnknownNameError`, which lists them.

    >>> precision_at(np.array([0.5, 0.9]), [0.5, 0.7]), precision_at(np.array([0.5, 0.9]), [0.5], strict=True)
    ({0.5: 1.0, 0.7: 0.5}, {0.5: 0.5})
    """
    n = len(ious)
    if not n:
        return ByThreshold((x, math.nan) for x in thresholds)
    reaches = np.greater if strict else np.greater_equal
    return ByThreshold((x, int(np.count_nonzero(reaches(ious, x))) / n) for x in thresholds)


def mean_by(values: Floats, groups: Sequence[Any] | NDArray[Any]) -> dict[Any, float]:
    """Return the mean within each group, such as a category or a sample.

    Args:
        values: [N] one number per example.
        groups: [N] the group of each example.

    Returns:
        Label to mean, in the order of the labels.

    >>> mean_by(np.array([1.0, 0.0, 0.5]), ["cat", "dog", "cat"])
    {'cat': 0.75, 'dog': 0.0}
    """
    order = np.argsort(groups, kind="stable")
    ordered = np.asarray(groups)[order]
    labels = ordered[starts_of(ordered)].tolist()
    return dict(zip(labels, mean_of_each(values[order], ordered).tolist(), strict=True))


def starts_of(groups: NDArray[Any]) -> Ints:
    """Return where each group begins, of [N] groups whose members follow one another.

    >>> starts_of(np.array([7, 7, 3]))
    array([0, 2])
    """
    begins = np.ones(len(groups), np.bool_)
    begins[1:] = groups[1:] != groups[:-1]
    return np.flatnonzero(begins)


def mean_of_each(values: Floats, groups: NDArray[Any]) -> Floats:
    """Return the mean within each group of examples that follow one another.

    Args:
        values: [N] one number per example.
        groups: [N] the group of each example; those of a group are consecutive.

    Returns:
        [groups] float64, from exactly rounded sums, in the order of the groups.

    >>> mean_of_each(np.array([1.0, 0.5, 0.0]), np.array([7, 7, 3]))
    array([0.75, 0.  ])
    """
    starts = starts_of(groups)
    sizes = np.diff(starts, append=len(groups))
    distinct = np.unique(sizes)
    if len(distinct) > len(starts) // 8:
        numbers, bounds = values.tolist(), itertools.pairwise([*starts.tolist(), len(groups)])
        return np.array([math.fsum(numbers[a:b]) for a, b in bounds]) / sizes
    # Samples have two or three examples, and thousands share a size: they are added up together.
    sums = np.empty(len(starts))
    for size in distinct:
        rows = np.flatnonzero(sizes == size)
        sums[rows] = row_sums(values[starts[rows, None] + np.arange(size)])
    return sums / sizes


def row_sums(values: Floats) -> Floats:
    """Return the sum of each row, rounded once: the bits of `math.fsum`.

    A sum and its error are kept as two numbers (Knuth's two-sum). A row whose error is itself rounded, which is rare,
    is left to `math.fsum`.

    Args:
        values: [R, K] finite numbers, K ≥ 1.

    >>> row_sums(np.array([[0.1, 0.2, 0.3], [1.0, 2.0**-60, -1.0]])) == [math.fsum([0.1, 0.2, 0.3]), 2.0**-60]
    array([ True,  True])
    """
    total, error = values[:, 0].copy(), np.zeros(len(values))
    is_exact = np.ones(len(values), np.bool_)
    for column in values.T[1:]:
        total, lost = _two_sum(total, column)
        error, lost = _two_sum(error, lost)
        is_exact &= lost == 0
    sums: Floats = total + error
    for row in np.flatnonzero(~is_exact).tolist():
        sums[row] = math.fsum(values[row].data)
    return sums


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return a + b rounded, and what the rounding lost, exactly (Knuth, TAOCP volume 2, 4.2.2, theorem B)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)
