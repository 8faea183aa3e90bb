"""Counts of examples of which some have no target in, the scores of gRefCOCO out.

An example without a target has an empty true mask. The definitions are those of ReLA (henghuiding/ReLA,
`gres_model/evaluation/refer_evaluation.py`) since August 2023, which GSVA has too:

- N-acc: of the examples without a target, the share that is rejected.
- T-acc: of the examples with a target, the share that is not rejected.

What rejects is the label that a prediction carries, as ReLA's classifier and GSVA's token do; where it carries none, an
empty mask. A rejected prediction counts as an empty mask, whatever its mask is. ReLA and GSVA look at it all the same
where there is a target: ReLA takes no pixel of it for right, but all of it into the union; GSVA scores it. A prediction
that is not rejected keeps its mask, also an empty one; conventions that judge by the label (`by_label`) give it 0 where
there is no target, the others 1.

ReLA's first version, of June 2023, computed TP / (TP + FP + 1) as T-acc and TP / (TP + FN + 1) as N-acc, where TP are
rejected examples without a target, FP rejected ones with one, FN those without that were not rejected. Numbers of that
version cannot be compared with these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.predictions.labels import NO_TARGET, TARGET, UNLABELLED
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.metrics import Ints
from refcocom_gpu.utils.arrow import filled, to_numpy

PRED_NO_TARGET = "pred_no_target"
"""The column of a result that says whether the prediction of each example says that there is no target; null where it
says nothing of it. There is no such column where no prediction does."""

NAMES = ("n_acc", "t_acc")
LABELS = ("N-acc", "T-acc")


@dataclass(frozen=True, slots=True)
class NoTargetScores:
    """Scores of a set in which expressions may have no target.

    Attributes:
        miou: Mean IoU (gIoU in gRefCOCO's papers): a rejected example without a target counts 1, a missed one 0.
        ciou: ΣI / ΣU: a rejected example without a target adds nothing, a missed one its predicted area to ΣU.
        n_acc: N-acc; NaN if every example has a target.
        t_acc: T-acc; NaN if none has.
    """

    miou: float
    ciou: float
    n_acc: float
    t_acc: float


def no_target_scores(
    intersection: Ints,
    pred_area: Ints,
    target_area: Ints,
    *,
    rejected: NDArray[np.bool_] | None = None,
) -> NoTargetScores:
    """Score examples of which some have no target.

    Args:
        intersection: [N] pixels in both masks.
        pred_area: [N] pixels in the predicted mask.
        target_area: [N] pixels in the true mask; 0 where there is no target.
        rejected: [N] whether the model says that there is no target. By default an empty mask says so. As in ReLA, a
            rejected example with a target has no intersection, but the union of its mask.

    >>> # Rejected rightly; missed, with 5 pixels; half found.
    >>> no_target_scores(np.array([0, 0, 1]), np.array([0, 5, 1]), np.array([0, 0, 2]))
    NoTargetScores(miou=0.5, ciou=0.14285714285714285, n_acc=0.5, t_acc=1.0)
    """
    if rejected is None:
        rejected = pred_area == 0
    without = target_area == 0
    union = pred_area + target_area - intersection
    union = np.where(without & rejected, 0, union)
    shared = np.where(rejected, 0, intersection)
    values = np.where(without, rejected, shared / np.maximum(union, 1))
    total = int(union.sum())
    return NoTargetScores(
        metrics.mean(values),
        int(shared.sum()) / total if total else math.nan,
        share(rejected[without]),
        share(~rejected[~without]),
    )


def label_columns(codes: Ints) -> dict[str, NDArray[Any]]:
    """Return `PRED_NO_TARGET` as a column that was measured; none where no prediction says anything.

    Args:
        codes: [N] int64 of `predictions.labels`.
    """
    return {PRED_NO_TARGET: codes.astype(np.uint8)} if codes.any() else {}


def label_array(codes: NDArray[Any]) -> pa.Array:
    """Return [N] codes as the column of a result.

    >>> label_array(np.array([0, 1, 2])).to_pylist()
    [None, False, True]
    """
    return pa.array(codes == NO_TARGET, pa.bool_(), mask=codes == UNLABELLED)


def rejections(pred_area: Ints, codes: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Return [N] whether each prediction rejects: by its label, or else by an empty mask.

    Args:
        pred_area: [N] pixels in the predicted mask.
        codes: [N] of `predictions.labels`; None where no prediction is labelled.

    >>> rejections(np.array([0, 0, 7]), np.array([0, 1, 2]))
    array([ True, False,  True])
    """
    empty: NDArray[np.bool_] = pred_area == 0
    return empty if codes is None else np.where(codes == UNLABELLED, empty, codes == NO_TARGET)


def rejections_of(table: pa.Table) -> NDArray[np.bool_]:
    """Return `rejections` of the table of a result."""
    return rejections(to_numpy(table.column("pred_area")), label_codes(table))


def label_codes(table: pa.Table) -> NDArray[Any] | None:
    """Return [N] the codes that `label_array` made a column of the table of a result; None where it has none."""
    if PRED_NO_TARGET not in table.column_names:
        return None
    column = table.column(PRED_NO_TARGET)
    is_said = to_numpy(column.is_valid())
    return np.where(is_said, TARGET + to_numpy(filled(column, False)), UNLABELLED)


def share(flags: NDArray[np.bool_]) -> float:
    """Return the share of flags that are set; NaN for none."""
    return int(np.count_nonzero(flags)) / len(flags) if len(flags) else math.nan
