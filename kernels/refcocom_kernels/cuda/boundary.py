"""Dense masks in, counts of boundaries and contours out: masks are packed to bits, eroded, widened and counted.

The erosion of boundary-iou-api (`boundary_iou/utils/boundary_utils.py`), 3×3, `distance` times, with nothing set
outside the image, leaves the pixels whose window of (2·distance + 1)² is all set and inside the image. Four passes:

1. pack bytes to bits, one string per mask (an eighth of the bytes; the other passes work on bits);
2. take windows along rows, by shifts of 64 bits. Windows that leave their row are cleared, so the bits they read
   beyond it do not matter. The result has rows of whole words;
3. take windows of about √(2·distance + 1) rows;
4. combine a few of those into windows of 2·distance + 1 rows, remove them from the mask, and count.

Contours take three more passes over the same bits (`contours.py`). The image of each mask is at its top left and has a
size of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.bits import (
    add_counts,
    bits32_at,
    bits64_at,
    chunk_bits,
    chunk_pointers,
    columns_between,
    edge_bits,
    shift_of,
    stored_bits,
)
from refcocom_kernels.cuda.contours import count_matched, draw_contours, widen_rows
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
def _erode_rows(
    masks,
    stride,
    pitch,
    sample,
    heights,
    widths,
    distances,
    strings,
    n_words,
    eroded,
    max_height,
    row_words,
    tiles,
    BLOCK: tl.constexpr,
):
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(sample + mask)
    distance = tl.load(distances + target).to(tl.int32)
    height, width = tl.load(heights + target).to(tl.int32), tl.load(widths + target).to(tl.int32)
    string = strings + mask.to(tl.int64) * n_words
    shift = shift_of(masks + mask.to(tl.int64) * stride)
    row, word = place // row_words, place % row_words
    start = row * pitch + word * 32 + shift - distance
    windows = columns_between(word, distance, width - distance)
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
        eroded + mask.to(tl.int64) * max_height * row_words + place,
        tl.where(row < height, windows, 0).to(tl.int32, bitcast=True),
        mask=place < max_height * row_words,
    )


@triton.jit
def _strip_rows(distance):
    # About the root of the window, so that the two passes read as few rows as possible.
    rows = 1
    while (rows + 1) * (rows + 1) <= 2 * distance + 1:
        rows += 1
    return rows


@triton.jit
def _erode_strips(
    sample, distances, eroded, strips, max_height, row_words, tiles, BLOCK: tl.constexpr
):
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    distance = tl.load(distances + tl.load(sample + mask)).to(tl.int32)
    n_words = max_height * row_words
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
    pitch,
    sample,
    heights,
    widths,
    distances,
    strings,
    n_string_words,
    strips,
    max_height,
    row_words,
    truth,
    word_offsets,
    counts,
    tiles,
    BLOCK: tl.constexpr,
):
    tl.static_assert(BLOCK * 32 < 65536)
    mask = tl.program_id(0) // tiles
    place = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(sample + mask)
    distance = tl.load(distances + target).to(tl.int32)
    height, width = tl.load(heights + target).to(tl.int32), tl.load(widths + target).to(tl.int32)
    string = strings + mask.to(tl.int64) * n_string_words
    shift = shift_of(masks + mask.to(tl.int64) * stride)
    n_words = max_height * row_words
    origin = mask.to(tl.int64) * n_words
    rows = _strip_rows(distance)
    survivors = tl.full([BLOCK], -1, tl.int32)
    for offset in range(0, 2 * distance + 1, rows):
        # The last strip overlaps the one before, so that it does not reach beyond the window.
        ahead = tl.minimum(offset, 2 * distance + 1 - rows) - distance
        there = place + ahead * row_words
        survivors &= tl.load(
            strips + origin + there, mask=(there >= 0) & (there < n_words), other=0
        )
    row, word = place // row_words, place % row_words
    bits = bits32_at(string, row * pitch + word * 32 + shift, n_string_words)
    bits &= columns_between(word, 0, width)
    bits = tl.where(row < height, bits, 0) & (~survivors).to(tl.uint32, bitcast=True)
    stored = stored_bits(truth, word_offsets, target, row, word, height, width)
    add_counts(counts, mask, 1, 0, bits, stored)


def mask_boundary_counts(
    masks: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    boundaries: Tensor,
    distances: Tensor,
    contours: Tensor,
    wide: Tensor,
    reaches: Tensor,
    word_offsets: Tensor,
    *,
    chunks: int = 512,
    block: int = 512,
) -> Tensor:
    """Count the boundaries and contours of dense masks in one tensor against stored ones.

    Args:
        masks: [B, h, w] bool or uint8, h·w at most 2**30; what is not 0 is set. Each image is at the top left; what
            lies beyond it does not matter. Any distance may lie between two masks.
        sample: [B] int64 the stored mask each is scored against; none may be larger than h × w.
        heights: [M] int64 H of the stored masks.
        widths: [M] int64 W.
        boundaries: [P] int64, packed bits of the boundaries of the stored masks.
        distances: [M] int64 width of each stored mask's boundary in pixels, at least 1.
        contours: [P] int64, packed bits of the contours of the stored masks.
        wide: [P] int64, the same widened by their reach.
        reaches: [M] int64 how far apart contour pixels may be that match, at least 1.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        chunks: Chunks of 16 pixels that a program packs in the first pass.
        block: Words of 32 pixels that a program takes in the other passes.

    Returns:
        [B, 5] int64 intersection and predicted area of the boundaries; pixels of the predicted contour, those of them
        that match, and the pixels of the true contour that match.
    """
    counts = torch.zeros((len(masks), 5), dtype=torch.int64, device=masks.device)
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
    first, second = scratch(height * row_words), scratch(height * row_words)
    pack_tiles = triton.cdiv(pixels, 16 * chunks)
    tiles = triton.cdiv(height * row_words, block)
    bytes_of, sizes, shape = (rows, rows.stride(0), width), (heights, widths), (height, row_words)
    truth, inner, outer = (words.view(torch.int32) for words in (boundaries, contours, wide))
    grid, options = (n_masks * tiles,), {"BLOCK": block, "num_warps": 4}
    with on_device_of(masks):
        _pack[(n_masks * pack_tiles,)](
            rows, rows.stride(0), pixels, strings.view(torch.int16), 2 * n_string_words, pack_tiles,
            CHUNKS=chunks, num_warps=4,
        )  # fmt: skip
        _erode_rows[grid](
            *bytes_of, sample, *sizes, distances, strings, n_string_words, first, *shape, tiles, **options
        )  # fmt: skip
        _erode_strips[grid](sample, distances, first, second, *shape, tiles, **options)
        _count_boundaries[grid](
            *bytes_of, sample, *sizes, distances, strings, n_string_words, second, *shape, truth, word_offsets, counts,
            tiles, **options,
        )  # fmt: skip
        draw_contours[grid](
            *bytes_of, sample, *sizes, strings, n_string_words, outer, word_offsets, first, *shape, counts, tiles,
            **options,
        )  # fmt: skip
        widen_rows[grid](sample, reaches, first, second, *shape, tiles, **options)
        count_matched[grid](
            sample, *sizes, reaches, second, inner, word_offsets, *shape, counts, tiles, **options
        )
    return counts
