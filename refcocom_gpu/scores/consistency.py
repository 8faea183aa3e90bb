"""The counts of every example and its sample in, how consistent the sentences of a sample are out: pure functions.

A consistent model gives one mask for all sentences of an object, right or wrong. Pairwise IoU is the mean over the
samples with several sentences of the mean IoU of each two of their predictions. An example without a prediction counts
as an empty one, and two empty ones agree.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.counting.measures import PAIRS as PAIRS
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.metrics import Floats, Ints
from refcocom_gpu.scores.under import sample_numbers
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

PASS_IOU = 0.5
"""The IoU that every sentence of a sample must reach to pass, as in DRef's hard pass rate."""


def worst(iou: Floats, sample: Ints) -> Floats:
    """Return the lowest IoU of each sample.

    Args:
        iou: [N] IoU of each example.
        sample: [N] number of the sample of each.

    Returns:
        [samples that have examples] float64, in the order of their numbers.

    >>> worst(np.array([0.9, 0.2, 0.7]), np.array([1, 1, 4]))
    array([0.2, 0.7])
    """
    order = np.argsort(sample, kind="stable")
    if not len(order):
        return np.zeros(0)
    lowest: Floats = np.minimum.reduceat(iou[order], metrics.starts_of(sample[order]))
    return lowest


def mean_of_worst(iou: Floats, sample: Ints) -> float:
    """Return the mean over samples of the lowest IoU of each; NaN for no examples."""
    return metrics.mean(worst(iou, sample))


def hard_pass_rate(iou: Floats, sample: Ints, *, strict: bool = False) -> float:
    """Return the share of samples all of whose examples reach `PASS_IOU`; NaN for no examples.

    Args:
        iou: [N] IoU of each example.
        sample: [N] number of the sample of each.
        strict: The IoU must exceed it.

    >>> hard_pass_rate(np.array([0.9, 0.2, 0.7]), np.array([1, 1, 4]))
    0.5
    """
    lowest = worst(iou, sample)
    if not len(lowest):
        return math.nan
    return metrics.precision_at(lowest, [PASS_IOU], strict=strict)[PASS_IOU]


def n_later(sample: Ints) -> Ints:
    """Return for each example how many of its sample follow it.

    Args:
        sample: [N] the sample of each, whose examples are consecutive.

    >>> n_later(np.array([0, 0, 0, 1]))
    array([2, 1, 0, 0])
    """
    _, first, n = np.unique(sample, return_index=True, return_counts=True)
    return np.repeat(first + n, n) - 1 - np.arange(len(sample))


def as_lists(pairs: pa.Array, sample: Ints) -> pa.Array:
    """Return the pairs of all examples as a list for each, of its pairs with the later examples of its sample.

    Args:
        pairs: [X] in the order of the first example of each pair, then of the second.
        sample: As of `n_later`.

    >>> as_lists(pa.array([7, 8, 9]), np.array([0, 0, 0, 1])).to_pylist()
    [[7, 8], [9], [], []]
    """
    ends = np.cumsum(n_later(sample))
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    return pa.LargeListArray.from_arrays(from_numpy(offsets), pairs)


def are_counted(table: pa.Table) -> bool:
    """Return whether a table of examples holds the pairs of each sample."""
    return PAIRS in table.column_names


def pair_columns(table: pa.Table) -> tuple[Ints, Ints, Ints]:
    """Return what `pair_ious` takes of a table of all examples.

    Raises:
        UsageError: When pairs were not counted.
    """
    if not are_counted(table):
        raise UsageError(
            "pairs of sentences were not counted; score with metrics=[iou,consistency] "
            '(in Python: metrics=["iou", "consistency"])'
        )
    shared = to_numpy(table.column(PAIRS).combine_chunks().flatten())
    return shared, to_numpy(table.column("pred_area")), sample_numbers(table)


def pair_ious(
    shared: Ints, pred_area: Ints, sample: Ints, *, empty: float = 1.0
) -> tuple[Floats, Ints]:
    """Return the IoU of each two predictions for one sample.

    Args:
        shared: [X] pixels of both, in the order of `as_lists`.
        pred_area: [N] pixels of each prediction.
        sample: [N] as of `n_later`.
        empty: The value where both are empty.

    Returns:
        [X] IoU, and [X] the sample.

    >>> pair_ious(np.array([2, 1, 0]), np.array([2, 4, 1, 9]), np.array([5, 5, 5, 6]))
    (array([0.5, 0.5, 0. ]), array([5, 5, 5]))
    """
    later = n_later(sample)
    first = np.repeat(np.arange(len(later)), later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    ious = metrics.iou(shared, pred_area[first], pred_area[second], empty=empty)
    return ious, sample[first]


def pairwise_iou(ious: Floats, sample: Ints) -> float:
    """Return the mean over samples of the mean IoU of their pairs; NaN where no sample has two sentences.

    Args:
        ious: [X] from `pair_ious`.
        sample: [X] from `pair_ious`.

    >>> pairwise_iou(np.array([1.0, 0.5, 0.0, 0.3]), np.array([1, 1, 1, 2]))
    0.4
    """
    return metrics.mean([*metrics.mean_by(ious, sample).values()])


def summary(ious: Floats, sample: Ints, worst_sentence: float, hard_pass: float) -> dict[str, Any]:
    """Return what a summary says of consistency, ready for JSON.

    Args:
        ious: As of `pairwise_iou`.
        sample: As of `pairwise_iou`.
        worst_sentence: From `mean_of_worst`.
        hard_pass: From `hard_pass_rate`.

    Returns:
        `pairwise_iou`, null where no sample has two sentences; `n_samples`, which have; and the two others.
    """
    mean = pairwise_iou(ious, sample)
    return {
        "pairwise_iou": None if math.isnan(mean) else mean,
        "n_samples": len(np.unique(sample)),
        "miou_worst_sentence": worst_sentence,
        "hard_pass_rate": hard_pass,
    }
