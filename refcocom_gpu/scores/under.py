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

from refcocom_gpu.masks import squash, warp
from refcocom_gpu.scores import boxes, metrics
from refcocom_gpu.scores.conventions import OFFICIAL, Convention
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


def counts_of(table: pa.Table, convention: Convention = OFFICIAL) -> tuple[Ints, Ints, Ints]:
    """Return [N] intersections, [N] predicted areas, [N] true areas.

    Args:
        table: `per_example` of a result: N rows.
        convention: Whose masks are meant, if they were counted; otherwise those of the image's size.

    Raises:
        UsageError: The predictions are boxes.
    """
    boxes.refuse_given(table)
    names = ("intersection", "pred_area", "target_area")
    if is_counted(convention, table):
        names = {squash.SQUASHED: squash.COLUMNS, warp.WARPED: warp.COLUMNS}[str(convention.metric)]
    intersection, pred_area, target_area = (to_numpy(table.column(name)) for name in names)
    return intersection, pred_area, target_area


def is_counted(convention: Convention, table: pa.Table) -> bool:
    """Return whether a table holds counts of other masks, which the convention compares: of all predictions."""
    if convention.metric == warp.WARPED and warp.COUNTED in table.column_names:
        is_missing = np.array(table.column("status").to_pylist()) == MISSING
        return bool((is_missing | (to_numpy(table.column(warp.COUNTED)) == 1)).all())
    return convention.metric == squash.SQUASHED and squash.RESIZED in table.column_names


def caveat(convention: Convention, table: pa.Table) -> str:
    """Return why scores of a table are not exactly those that the evaluator prints; nothing if they are."""
    return convention.caveat(is_counted=is_counted(convention, table))


def resized(convention: Convention, table: pa.Table) -> str:
    """Say how many predictions had to be resized for a convention, and what is exact; nothing where there are none.

    A mask that a model made at the size of the evaluator and that was resized to its image before is not got
    back.
    """
    if convention.metric != squash.SQUASHED or not is_counted(convention, table):
        return ""
    n = int(to_numpy(table.column(squash.RESIZED)).sum())
    if not n:
        return ""
    exact = "" if caveat(convention, table) else "the true masks are exactly its own; "
    return (
        f"{exact}{n:,} of {len(table):,} predictions were squashed to {squash.SIDE}² by nearest: "
        "a mask that was made at that size may have been another"
    )


def ious_of(convention: Convention, table: pa.Table) -> Floats:
    """Return [N] float64 IoU of each example, chosen or not; see `ious`.

    Where the convention judges by the label, an example without a target has 1 if it is rejected, and 0 otherwise. Two
    masks that are empty only because they were resized have IoU 0: their label says that there is a target, or that
    the model found one.
    """
    counts = counts_of(table, convention)
    values = ious(convention, *counts)
    _, full_pred_area, full_target_area = counts_of(table)
    if is_counted(convention, table):
        are_empty = counts[1] + counts[2] == 0
        values[are_empty & (full_pred_area + full_target_area > 0)] = 0.0
    without = full_target_area == 0
    if convention.by_label and without.any():
        values[without] = rejections_of(table)[without]
    return values


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


def mean_iou(convention: Convention, values: Floats) -> float:
    """Return the mean of the IoUs of the chosen examples; NaN for none."""
    n = len(values)
    return math.fsum(values.data) / (n + convention.count_epsilon) if n else math.nan


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
    values = ious_of(convention, table)[rows]
    _, _, target_area = counts_of(table)
    return Scores(
        len(values),
        mean_iou(convention, values),
        cumulative_iou(convention, *(counts[rows] for counts in counts_of(table, convention))),
        precision_at(convention, values, target_area[rows], thresholds=thresholds),
    )
