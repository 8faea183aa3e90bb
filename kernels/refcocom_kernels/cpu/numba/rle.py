"""Numba kernels over COCO RLE strings: parse, validate, intersect, write. Launched by `cpu/rle.py`.

Shapes: `B` rows in a column, `D` bytes of all their strings, `R` runs. A mask is read down its columns
(pixel p is row p % H of column p // H) and alternates runs of 0 and 1, beginning with 0; a run is kept as its *end*,
the running total, so that lookups need no sum. Each kernel handles rows `first` to `last - 1`.

Indices are cast to uint64 at each use: Numba otherwise checks whether they are negative, which doubled the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.vectors import (
    popcount,
)
from refcocom_kernels.rle_status import (
    FOREIGN,
    HUGE,
    LONG,
    MAX_CHARACTERS,
    NEGATIVE,
    OK,
    SHORT,
    TRUNCATED,
)

# Runs of a parsed row begin here in its buffer. The zeros before serve as the runs "two before" the first ones.
_PAD = 3
_U0, _U1, _U5, _U31, _U32, _U48, _U63 = (np.uint64(k) for k in (0, 1, 5, 31, 32, 48, 63))
_ONES = np.uint64(2**64 - 1)


@inline
def _parse(data: Any, at: int, stop: int, runs: Any) -> Any:
    """Numbers of one string to run lengths in `runs[_PAD:]`; returns (their number, whether a character is wrong).

    A character holds five bits, low first. Bit 5 says that the number continues; bit 4 of its last character is the
    sign. A character is wrong if it is foreign, missing, or one too many. The caller checks the lengths, and asks
    `_diagnose` if something is wrong.
    """
    runs[0] = runs[1] = runs[2] = runs[3] = 0
    first = 0
    seen = _U0
    n = np.uint64(_PAD)
    while at < stop:
        digit = np.uint64(data[np.uint64(at)]) - _U48
        at += 1
        value = digit & _U31
        sign = np.uint64(16)
        seen |= digit
        if digit & _U32:
            shift = _U0
            while digit & _U32 and at < stop:
                digit = np.uint64(data[np.uint64(at)]) - _U48
                at += 1
                seen |= digit
                # Wrapping at 64 garbles only numbers that are too long to be accepted.
                shift = (shift + _U5) & _U63
                value |= (digit & _U31) << shift
                if shift >= np.uint64(5 * MAX_CHARACTERS):
                    seen |= np.uint64(64)
            sign = np.uint64(16) << shift
            if digit & _U32:
                seen |= np.uint64(64)
        run = np.int64((value ^ sign) - sign) + runs[n - np.uint64(2)]
        if n == np.uint64(_PAD):
            # The third run is not written as a difference, so it must find 0 in place of the first run.
            first = run
            run = 0
        runs[n] = run
        n += _U1
    runs[_PAD] = first
    # A digit above 63 sets a bit above the sixth; a digit below 0 sets all of those.
    return np.int64(n) - _PAD, seen > _U63


@inline
def _diagnose(data: Any, start: int, stop: int, pixels: int) -> Any:
    """(status, detail) of the first fault of one string; slow and exact."""
    at, n, total, before, last = start, 0, 0, 0, 0
    while at < stop:
        value, shift, more = 0, 0, True
        while more:
            if at == stop:
                return TRUNCATED, n
            digit = np.int64(data[at]) - 48
            if digit < 0 or digit > 63:
                return FOREIGN, at - start
            if shift == 5 * MAX_CHARACTERS:
                return HUGE, n
            value |= (digit & 31) << shift
            shift += 5
            at += 1
            more = digit > 31
            if not more and digit & 16:
                value |= -1 << shift
        if n > 2:
            value += before
        if value < 0:
            return NEGATIVE, n
        before, last = last, value
        total += value
        n += 1
        if value > pixels:
            return LONG, total
    if total != pixels:
        return (SHORT if total < pixels else LONG), total
    return OK, 0


@jit("in u1, in i8, i8, i8, out i8 -> void")
def count_runs(data: Any, offsets: Any, first: int, last: int, n_runs: Any) -> None:
    """Runs per row: the characters without the continuation bit, as each number ends in exactly one."""
    for row in range(first, last):
        n = 0
        for at in range(offsets[row], offsets[row + 1]):
            n += ((data[np.uint64(at)] - 48) & 32) == 0
        n_runs[row] = n


@jit("in u1, in i8, in i8, in i8, i8, i8, i8, out i4, out i1, out i8 -> void")
def parse_rows(
    data: Any,
    offsets: Any,
    pixels: Any,
    run_offsets: Any,
    longest: int,
    first: int,
    last: int,
    ends: Any,
    status: Any,
    detail: Any,
) -> None:
    """Strings to run ends; a row that is not `OK` is all zeros. `longest` is the length of the longest string."""
    runs = np.empty(longest + _PAD + 1, np.int64)
    for row in range(first, last):
        n, bad = _parse(data, offsets[row], offsets[row + 1], runs)
        base = run_offsets[row]
        total, signs = 0, 0
        # A bad row may hold more or fewer numbers than were counted; its slots stay zero.
        if not bad and n == run_offsets[row + 1] - base:
            for k in range(n):
                run = runs[np.uint64(k + _PAD)]
                # Negative if a run is below 0 or larger than the mask. If none is, no total can wrap around to H·W.
                signs |= run | (pixels[row] - run)
                total += run
                ends[np.uint64(base + k)] = total
        if bad or signs < 0 or total != pixels[row]:
            status[row], detail[row] = _diagnose(data, offsets[row], offsets[row + 1], pixels[row])
            for k in range(base, run_offsets[row + 1]):
                ends[k] = 0


@inline
def _rank_table(ends: Any, first: int, last: int, words: Any, before: Any) -> Any:
    """Runs `first` to `last - 1` of a mask as column-major bits and, per word, the number of bits set before it.

    Only the words from the first set pixel to the last are written. Returns the range of bits they cover; clamping a
    position into it does not change its rank.
    """
    low = np.int64(ends[np.uint64(first)]) >> 6
    word, bits, total = low, _U0, np.int32(0)
    for k in range(first + 1, last, 2):
        start, stop = np.int64(ends[np.uint64(k - 1)]), np.int64(ends[np.uint64(k)])
        if start == stop:
            continue
        start_word, stop_word = start >> 6, stop >> 6
        if start_word > word:
            words[np.uint64(word - low)] = bits
            before[np.uint64(word - low)] = total
            total += np.int32(popcount(bits))
            for gap in range(word + 1 - low, start_word - low):
                words[np.uint64(gap)] = _U0
                before[np.uint64(gap)] = total
            word, bits = start_word, _U0
        if stop_word == start_word:
            bits |= ((_U1 << np.uint64(stop - start)) - _U1) << np.uint64(start & 63)
        else:
            words[np.uint64(word - low)] = bits | (_ONES << np.uint64(start & 63))
            before[np.uint64(word - low)] = total
            total += np.int32(popcount(words[np.uint64(word - low)]))
            for inside in range(start_word + 1 - low, stop_word - low):
                words[np.uint64(inside)] = _ONES
                before[np.uint64(inside)] = total
                total += np.int32(64)
            word, bits = stop_word, (_U1 << np.uint64(stop & 63)) - _U1
    words[np.uint64(word - low)] = bits
    before[np.uint64(word - low)] = total
    # Bit 63 of the last word is never set (a run that ends there carries into the next), so its rank is the total.
    return low << 6, (word << 6) + 63


@inline
def _rank(words: Any, before: Any, low: int, high: int, position: int) -> int:
    """Set pixels of the target before `position`."""
    at = min(max(position, low), high)
    word = np.uint64((at >> 6) - (low >> 6))
    below = (_U1 << np.uint64(at & 63)) - _U1
    return np.int64(before[word]) + np.int64(popcount(words[word] & below))  # type: ignore[return-value]


@jit(
    "in u1, in i8, in i8, in i8, in i4, in i8, in i8, i8, i8, i8, i8, out i8, out i1, out i8 -> void"
)
def intersect_rows(
    data: Any,
    offsets: Any,
    order: Any,
    sample: Any,
    target_ends: Any,
    target_offsets: Any,
    pixels: Any,
    longest: int,
    most_pixels: int,
    first: int,
    last: int,
    counts: Any,
    status: Any,
    detail: Any,
) -> None:
    """Parse, validate and intersect rows `order[first:last]`, which are grouped by target.

    `counts` is [B, 2] flat: intersection, predicted area; zeros where a row is not `OK`. A target's rank table is
    built once per group, in scratch that stays in the cache. That costs less than reading a stored table from memory
    (2 bits a pixel, 153 MB for RefCOCO-M), and unlike merging the two lists of runs it has no unpredictable branch.
    """
    runs = np.empty(longest + _PAD + 1, np.int64)
    words = np.empty(most_pixels // 64 + 2, np.uint64)
    before = np.empty(most_pixels // 64 + 2, np.int32)
    current, low, high = -1, 0, 0
    for k in range(first, last):
        row = order[k]
        mask = sample[row]
        if mask != current:
            low, high = _rank_table(
                target_ends, target_offsets[mask], target_offsets[mask + 1], words, before
            )
            current = mask
        n, bad = _parse(data, offsets[row], offsets[row + 1], runs)
        limit = pixels[mask]
        intersection, area, total, signs, rank_before = 0, 0, 0, 0, 0
        if not bad:
            for r in range(n):
                run = runs[np.uint64(r + _PAD)]
                signs |= run | (limit - run)
                total += run
                rank = _rank(words, before, low, high, total)
                odd = -(r & 1)
                intersection += (rank - rank_before) & odd
                area += run & odd
                rank_before = rank
        if bad or signs < 0 or total != pixels[mask]:
            status[row], detail[row] = _diagnose(data, offsets[row], offsets[row + 1], pixels[mask])
            intersection, area = 0, 0
        counts[2 * row] = intersection
        counts[2 * row + 1] = area


@inline
def _delta(ends: Any, base: int, k: int) -> int:
    """The number written for run k: its length, from the fourth run on less the length of the run two before."""
    start = np.int64(ends[np.uint64(base + k - 1)]) if k > 0 else 0
    value = np.int64(ends[np.uint64(base + k)]) - start
    if k > 2:
        value -= np.int64(ends[np.uint64(base + k - 2)]) - np.int64(ends[np.uint64(base + k - 3)])
    return value  # type: ignore[return-value]


@jit("in i4, in i8, i8, i8, out i8 -> void")
def string_lengths(ends: Any, run_offsets: Any, first: int, last: int, lengths: Any) -> None:
    """Number of characters that `write_strings` writes for each row."""
    for row in range(first, last):
        base = run_offsets[row]
        n = 0
        for k in range(run_offsets[row + 1] - base):
            value = _delta(ends, base, k)
            n += 1
            while value < -16 or value > 15:
                value >>= 5
                n += 1
        lengths[row] = n


@jit("in i4, in i8, in i8, i8, i8, out u1 -> void")
def write_strings(
    ends: Any, run_offsets: Any, string_offsets: Any, first: int, last: int, data: Any
) -> None:
    """Run ends to canonical COCO strings."""
    for row in range(first, last):
        base = run_offsets[row]
        at = string_offsets[row]
        for k in range(run_offsets[row + 1] - base):
            value = _delta(ends, base, k)
            while value < -16 or value > 15:
                data[np.uint64(at)] = 48 + 32 + (value & 31)
                value >>= 5
                at += 1
            data[np.uint64(at)] = 48 + (value & 31)
            at += 1
