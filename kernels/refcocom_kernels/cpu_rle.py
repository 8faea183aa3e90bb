"""Numba kernels over COCO RLE strings: parse, validate, intersect, write. Launched by `cpu.py`.

Shapes: `B` rows in a column, `D` bytes of all their strings, `R` runs. A mask is read down its columns
(pixel p is row p % H of column p // H) and alternates runs of 0 and 1, beginning with 0; a run is kept as its *end*,
the running total, so that lookups need no sum. Each kernel handles rows `first` to `last - 1`.
"""

from __future__ import annotations

from typing import Any

from refcocom_kernels.cpu_jit import inline, jit
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


@inline
def _next_number(data: Any, at: int, stop: int) -> Any:
    """(value, position after it, status): five bits a character, low first, bit 5 continues, bit 4 of the last is the sign."""
    value = 0
    shift = 0
    while at < stop:
        digit = data[at] - 48
        if digit < 0 or digit > 63:
            return value, at, FOREIGN
        at += 1
        value |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            if digit & 16:
                value |= -1 << shift
            return value, at, OK
        if shift == 5 * MAX_CHARACTERS:
            return value, at, HUGE
    return value, at, TRUNCATED


@jit("in u1, in i8, i8, i8, out i8 -> void")
def count_runs(data: Any, offsets: Any, first: int, last: int, n_runs: Any) -> None:
    """Runs per row: every number ends in exactly one character without the continuation bit."""
    for row in range(first, last):
        n = 0
        for at in range(offsets[row], offsets[row + 1]):
            n += ((data[at] - 48) & 32) == 0
        n_runs[row] = n


@jit("in u1, in i8, in i8, in i8, i8, i8, out i4, out i1, out i8 -> void")
def parse_rows(
    data: Any,
    offsets: Any,
    pixels: Any,
    run_offsets: Any,
    first: int,
    last: int,
    ends: Any,
    status: Any,
    detail: Any,
) -> None:
    """Strings to run ends; a row that is not `OK` has zeros from its fault on."""
    for row in range(first, last):
        at, stop = offsets[row], offsets[row + 1]
        base = run_offsets[row]
        room = run_offsets[row + 1] - base
        total, before, last_run, n = 0, 0, 0, 0
        code = OK
        note = 0
        while at < stop:
            value, after, code = _next_number(data, at, stop)
            if code != OK:
                note = after - offsets[row] if code == FOREIGN else n
                break
            at = after
            if n > 2:
                value += before
            if value < 0:
                code, note = NEGATIVE, n
                break
            before, last_run = last_run, value
            total += value
            # A total beyond H·W is reported below; the clamp keeps the int32 from wrapping meanwhile.
            ends[base + n] = min(total, pixels[row])
            n += 1
        if code == OK and total != pixels[row]:
            code = SHORT if total < pixels[row] else LONG
            note = total
        for k in range(n, room):
            ends[base + k] = 0
        status[row] = code
        detail[row] = note


@jit("in u1, in i8, in i8, in i4, in i8, in i8, i8, i8, out i8, out i1, out i8 -> void")
def intersect_rows(
    data: Any,
    offsets: Any,
    sample: Any,
    target_ends: Any,
    target_offsets: Any,
    pixels: Any,
    first: int,
    last: int,
    counts: Any,
    status: Any,
    detail: Any,
) -> None:
    """Parse, validate and intersect in one pass: the string's runs are merged with the target's as they appear.

    `counts` is [B, 2] flat: intersection, predicted area; zeros where a row is not `OK`.
    """
    for row in range(first, last):
        at, stop = offsets[row], offsets[row + 1]
        mask = sample[row]
        j, j_stop = target_offsets[mask], target_offsets[mask + 1]
        j_first = j
        # Target pixels set before `edge`, where `edge` is the end of the last target run passed.
        edge, passed = 0, 0
        total, before, last_run, n = 0, 0, 0, 0
        intersection, area, at_start = 0, 0, 0
        code = OK
        note = 0
        while at < stop:
            value, after, code = _next_number(data, at, stop)
            if code != OK:
                note = after - offsets[row] if code == FOREIGN else n
                break
            at = after
            if n > 2:
                value += before
            if value < 0:
                code, note = NEGATIVE, n
                break
            before, last_run = last_run, value
            total += value
            while j < j_stop and target_ends[j] <= total:
                if (j - j_first) & 1:
                    passed += target_ends[j] - edge
                edge = target_ends[j]
                j += 1
            covered = passed
            if (j - j_first) & 1 and j < j_stop:
                covered += total - edge
            if n & 1:
                intersection += covered - at_start
                area += value
            at_start = covered
            n += 1
        if code == OK and total != pixels[mask]:
            code = SHORT if total < pixels[mask] else LONG
            note = total
        if code != OK:
            intersection, area = 0, 0
        counts[2 * row] = intersection
        counts[2 * row + 1] = area
        status[row] = code
        detail[row] = note


@inline
def _delta(ends: Any, base: int, k: int) -> int:
    """The number written for run k: its length, from the fourth run on less that of the run two before."""
    start = ends[base + k - 1] if k > 0 else 0
    value = ends[base + k] - start
    if k > 2:
        value -= ends[base + k - 2] - ends[base + k - 3]
    return int(value)


@jit("in i4, in i8, i8, i8, out i8 -> void")
def string_lengths(ends: Any, run_offsets: Any, first: int, last: int, lengths: Any) -> None:
    """Characters that `write_strings` will need per row."""
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
                data[at] = 48 + 32 + (value & 31)
                value >>= 5
                at += 1
            data[at] = 48 + (value & 31)
            at += 1
