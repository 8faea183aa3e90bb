"""The rows of a state in, the flat dict of a logger out; what is incomplete or wrong is raised or labelled."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.keys import describe_key
from refcocom_gpu.predictions.resize import NON_FINITE as IS_NON_FINITE
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.batches import NO_ROW
from refcocom_gpu.training.state import (
    BEYOND_UNIT,
    CONFLICT,
    FAULT,
    FAULTS,
    INTERSECTION,
    NON_FINITE,
    PRED_AREA,
    SWAPPED,
    UNKNOWN,
)
from refcocom_gpu.training.subset import Subset

Rows = NDArray[np.int64]


def seen(rows: Rows) -> NDArray[np.int64]:
    """Indices of the examples that were counted.

    Args:
        rows: [N + 1, 5] a state.
    """
    return np.flatnonzero(rows[:-1, INTERSECTION] >= 0)


def check(rows: Rows, store: MaskStore, *, wanted: NDArray[np.int64] | None, values: str) -> None:
    """Refuse what cannot be scored.

    Args:
        rows: [N + 1, 5] a state.
        store: Ground truth.
        wanted: Indices that must have been seen; None where any will do.
        values: What float arrays were said to be.

    Raises:
        PredictionError: Naming the examples that are unseen, and predictions that were wrong.
    """
    dataset = store.dataset
    problems = Problems()
    if rows[-1, INTERSECTION] >= 0:
        problems.add(FAULTS[UNKNOWN], "an update", f"an index {NO_ROW.format(len(store) - 1)}")
    said = {
        NON_FINITE: IS_NON_FINITE,
        SWAPPED: "the mask has the image's height and width swapped",
    }
    for index in np.flatnonzero(rows[:-1, FAULT]).tolist():
        fault = int(rows[index, FAULT])
        problems.add(FAULTS[fault], _where(dataset, index), said[fault])
    if wanted is not None:
        for index in wanted[rows[wanted, INTERSECTION] < 0].tolist():
            problems.add(
                "missing",
                _where(dataset, index),
                "no update held it; partial=True gives the score of what was seen, labelled as partial",
            )
    problems.raise_if_any()
    found = rows[seen(rows)]
    if values == "logits" and len(found) and not found[:, BEYOND_UNIT].any():
        warnings.warn(
            "refcocom: all logits lie in 0…1; if they are probabilities, pass values='probabilities'",
            UserWarning,
            stacklevel=2,
        )


def _where(dataset: Dataset, index: int) -> str:
    key = describe_key(dataset.example_key_fields, dataset.key_of(index))
    return f"index {index} ({key})"


def scores(
    rows: Rows,
    index: NDArray[np.int64],
    store: MaskStore,
    *,
    convention: str = "official",
    precision_strict: bool = False,
    subset: Subset | None = None,
) -> dict[str, Any]:
    """Scores of some examples.

    Args:
        rows: [K, 5] rows of a state.
        index: [K] the example of each, ascending for a sum that does not depend on how they came.
        store: Ground truth.
        convention: Name of the convention.
        precision_strict: Pr@X counts IoU > X.
        subset: Estimate the scores of all examples from these, which are its draws.

    Returns:
        `miou`, `ciou`, `precision_at_0.5` … as floats (of a subset `miou` and `ciou`, each with its standard error),
        then `n_examples` and `n_conflicting` as ints.
    """
    target_area = store.areas[store.example_sample[index]]
    intersection, pred_area = rows[:, INTERSECTION], rows[:, PRED_AREA]
    empty = get_convention(convention).empty
    iou = metrics.iou(intersection, pred_area, target_area, empty=empty)
    found: dict[str, Any]
    if subset is not None:
        union = pred_area + target_area - intersection
        found = subset.estimate(iou, intersection, union)
    else:
        found = {
            "miou": metrics.mean(iou),
            "ciou": metrics.ciou(intersection, pred_area, target_area, empty=empty),
        }
        for x, share in metrics.precision_at(iou, strict=precision_strict).items():
            found[f"precision_at_{x}"] = share
    found["n_examples"] = len(index)
    found["n_conflicting"] = int(rows[:, CONFLICT].sum())
    return found
