"""Columns of a file in, a checked `RLEBatch` out: the last step that JSON rows and Parquet share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu import rle
from refcocom_gpu.predictions.batches import RLEBatch, Where
from refcocom_gpu.predictions.keys import Keys


def finish_batch(
    keys: Keys,
    columns: Sequence[NDArray[np.int64]],
    strings: rle.Column,
    null: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    sentences: Sequence[Any] | None,
    where: Where,
) -> RLEBatch:
    """Resolve keys, compare sentences and sizes, give explicit empties their string.

    Args:
        keys: Resolver of this read.
        columns: One [B] array per field of the key.
        strings: B strings; what stands at a null mask is ignored.
        null: [B] True where the mask is explicitly empty.
        sizes: [B, 2] height and width; ignored where null.
        sentences: B strings or None; None when the file carries no sentences.
        where: Place of each row.

    Returns:
        The rows that have no problem so far.
    """
    index = keys.resolve(columns, where)
    if sentences is not None:
        index = keys.check_sentences(index, sentences, where)
    sample = keys.dataset.example_sample[index]
    heights = np.where(null, keys.dataset.heights[sample], sizes[:, 0])
    widths = np.where(null, keys.dataset.widths[sample], sizes[:, 1])
    index = keys.check_sizes(index, heights, widths, where)
    if null.any():
        strings = _fill_empty(strings, null, heights * widths)
    kept = np.flatnonzero(index >= 0)
    if len(kept) == len(index):
        return RLEBatch(index, strings, where)
    return RLEBatch(index[kept], strings.take(kept), lambda row: where(int(kept[row])))


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
