"""Masks on the CPU: dense masks or packed bits in, counts against packed bits out; and runs to packed bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refcocom_kernels.cpu.pool import (
    Bytes,
    Int32,
    Int64,
    Status,
    Words,
    most,
    offsets_from,
    over_rows,
)


class MaskCounts(NamedTuple):
    """The result of `mask_counts` and `mask_list_counts`.

    Attributes:
        counts: [B, 2] intersection and predicted area.
        mixed: [B] 1 where a mask holds more than one value other than 0; 0 where nobody looked.
    """

    counts: Int64
    mixed: Status


def mask_counts(
    pixels: Bytes,
    sample: Int64,
    words: Words,
    word_offsets: Int64,
    *,
    looks: bool = False,
    threads: int = 0,
) -> MaskCounts:
    """Count dense masks of one size against packed stored masks.

    Args:
        pixels: [B, H·W] bytes, row-major, C-contiguous; any nonzero byte is a set pixel.
        sample: [B] the stored mask each row is scored against; each must have H·W pixels.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        looks: Find out which masks are mixed, in the same pass.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import masks

    n_rows, n_pixels = pixels.shape
    result = MaskCounts(np.zeros((n_rows, 2), np.int64), np.zeros(n_rows, np.int8))
    flat, counts = pixels.reshape(-1), result.counts.reshape(-1)
    over_rows(
        lambda a, b: masks.count_masks(
            flat, n_pixels, sample, words, word_offsets, looks, a, b, counts, result.mixed
        ),
        n_rows,
        threads,
    )
    return result


def mask_list_counts(
    masks: Sequence[Bytes],
    sample: Int64,
    words: Words,
    word_offsets: Int64,
    *,
    looks: bool = False,
    threads: int = 0,
) -> MaskCounts:
    """Count dense masks of any sizes, each in its own memory, against packed stored masks.

    Args:
        masks: B times [H, W] bytes, C-contiguous; any nonzero byte is a set pixel.
        sample: [B] the stored mask each is scored against, of the same size.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        looks: Find out which masks are mixed, in the same pass.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import masks as kernels

    result = MaskCounts(np.zeros((len(masks), 2), np.int64), np.zeros(len(masks), np.int8))

    def count(first: int, last: int) -> None:
        for row in range(first, last):
            flat, counts, mixed = masks[row].reshape(-1), result.counts[row], result.mixed[row:]
            own = sample[row : row + 1]
            kernels.count_masks(
                flat, flat.size, own, words, word_offsets, looks, 0, 1, counts, mixed
            )

    over_rows(count, len(masks), threads, min_rows=4)
    return result


def packed_counts(
    predicted: Words,
    predicted_offsets: Int64,
    sample: Int64,
    words: Words,
    word_offsets: Int64,
    pixels: Int64,
    *,
    threads: int = 0,
) -> Int64:
    """Count packed masks against packed stored masks.

    Args:
        predicted: [P] packed bits.
        predicted_offsets: [B + 1] where each begins.
        sample: [B] the stored mask each is scored against.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        pixels: [M] H·W of the stored masks.
        threads: 0 for all cores.

    Returns:
        [B, 2] intersection and predicted area.
    """
    from refcocom_kernels.cpu.numba import masks

    counts = np.zeros((len(sample), 2), np.int64)
    flat = counts.reshape(-1)
    over_rows(
        lambda a, b: masks.count_packed(
            predicted, predicted_offsets, pixels, words, word_offsets, sample, a, b, flat
        ),
        len(sample),
        threads,
    )
    return counts


def pairwise_intersections(
    first: Words, first_offsets: Int64, second: Words, second_offsets: Int64, *, threads: int = 0
) -> Int64:
    """Intersections of all pairs of packed masks of one image.

    Args:
        first: [P] packed bits of A masks.
        first_offsets: [A + 1] where each begins.
        second: [P] packed bits of B masks of the same size.
        second_offsets: [B + 1] where each begins.
        threads: 0 for all cores.

    Returns:
        [A, B] int64.
    """
    from refcocom_kernels.cpu.numba import masks

    n_first, n_second = len(first_offsets) - 1, len(second_offsets) - 1
    intersections = np.zeros((n_first, n_second), np.int64)
    flat = intersections.reshape(-1)
    over_rows(
        lambda a, b: masks.count_pairs(
            first, first_offsets, second, second_offsets, n_second, a, b, flat
        ),
        n_first,
        threads,
        min_rows=2,
    )
    return intersections


def row_words(heights: Int64, widths: Int64) -> int:
    """Words of scratch for the row-aligned bits of the largest mask, and one row to spare."""
    return most((heights + 1) * ((widths + 63) // 64))


def word_offsets_for(pixels: Int64) -> Int64:
    """[M] pixels of each mask to [M + 1] offsets of their 64-bit words."""
    return offsets_from((pixels + 63) // 64)


def rle_pack(
    ends: Int32, run_offsets: Int64, heights: Int64, widths: Int64, *, threads: int = 0
) -> Words:
    """Run ends (column-major) to packed bits (row-major).

    Args:
        ends: [R] run ends of valid masks.
        run_offsets: [M + 1] where a mask's runs begin.
        heights: [M] H.
        widths: [M] W.
        threads: 0 for all cores.

    Returns:
        [P] words; mask m occupies `word_offsets_for(heights * widths)[m:m + 2]`.
    """
    from refcocom_kernels.cpu.numba import bits

    word_offsets = word_offsets_for(heights * widths)
    words = np.zeros(word_offsets[-1], np.uint64)
    scratch = row_words(heights, widths)
    over_rows(
        lambda a, b: bits.pack_runs(
            ends, run_offsets, heights, widths, word_offsets, scratch, a, b, words
        ),
        len(heights),
        threads,
    )
    return words
