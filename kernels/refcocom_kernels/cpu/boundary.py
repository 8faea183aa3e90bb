"""Boundary counts on the CPU: masks or runs in, the integers of boundary IoU and of Boundary F out.

The boundary of a mask is what an erosion by `distance` pixels removes: boundary-iou-api's definition
(`boundary_iou/utils/boundary_utils.py`), with nothing set outside the image. Contours are those of `contours.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_kernels.cpu.contours import Contours, canvas_words
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
        counts: [B, 5] intersection and predicted area of the boundaries; pixels of the predicted contour, those of
            them that match, and the pixels of the true contour that match.
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
    masks: Bytes,
    sample: Int64,
    heights: Int64,
    widths: Int64,
    boundaries: Boundaries,
    contours: Contours,
    word_offsets: Int64,
    *,
    threads: int = 0,
) -> BoundaryCounts:
    """Boundaries of dense masks in one array against stored ones.

    Args:
        masks: [B, h, w] bytes, C-contiguous; any nonzero byte is a set pixel. Each image is at the top left; what lies
            beyond it is not read.
        sample: [B] the stored mask each is scored against; none may be larger than h × w.
        heights: [M] H of the stored masks.
        widths: [M] W.
        boundaries: Of the stored masks.
        contours: Of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba.boundary import count_mask_boundaries

    n_rows, height, width = masks.shape
    result = _nothing(n_rows)
    flat, counts = masks.reshape(-1), result.counts.reshape(-1)
    truth = _truth(heights, widths, boundaries, contours, word_offsets, sample)
    over_rows(
        lambda a, b: count_mask_boundaries(
            flat, height * width, width, sample, *truth, a, b, counts, result.cropped
        ),
        n_rows,
        threads,
    )
    return result


def run_boundary_counts(
    ends: Int32,
    run_offsets: Int64,
    sample: Int64,
    heights: Int64,
    widths: Int64,
    boundaries: Boundaries,
    contours: Contours,
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
        boundaries: Of the stored masks.
        contours: Of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba.boundary import count_run_boundaries

    result = _nothing(len(sample))
    counts = result.counts.reshape(-1)
    truth = _truth(heights, widths, boundaries, contours, word_offsets, sample)
    over_rows(
        lambda a, b: count_run_boundaries(
            ends, run_offsets, sample, *truth, a, b, counts, result.cropped
        ),
        len(sample),
        threads,
    )
    return result


def _nothing(n_rows: int) -> BoundaryCounts:
    return BoundaryCounts(np.zeros((n_rows, 5), np.int64), np.zeros(n_rows))


def _truth(
    heights: Int64,
    widths: Int64,
    boundaries: Boundaries,
    contours: Contours,
    word_offsets: Int64,
    sample: Int64,
) -> tuple[Int64, Int64, Int64, Int64, Words, Words, Words, Int64, int, int]:
    """The arguments of both kernels that describe the stored masks, and the scratch that the largest one needs."""
    tall, wide, reaches = heights[sample], widths[sample], contours.reaches[sample]
    return (
        heights, widths, boundaries.distances, contours.reaches, boundaries.words, contours.words, contours.wide,
        word_offsets, row_words(tall, wide), canvas_words(tall, wide, reaches),
    )  # fmt: skip
