"""Numba kernels for the boundaries of masks, on row-aligned bits (`bits.py`). Launched by `cpu/boundary.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.bits import (
    pack_rows,
    rows_from_bytes,
    rows_from_packed,
    rows_from_runs,
    span,
)
from refcocom_kernels.cpu.numba.contours import bits_from, count_contour, find_box
from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.vectors import popcount

_U0, _U1, _U63 = np.uint64(0), np.uint64(1), np.uint64(63)


@inline
def _narrow_along_rows(source: Any, target: Any, size: int, step: int) -> None:
    """AND of each pixel with the one `step` after it, for all rows at once."""
    bits, back = np.uint64(step), np.uint64(64 - step)
    after = source[1 : size + 1]
    here = source[:size]
    narrowed = target[:size]
    for k in range(len(narrowed)):
        narrowed[k] = here[k] & ((here[k] >> bits) | (after[k] << back))
    target[size] = _U0


@inline
def _narrow_down_columns(here: Any, below: Any, narrowed: Any) -> None:
    """AND of each pixel with the one some rows below it."""
    for k in range(len(narrowed)):
        narrowed[k] = here[k] & below[k]


@inline
def _boundary_rows(
    rows: Any, height: int, width: int, distance: int, here: Any, there: Any, box: Any
) -> None:
    """Bits of a mask to bits of its boundary, in place. Only the mask's box changes: `box`, from `find_box`.

    A pixel survives erosion if the whole square of 2·distance + 1 around it is set; nothing is set outside the image.
    The square is split into a window along the row and a window down the column. Each is made by doubling:
    `w(2n) = w(n) & shift(w(n), n)`. The box is copied with a word of zeros after each row, so that a shift along rows
    is one loop over all of them. `here` and `there` are buffers that take turns as source and target.
    """
    stride = (width + 63) >> 6
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
        # A step along a row is less than a word; a wider window takes more steps.
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
    # A window begins at its pixel but the square is centred on it, so the result moves by `distance` both ways.
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
            # Two shifts, because a shift by 64 is undefined.
            eroded[k] &= ~((moved[k] << bits) | ((moved[k - 1] >> back) >> _U1))


@jit("in u8, in i8, in i8, in i8, in i8, i8, i8, i8, out u8, out i8 -> void")
def boundaries_of_packed(
    words: Any, word_offsets: Any, heights: Any, widths: Any, distances: Any, scratch: int, first: int,
    last: int, boundaries: Any, areas: Any,
) -> None:  # fmt: skip
    """Packed masks to the packed bits and areas of their boundaries; `boundaries` must be zeros."""
    rows = np.empty(scratch, np.uint64)
    here, there = np.empty(2 * scratch, np.uint64), np.empty(2 * scratch, np.uint64)
    box = np.empty(4, np.int64)
    for m in range(first, last):
        width, at = widths[m], word_offsets[m]
        start, stop = span(words, at, word_offsets[m + 1])
        # Empty rows above and below are left out: for the erosion they are like rows outside the image.
        above = (64 * (start - at)) // width
        below = min(heights[m], (64 * (stop - at) + width - 1) // width)
        first_bit = 64 * at + above * width
        height = max(0, below - above)
        rows_from_packed(words, first_bit, height, width, rows)
        stride = (width + 63) >> 6
        find_box(rows, height, stride, box)
        _boundary_rows(rows, height, width, distances[m], here, there, box)
        n = _U0
        for y in range(box[0], box[1]):
            for k in range(box[2], box[3]):
                n += popcount(rows[np.uint64(y * stride + k)])
        areas[m] = n
        pack_rows(rows, width, box[0], box[1], box[2], box[3], first_bit, boundaries)


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
            # Bits read beyond the row, or twice at the very end, are ANDed with bits that are 0.
            area += popcount(bits)
            intersection += popcount(bits & bits_from(truth, truth_at + y * width + 64 * k))
    return intersection, area


@inline
def _count_rows(
    rows: Any, height: int, width: int, distance: int, reach: int, here: Any, there: Any, canvas: Any, other: Any,
    box: Any, shape: Any, boundaries: Any, contours: Any, wide: Any, truth_at: int, counts: Any, at: int,
) -> None:  # fmt: skip
    """All counts of a mask given as rows, written to `counts` from `at` on; the rows are overwritten."""
    find_box(rows, height, (width + 63) >> 6, box)
    counts[at + 2], counts[at + 3], counts[at + 4] = count_contour(
        rows, height, width, reach, canvas, other, box, shape, contours, wide, truth_at
    )
    counts[at], counts[at + 1] = _count_boundary(
        rows, height, width, distance, here, there, box, boundaries, truth_at
    )


@inline
def _share_in_box(box: Any, height: int, width: int) -> float:
    return max(0, box[1] - box[0]) * max(0, box[3] - box[2]) / (height * ((width + 63) >> 6))


@jit(
    "in u1, i8, i8, in i8, in i8, in i8, in i8, in i8, in u8, in u8, in u8, in i8, i8, i8, i8, i8, out i8, out f8 "
    "-> void"
)
def count_mask_boundaries(
    pixels: Any, area: int, pitch: int, sample: Any, heights: Any, widths: Any, distances: Any, reaches: Any,
    boundaries: Any, contours: Any, wide: Any, word_offsets: Any, scratch: int, room: int, first: int, last: int,
    counts: Any, cropped: Any,
) -> None:  # fmt: skip
    """Dense masks against packed boundaries and contours, to [B, 5] counts and the share of the image in the box.

    `area` bytes hold a mask and `pitch` bytes a row of it; the image is at its top left.
    """
    rows = np.empty(scratch, np.uint64)
    here, there = np.empty(2 * scratch, np.uint64), np.empty(2 * scratch, np.uint64)
    canvas, other = np.empty(room, np.uint64), np.empty(room, np.uint64)
    box, shape = np.empty(4, np.int64), np.empty(2, np.int64)
    for b in range(first, last):
        mask = sample[b]
        height, width = heights[mask], widths[mask]
        rows_from_bytes(pixels, b * area, pitch, height, width, rows)
        _count_rows(
            rows, height, width, distances[mask], reaches[mask], here, there, canvas, other, box, shape, boundaries,
            contours, wide, 64 * word_offsets[mask], counts, 5 * b,
        )  # fmt: skip
        cropped[b] = _share_in_box(box, height, width)


@jit(
    "in i4, in i8, in i8, in i8, in i8, in i8, in i8, in u8, in u8, in u8, in i8, i8, i8, i8, i8, out i8, out f8 "
    "-> void"
)
def count_run_boundaries(
    ends: Any, run_offsets: Any, sample: Any, heights: Any, widths: Any, distances: Any, reaches: Any,
    boundaries: Any, contours: Any, wide: Any, word_offsets: Any, scratch: int, room: int, first: int, last: int,
    counts: Any, cropped: Any,
) -> None:  # fmt: skip
    """Masks given as runs against packed boundaries and contours; as `count_mask_boundaries`."""
    rows = np.empty(scratch, np.uint64)
    here, there = np.empty(2 * scratch, np.uint64), np.empty(2 * scratch, np.uint64)
    canvas, other = np.empty(room, np.uint64), np.empty(room, np.uint64)
    box, shape = np.empty(4, np.int64), np.empty(2, np.int64)
    for b in range(first, last):
        mask = sample[b]
        height, width = heights[mask], widths[mask]
        rows_from_runs(ends, run_offsets[b], run_offsets[b + 1], height, width, rows)
        _count_rows(
            rows, height, width, distances[mask], reaches[mask], here, there, canvas, other, box, shape, boundaries,
            contours, wide, 64 * word_offsets[mask], counts, 5 * b,
        )  # fmt: skip
        cropped[b] = _share_in_box(box, height, width)
