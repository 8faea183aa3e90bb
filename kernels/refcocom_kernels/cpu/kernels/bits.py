"""Numba kernels over row-aligned bits: from masks, logits and runs to bits, from bits to runs and boundaries.

Row-aligned bits are [H, S] uint64, S = ceil(W / 64) words a row, pixel x of a row is bit x, the bits after it are 0.
They are scratch: what the store keeps is packed without padding (`masks.py`). Launched by `cpu/`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.kernels.jit import inline, jit
from refcocom_kernels.cpu.kernels.logits import _bits_at, _decode_row, _resize_row
from refcocom_kernels.cpu.kernels.vectors import (
    AHEAD,
    nonzero64,
    popcount,
    prefetch,
    trailing_zeros,
    weighted_above64,
)

_U0, _U1, _U63 = np.uint64(0), np.uint64(1), np.uint64(63)


@inline
def _rows_from_runs(ends: Any, first: int, last: int, height: int, width: int, rows: Any) -> None:
    """Runs down the columns to bits: each run toggles two bits, and a running XOR down the rows fills between."""
    stride = (width + 63) >> 6
    rows[: (height + 1) * stride] = _U0
    for k in range(first + 1, last, 2):
        start, stop = np.int64(ends[np.uint64(k - 1)]), np.int64(ends[np.uint64(k)])
        column = start // height
        top = start - column * height
        while start < stop:
            bottom = min(height, top + stop - start)
            bit = _U1 << np.uint64(column & 63)
            word = column >> 6
            rows[np.uint64(top * stride + word)] ^= bit
            rows[np.uint64(bottom * stride + word)] ^= bit
            start += bottom - top
            top = 0
            column += 1
    for k in range(stride, height * stride):
        rows[np.uint64(k)] ^= rows[np.uint64(k - stride)]


@inline
def _rows_from_bytes(pixels: Any, start: int, height: int, width: int, rows: Any) -> None:
    """A dense mask, row-major bytes, to bits."""
    stride = (width + 63) >> 6
    whole = width >> 6
    for y in range(height):
        at = start + y * width
        for k in range(whole):
            prefetch(pixels, at + 64 * k + AHEAD)
            rows[np.uint64(y * stride + k)] = nonzero64(pixels, at + 64 * k)
        if whole < stride:
            word = _U0
            for x in range(64 * whole, width):
                word |= np.uint64(pixels[np.uint64(at + x)] != 0) << np.uint64(x & 63)
            rows[np.uint64(y * stride + whole)] = word


@inline
def _rows_from_packed(words: Any, first_word: int, height: int, width: int, rows: Any) -> None:
    """Packed bits of one mask to row-aligned ones."""
    stride = (width + 63) >> 6
    for y in range(height):
        at = 64 * first_word + y * width
        for k in range(stride):
            n = min(64, width - 64 * k)
            rows[np.uint64(y * stride + k)] = _bits_at(words, at + 64 * k, n)


@inline
def _pack_rows(rows: Any, height: int, width: int, first_word: int, words: Any) -> None:
    """Row-aligned bits of one mask to packed ones; `words` comes in as zeros."""
    stride = (width + 63) >> 6
    for y in range(height):
        for k in range(stride):
            bits = rows[np.uint64(y * stride + k)]
            bit = y * width + 64 * k
            word, shift = first_word + (bit >> 6), np.uint64(bit & 63)
            words[np.uint64(word)] |= bits << shift
            if shift and bits >> (np.uint64(64) - shift):
                words[np.uint64(word + 1)] |= bits >> (np.uint64(64) - shift)


@jit("in i4, in i8, in i8, in i8, in i8, i8, i8, i8, out u8 -> void")
def pack_runs(
    ends: Any, run_offsets: Any, heights: Any, widths: Any, word_offsets: Any, scratch: int, first: int,
    last: int, words: Any,
) -> None:  # fmt: skip
    """Column-major runs to row-major packed bits; `words` comes in as zeros, `scratch` is the most row words."""
    rows = np.empty(scratch, np.uint64)
    for m in range(first, last):
        height, width = heights[m], widths[m]
        _rows_from_runs(ends, run_offsets[m], run_offsets[m + 1], height, width, rows)
        _pack_rows(rows, height, width, word_offsets[m], words)


@inline
def _toggles(rows: Any, height: int, stride: int, y: int, k: int) -> Any:
    """Bits of word k where pixel (y, x) differs from the one before it down the columns."""
    here = rows[np.uint64(y * stride + k)]
    if y > 0:
        return here ^ rows[np.uint64((y - 1) * stride + k)]
    # The pixel before the top of a column is the bottom of the column to its left; before the first there is a 0.
    bottom = (height - 1) * stride
    carry = rows[np.uint64(bottom + k - 1)] >> _U63 if k > 0 else _U0
    return here ^ ((rows[np.uint64(bottom + k)] << _U1) | carry)


@inline
def _runs_from_rows(
    rows: Any, height: int, width: int, column_at: Any, ends: Any, room: int
) -> int:
    """Bits to run ends; returns how many, and writes them only where they fit into `room`.

    Where runs begin is collected by row and belongs by column: a counting sort, whose order within a column is
    already that of the rows. `column_at` is scratch of W + 1.
    """
    stride = (width + 63) >> 6
    column_at[: width + 1] = 0
    for y in range(height):
        for k in range(stride):
            bits = _toggles(rows, height, stride, y, k)
            if 64 * k + 64 > width:
                bits &= (_U1 << np.uint64(width & 63)) - _U1
            while bits:
                column_at[np.uint64(64 * k + 1) + trailing_zeros(bits)] += 1
                bits &= bits - _U1
    for x in range(width):
        column_at[x + 1] += column_at[x]
    n = column_at[width] + 1
    if n > room:
        return n
    for y in range(height):
        for k in range(stride):
            bits = _toggles(rows, height, stride, y, k)
            if 64 * k + 64 > width:
                bits &= (_U1 << np.uint64(width & 63)) - _U1
            while bits:
                x = np.uint64(64 * k) + trailing_zeros(bits)
                bits &= bits - _U1
                ends[np.uint64(column_at[x])] = np.int64(x) * height + y
                column_at[x] += 1
    ends[np.uint64(n - 1)] = height * width
    return n


@jit("in u1, i8, i8, i8, i8, i8, out i4, out i8 -> void")
def runs_from_masks(
    pixels: Any, height: int, width: int, room: int, first: int, last: int, ends: Any, n_runs: Any
) -> None:
    """Dense masks [B, H·W] to run ends [B, room]; where a mask has more runs than `room`, only their number."""
    rows = np.empty(height * ((width + 63) >> 6), np.uint64)
    column_at = np.empty(width + 1, np.int64)
    for b in range(first, last):
        _rows_from_bytes(pixels, b * height * width, height, width, rows)
        own = ends[b * room : (b + 1) * room]
        n_runs[b] = _runs_from_rows(rows, height, width, column_at, own, room)


@jit(
    "in i2, in i4, i8, i8, i8, i8, i8, f4, in i4, in i4, in f4, in f4, in i8, "
    "in i4, in i4, in f4, in f4, in i8, i8, i8, i8, out i4, out i8 -> void"
)
def runs_from_logits(
    raw16: Any, raw32: Any, kind: int, h: int, w: int, height: int, width: int, threshold: Any,
    y_low: Any, y_high: Any, y_weight_low: Any, y_weight_high: Any, y_first: Any,
    x_low: Any, x_high: Any, x_weight_low: Any, x_weight_high: Any, x_first: Any,
    room: int, first: int, last: int, ends: Any, n_runs: Any,
) -> None:  # fmt: skip
    """Logits [B, h, w], resized and thresholded, to run ends [B, room]; as `runs_from_masks`.

    Every pixel is interpolated, in the arithmetic of `reference.resize_logits`.
    """
    stride = (width + 63) >> 6
    rows = np.empty(height * stride, np.uint64)
    column_at = np.empty(width + 1, np.int64)
    cells = len(x_first) - 1
    cell_bits = np.empty(w + 1, np.int32)
    cell_values = cell_bits.view(np.float32)
    room_wide = width + 64
    resized = np.zeros(2 * room_wide, np.float32)
    for b in range(first, last):
        held = np.array([-1, -1])
        for y in range(height):
            for k in range(2):
                needed = np.int64(y_low[y]) if k == 0 else np.int64(y_high[y])
                slot = needed & 1
                if held[slot] != needed:
                    _decode_row(raw16, raw32, kind, (b * h + needed) * w, cells, cell_bits)
                    at = slot * room_wide
                    _resize_row(
                        cell_values, x_low, x_weight_low, x_weight_high, resized[at : at + width]
                    )
                    held[slot] = needed
            upper = resized[(y_low[y] & 1) * room_wide : (y_low[y] & 1) * room_wide + room_wide]
            lower = resized[(y_high[y] & 1) * room_wide : (y_high[y] & 1) * room_wide + room_wide]
            for k in range(stride):
                bits = weighted_above64(
                    upper, lower, 64 * k, y_weight_low[y], y_weight_high[y], threshold
                )
                if 64 * k + 64 > width:
                    bits &= (_U1 << np.uint64(width & 63)) - _U1
                rows[np.uint64(y * stride + k)] = bits
        own = ends[b * room : (b + 1) * room]
        n_runs[b] = _runs_from_rows(rows, height, width, column_at, own, room)


@inline
def _box(rows: Any, height: int, stride: int, box: Any) -> None:
    """Rows and words that hold set bits: y0, y1, word0, word1; y1 is 0 when there are none."""
    y0, y1, word0, word1 = height, 0, stride, 0
    for y in range(height):
        filled = _U0
        for k in range(stride):
            filled |= rows[np.uint64(y * stride + k)]
        if filled:
            y0 = min(y0, y)
            y1 = y + 1
            # Words at the sides are looked for only outside the box so far.
            for k in range(word0):
                if rows[np.uint64(y * stride + k)]:
                    word0 = k
                    break
            for k in range(stride - 1, word1 - 1, -1):
                if rows[np.uint64(y * stride + k)]:
                    word1 = k + 1
                    break
    box[0], box[1], box[2], box[3] = y0, y1, word0, word1


@inline
def _narrow_along_rows(source: Any, target: Any, size: int, step: int) -> None:
    """Each pixel and the one `step` after it, for all rows at once."""
    bits, back = np.uint64(step), np.uint64(64 - step)
    after = source[1 : size + 1]
    here = source[:size]
    narrowed = target[:size]
    for k in range(len(narrowed)):
        narrowed[k] = here[k] & ((here[k] >> bits) | (after[k] << back))
    target[size] = _U0


@inline
def _narrow_down_columns(here: Any, below: Any, narrowed: Any) -> None:
    """Each pixel and the one some rows below it."""
    for k in range(len(narrowed)):
        narrowed[k] = here[k] & below[k]


@inline
def _boundary_rows(
    rows: Any, height: int, width: int, distance: int, here: Any, there: Any, box: Any
) -> None:
    """Bits of a mask to bits of its boundary, in place, within the mask's box, which `box` receives.

    A pixel survives erosion when the whole square of 2·distance + 1 around it is set, nothing being set outside the
    image. The square is taken apart: a window along the row, then one down the column, each by doubling:
    `w(2n) = w(n) & shift(w(n), n)`. The box is copied out with a word of zeros after each row, so that a shift along
    rows is one loop over all of them; `here` and `there` take turns, so that a shift down columns is too.
    """
    stride = (width + 63) >> 6
    _box(rows, height, stride, box)
    y0, y1, word0, word1 = box[0], box[1], box[2], box[3]
    if y1 == 0:
        return
    n = word1 - word0 + 1
    tall = y1 - y0
    size = tall * n
    window = 2 * distance + 1
    for y in range(tall):
        for k in range(n - 1):
            here[np.uint64(y * n + k)] = rows[np.uint64((y0 + y) * stride + word0 + k)]
        here[np.uint64(y * n + n - 1)] = _U0
    here[size] = _U0
    reach = 1
    while reach < window:
        # Steps along a row stay below a word; a wider window takes more of them.
        step = min(reach, window - reach, 32)
        _narrow_along_rows(here, there, size, step)
        here, there = there, here
        reach += step
    reach = 1
    while reach < window:
        step = min(reach, window - reach)
        kept = max(0, tall - step) * n
        _narrow_down_columns(here[:kept], here[step * n : step * n + kept], there[:kept])
        there[kept:size] = _U0
        here, there = there, here
        reach += step
    # The windows begin at their pixel; the square is centred on it, so the result moves by `distance` both ways.
    words, bits = distance >> 6, np.uint64(distance & 63)
    back = _U63 - bits
    for y in range(distance, tall):
        source = (y - distance) * n
        at = (y0 + y) * stride + word0
        moved = here[source : source + n - 1 - words]
        eroded = rows[at + words : at + n - 1]
        if words < n - 1:
            eroded[0] &= ~(moved[0] << bits)
        for k in range(1, len(eroded)):
            # Shifted twice, because a shift by 64 is none.
            eroded[k] &= ~((moved[k] << bits) | ((moved[k - 1] >> back) >> _U1))


@jit("in u8, in i8, in i8, in i8, in i8, i8, i8, i8, out u8, out i8 -> void")
def boundaries_of_packed(
    words: Any, word_offsets: Any, heights: Any, widths: Any, distances: Any, scratch: int, first: int,
    last: int, boundaries: Any, areas: Any,
) -> None:  # fmt: skip
    """Packed masks to the packed bits and areas of their boundaries; `boundaries` comes in as zeros."""
    rows = np.empty(scratch, np.uint64)
    here, there = np.empty(2 * scratch, np.uint64), np.empty(2 * scratch, np.uint64)
    box = np.empty(4, np.int64)
    for m in range(first, last):
        height, width = heights[m], widths[m]
        _rows_from_packed(words, word_offsets[m], height, width, rows)
        _boundary_rows(rows, height, width, distances[m], here, there, box)
        n = _U0
        for k in range(height * ((width + 63) >> 6)):
            n += popcount(rows[np.uint64(k)])
        areas[m] = n
        _pack_rows(rows, height, width, word_offsets[m], boundaries)


@inline
def _count_boundary(
    rows: Any,
    height: int,
    width: int,
    distance: int,
    here: Any,
    there: Any,
    box: Any,
    truth: Any,
    truth_at: int,
) -> Any:
    """(intersection, area) of the boundary of a mask given as rows, against packed boundaries."""
    _boundary_rows(rows, height, width, distance, here, there, box)
    stride = (width + 63) >> 6
    intersection, area = _U0, _U0
    for y in range(box[0], box[1]):
        for k in range(box[2], box[3]):
            bits = rows[np.uint64(y * stride + k)]
            at = truth_at + y * width + 64 * k
            shift = np.uint64(at & 63)
            # Without a branch: what is read beyond the row, or twice at the very end, meets bits that are 0.
            low = truth[np.uint64(at >> 6)] >> shift
            high = truth[np.uint64(min((at >> 6) + 1, len(truth) - 1))] << (_U63 - shift)
            area += popcount(bits)
            intersection += popcount(bits & (low | (high << _U1)))
    return intersection, area


@jit("in u1, i8, i8, in i8, in i8, in u8, in i8, i8, i8, out i8, out f8 -> void")
def count_mask_boundaries(
    pixels: Any, height: int, width: int, sample: Any, distances: Any, truth: Any, word_offsets: Any,
    first: int, last: int, counts: Any, cropped: Any,
) -> None:  # fmt: skip
    """Boundaries of dense masks [B, H·W] against packed boundaries; `cropped` is the share of the image worked on."""
    scratch = (height + 1) * ((width + 63) >> 6)
    rows = np.empty(scratch, np.uint64)
    here, there = np.empty(2 * scratch, np.uint64), np.empty(2 * scratch, np.uint64)
    box = np.empty(4, np.int64)
    for b in range(first, last):
        mask = sample[b]
        _rows_from_bytes(pixels, b * height * width, height, width, rows)
        counts[2 * b], counts[2 * b + 1] = _count_boundary(
            rows, height, width, distances[mask], here, there, box, truth, 64 * word_offsets[mask]
        )
        cropped[b] = (
            max(0, box[1] - box[0]) * max(0, box[3] - box[2]) / (height * ((width + 63) >> 6))
        )


@jit("in i4, in i8, in i8, in i8, in i8, in i8, in u8, in i8, i8, i8, i8, out i8, out f8 -> void")
def count_run_boundaries(
    ends: Any, run_offsets: Any, sample: Any, heights: Any, widths: Any, distances: Any, truth: Any,
    word_offsets: Any, scratch: int, first: int, last: int, counts: Any, cropped: Any,
) -> None:  # fmt: skip
    """Boundaries of masks given as runs against packed boundaries."""
    rows = np.empty(scratch, np.uint64)
    here, there = np.empty(2 * scratch, np.uint64), np.empty(2 * scratch, np.uint64)
    box = np.empty(4, np.int64)
    for b in range(first, last):
        mask = sample[b]
        height, width = heights[mask], widths[mask]
        _rows_from_runs(ends, run_offsets[b], run_offsets[b + 1], height, width, rows)
        counts[2 * b], counts[2 * b + 1] = _count_boundary(
            rows, height, width, distances[mask], here, there, box, truth, 64 * word_offsets[mask]
        )
        cropped[b] = (
            max(0, box[1] - box[0]) * max(0, box[3] - box[2]) / (height * ((width + 63) >> 6))
        )
