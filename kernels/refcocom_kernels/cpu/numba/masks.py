"""Numba kernels that count dense masks and packed bits against packed bits. Launched by `cpu/masks.py`.

Packed bits are row-major and unpadded inside a mask: pixel (y, x) is bit y·W + x, low bit first, of the mask's
uint64 words. Each mask begins at a new word, and the bits after its last pixel are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.jit import jit
from refcocom_kernels.cpu.numba.vectors import (
    AHEAD,
    equal64,
    nonzero64,
    popcount,
    prefetch,
    trailing_zeros,
)


@jit("in u1, i8, in i8, in u8, in i8, i8, i8, i8, out i8, out i1 -> void")
def count_masks(
    pixels: Any, n_pixels: int, sample: Any, words: Any, word_offsets: Any, looks: int, first: int, last: int,
    counts: Any, mixed: Any,
) -> None:  # fmt: skip
    """Dense masks [B, n_pixels], any nonzero byte set, against packed rows; `counts` [B, 2] flat.

    If `looks` is 1, `mixed` [B] becomes 1 where a mask holds more than one value other than 0: each byte is compared
    with the first that is not 0.
    """
    whole = n_pixels // 64
    for row in range(first, last):
        base = row * n_pixels
        target = word_offsets[sample[row]]
        intersection = np.uint64(0)
        area = np.uint64(0)
        # Before the first set pixel, and in all of the mask if nobody looks, there is nothing to compare with.
        value = np.uint8(0)
        other = np.uint64(0)
        k = 0
        while k < whole and value == 0:
            prefetch(pixels, base + 64 * k + AHEAD)
            word = nonzero64(pixels, base + 64 * k)
            area += popcount(word)
            intersection += popcount(word & words[np.uint64(target + k)])
            if looks and word != 0:
                value = pixels[base + 64 * k + np.int64(trailing_zeros(word))]
                other = word ^ equal64(pixels, base + 64 * k, value)
            k += 1
        start = k
        for k in range(start, whole):
            prefetch(pixels, base + 64 * k + AHEAD)
            word = nonzero64(pixels, base + 64 * k)
            # A byte that equals the value is not 0.
            other |= word ^ equal64(pixels, base + 64 * k, value)
            area += popcount(word)
            intersection += popcount(word & words[np.uint64(target + k)])
        if n_pixels > 64 * whole:
            word = np.uint64(0)
            for k in range(64 * whole, n_pixels):
                byte = pixels[base + k]
                if byte != 0:
                    word |= np.uint64(1) << np.uint64(k & 63)
                    if value == 0:
                        value = byte
                    if byte != value:
                        other |= np.uint64(looks)
            area += popcount(word)
            intersection += popcount(word & words[target + whole])
        counts[2 * row] = intersection
        counts[2 * row + 1] = area
        mixed[row] = other != 0


@jit("in u8, in i8, in i8, in u8, in i8, in i8, i8, i8, out i8 -> void")
def count_packed(
    predicted: Any, predicted_offsets: Any, n_pixels: Any, words: Any, word_offsets: Any, sample: Any,
    first: int, last: int, counts: Any,
) -> None:  # fmt: skip
    """Packed masks against packed rows; `counts` [B, 2] flat."""
    for row in range(first, last):
        mine, target = predicted_offsets[row], word_offsets[sample[row]]
        intersection, area = np.uint64(0), np.uint64(0)
        for k in range((n_pixels[sample[row]] + 63) >> 6):
            word = predicted[np.uint64(mine + k)]
            area += popcount(word)
            intersection += popcount(word & words[np.uint64(target + k)])
        counts[2 * row] = intersection
        counts[2 * row + 1] = area


@jit("in u8, in i8, in u8, in i8, i8, i8, i8, out i8 -> void")
def count_pairs(
    a: Any,
    a_offsets: Any,
    b: Any,
    b_offsets: Any,
    n_b: int,
    first: int,
    last: int,
    intersections: Any,
) -> None:
    """Intersections [A, B] flat of packed masks of one size: masks `first` to `last` - 1 of `a` with all of `b`."""
    for i in range(first, last):
        at = a_offsets[i]
        n_words = a_offsets[i + 1] - at
        for j in range(n_b):
            other = b_offsets[j]
            n = np.uint64(0)
            for k in range(n_words):
                n += popcount(a[np.uint64(at + k)] & b[np.uint64(other + k)])
            intersections[i * n_b + j] = n
