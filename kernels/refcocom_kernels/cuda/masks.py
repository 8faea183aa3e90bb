"""Dense masks in, intersections and areas out: counted against packed stored masks on the device.

There is one pass over the bytes. Each lane loads 16 bytes at once (128 bits) and turns them into 16 bits. One
population count gives their area, another their intersection with the 16 bits of the stored mask.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.bits import both_counts, chunk_bits, chunk_pointers, edge_bits, shift_of
from refcocom_kernels.cuda.launch import on_device_of


@triton.jit
def _truth_bits(pointers, shift, low_exists, high_exists):
    # If the mask does not begin at a multiple of 16, the 16 bits of a chunk lie across two half-words.
    low = tl.load(pointers - 1, mask=low_exists, other=0).to(tl.uint16, bitcast=True)
    high = tl.load(pointers, mask=high_exists, other=0).to(tl.uint16, bitcast=True)
    return (low.to(tl.uint32) | (high.to(tl.uint32) << 16)) >> (16 - shift).to(tl.uint32)


@triton.jit
def _count_masks(
    masks,
    stride,
    pixels,
    sample,
    halves,
    word_offsets,
    counts,
    tiles,
    LANES: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    tl.static_assert(LANES * ROUNDS * 32 + 32 < 65536)
    row = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    mask = masks + row.to(tl.int64) * stride
    shift = shift_of(mask)
    truth = halves + tl.load(word_offsets + tl.load(sample + row)) * 4
    first = (shift > 0).to(tl.int32)
    last = (shift + pixels) >> 4
    start = tile * (2 * ROUNDS * LANES) + tl.arange(0, LANES)
    pointers = chunk_pointers(mask, shift, start)
    both = tl.zeros([LANES], tl.uint32)
    for step in tl.static_range(ROUNDS):
        # Two chunks fill the 32 bits of a population count.
        bits, target = tl.zeros([LANES], tl.uint32), tl.zeros([LANES], tl.uint32)
        for half in tl.static_range(2):
            ahead = (2 * step + half) * LANES
            inside = (start + ahead >= first) & (start + ahead < last)
            bits |= chunk_bits(pointers + ahead * 4, inside) << (16 * half)
            found = _truth_bits(truth + start + ahead, shift, inside & (shift > 0), inside)
            target |= (found & 0xFFFF) << (16 * half)
        both += both_counts(bits, target)
    total = tl.sum(both)
    if tile == 0:
        edge, exists, edges = edge_bits(mask, shift, pixels)
        low_exists, high_exists = exists & (shift > 0) & (edge > 0), exists & (edge * 16 < pixels)
        wanted = _truth_bits(truth + edge, shift, low_exists, high_exists)
        total += tl.sum(both_counts(edges, wanted))
    area, intersection = (total & 0xFFFF).to(tl.int64), (total >> 16).to(tl.int64)
    tl.atomic_add(counts + row * 2, intersection, mask=intersection > 0, sem="relaxed")
    tl.atomic_add(counts + row * 2 + 1, area, mask=area > 0, sem="relaxed")


def rows_of_bytes(masks: Tensor) -> Tensor:
    """[B, H, W] masks as [B, H·W] bytes: a view if each mask is contiguous, else a copy."""
    if masks.dtype not in (torch.bool, torch.uint8):
        raise TypeError(f"masks are bool or uint8, not {masks.dtype}")
    if masks[:1].is_contiguous():
        return masks.view(torch.uint8).flatten(1)
    return masks.contiguous().view(torch.uint8).flatten(1)


def mask_counts(
    masks: Tensor,
    sample: Tensor,
    words: Tensor,
    word_offsets: Tensor,
    *,
    lanes: int = 128,
    rounds: int = 4,
) -> Tensor:
    """Count dense masks of one size against packed stored masks.

    Args:
        masks: [B, H, W] bool or uint8, H·W at most 2**30; what is not 0 is set. Any distance may lie between two masks.
        sample: [B] int64 the stored mask each is scored against; each must have H·W pixels.
        words: [P] int64, packed bits of the stored masks.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        lanes: Chunks of 16 pixels that a program loads at a time.
        rounds: Rounds of a program; it loads twice in each.

    Returns:
        [B, 2] int64 intersection and predicted area.
    """
    counts = torch.zeros((len(masks), 2), dtype=torch.int64, device=masks.device)
    if masks.numel() == 0:
        return counts
    rows = rows_of_bytes(masks)
    pixels = rows.shape[1]
    tiles = triton.cdiv(pixels, 32 * lanes * rounds)
    with on_device_of(masks):
        _count_masks[(len(rows) * tiles,)](
            rows,
            rows.stride(0),
            pixels,
            sample.contiguous(),
            words.view(torch.int16),
            word_offsets,
            counts,
            tiles,
            LANES=lanes,
            ROUNDS=rounds,
            num_warps=4,
        )
    return counts
