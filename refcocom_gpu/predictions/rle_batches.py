"""Columns of a file in, a checked `RLEBatch` out: the last step that JSON rows and Parquet share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.batches import RLEBatch, Where
from refcocom_gpu.predictions.keys import Keys


def finish_batch(
    keys: Keys,
    index: NDArray[np.int64],
    strings: rle.Column,
    null: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    sentences: Sequence[Any] | None,
    where: Where,
    labels: Sequence[Any] | None = None,
) -> RLEBatch:
    """Check sentences and sizes, give explicit empties their string, and leave out rows with a problem.

    Args:
        keys: Resolver of this read.
        index: [B] example of each row, −1 for a row that was recorded as a problem.
        strings: B strings. In a row whose mask is null or whose index is −1, this and what follows is ignored.
        null: [B] True where the mask is explicitly empty.
        sizes: [B, 2] height and width.
        sentences: B strings or None; None when the file carries no sentences.
        where: Place of each row.
        labels: B values of `no_target`; None when the file carries none.

    Returns:
        The rows that have no problem so far.
    """
    if labels is not None:
        keys.label(index, labels, where)
    sample = keys.dataset.example_sample[index]
    heights = np.where(null, keys.dataset.heights[sample], sizes[:, 0])
    widths = np.where(null, keys.dataset.widths[sample], sizes[:, 1])
    # Both checks see every row, so that a row with two mistakes shows both.
    good = keys.check_sizes(index, heights, widths, where) >= 0
    if sentences is None and keys.needs_sentences:
        sentences = [None] * len(index)
    if sentences is not None:
        good &= keys.check_sentences(index, sentences, where) >= 0
    if null.any():
        strings = _fill_empty(strings, null, heights * widths)
    kept = np.flatnonzero(good)
    if len(kept) == len(index):
        return RLEBatch(index, strings, where)
    return RLEBatch(index, strings, where).take(kept)


def _fill_empty(
    strings: rle.Column, null: NDArray[np.bool_], pixels: NDArray[np.int64]
) -> rle.Column:
    """Give null rows the string of an empty mask: one run of H·W zeros."""
    rows = np.flatnonzero(null)
    empties = rle.Column(*cpu.rle_write(pixels[rows].astype(np.int32), np.arange(len(rows) + 1)))
    both = rle.Column(
        np.concatenate([strings.data, empties.data]),
        np.concatenate([strings.offsets, empties.offsets[1:] + strings.offsets[-1]]),
    )
    order = np.arange(len(null))
    order[rows] = len(null) + np.arange(len(rows))
    return both.take(order)
