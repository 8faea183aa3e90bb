"""Rows of a state in, a flat dict for a logger out; states that are incomplete or hold faults are refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.doubts import doubts
from refcocom_gpu.counting.measures import IOU, measured_columns
from refcocom_gpu.counting.rows import (
    CONFLICT,
    FAULT,
    INTERSECTION,
    PRED_AREA,
    SAME_RANK,
    TRAITS,
)
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.keys import NO_ROW, describe_key
from refcocom_gpu.predictions.labels import UNREADABLE, why_unreadable
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.values import FAULTS, UNKNOWN, explain_fault, fault_name, judge_set
from refcocom_gpu.scores import boundary, boxes
from refcocom_gpu.scores import metrics as mask_scores
from refcocom_gpu.scores import no_target as no_target_scores
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.labels import LABEL
from refcocom_gpu.training.limits import limit_here
from refcocom_gpu.training.subset import Subset

Rows = NDArray[np.int64]


def seen(rows: Rows) -> NDArray[np.int64]:
    """Return the indices of the examples that were counted.

    Args:
        rows: [N + 1, C] a state.
    """
    return np.flatnonzero(rows[:-1, INTERSECTION] >= 0)


def refuse_faults(
    rows: Rows, store: MaskStore, options: ReadOptions, *, whole: bool = True
) -> None:
    """Refuse predictions that were wrong.

    Args:
        rows: [N + 1, C] a state.
        store: Ground truth.
        options: How predictions were read.
        whole: Whether the state is a whole set, whose predictions must also be right together.

    Raises:
        PredictionError: It names the examples.
    """
    dataset = store.dataset
    problems = Problems()
    if rows[-1, INTERSECTION] >= 0:
        problems.add(FAULTS[UNKNOWN], "an update", f"an index {NO_ROW.format(len(store) - 1)}")
    for index in np.flatnonzero(rows[:-1, FAULT]).tolist():
        fault, sample = int(rows[index, FAULT]), store.example_sample[index]
        size = int(store.heights[sample]), int(store.widths[sample])
        reason = explain_fault(fault, *size, options)
        problems.add(fault_name(fault), _where(dataset, index), reason)
    threshold = options.no_target_threshold
    for index in np.flatnonzero(rows[:-1, LABEL] == UNREADABLE).tolist():
        reason = why_unreadable(..., threshold)
        problems.add("malformed no_target", _where(dataset, index), reason)
    if whole:
        for verdict in judge_set(rows[:-1, TRAITS], options):
            verdict.add_to(problems, "the updates", lambda index: _where(dataset, index))
    _add_conflicts(rows, store, problems)
    problems.raise_if_any()


def refuse_conflicts(rows: Rows, store: MaskStore) -> None:
    """Refuse a state in which an example came twice, with different counts, without a reset.

    Args:
        rows: [N + 1, C] a state.
        store: Ground truth.

    Raises:
        PredictionError: It names the examples and `reset`.
    """
    problems = Problems()
    _add_conflicts(rows, store, problems)
    problems.raise_if_any()


def _add_conflicts(rows: Rows, store: MaskStore, problems: Problems) -> None:
    for index in np.flatnonzero(rows[:-1, CONFLICT] & SAME_RANK).tolist():
        problems.add(
            "seen before",
            _where(store.dataset, index),
            "an update held it before, with another mask, and the first would count; "
            "call metric.reset() when an epoch begins",
        )


def refuse_missing(rows: Rows, store: MaskStore, wanted: NDArray[np.int64]) -> None:
    """Refuse a state that lacks examples.

    Args:
        rows: [N + 1, C] a state.
        store: Ground truth.
        wanted: Indices that must have been seen.

    Raises:
        PredictionError: It names the examples.
    """
    unseen = wanted[rows[wanted, INTERSECTION] < 0].tolist()
    if not unseen:
        return
    limit = limit_here()
    reason = "no update held it; partial=True scores what was seen, and labels it as partial"
    if limit is not None:
        reason = (
            f"no update held it, because Lightning runs a part of the batches in {limit}; "
            'RefCOCOMCallback(metric) logs such scores as partial, self.log("miou", metric["miou"]) logs NaN'
        )
    problems = Problems()
    for index in unseen:
        problems.add("missing", _where(store.dataset, index), reason)
    problems.raise_if_any()


def warn_of_doubts(rows: Rows, store: MaskStore) -> None:
    """Warn of what makes predictions look misread; see `counting.doubts`."""
    index = seen(rows)
    for text in doubts(rows[index], index, store):
        warnings.warn(f"refcocom: {text}", UserWarning, stacklevel=3)


def _where(dataset: Dataset, index: int) -> str:
    key = describe_key(dataset.example_key_fields, dataset.key_of(index))
    return f"index {index} ({key})"


def has_no_target(store: MaskStore) -> bool:
    """Return whether some examples of a store have no target."""
    return bool((store.areas == 0).any())


def names_of_scores(
    *, estimated: bool, metrics: Sequence[str] = (IOU,), no_target: bool = False
) -> list[str]:
    """Return the names of the scores that `scores` gives, without the numbers of examples.

    Args:
        estimated: Whether they are estimated from a subset.
        metrics: What is counted.
        no_target: Whether some examples have no target.
    """
    means = ["miou", "ciou", *(boundary.NAMES if "boundary" in metrics else ())]
    means += boxes.NAMES if "boxes" in metrics else ()
    means += no_target_scores.NAMES if no_target else ()
    if estimated:
        return [name + ending for name in means for ending in ("", "_se")]
    return [*means, *(f"precision_at_{x}" for x in mask_scores.PRECISION_THRESHOLDS)]


def scores(
    rows: Rows,
    index: NDArray[np.int64],
    store: MaskStore,
    *,
    convention: str = "official",
    precision_strict: bool = False,
    subset: Subset | None = None,
    metrics: Sequence[str] = (IOU,),
    box_truth: str | None = None,
) -> dict[str, Any]:
    """Score some examples.

    Args:
        rows: [K, C] rows of a state.
        index: [K] the example of each, ascending, so that no sum depends on the order of the batches.
        store: Ground truth.
        convention: Name of the convention.
        precision_strict: Pr@X counts IoU > X.
        subset: If given, the rows are its draws, and the scores of all examples are estimated from them.
        metrics: What was counted, from `counting.measures.chosen_metrics`.
        box_truth: What boxes are compared with, as of `scores.boxes.chosen_truth`.

    Returns:
        `miou`, `ciou`, `precision_at_0.5` … as floats (for a subset `miou` and `ciou`, each with its standard error),
        those of `scores.boundary` and `scores.boxes` if they were counted (for a subset with theirs), N-acc and T-acc
        if some examples of the store have no target,
        then `n_examples` and `n_conflicting` as ints.
    """
    sample = store.example_sample[index]
    target_area = store.areas[sample]
    intersection, pred_area = rows[:, INTERSECTION], rows[:, PRED_AREA]
    empty = get_convention(convention).empty
    iou = mask_scores.iou(intersection, pred_area, target_area, empty=empty)
    named: dict[str, Any]
    if subset is not None:
        union = pred_area + target_area - intersection
        named = subset.estimate(iou, intersection, union)
    else:
        named = {
            "miou": mask_scores.mean(iou),
            "ciou": mask_scores.ciou(intersection, pred_area, target_area, empty=empty),
        }
        for x, share in mask_scores.precision_at(iou, strict=precision_strict).items():
            named[f"precision_at_{x}"] = share
    columns = measured_columns(rows, sample, metrics, store)
    measured: dict[str, NDArray[np.float64]] = {}
    if "boundary" in metrics:
        measured |= boundary.boundary_values(columns, iou, empty)
    if "boxes" in metrics:
        truth = boxes.chosen_truth(box_truth, stated=store.dataset.boxes is not None)
        measured |= boxes.box_values(columns, truth, empty, strict=precision_strict)
    for name, values in measured.items():
        if subset is not None:
            named.update(subset.estimate_mean(name, values))
        else:
            named[name] = mask_scores.mean(values)
    if has_no_target(store):
        rejected = no_target_scores.rejections(pred_area, rows[:, LABEL])
        without = target_area == 0
        for name, is_right, is_one in zip(
            no_target_scores.NAMES, (rejected, ~rejected), (without, ~without), strict=True
        ):
            if subset is not None:
                named.update(subset.estimate_ratio(name, is_right & is_one, is_one))
            else:
                named[name] = no_target_scores.share(is_right[is_one])
    named["n_examples"] = len(index)
    named["n_conflicting"] = int(np.count_nonzero(rows[:, CONFLICT]))
    return named
