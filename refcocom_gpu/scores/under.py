"""A convention and the counts of every example in, its scores out: pure functions, in float64 unless it says float32.

`N` examples in the order of a result's table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.scores import boxes, metrics
from refcocom_gpu.scores.conventions import Convention
from refcocom_gpu.scores.metrics import Floats, Ints
from refcocom_gpu.scores.no_target import rejections_of
from refcocom_gpu.utils.arrow import to_numpy

STATUSES = SCORED, EMPTY, MISSING = "scored", "empty", "missing"
"""Whether an example had a prediction with a pixel, one without, or none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one set of predictions under a convention.

    Attributes:
        n_examples: Number of examples in the denominator of `miou`.
        miou: Mean IoU, 0…1.
        ciou: ΣI / ΣU, 0…1.
        precision_at: Threshold to share of examples.
    """

    n_examples: int
    miou: float
    ciou: float
    precision_at: dict[float, float]


def counts_of(table: pa.Table) -> tuple[Ints, Ints, Ints]:
    """Return [N] intersections, [N] predicted areas, [N] true areas.

    Raises:
        UsageError: The predictions are boxes.
    """
    boxes.refuse_given(table)
    columns = (table.column(name) for name in ("intersection", "pred_area", "target_area"))
    intersection, pred_area, target_area = map(to_numpy, columns)
    return intersection, pred_area, target_area


def sample_numbers(table: pa.Table) -> Ints:
    """Return [N] a number per sample, from 1 in the order of the table.

    Ids cannot serve, because they repeat where examples are named by position. But the examples of a sample are
    consecutive, and the first has `sentence_idx` 0.
    """
    return np.cumsum(to_numpy(table.column("sentence_idx")) == 0)


def chosen(convention: Convention, table: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether the convention scores each example.

    Args:
        convention: `sentences` and `counts_missing` decide.
        table: `per_example` of a result: N rows.
    """
    rows = np.ones(len(table), np.bool_)
    if convention.sentences == "first":
        rows = to_numpy(table.column("sentence_idx")) == 0
    elif convention.sentences == "distinct":
        texts = (text.lower() for text in table.column("sentence").to_pylist())
        seen: set[tuple[int, str]] = set()
        for row, key in enumerate(zip(sample_numbers(table).tolist(), texts, strict=True)):
            rows[row] = key not in seen
            seen.add(key)
    if not convention.counts_missing:
        rows &= np.array([status != MISSING for status in table.column("status").to_pylist()], bool)
    return rows


def ious(convention: Convention, intersection: Ints, pred_area: Ints, target_area: Ints) -> Floats:
    """Return [N] float64 IoU of each example, chosen or not.

    Args:
        convention: `empty`, `epsilon` and `float32` decide.
        intersection: [N] pixels in both masks.
        pred_area: [N] pixels in the predicted mask.
        target_area: [N] pixels in the true mask.

    >>> from refcocom_gpu.scores.conventions import CONVENTIONS
    >>> ious(CONVENTIONS["lavt"], np.array([1, 0]), np.array([2, 0]), np.array([3, 0]))
    array([0.25, 0.  ])
    """
    values = metrics.iou(intersection, pred_area, target_area, empty=convention.empty)
    if convention.epsilon or convention.float32:
        # A quotient of two float32 is rounded once, so this is the value of the evaluator, whatever its order.
        kind = np.dtype(np.float32 if convention.float32 else np.float64)
        union = pred_area + target_area - intersection
        softened = union.astype(kind) + np.array(convention.epsilon, kind)
        np.divide(intersection.astype(kind), softened, out=values, where=union > 0)
    return values


def ious_of(convention: Convention, table: pa.Table) -> Floats:
    """Return `ious` of a result's table; where the convention judges by the label, 1 for a right rejection alone."""
    counts = counts_of(table)
    values = ious(convention, *counts)
    without = counts[2] == 0
    if convention.by_label and without.any():
        values[without] = rejections_of(table)[without]
    return values


def mean_iou(convention: Convention, values: Floats) -> float:
    """Return the mean of the IoUs of the chosen examples; NaN for none."""
    n = len(values)
    return math.fsum(values) / (n + convention.count_epsilon) if n else math.nan


def cumulative_iou(
    convention: Convention, intersection: Ints, pred_area: Ints, target_area: Ints
) -> float:
    """Return ΣI / ΣU of the chosen examples; NaN for none."""
    if not len(intersection):
        return math.nan
    total = int(intersection.sum())
    union = int(pred_area.sum()) + int(target_area.sum()) - total
    return total / (union + convention.sum_epsilon) if union else convention.empty_sum


def precision_at(
    convention: Convention,
    values: Floats,
    target_area: Ints,
    *,
    thresholds: Sequence[float] | None = None,
    strict: bool | None = None,
) -> metrics.ByThreshold:
    """Return Pr@X of the chosen examples.

    Args:
        convention: Whose thresholds and comparison are taken.
        values: [N] IoUs.
        target_area: [N] pixels in the true masks.
        thresholds: Others than those that the evaluator prints.
        strict: Another comparison.

    Returns:
        Threshold to share; NaN where no example is left.
    """
    if convention.by_label:
        values = values[target_area > 0]
    given = convention.thresholds if thresholds is None else thresholds
    compared = [float(np.float32(x)) if convention.float32_thresholds else x for x in given]
    strict = convention.strict if strict is None else strict
    shares = metrics.precision_at(values, compared, strict=strict)
    return metrics.ByThreshold({x: shares[y] for x, y in zip(given, compared, strict=True)})


def scores(
    convention: Convention, table: pa.Table, *, thresholds: Sequence[float] | None = None
) -> Scores:
    """Score a result's table under a convention.

    Args:
        convention: Any, also one that has no name.
        table: `per_example` of a result: N rows.
        thresholds: Of Pr@X; those that the evaluator prints by default.
    """
    rows = chosen(convention, table)
    intersection, pred_area, target_area = (counts[rows] for counts in counts_of(table))
    values = ious_of(convention, table)[rows]
    return Scores(
        len(values),
        mean_iou(convention, values),
        cumulative_iou(convention, intersection, pred_area, target_area),
        precision_at(convention, values, target_area, thresholds=thresholds),
    )
