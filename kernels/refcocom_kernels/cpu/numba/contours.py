"""Numba kernels for the contours of masks, on row-aligned bits (`bits.py`). Launched by `cpu/contours.py`.

A contour is widened in a *canvas*: rows of words around the box of the mask, with room for 2·reach pixels after it on
both axes. There every bit is moved on by up to 2·reach, so pixel (y, x) of the widened contour is bit
(y + reach, x + reach) of the canvas. A word of zeros before each row of the canvas serves reads before its first word.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.bits import pack_rows, rows_from_packed
from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.vectors import popcount

_U0, _U1, _U63 = np.uint64(0), np.uint64(1), np.uint64(63)


@inline
def bits_from(words: Any, at: int) -> Any:
    """The 64 bits that begin at bit `at` of packed words; bits beyond the last word repeat those before."""
    low = words[np.uint64(at >> 6)] >> np.uint64(at & 63)
    high = words[np.uint64(min((at >> 6) + 1, len(words) - 1))] << (_U63 - np.uint64(at & 63))
    return low | (high << _U1)


@inline
def _contour_of_row(rows: Any, height: int, stride: int, y: int, k: int) -> Any:
    """Word k of row y of the contour: set pixels with a neighbour that is not set."""
    inner = ~_U0
    for row in range(y - 1, y + 2):
        if row < 0 or row >= height:
            return rows[np.uint64(y * stride + k)]
        at = row * stride + k
        here = rows[np.uint64(at)]
        before = rows[np.uint64(at - 1)] >> _U63 if k > 0 else _U0
        after = rows[np.uint64(at + 1)] << _U63 if k + 1 < stride else _U0
        inner &= here & ((here << _U1) | before) & ((here >> _U1) | after)
    return rows[np.uint64(y * stride + k)] & ~inner


@inline
def draw_contour(
    rows: Any, height: int, stride: int, reach: int, box: Any, canvas: Any, shape: Any
) -> None:
    """Write the contour of a mask to a canvas, and rows and words of a row of the canvas to `shape`."""
    y0, y1, word0, word1 = box[0], box[1], box[2], box[3]
    pitch = 1 + word1 - word0 + ((2 * reach + 63) >> 6)
    tall = y1 - y0 + 2 * reach
    shape[0], shape[1] = tall, pitch
    canvas[: tall * pitch + 1] = _U0
    for y in range(y0, y1):
        at = (y - y0) * pitch + 1
        for k in range(word0, word1):
            # Most words hold no set pixel, or none but set pixels around them.
            if rows[np.uint64(y * stride + k)]:
                canvas[np.uint64(at + k - word0)] = _contour_of_row(rows, height, stride, y, k)


@inline
def widen(canvas: Any, other: Any, shape: Any, reach: int) -> bool:
    """OR of the 2·reach + 1 bits up to each, along rows and down columns, by doubling: `w(2n) = w(n) | move(w(n), n)`.

    Returns:
        Whether the result is in `other`: both are buffers that take turns.
    """
    tall, pitch = shape[0], shape[1]
    size = tall * pitch
    window = 2 * reach + 1
    turns = 0
    here, there = canvas, other
    there[0] = there[size] = _U0
    length = 1
    while length < window:
        # A step along a row is less than a word. No bit leaves its row, as there is room for all of them.
        step = min(length, window - length, 32)
        bits, back = np.uint64(step), np.uint64(64 - step)
        before, source, target = here[:size], here[1 : size + 1], there[1 : size + 1]
        for k in range(len(target)):
            target[k] = source[k] | (source[k] << bits) | (before[k] >> back)
        here, there = there, here
        turns += 1
        length += step
    length = 1
    while length < window:
        step = min(length, window - length)
        moved = step * pitch
        there[: moved + 1] = here[: moved + 1]
        above, source, target = here[1:], here[moved + 1 : size + 1], there[moved + 1 : size + 1]
        for k in range(len(target)):
            target[k] = source[k] | above[k]
        here, there = there, here
        turns += 1
        length += step
    return turns & 1 == 1


@inline
def widened_word(canvas: Any, pitch: int, box: Any, reach: int, width: int, y: int, k: int) -> Any:
    """Word k of row y of the widened contour, pixels outside the image cleared."""
    row = (y + reach - box[0]) * pitch + 1
    bit = 64 * (k - box[2]) + reach
    at, shift = row + (bit >> 6), np.uint64(bit & 63)
    bits = (canvas[np.uint64(at)] >> shift) | ((canvas[np.uint64(at + 1)] << _U1) << (_U63 - shift))
    left = width - 64 * k
    return bits if left >= 64 else bits & ((_U1 << np.uint64(left)) - _U1)


@inline
def widened_box(box: Any, reach: int, height: int, stride: int) -> Any:
    """y0, y1, word0, word1 of the image that a widened contour may reach."""
    return (
        max(0, box[0] - reach),
        min(height, box[1] + reach),
        max(0, (64 * box[2] - reach) >> 6),
        min(stride, box[3] + ((reach + 63) >> 6)),
    )


@inline
def count_contour(
    rows: Any, height: int, width: int, reach: int, canvas: Any, other: Any, box: Any, shape: Any,
    contours: Any, wide: Any, truth_at: int,
) -> Any:  # fmt: skip
    """(pixels, matched, matched of the truth) of the contour of a mask given as rows; `box` is that of the mask."""
    area, matched, matched_truth = _U0, _U0, _U0
    y0, y1, word0, word1 = box[0], box[1], box[2], box[3]
    if y1 == 0:
        return area, matched, matched_truth
    stride = (width + 63) >> 6
    draw_contour(rows, height, stride, reach, box, canvas, shape)
    pitch = shape[1]
    for y in range(y0, y1):
        for k in range(word0, word1):
            bits = canvas[np.uint64((y - y0) * pitch + 1 + k - word0)]
            if bits:
                area += popcount(bits)
                matched += popcount(bits & bits_from(wide, truth_at + y * width + 64 * k))
    if widen(canvas, other, shape, reach):
        canvas = other
    y0, y1, word0, word1 = widened_box(box, reach, height, stride)
    for y in range(y0, y1):
        for k in range(word0, word1):
            bits = widened_word(canvas, pitch, box, reach, width, y, k)
            if bits:
                matched_truth += popcount(bits & bits_from(contours, truth_at + y * width + 64 * k))
    return area, matched, matched_truth


@inline
def find_box(rows: Any, height: int, stride: int, box: Any) -> None:
    """Write the box of rows and words that hold set bits: y0, y1, word0, word1. For an empty mask y1 is 0."""
    y0, y1, word0, word1 = height, 0, stride, 0
    for y in range(height):
        filled = _U0
        for k in range(stride):
            filled |= rows[np.uint64(y * stride + k)]
        if filled:
            y0 = min(y0, y)
            y1 = y + 1
            # Only words outside the box so far need to be looked at.
            for k in range(word0):
                if rows[np.uint64(y * stride + k)]:
                    word0 = k
                    break
            for k in range(stride - 1, word1 - 1, -1):
                if rows[np.uint64(y * stride + k)]:
                    word1 = k + 1
                    break
    box[0], box[1], box[2], box[3] = y0, y1, word0, word1


@jit("in u8, in i8, in i8, in i8, in i8, i8, i8, i8, i8, out u8, out u8, out i8 -> void")
def contours_of_packed(
    words: Any, word_offsets: Any, heights: Any, widths: Any, reaches: Any, scratch: int, room: int, first: int,
    last: int, contours: Any, wide: Any, areas: Any,
) -> None:  # fmt: skip
    """Packed masks to packed contours, the same widened, and areas of contours; `contours` and `wide` must be zeros."""
    rows = np.empty(scratch, np.uint64)
    drawn = np.empty(scratch, np.uint64)
    canvas, other = np.empty(room, np.uint64), np.empty(room, np.uint64)
    box, shape = np.empty(4, np.int64), np.empty(2, np.int64)
    for m in range(first, last):
        height, width, reach = heights[m], widths[m], reaches[m]
        stride = (width + 63) >> 6
        first_bit = 64 * word_offsets[m]
        rows_from_packed(words, first_bit, height, width, rows)
        find_box(rows, height, stride, box)
        y0, y1, word0, word1 = box[0], box[1], box[2], box[3]
        areas[m] = 0
        if y1 == 0:
            continue
        draw_contour(rows, height, stride, reach, box, canvas, shape)
        area, pitch = _U0, shape[1]
        for y in range(y0, y1):
            for k in range(word0, word1):
                bits = canvas[np.uint64((y - y0) * pitch + 1 + k - word0)]
                drawn[np.uint64(y * stride + k)] = bits
                area += popcount(bits)
        areas[m] = area
        pack_rows(drawn, width, y0, y1, word0, word1, first_bit, contours)
        result = canvas
        if widen(canvas, other, shape, reach):
            result = other
        y0, y1, word0, word1 = widened_box(box, reach, height, stride)
        for y in range(y0, y1):
            for k in range(word0, word1):
                drawn[np.uint64(y * stride + k)] = widened_word(
                    result, pitch, box, reach, width, y, k
                )
        pack_rows(drawn, width, y0, y1, word0, word1, first_bit, wide)
