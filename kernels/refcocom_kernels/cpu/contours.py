"""Contours of stored masks on the CPU, the other half of Boundary F: packed masks in, packed contours out.

The contour of a mask is its set pixels with a neighbour, of eight, that is not set; nothing is set outside the image.
A contour pixel matches where the other contour has a pixel within `reach` along rows and columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refcocom_kernels.cpu.masks import row_words
from refcocom_kernels.cpu.pool import Int64, Words, most, over_rows

REACH_RATIO = 0.008
"""How far apart contour pixels may be that match, as a share of the image's diagonal: the bound of DAVIS."""


class Contours(NamedTuple):
    """Contours of stored masks, ready to be counted against.

    Attributes:
        words: [P] packed bits of the contours, laid out as those of the masks.
        wide: [P] packed bits of all pixels within reach of the contours.
        areas: [M] pixels of each contour.
        reaches: [M] how far apart pixels may be that match.
    """

    words: Words
    wide: Words
    areas: Int64
    reaches: Int64


def contours(
    words: Words,
    word_offsets: Int64,
    heights: Int64,
    widths: Int64,
    reaches: Int64,
    *,
    threads: int = 0,
) -> Contours:
    """Contours of packed masks.

    Args:
        words: [P] packed bits.
        word_offsets: [M + 1] where a mask's words begin.
        heights: [M] H.
        widths: [M] W.
        reaches: [M] pixels, from `boundary_distance(heights, widths, REACH_RATIO)`.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba.contours import contours_of_packed

    drawn, wide = np.zeros(len(words), np.uint64), np.zeros(len(words), np.uint64)
    areas = np.zeros(len(heights), np.int64)
    scratch, room = row_words(heights, widths), canvas_words(heights, widths, reaches)
    over_rows(
        lambda a, b: contours_of_packed(
            words, word_offsets, heights, widths, reaches, scratch, room, a, b, drawn, wide, areas
        ),
        len(heights),
        threads,
    )
    return Contours(drawn, wide, areas, reaches)


def canvas_words(heights: Int64, widths: Int64, reaches: Int64) -> int:
    """Words of the largest canvas on which a contour is widened."""
    pitch = 1 + (widths + 63) // 64 + (2 * reaches + 63) // 64
    return 1 + most((heights + 2 * reaches) * pitch)
