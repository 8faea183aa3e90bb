"""COCO RLE strings and stored run ends in, counts out: parsed, validated and intersected on the device, no pixels made.

A program takes one string, a block of characters at a time, one lane per character. The lane of a number's last
character gathers the characters before it. Three prefix sums, carried from block to block, give the numbers before it,
the runs (sums of differences) and the totals of the runs. rank(p), the target's set pixels before p, is a binary
search. The intersection is the sum of rank(end) − rank(start) over the runs of ones.

A fault in a string is noted and its numbers are computed all the same. The string is sound if no fault was noted and
its runs total H·W. Runs have 32 bits. The first run that needs more is the sum of one that fits and a difference of at
most 2**30 + 31, so it wraps around to a negative value, which is noted. Before that, a run larger than the mask makes
the total too large. Totals have 64 bits, which no string of fewer than 2**31 characters exceeds.

Shapes: `B` strings, `D` characters of them all, `M` stored masks, `R` runs of them all.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.rle_status import MAX_CHARACTERS as _MAX_CHARACTERS

MAX_CHARACTERS = tl.constexpr(_MAX_CHARACTERS)


@triton.jit
def _numbers(text, at, length):
    """The number that ends at each lane's character.

    Args:
        text: Pointer to the string's first character, uint8.
        at: [N] int32 positions in it.
        length: int32 its characters.

    Returns:
        [N] bool whether a number ends here, [N] int32 the number, [N] bool whether it is the string's first,
        [N] bool whether there is a fault.
    """
    inside = at < length
    digit = tl.load(text + at, mask=inside, other=48).to(tl.int32) - 48
    wrong = (digit < 0) | (digit > 63)
    is_last = inside & ((digit & 32) == 0)
    # The string must not end within a number.
    wrong |= (at == length - 1) & ((digit & 32) != 0)
    # Bit 4 of the last character is the sign.
    value = (digit & 31) - ((digit & 16) << 1)
    begins = at
    continues = is_last
    for back in tl.static_range(1, MAX_CHARACTERS):
        before = at - back
        digit = tl.load(text + before, mask=continues & (before >= 0), other=48).to(tl.int32) - 48
        continues &= (digit & 32) != 0
        if back == MAX_CHARACTERS - 1:
            # No run lies beyond ±2**30, and with one more character the value would not fit.
            wrong |= continues & ((value > 1 << 25) | (value < -(1 << 25)))
        value = tl.where(continues, (value << 5) | (digit & 31), value)
        begins = tl.where(continues, before, begins)
    before = at - MAX_CHARACTERS
    digit = tl.load(text + before, mask=continues & (before >= 0), other=48).to(tl.int32) - 48
    wrong |= continues & ((digit & 32) != 0)
    return is_last, value, begins == 0, wrong


@triton.jit
def _rank(ends, ranks, n_runs, position, active):
    """Set pixels of a mask of `n_runs` runs before [N] int32 positions, each of 0 … H·W."""
    low = tl.zeros_like(position)
    high = low + (n_runs - 1)
    left = n_runs
    while left > 1:
        middle = (low + high) >> 1
        beyond = tl.load(ends + middle, mask=active, other=0) < position
        low = tl.where(beyond, middle + 1, low)
        high = tl.where(beyond, high, middle)
        left = (left + 1) >> 1
    at = tl.minimum(low, high)
    end = tl.load(ends + at, mask=active, other=0)
    # Inside a run of ones, the part of the run from `position` on is subtracted.
    return tl.load(ranks + at, mask=active, other=0) - tl.where((at & 1) != 0, end - position, 0)


@triton.jit
def intersect_strings(
    data, offsets, sample, target_ends, target_ranks, target_offsets, pixels, counts, valid,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the counts of one string to `counts` [B, 2] int64, and whether it is sound to `valid` [B] int8."""
    row = tl.program_id(0).to(tl.int64)
    mask = tl.load(sample + row)
    start = tl.load(offsets + row)
    length = (tl.load(offsets + row + 1) - start).to(tl.int32)
    text = data + start
    first = tl.load(target_offsets + mask)
    n_runs = (tl.load(target_offsets + mask + 1) - first).to(tl.int32)
    target_ends += first
    target_ranks += first
    limit = tl.load(pixels + mask).to(tl.int32)
    lane = tl.arange(0, BLOCK)
    wrong = lane < 0
    intersection = tl.zeros([BLOCK], tl.int64)
    area = tl.zeros([BLOCK], tl.int32)
    n_before = tl.cast(0, tl.int32)
    end_before = tl.cast(0, tl.int64)
    chains_before = tl.cast(0, tl.int64)
    for block in range(0, length, BLOCK):
        is_last, value, is_first, bad = _numbers(text, block + lane, length)
        number = is_last.to(tl.int32)
        odd = ((n_before + tl.cumsum(number) - number) & 1) != 0
        # Each number is the difference from the run two before. Odd runs add up in the high half, even runs in the low
        # half. The first run takes no part, because the third run is not written as a difference.
        difference = tl.where(is_last & (is_first == 0), value, 0).to(tl.int64)
        difference = tl.where(odd, difference << 32, difference)
        chains = chains_before + tl.cumsum(difference)
        even_run = chains.to(tl.int32)
        odd_run = ((chains - even_run) >> 32).to(tl.int32)
        run = tl.where(is_first, value, tl.where(odd, odd_run, even_run))
        run = tl.where(is_last, run, 0)
        wrong |= bad | (run < 0)
        end = end_before + tl.cumsum(run.to(tl.int64))
        end = tl.minimum(tl.maximum(end, 0), limit).to(tl.int32)
        rank = _rank(target_ends, target_ranks, n_runs, end, is_last & (n_runs > 0))
        # Odd runs are the runs of ones: each ends at its own end and starts at the end of the even run before it.
        intersection += tl.where(is_last, tl.where(odd, rank, -rank), 0).to(tl.int64)
        area += tl.where(odd, run, 0)
        n_before += tl.sum(number)
        chains_before += tl.sum(difference)
        end_before += tl.sum(run.to(tl.int64))
    sound = (end_before == limit) & (tl.max(wrong.to(tl.int32)) == 0)
    # A string that ends with a run of zeros has subtracted a start with no run of ones after it.
    unpaired = sound & ((n_before & 1) != 0)
    whole = tl.load(target_ranks + n_runs - 1, mask=unpaired & (n_runs > 0), other=0)
    tl.store(counts + 2 * row, tl.where(sound, tl.sum(intersection) + whole, 0))
    tl.store(counts + 2 * row + 1, tl.where(sound, tl.sum(area.to(tl.int64)), 0))
    tl.store(valid + row, sound.to(tl.int8))


def rle_counts(
    data: Tensor,
    offsets: Tensor,
    sample: Tensor,
    target_ends: Tensor,
    target_ranks: Tensor,
    target_offsets: Tensor,
    pixels: Tensor,
    *,
    block: int = 128,
    warps: int = 1,
) -> tuple[Tensor, Tensor]:
    """Intersect a column of COCO RLE strings with stored masks, without decoding to pixels.

    Equal to `cpu.rle_counts`, which also reports the fault of an unsound string. Nothing waits for the device.

    Args:
        data: [D] uint8 characters of all strings, one after the other; fewer than 2**31 in a string.
        offsets: [B + 1] int64 where each string begins.
        sample: [B] int64 stored mask each string is scored against.
        target_ends: [R] int32 run ends of the stored masks.
        target_ranks: [R] int32 `ops.run_ranks` of them.
        target_offsets: [M + 1] int64 where a stored mask's runs begin.
        pixels: [M] int64 H·W of each stored mask, at most 2**30.
        block: Characters read at a time, a power of two.
        warps: Warps of a program; with one, prefix sums need no barrier.

    Returns:
        [B, 2] int64 intersection and predicted area, and [B] bool whether the string is sound; counts are 0 if not.
    """
    n_rows = len(sample)
    counts = torch.empty(n_rows, 2, dtype=torch.int64, device=data.device)
    valid = torch.empty(n_rows, dtype=torch.int8, device=data.device)
    if n_rows:
        with on_device_of(data):
            intersect_strings[(n_rows,)](
                data.contiguous(),
                offsets.contiguous(),
                sample.contiguous(),
                target_ends.contiguous(),
                target_ranks.contiguous(),
                target_offsets.contiguous(),
                pixels.contiguous(),
                counts,
                valid,
                BLOCK=block,
                num_warps=warps,
            )
    return counts, valid.bool()
