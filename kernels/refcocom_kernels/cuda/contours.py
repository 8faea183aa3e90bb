"""Packed masks in, counts of their contours out: three passes, launched by `boundary.mask_boundary_counts`.

1. Find the contour, its set pixels with a neighbour that is not set, and count it against the widened stored contour.
   The result has rows of whole words.
2. Widen it along rows: each bit becomes the OR of the window around it.
3. Widen it down columns, and count it against the stored contour.
"""

from __future__ import annotations

import triton
import triton.language as tl

from refcocom_kernels.cuda.bits import (
    add_counts,
    bits32_at,
    bits64_at,
    columns_between,
    popcount,
    shift_of,
    stored_bits,
)


@triton.jit
def draw_contours(
    masks,
    stride,
    pitch,
    sample,
    heights,
    widths,
    strings,
    n_string_words,
    wide,
    word_offsets,
    drawn,
    max_height,
    row_words,
    counts,
    tiles,
    BLOCK: tl.constexpr,
):
    """Contours of a block of words, to `drawn` and to columns 2 and 3 of `counts`; program `b · tiles + tile`."""
    tl.static_assert(BLOCK * 32 < 65536)
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(sample + mask)
    height, width = tl.load(heights + target).to(tl.int32), tl.load(widths + target).to(tl.int32)
    string = strings + mask.to(tl.int64) * n_string_words
    shift = shift_of(masks + mask.to(tl.int64) * stride)
    row, word = place // row_words, place % row_words
    start = row * pitch + word * 32 + shift
    inner = columns_between(word, 1, width - 1)
    for ahead in tl.static_range(-1, 2):
        # The 32 windows of three pixels that begin one before each.
        run = bits64_at(string, start + (ahead * pitch - 1), n_string_words)
        window = (run & (run >> 1) & (run >> 2)).to(tl.uint32)
        inner &= tl.where((row + ahead >= 0) & (row + ahead < height), window, 0)
    bits = bits32_at(string, start, n_string_words) & columns_between(word, 0, width)
    bits = tl.where(row < height, bits & (inner ^ 0xFFFFFFFF), 0)
    stored = stored_bits(wide, word_offsets, target, row, word, height, width)
    add_counts(counts, mask, 2, 3, bits, stored)
    tl.store(
        drawn + mask.to(tl.int64) * max_height * row_words + place,
        bits.to(tl.int32, bitcast=True),
        mask=place < max_height * row_words,
    )


@triton.jit
def widen_rows(sample, reaches, drawn, widened, max_height, row_words, tiles, BLOCK: tl.constexpr):
    """Bits within `reach` along the row of a block of words of `drawn`; program `b · tiles + tile`."""
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    reach = tl.load(reaches + tl.load(sample + mask)).to(tl.int32)
    origin = mask.to(tl.int64) * max_height * row_words
    word = place % row_words
    exists = place < max_height * row_words
    row = drawn + origin + tl.where(exists, place - word, 0)
    windows = tl.zeros([BLOCK], tl.uint32)
    # As in `boundary._erode_rows`; beyond the words of its row a row has no bits.
    for offset in range(0, tl.maximum(2 * reach, 1), 32):
        run = bits64_at(row, word * 32 + offset - reach, row_words)
        length = 1
        wanted = tl.minimum(2 * reach + 1 - offset, 33)
        for _ in tl.static_range(6):
            more = tl.minimum(length, wanted - length)
            run |= run >> more.to(tl.uint64)
            length += more
        windows |= run.to(tl.uint32)
    tl.store(widened + origin + place, windows.to(tl.int32, bitcast=True), mask=exists)


@triton.jit
def count_matched(
    sample,
    heights,
    widths,
    reaches,
    widened,
    contours,
    word_offsets,
    max_height,
    row_words,
    counts,
    tiles,
    BLOCK: tl.constexpr,
):
    """Stored contour within reach of a block of words, to column 4 of `counts`; program `b · tiles + tile`."""
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(sample + mask)
    reach = tl.load(reaches + target).to(tl.int32)
    height, width = tl.load(heights + target).to(tl.int32), tl.load(widths + target).to(tl.int32)
    n_words = max_height * row_words
    origin = mask.to(tl.int64) * n_words
    near = tl.zeros([BLOCK], tl.int32)
    for ahead in range(-reach, reach + 1):
        there = place + ahead * row_words
        near |= tl.load(widened + origin + there, mask=(there >= 0) & (there < n_words), other=0)
    row, word = place // row_words, place % row_words
    bits = stored_bits(contours, word_offsets, target, row, word, height, width)
    bits &= near.to(tl.uint32, bitcast=True) & columns_between(word, 0, width)
    matched = tl.sum(popcount(tl.where(row < height, bits, 0)).to(tl.int64))
    tl.atomic_add(counts + mask.to(tl.int64) * 5 + 4, matched, mask=matched > 0, sem="relaxed")
