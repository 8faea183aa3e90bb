"""Numba kernels between COCO RLE strings and runs: parse, validate, write. Launched by `cpu/rle.py`.

Shapes: `B` rows in a column, `D` bytes of all their strings, `R` runs. A mask is read down its columns
(pixel p is row p % H of column p // H) and alternates runs of 0 and 1, beginning with 0; a run is kept as its *end*,
the running total, so that lookups need no sum. Each kernel handles rows `first` to `last - 1`.

Indices are cast to uint64 at each use: Numba otherwise checks whether they are negative, which doubled the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.runs import LANES, SPREAD, load8, spread8, sum_runs
from refcocom_kernels.cpu.numba.vectors import popcount
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

_U0, _U1, _U2, _U8 = (np.uint64(k) for k in (0, 1, 2, 8))
# Eight characters "0", which are eight numbers 0; the bits that no digit has; bit 0 of each of eight bytes.
_ZEROS = np.uint64(0x3030303030303030)
_FOREIGN = np.uint64(0xC0C0C0C0C0C0C0C0)
_LOWEST = np.uint64(0x0101010101010101)
# Multiplied by this, the lowest bits of eight bytes arrive in the highest byte, the first one lowest.
_GATHER = np.uint64(0x0102040810204080)
SPARE = 2 * LANES
"""Elements that scratch vectors hold beyond what is counted, for the stores of whole vectors."""


@inline
def _long_numbers(data: Any, start: int, at: int, stop: int, numbers: Any, n: int) -> Any:
    """The numbers that end in characters `at` to `stop - 1`, of any length; returns (n, whether one is too large).

    A number beyond 2**30 stands as 0: no run is as long, so the row is wrong whatever follows.
    """
    wrong = False
    for last in range(at, stop):
        digit = np.int64(data[np.uint64(last)]) - 48
        if digit & 32:
            continue
        value = (digit & 31) - 2 * (digit & 16)
        first = last
        while first > start and (data[np.uint64(first - 1)] - 48) & 32:
            first -= 1
            if last - first == MAX_CHARACTERS:
                wrong = True
                break
            value = (value << 5) + ((np.int64(data[np.uint64(first)]) - 48) & 31)
        if abs(value) > 1 << 30:
            wrong = True
            value = 0
        numbers[np.uint64(n)] = value
        n += 1
    return n, wrong


@inline
def _tail(data: Any, at: int, stop: int) -> Any:
    """Fewer than eight characters as eight; the others are "0"."""
    rest = np.uint64(8 * (stop - at))
    if stop >= LANES:
        # The characters before them, of this row or another, are shifted out.
        return (load8(data, stop - LANES) >> (np.uint64(64) - rest)) | (_ZEROS << rest)
    block = _ZEROS << rest
    for k in range(at, stop):
        block |= np.uint64(data[np.uint64(k)]) << np.uint64(8 * (k - at))
    return block


@inline
def read_numbers(data: Any, start: int, stop: int, numbers: Any) -> Any:
    """The numbers of one string; returns (how many there are, whether a character is wrong).

    A character is wrong if it is foreign, missing, or one too many. The caller asks `diagnose` what is wrong.
    Eight characters are read in a step, which needs no branch unless a number of three characters or more ends in
    them: one loop over characters spent most of its time on wrongly predicted branches.
    """
    n, wrong = 0, False
    seen, before, window = _U0, _U0, _U0
    for at in range(start, stop, LANES):
        whole = stop - at >= LANES
        # A character below "0" borrows from those behind it, but its own byte tells already.
        digits = (load8(data, at) if whole else _tail(data, at, stop)) - _ZEROS
        seen |= digits
        going_on = (((digits >> np.uint64(5)) & _LOWEST) * _GATHER) >> np.uint64(56)
        # Bits 0 and 1 are the two characters before the block.
        window = (window >> _U8) | (going_on << _U2)
        if window & (window >> _U1) & np.uint64(255):
            n, too_large = _long_numbers(data, start, at, min(at + LANES, stop), numbers, n)
            wrong |= too_large
        else:
            spread8(before, digits, SPREAD, (window >> _U1) & np.uint64(255), numbers, n)
            inside = np.uint64(255) if whole else (_U1 << np.uint64(stop - at)) - _U1
            n += np.int64(popcount(~going_on & inside))
        before = digits
    wrong |= stop > start and ((data[np.uint64(stop - 1)] - 48) & 32) != 0
    for k in range(n, n + LANES):
        numbers[np.uint64(k)] = 0
    return n, wrong or (seen & _FOREIGN) != _U0


@inline
def diagnose(data: Any, start: int, stop: int, pixels: int) -> Any:
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
    numbers = np.empty(longest + SPARE, np.int32)
    totals = np.empty(longest + SPARE, np.int32)
    for row in range(first, last):
        n, bad = read_numbers(data, offsets[row], offsets[row + 1], numbers)
        base = run_offsets[row]
        # A bad row may hold more or fewer numbers than were counted; its slots stay zero.
        bad |= n != run_offsets[row + 1] - base
        if not bad:
            well, _, total = sum_runs(numbers, n, pixels[row], 0, pixels[row], totals)
            bad = not well or total != pixels[row]
        if bad:
            status[row], detail[row] = diagnose(data, offsets[row], offsets[row + 1], pixels[row])
        else:
            ends[base : base + n] = totals[:n]


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
