"""The predicted masks of all examples in, the pixels that each two of a sample share out.

Predictions stream in any order, so that pairs are counted when all are there; `mask_saver` keeps them until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from refcocom_kernels import cpu

from refcocom_gpu.counting.measure import Ints
from refcocom_gpu.masks import rle
from refcocom_gpu.store.others import PAIRS as AT_A_TIME
from refcocom_gpu.store.others import pair_counts, pairs_of_images

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


def later_pairs(sample: Ints) -> tuple[Ints, Ints]:
    """Return each pair of examples of one sample once, the first by index and then the second.

    Args:
        sample: [N] the sample of each example.

    Returns:
        [X] the first example of each pair, and [X] the second, which is later.

    >>> later_pairs(np.array([0, 0, 0, 1]))
    (array([0, 0, 1]), array([1, 2, 2]))
    """
    second, first = pairs_of_images(sample, sample)
    is_later = second > first
    return first[is_later], second[is_later]


def pair_intersections(strings: rle.Column, store: MaskStore) -> Ints:
    """Count the pixels that the predictions of each two sentences of a sample share.

    Args:
        strings: [N] the predicted mask of each example; an empty string where there is none, which shares no pixel.
        store: Ground truth.

    Returns:
        [X] int64 in the order of `later_pairs`.
    """
    first, second = later_pairs(store.example_sample)
    shared = np.zeros(len(first), np.int64)
    is_there = np.diff(strings.offsets) > 0
    counted = np.flatnonzero(is_there[first] & is_there[second])
    for start in range(0, len(counted), AT_A_TIME):
        part = counted[start : start + AT_A_TIME]
        used, place = np.unique(np.stack([first[part], second[part]]), return_inverse=True)
        a, b = place.reshape(2, -1)
        masks = strings.take(used)
        pixels = store.pixels[store.example_sample[used]]
        runs = cpu.rle_parse(masks.data, masks.offsets, pixels)
        shared[part] = pair_counts(masks, a, b, runs.ends, runs.offsets, pixels)[:, 0]
    return shared
