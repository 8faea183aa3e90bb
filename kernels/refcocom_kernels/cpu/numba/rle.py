"""Numba kernels that intersect COCO RLE strings with stored masks. Launched by `cpu/rle.py`.

Shapes and letters are those of `strings.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.runs import LANES, fill_words, sum_runs
from refcocom_kernels.cpu.numba.strings import diagnose, read_numbers
from refcocom_kernels.cpu.numba.vectors import popcount

_U0, _U1 = np.uint64(0), np.uint64(1)
_ONES = np.uint64(2**64 - 1)


@inline
def _fill(words: Any, before: Any, at: int, stop: int, bits: Any, rank: int, step: int) -> None:
    """Words `at` to `stop - 1`, all the same, and perhaps some beyond, which are written again."""
    fill_words(words, before, at, bits, rank, step)
    while at + LANES < stop:
        at += LANES
        rank += LANES * step
        fill_words(words, before, at, bits, rank, step)


@inline
def _rank_table(ends: Any, first: int, last: int, words: Any, before: Any) -> Any:
    """Runs `first` to `last - 1` of a mask as column-major bits and, per word, the number of bits set before it.

    Only the words from the first set pixel to the last are written. Returns the range of bits they cover; clamping a
    position into it does not change its rank. A run's words are stored eight at a time, whether it covers so many or
    not: a loop with the exact number of them took twice as long, as no branch predictor knows it.
    """
    low = np.int64(ends[np.uint64(first)]) >> 6
    word, bits, rank = 0, _U0, 0
    words[0], before[0] = _U0, 0
    for k in range(first + 1, last, 2):
        start = np.int64(ends[np.uint64(k - 1)]) - (low << 6)
        stop = np.int64(ends[np.uint64(k)]) - (low << 6)
        start_word, stop_word = start >> 6, stop >> 6
        _fill(words, before, word + 1, start_word + 1, _U0, rank, 0)
        bits = (bits if start_word == word else _U0) | (_ONES << np.uint64(start & 63))
        words[np.uint64(start_word)] = bits
        _fill(words, before, start_word + 1, stop_word + 1, _ONES, rank + 64 - (start & 63), 64)
        bits = (bits if stop_word == start_word else _ONES) & ~(_ONES << np.uint64(stop & 63))
        words[np.uint64(stop_word)] = bits
        word = stop_word
        rank += stop - start
    # Bit 63 of the last word is never set (a run that ends there carries into the next), so its rank is the total.
    return low << 6, ((low + word) << 6) + 63


@inline
def _rank(words: Any, before: Any, position: int) -> int:
    """Set pixels of the target before `position`, which counts from the first word of the table."""
    word = np.uint64(position) >> np.uint64(6)
    below = (_U1 << (np.uint64(position) & np.uint64(63))) - _U1
    return np.int64(before[word]) + np.int64(popcount(words[word] & below))  # type: ignore[return-value]


@jit(
    "in u1, in i8, in i8, in i8, in i4, in i8, in i8, i8, i8, out i4, out i4, out u8, out i4, out i8, out i1, out i8 "
    "-> void"
)
def intersect_rows(
    data: Any,
    offsets: Any,
    order: Any,
    sample: Any,
    target_ends: Any,
    target_offsets: Any,
    pixels: Any,
    first: int,
    last: int,
    numbers: Any,
    positions: Any,
    words: Any,
    before: Any,
    counts: Any,
    status: Any,
    detail: Any,
) -> None:
    """Parse, validate and intersect rows `order[first:last]`, which are grouped by target.

    `counts` is [B, 2] flat: intersection, predicted area; zeros where a row is not `OK`. A target's rank table is
    built once per group, in scratch that stays in the cache. That costs less than reading a stored table from memory
    (2 bits a pixel, 153 MB for RefCOCO-M), and unlike merging the two lists of runs it has no unpredictable branch.

    The scratch is the launcher's: two vectors for the longest string and two for the words of the largest mask, each
    with `SPARE` elements more. To load a kernel that allocates, Numba imports 50 ms of its own modules.
    """
    current, low, high = -1, 0, 0
    for k in range(first, last):
        row = order[k]
        mask = sample[row]
        if mask != current:
            low, high = _rank_table(
                target_ends, target_offsets[mask], target_offsets[mask + 1], words, before
            )
            current = mask
        n, bad = read_numbers(data, offsets[row], offsets[row + 1], numbers)
        intersection, area = 0, 0
        if not bad:
            well, area, total = sum_runs(numbers, n, pixels[mask], low, high, positions)
            bad = not well or total != pixels[mask]
        if bad:
            status[row], detail[row] = diagnose(data, offsets[row], offsets[row + 1], pixels[mask])
            area = 0
        else:
            for r in range(1, n, 2):
                intersection += _rank(words, before, positions[np.uint64(r)])
                intersection -= _rank(words, before, positions[np.uint64(r - 1)])
        counts[2 * row] = intersection
        counts[2 * row + 1] = area
