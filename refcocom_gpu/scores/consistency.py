"""The IoU of every example and its sample in, how consistent the sentences of a sample are out: pure functions."""

from __future__ import annotations

import math

import numpy as np

from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.metrics import Floats, Ints

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
    _, place = np.unique(sample, return_inverse=True)
    lowest = np.full(place.max(initial=-1) + 1, np.inf)
    np.minimum.at(lowest, place, iou)
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
