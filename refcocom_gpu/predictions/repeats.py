"""Batches in which examples may come again, in; each example once, out: `repeats=identical`.

A sampler that pads the last batch of an epoch gives some examples to two ranks, and both write them. What is compared
is the mask at the size of its image, not how it is written: RLE with runs of no pixels, or logits that differ in the
last bit, are one mask.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.batches import Batches, BoxBatch
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.runs import batch_runs


def each_once(batches: Batches, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Yield the rows whose examples come for the first time; count those that repeat a mask, record those that differ.

    Args:
        batches: Of a read whose `Keys` have `may_repeat`.
        keys: The resolver of that read; its `n_repeated` grows.
        options: What the values mean.
        problems: Collects the repeated examples whose masks differ.
    """
    first_masks: dict[int, bytes] = {}
    batch: Any  # of masks, or of boxes where options declare them
    for batch in batches:
        digests = _digests(batch, keys, options)
        kept = []
        for row, index in enumerate(batch.index.tolist()):
            digest = digests[row]
            first = first_masks.setdefault(index, digest) if index not in first_masks else None
            if first is not None:
                kept.append(row)
            elif digest == first_masks[index]:
                keys.n_repeated += 1
            else:
                what = "box" if isinstance(batch, BoxBatch) else "mask"
                keys.add_duplicate(index, batch.where(row), f", and its {what} is another one here")
        if len(kept) == len(batch.index):
            yield batch
        elif kept:
            yield batch.take(np.array(kept))


def _digests(batch: Any, keys: Keys, options: ReadOptions) -> list[bytes]:
    """Return what is equal for two rows of a batch if their masks, or their boxes, are."""
    if isinstance(batch, BoxBatch):
        return [box.tobytes() for box in batch.boxes + 0.0]
    # The counter finds what is wrong with a mask that is read once; one that is left out repeats such a mask.
    ends, offsets, _ = batch_runs(batch, keys.dataset, options, Problems())
    return [_digest(ends[a:b]) for a, b in itertools.pairwise(offsets.tolist())]


def _digest(ends: NDArray[np.int32]) -> bytes:
    """Return a hash of a mask: of the pixels at which it changes, whatever runs without pixels it is written with.

    >>> _digest(np.array([2, 5, 9], np.int32)) == _digest(np.array([2, 3, 3, 5, 9], np.int32))
    True
    >>> _digest(np.array([2, 5, 9], np.int32)) == _digest(np.array([2, 4, 9], np.int32))
    False
    """
    changes, times = np.unique(ends[:-1], return_counts=True)
    real = changes[(times % 2 == 1) & (changes < ends[-1:])]
    return xxhash.xxh3_128_digest(np.concatenate([real, ends[-1:]]).tobytes())
