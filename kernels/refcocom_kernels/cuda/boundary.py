"""Dense masks in, boundary counts out: masks are packed to bits, eroded along rows and down columns, and counted.

The erosion of boundary-iou-api (`boundary_iou/utils/boundary_utils.py`), 3×3, `distance` times, with nothing set
outside the image, leaves the pixels whose window of (2·distance + 1)² is all set and inside the image. Four passes:

1. pack bytes to bits, one string per mask (an eighth of the bytes; the other passes work on bits);
2. take windows along rows, by shifts of 64 bits. Windows that leave their row are cleared, so the bits they read
   beyond it do not matter. The result has rows of whole words;
3. take windows of about √(2·distance + 1) rows;
4. combine a few of those into windows of 2·distance + 1 rows, remove them from the mask, and count.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.bits import (
    bits32_at,
    bits64_at,
    both_counts,
    chunk_bits,
    chunk_pointers,
    edge_bits,
    shift_of,
)
from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.cuda.masks import rows_of_bytes


@triton.jit
def _pack(masks, stride, pixels, strings, n_chunks, tiles, CHUNKS: tl.constexpr):
    # A string keeps the shift of its mask: each chunk of bytes is a half-word of the string.
    row = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    mask = masks + row.to(tl.int64) * stride
    string = strings + row.to(tl.int64) * n_chunks
    shift = shift_of(mask)
    chunk = tile * CHUNKS + tl.arange(0, CHUNKS)
    inside = (chunk >= (shift > 0).to(tl.int32)) & (chunk < (shift + pixels) >> 4)
    bits = chunk_bits(chunk_pointers(mask, shift, chunk), inside)
    tl.store(string + chunk, bits.to(tl.int16), mask=inside)
    if tile == 0:
        edge, exists, edges = edge_bits(mask, shift, pixels)
        tl.store(string + edge, edges.to(tl.int16), mask=exists)


@triton.jit
def _columns_between(word, low, high):
    # Ones at the bits of word `word` of a row whose columns are at least `low` and less than `high`.
    ones = tl.full(word.shape, 0xFFFFFFFF, tl.uint64)
    below = tl.minimum(tl.maximum(low - word * 32, 0), 32)
    above = tl.minimum(tl.maximum(high - word * 32, below), 32)
    return ((ones << below.to(tl.uint64)) ^ (ones << above.to(tl.uint64))).to(tl.uint32)


@triton.jit
def _erode_rows(
    masks,
    stride,
    height,
    width,
    sample,
    distances,
    strings,
    n_words,
    eroded,
    row_words,
    tiles,
    BLOCK: tl.constexpr,
):
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    distance = tl.load(distances + tl.load(sample + mask)).to(tl.int32)
    string = strings + mask.to(tl.int64) * n_words
    shift = shift_of(masks + mask.to(tl.int64) * stride)
    row, word = place // row_words, place % row_words
    exists = place < height * row_words
    start = row * width + word * 32 + shift - distance
    windows = _columns_between(word, distance, width - distance)
    # 64 bits hold the 32 windows of up to 33 bits that begin in their first half; longer windows combine several.
    for offset in range(0, tl.maximum(2 * distance, 1), 32):
        run = bits64_at(string, start + offset, n_words)
        length = 1
        wanted = tl.minimum(2 * distance + 1 - offset, 33)
        for _ in tl.static_range(6):
            more = tl.minimum(length, wanted - length)
            run &= run >> more.to(tl.uint64)
            length += more
        windows &= run.to(tl.uint32)
    tl.store(
        eroded + mask.to(tl.int64) * height * row_words + place,
        windows.to(tl.int32, bitcast=True),
        mask=exists,
    )


@triton.jit
def _strip_rows(distance):
    # About the root of the window, so that the two passes read as few rows as possible.
    rows = 1
    while (rows + 1) * (rows + 1) <= 2 * distance + 1:
        rows += 1
    return rows


@triton.jit
def _erode_strips(sample, distances, eroded, strips, height, row_words, tiles, BLOCK: tl.constexpr):
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    distance = tl.load(distances + tl.load(sample + mask)).to(tl.int32)
    n_words = height * row_words
    origin = mask.to(tl.int64) * n_words
    windows = tl.full([BLOCK], -1, tl.int32)
    for row in range(_strip_rows(distance)):
        # Below the last row nothing is set.
        below = place + row * row_words
        windows &= tl.load(eroded + origin + below, mask=below < n_words, other=0)
    tl.store(strips + origin + place, windows, mask=place < n_words)


@triton.jit
def _count_boundaries(
    masks,
    stride,
    height,
    width,
    sample,
    distances,
    strings,
    n_string_words,
    strips,
    row_words,
    truth,
    word_offsets,
    n_truth_words,
    counts,
    tiles,
    BLOCK: tl.constexpr,
):
    tl.static_assert(BLOCK * 32 < 65536)
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(sample + mask)
    distance = tl.load(distances + target).to(tl.int32)
    goal = truth + tl.load(word_offsets + target) * 2
    string = strings + mask.to(tl.int64) * n_string_words
    shift = shift_of(masks + mask.to(tl.int64) * stride)
    n_words = height * row_words
    origin = mask.to(tl.int64) * n_words
    rows = _strip_rows(distance)
    survivors = tl.full([BLOCK], -1, tl.int32)
    for offset in range(0, 2 * distance + 1, rows):
        # The last strip overlaps the one before, so that it does not reach beyond the window.
        row = tl.minimum(offset, 2 * distance + 1 - rows) - distance
        there = place + row * row_words
        survivors &= tl.load(
            strips + origin + there, mask=(there >= 0) & (there < n_words), other=0
        )
    start = (place // row_words) * width + (place % row_words) * 32
    bits = bits32_at(string, start + shift, n_string_words)
    bits &= _columns_between(place % row_words, 0, width)
    bits = tl.where(place < n_words, bits, 0) & (~survivors).to(tl.uint32, bitcast=True)
    total = tl.sum(both_counts(bits, bits32_at(goal, start, n_truth_words)))
    area, intersection = (total & 0xFFFF).to(tl.int64), (total >> 16).to(tl.int64)
    tl.atomic_add(counts + mask * 2, intersection, mask=intersection > 0, sem="relaxed")
    tl.atomic_add(counts + mask * 2 + 1, area, mask=area > 0, sem="relaxed")


def mask_boundary_counts(
    masks: Tensor,
    sample: Tensor,
    truth_words: Tensor,
    word_offsets: Tensor,
    distances: Tensor,
    *,
    chunks: int = 512,
    block: int = 512,
) -> Tensor:
    """Count the boundaries of dense masks of one size against stored boundaries.

    Args:
        masks: [B, H, W] bool or uint8, H·W at most 2**30; what is not 0 is set. Any distance may lie between two masks.
        sample: [B] int64 the stored mask each is scored against; each must be [H, W].
        truth_words: [P] int64, packed bits of the boundaries of the stored masks.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        distances: [M] int64 width of each stored mask's boundary in pixels, at least 1.
        chunks: Chunks of 16 pixels that a program packs in the first pass.
        block: Words of 32 pixels that a program takes in the other passes.

    Returns:
        [B, 2] int64 intersection and predicted area of the boundaries.
    """
    counts = torch.zeros((len(masks), 2), dtype=torch.int64, device=masks.device)
    if masks.numel() == 0:
        return counts
    n_masks, height, width = masks.shape
    rows, sample = rows_of_bytes(masks), sample.contiguous()
    pixels = height * width
    row_words = triton.cdiv(width, 32)
    # A mask that begins `shift` bytes after a multiple of 16 makes a string with `shift` bits before its first pixel.
    n_string_words = triton.cdiv(pixels + 15, 32)

    def scratch(words: int) -> Tensor:
        return torch.empty((n_masks, words), dtype=torch.int32, device=masks.device)

    strings = scratch(n_string_words)
    eroded, strips = scratch(height * row_words), scratch(height * row_words)
    pack_tiles = triton.cdiv(pixels, 16 * chunks)
    tiles = triton.cdiv(height * row_words, block)
    mask_arguments = (rows, rows.stride(0), height, width, sample, distances)
    grid, options = (n_masks * tiles,), {"BLOCK": block, "num_warps": 4}
    with on_device_of(masks):
        _pack[(n_masks * pack_tiles,)](
            rows, rows.stride(0), pixels, strings.view(torch.int16), 2 * n_string_words, pack_tiles,
            CHUNKS=chunks, num_warps=4,
        )  # fmt: skip
        _erode_rows[grid](
            *mask_arguments, strings, n_string_words, eroded, row_words, tiles, **options
        )
        _erode_strips[grid](sample, distances, eroded, strips, height, row_words, tiles, **options)
        _count_boundaries[grid](
            *mask_arguments, strings, n_string_words, strips, row_words,
            truth_words.view(torch.int32), word_offsets, 2 * triton.cdiv(pixels, 64), counts, tiles,
            **options,
        )  # fmt: skip
    return counts
