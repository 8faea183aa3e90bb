"""Boundary counts on the CPU: masks or runs in, intersections and areas of their boundaries out.

The boundary of a mask is what an erosion by `distance` pixels removes: boundary-iou-api's definition
(`boundary_iou/utils/boundary_utils.py`), with nothing set outside the image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_kernels.cpu.masks import row_words
from refcocom_kernels.cpu.pool import Bytes, Int32, Int64, Words, over_rows

DILATION_RATIO = 0.02
"""Width of the boundary as a share of the image's diagonal."""


class Boundaries(NamedTuple):
    """Boundaries of stored masks, ready to be counted against.

    Attributes:
        words: [P] packed bits, laid out as those of the masks.
        areas: [M] set pixels.
        distances: [M] width in pixels.
    """

    words: Words
    areas: Int64
    distances: Int64


class BoundaryCounts(NamedTuple):
    """The result of the boundary counts.

    Attributes:
        counts: [B, 2] intersection and predicted area of the boundaries.
        cropped: [B] share of the image inside the box that was eroded.
    """

    counts: Int64
    cropped: NDArray[np.float64]


def boundary_distance(heights: Int64, widths: Int64, ratio: float = DILATION_RATIO) -> Int64:
    """Width of the boundary in pixels: max(1, round(ratio · diagonal)), halves to even as Python rounds.

    Args:
        heights: [M] H.
        widths: [M] W.
        ratio: Share of the diagonal.

    >>> boundary_distance(np.array([480, 10]), np.array([640, 10]))
    array([16,  1])
    """
    diagonal = np.sqrt((heights**2 + widths**2).astype(np.float64))
    return np.maximum(1, np.rint(ratio * diagonal)).astype(np.int64)


def boundaries(
    words: Words, word_offsets: Int64, heights: Int64, widths: Int64, *, threads: int = 0
) -> Boundaries:
    """Boundaries of packed masks.

    Args:
        words: [P] packed bits.
        word_offsets: [M + 1] where a mask's words begin.
        heights: [M] H.
        widths: [M] W.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import boundary

    distances = boundary_distance(heights, widths)
    result = np.zeros(len(words), np.uint64)
    areas = np.zeros(len(heights), np.int64)
    scratch = row_words(heights, widths)
    over_rows(
        lambda a, b: boundary.boundaries_of_packed(
            words, word_offsets, heights, widths, distances, scratch, a, b, result, areas
        ),
        len(heights),
        threads,
    )
    return Boundaries(result, areas, distances)


def mask_boundary_counts(
    masks: Bytes, sample: Int64, truth: Boundaries, word_offsets: Int64, *, threads: int = 0
) -> BoundaryCounts:
    """Boundaries of dense masks of one size against stored ones.

    Args:
        masks: [B, H, W] bytes, C-contiguous; any nonzero byte is a set pixel.
        sample: [B] the stored mask each is scored against; each must be [H, W].
        truth: Boundaries of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import boundary

    n_rows, height, width = masks.shape
    counts, cropped = np.zeros((n_rows, 2), np.int64), np.zeros(n_rows)
    flat, flat_counts = masks.reshape(-1), counts.reshape(-1)
    over_rows(
        lambda a, b: boundary.count_mask_boundaries(
            flat,
            height,
            width,
            sample,
            truth.distances,
            truth.words,
            word_offsets,
            a,
            b,
            flat_counts,
            cropped,
        ),
        n_rows,
        threads,
    )
    return BoundaryCounts(counts, cropped)


def run_boundary_counts(
    ends: Int32,
    run_offsets: Int64,
    sample: Int64,
    heights: Int64,
    widths: Int64,
    truth: Boundaries,
    word_offsets: Int64,
    *,
    threads: int = 0,
) -> BoundaryCounts:
    """Boundaries of valid masks given as run ends against stored ones.

    Args:
        ends: [R] run ends.
        run_offsets: [B + 1] where a mask's runs begin.
        sample: [B] the stored mask each is scored against.
        heights: [M] H of the stored masks.
        widths: [M] W.
        truth: Boundaries of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import boundary

    n_rows = len(sample)
    counts, cropped = np.zeros((n_rows, 2), np.int64), np.zeros(n_rows)
    flat_counts = counts.reshape(-1)
    scratch = row_words(heights, widths)
    over_rows(
        lambda a, b: boundary.count_run_boundaries(
            ends,
            run_offsets,
            sample,
            heights,
            widths,
            truth.distances,
            truth.words,
            word_offsets,
            scratch,
            a,
            b,
            flat_counts,
            cropped,
        ),
        n_rows,
        threads,
    )
    return BoundaryCounts(counts, cropped)
