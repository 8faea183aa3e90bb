"""Numba kernels over dense masks and packed bits: count, intersect, pack. Launched by `cpu.py`.

Packed bits are row-major and unpadded inside a mask: pixel (y, x) is bit y·W + x, low bit first, of the mask's
uint64 words; each mask begins on a word and the bits after its last pixel are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu_jit import jit, nonzero64, popcount


@jit("in u1, i8, in i8, in u8, in i8, i8, i8, out i8 -> void")
def count_masks(
    pixels: Any,
    n_pixels: int,
    sample: Any,
    words: Any,
    word_offsets: Any,
    first: int,
    last: int,
    counts: Any,
) -> None:
    """Dense masks [B, n_pixels], any nonzero byte set, against packed rows; `counts` [B, 2] flat."""
    whole = n_pixels // 64
    for row in range(first, last):
        base = row * n_pixels
        target = word_offsets[sample[row]]
        intersection = np.uint64(0)
        area = np.uint64(0)
        for k in range(whole):
            word = nonzero64(pixels, base + 64 * k)
            area += popcount(word)
            intersection += popcount(word & words[target + k])
        if n_pixels > 64 * whole:
            word = np.uint64(0)
            for k in range(64 * whole, n_pixels):
                if pixels[base + k] != 0:
                    word |= np.uint64(1) << np.uint64(k & 63)
            area += popcount(word)
            intersection += popcount(word & words[target + whole])
        counts[2 * row] = intersection
        counts[2 * row + 1] = area


@jit("in i4, in i8, in i8, in i8, in i8, i8, i8, out u8 -> void")
def pack_runs(
    ends: Any,
    run_offsets: Any,
    heights: Any,
    widths: Any,
    word_offsets: Any,
    first: int,
    last: int,
    words: Any,
) -> None:
    """Column-major runs to row-major packed bits; `words` comes in as zeros."""
    for row in range(first, last):
        base, height, width = run_offsets[row], heights[row], widths[row]
        start_word = word_offsets[row]
        for k in range(1, run_offsets[row + 1] - base, 2):
            start, stop = ends[base + k - 1], ends[base + k]
            column = start // height
            y = start - column * height
            for _ in range(stop - start):
                bit = y * width + column
                words[start_word + (bit >> 6)] |= np.uint64(1) << np.uint64(bit & 63)
                y += 1
                if y == height:
                    y = 0
                    column += 1
