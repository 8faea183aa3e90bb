"""Counts of examples of which some have no target in, the scores of gRefCOCO out.

An example without a target has an empty true mask. The definitions are those of ReLA (henghuiding/ReLA,
`gres_model/evaluation/refer_evaluation.py`) since August 2023, which GSVA has too:

- N-acc: of the examples without a target, the share that is rejected.
- T-acc: of the examples with a target, the share that is not rejected.

ReLA's first version, of June 2023, computed TP / (TP + FP + 1) as T-acc and TP / (TP + FN + 1) as N-acc, where TP are
rejected examples without a target, FP rejected ones with one, FN those without that were not rejected. Numbers of that
version cannot be compared with these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.metrics import Ints


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
        _share(rejected[without]),
        _share(~rejected[~without]),
    )


def _share(flags: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(flags)) / len(flags) if len(flags) else math.nan
