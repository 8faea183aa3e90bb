"""Packed masks of one image in, the intersections of all pairs out.

A program takes a few masks of either side and a stretch of their words. Each word is loaded once and ANDed with the
words of all masks of the other side. Each lane adds up its words of each pair; the lanes are summed at the end.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.bits import popcount
from refcocom_kernels.cuda.launch import on_device_of


@triton.jit
def _count_pairs(
    first,
    first_offsets,
    n_first,
    second,
    second_offsets,
    n_second,
    n_words,
    intersections,
    tiles,
    stretches,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    LANES: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    stretch = tl.program_id(0) % stretches
    tile = tl.program_id(0) // stretches
    row = (tile // tiles) * ROWS + tl.arange(0, ROWS)
    column = (tile % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    word = stretch * (ROUNDS * LANES) + tl.arange(0, LANES)
    # Rows and columns beyond the last read words from 0 on, which exist, and are masked out at the end.
    start = tl.load(first_offsets + row, mask=row < n_first, other=0)
    mine = first + start[:, None, None] + word[None, None, :]
    start = tl.load(second_offsets + column, mask=column < n_second, other=0)
    theirs = second + start[None, :, None] + word[None, None, :]
    found = tl.zeros([ROWS, COLUMNS, LANES], tl.uint32)
    for step in range(ROUNDS):
        exists = (word + step * LANES < n_words)[None, None, :]
        a = tl.load(mine + step * LANES, mask=exists, other=0)
        b = tl.load(theirs + step * LANES, mask=exists, other=0)
        both = (a & b).to(tl.uint64, bitcast=True)
        found += popcount(both.to(tl.uint32)) + popcount((both >> 32).to(tl.uint32))
    total = tl.sum(found, axis=2).to(tl.int64)
    place = row[:, None].to(tl.int64) * n_second + column[None, :]
    exists = (row < n_first)[:, None] & (column < n_second)[None, :]
    tl.atomic_add(intersections + place, total, mask=exists & (total > 0), sem="relaxed")


def pairwise_intersections(
    first: Tensor,
    first_offsets: Tensor,
    second: Tensor,
    second_offsets: Tensor,
    n_words: int,
    *,
    rows: int = 4,
    columns: int = 4,
    lanes: int = 128,
    rounds: int = 8,
) -> Tensor:
    """Intersections of all pairs of packed masks of one image.

    Args:
        first: [P] int64, packed bits of A masks.
        first_offsets: [A + 1] int64 where each begins.
        second: [P] int64, packed bits of B masks of the same size.
        second_offsets: [B + 1] int64 where each begins.
        n_words: 64-bit words of each mask, ⌈H·W / 64⌉; given, because reading the offsets would wait for the device.
        rows: Masks of the first side that a program takes, a power of two.
        columns: Masks of the second side that it takes, a power of two.
        lanes: Words that it takes at a time, a power of two.
        rounds: How often it takes that many words.

    Returns:
        [A, B] int64.
    """
    n_first, n_second = len(first_offsets) - 1, len(second_offsets) - 1
    intersections = torch.zeros((n_first, n_second), dtype=torch.int64, device=first.device)
    if intersections.numel() == 0 or n_words == 0:
        return intersections
    tiles = triton.cdiv(n_second, columns)
    stretches = triton.cdiv(n_words, lanes * rounds)
    with on_device_of(first):
        _count_pairs[(triton.cdiv(n_first, rows) * tiles * stretches,)](
            first,
            first_offsets,
            n_first,
            second,
            second_offsets,
            n_second,
            n_words,
            intersections,
            tiles,
            stretches,
            ROWS=rows,
            COLUMNS=columns,
            LANES=lanes,
            ROUNDS=rounds,
            num_warps=4,
        )
    return intersections
