"""Numba kernels over row-aligned bits: masks, logits and runs to bits, and bits to runs.

Row-aligned bits are [H, S] uint64 with S = ceil(W / 64) words a row. Pixel x of a row is bit x; the bits after the last
pixel are 0. They are scratch: the store packs its masks without padding (`masks.py`). Launched by `cpu/`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.cells import decode_row, resize_row
from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.vectors import (
    AHEAD,
    nonzero64,
    prefetch,
    trailing_zeros,
    weighted_above64,
)

_U0, _U1, _U63 = np.uint64(0), np.uint64(1), np.uint64(63)


@inline
def bits_at(words: Any, start: int, n: int) -> Any:
    """The `n` ≤ 64 bits that begin at bit `start`."""
    shift = start & 63
    bits = words[np.uint64(start >> 6)] >> np.uint64(shift)
    if shift + n > 64:
        bits |= words[np.uint64((start >> 6) + 1)] << np.uint64(64 - shift)
    return bits if n == 64 else bits & ((_U1 << np.uint64(n)) - _U1)


@inline
def span(words: Any, first: int, last: int) -> Any:
    """Narrow the range of words `first` to `last` - 1 to those from the first with a set bit to the last."""
    while first < last and words[np.uint64(first)] == _U0:
        first += 1
    while last > first and words[np.uint64(last - 1)] == _U0:
        last -= 1
    return first, last


@inline
def rows_from_runs(ends: Any, first: int, last: int, height: int, width: int, rows: Any) -> None:
    """Runs down the columns to bits: a run toggles two bits a column, and a running XOR down the rows fills between."""
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
def rows_from_bytes(
    pixels: Any, start: int, pitch: int, height: int, width: int, rows: Any
) -> None:
    """A dense mask, row-major bytes with `pitch` from row to row, to bits."""
    stride = (width + 63) >> 6
    whole = width >> 6
    for y in range(height):
        at = start + y * pitch
        for k in range(whole):
            prefetch(pixels, at + 64 * k + AHEAD)
            rows[np.uint64(y * stride + k)] = nonzero64(pixels, at + 64 * k)
        if whole < stride:
            word = _U0
            for x in range(64 * whole, width):
                word |= np.uint64(pixels[np.uint64(at + x)] != 0) << np.uint64(x & 63)
            rows[np.uint64(y * stride + whole)] = word


@inline
def rows_from_packed(words: Any, first_bit: int, height: int, width: int, rows: Any) -> None:
    """Packed bits of one mask, or of some of its rows, to row-aligned bits."""
    stride = (width + 63) >> 6
    for y in range(height):
        at = first_bit + y * width
        for k in range(stride):
            n = min(64, width - 64 * k)
            rows[np.uint64(y * stride + k)] = bits_at(words, at + 64 * k, n)


@inline
def pack_rows(
    rows: Any, width: int, y0: int, y1: int, word0: int, word1: int, first_bit: int, words: Any
) -> None:
    """Row-aligned bits within a box to packed bits, row 0 at `first_bit`; `words` must be zeros."""
    stride = (width + 63) >> 6
    for y in range(y0, y1):
        for k in range(word0, word1):
            bits = rows[np.uint64(y * stride + k)]
            bit = first_bit + y * width + 64 * k
            word, shift = bit >> 6, np.uint64(bit & 63)
            words[np.uint64(word)] |= bits << shift
            if shift and bits >> (np.uint64(64) - shift):
                words[np.uint64(word + 1)] |= bits >> (np.uint64(64) - shift)


@jit("in i4, in i8, in i8, in i8, in i8, i8, i8, i8, out u8 -> void")
def pack_runs(
    ends: Any, run_offsets: Any, heights: Any, widths: Any, word_offsets: Any, scratch: int, first: int,
    last: int, words: Any,
) -> None:  # fmt: skip
    """Column-major runs to row-major packed bits.

    `words` must be zeros; `scratch` is the number of words that the row-aligned bits of the largest mask take.
    """
    rows = np.empty(scratch, np.uint64)
    for m in range(first, last):
        height, width = heights[m], widths[m]
        rows_from_runs(ends, run_offsets[m], run_offsets[m + 1], height, width, rows)
        stride = (width + 63) >> 6
        pack_rows(rows, width, 0, height, 0, stride, 64 * word_offsets[m], words)


@inline
def _toggles(rows: Any, height: int, stride: int, y: int, k: int) -> Any:
    """Bits of word k where pixel (y, x) differs from the one before it down the columns."""
    here = rows[np.uint64(y * stride + k)]
    if y > 0:
        return here ^ rows[np.uint64((y - 1) * stride + k)]
    # The pixel before the top of a column is the bottom of the column to its left; before the first pixel is a 0.
    bottom = (height - 1) * stride
    carry = rows[np.uint64(bottom + k - 1)] >> _U63 if k > 0 else _U0
    return here ^ ((rows[np.uint64(bottom + k)] << _U1) | carry)


@inline
def _runs_from_rows(
    rows: Any, height: int, width: int, column_at: Any, ends: Any, room: int
) -> int:
    """Bits to run ends; returns their number, and writes them only if they fit into `room`.

    Changes are met row by row but written column by column: a counting sort, which keeps the order of the rows within
    a column. `column_at` is scratch of W + 1.
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
    """Dense masks [B, H·W] to run ends [B, room]; of a mask with more runs than `room` only the number is written."""
    rows = np.empty(height * ((width + 63) >> 6), np.uint64)
    column_at = np.empty(width + 1, np.int64)
    for b in range(first, last):
        rows_from_bytes(pixels, b * height * width, width, height, width, rows)
        own = ends[b * room : (b + 1) * room]
        n_runs[b] = _runs_from_rows(rows, height, width, column_at, own, room)


@inline
def _rows_from_logits(
    raw16: Any, raw32: Any, kind: int, start: int, w: int, cells: int, height: int, width: int, threshold: Any,
    y_low: Any, y_high: Any, y_weight_low: Any, y_weight_high: Any, x_low: Any, x_weight_low: Any, x_weight_high: Any,
    cell_bits: Any, resized: Any, rows: Any,
) -> None:  # fmt: skip
    """Logits from `start` on, resized and thresholded, to bits.

    Every pixel is interpolated, in the arithmetic of `reference.resize_logits`. `cell_bits` holds a row of cells,
    `resized` two rows of pixels, each with 64 more for the lanes after the last.
    """
    stride = (width + 63) >> 6
    room_wide = len(resized) >> 1
    held = np.array([-1, -1])
    for y in range(height):
        for k in range(2):
            needed = np.int64(y_low[y]) if k == 0 else np.int64(y_high[y])
            slot = needed & 1
            if held[slot] != needed:
                decode_row(raw16, raw32, kind, start + needed * w, cells, cell_bits)
                at = slot * room_wide
                resize_row(
                    cell_bits.view(np.float32), x_low, x_weight_low, x_weight_high, resized[at : at + width],
                )  # fmt: skip
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
    """Logits [B, h, w], resized and thresholded, to run ends [B, room]; as `runs_from_masks`."""
    rows = np.empty(height * ((width + 63) >> 6), np.uint64)
    column_at = np.empty(width + 1, np.int64)
    cell_bits = np.empty(w + 1, np.int32)
    resized = np.zeros(2 * (width + 64), np.float32)
    for b in range(first, last):
        _rows_from_logits(
            raw16, raw32, kind, b * h * w, w, len(x_first) - 1, height, width, threshold, y_low, y_high, y_weight_low,
            y_weight_high, x_low, x_weight_low, x_weight_high, cell_bits, resized, rows,
        )  # fmt: skip
        own = ends[b * room : (b + 1) * room]
        n_runs[b] = _runs_from_rows(rows, height, width, column_at, own, room)


@jit(
    "in i2, in i4, i8, i8, i8, in i8, in i8, in i8, f4, in i4, in i4, in f4, in f4, in i8, in i8, i8, i8, i8, i8, i8, "
    "out u1 -> void"
)
def masks_from_logits(
    raw16: Any, raw32: Any, kind: int, h: int, w: int, sample: Any, heights: Any, widths: Any, threshold: Any,
    low: Any, high: Any, weight_low: Any, weight_high: Any, first_pixel: Any, layout: Any,
    area: int, pitch: int, scratch: int, first: int, last: int, masks: Any,
) -> None:  # fmt: skip
    """Logits [B, h, w], resized to their images and thresholded, to the top left of zeros [B, `area`].

    `pitch` is from row to row; tables and `layout` are those of `logits.count_logits`.
    """
    rows = np.empty(scratch, np.uint64)
    cell_bits = np.empty(w + 1, np.int32)
    resized = np.zeros(2 * (pitch + 64), np.float32)
    for b in range(first, last):
        height, width = heights[sample[b]], widths[sample[b]]
        yt, xt, cells = layout[6 * b], layout[6 * b + 3], layout[6 * b + 5]
        _rows_from_logits(
            raw16, raw32, kind, b * h * w, w, cells, height, width, threshold, low[yt : yt + height],
            high[yt : yt + height], weight_low[yt : yt + height], weight_high[yt : yt + height], low[xt : xt + width],
            weight_low[xt : xt + width], weight_high[xt : xt + width], cell_bits, resized, rows,
        )  # fmt: skip
        stride = (width + 63) >> 6
        for y in range(height):
            at = b * area + y * pitch
            for x in range(width):
                word = rows[np.uint64(y * stride + (x >> 6))]
                masks[np.uint64(at + x)] = (word >> np.uint64(x & 63)) & _U1
