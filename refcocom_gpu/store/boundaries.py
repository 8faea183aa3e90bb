"""Packed masks in, their packed boundaries and contours out: what boundary IoU and Boundary F are counted against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.utils.cache import Arrays, Built, Pieces

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


class TrueBoundaries(NamedTuple):
    """What a store holds for boundary measures.

    Attributes:
        boundaries: Of the true masks, as wide as boundary IoU takes them.
        contours: Of the true masks, one pixel wide, and what lies within reach of them.
    """

    boundaries: cpu.Boundaries
    contours: cpu.Contours


def draw_boundaries(
    words: Words,
    word_offsets: Ints,
    heights: Ints,
    widths: Ints,
    bounds: Iterable[tuple[int, int]],
    threads: int,
) -> Built:
    """Draw boundaries and contours, some masks at a time, so that no more than those are in memory.

    Args:
        words: [P] packed bits of the masks.
        word_offsets: [M + 1] where a mask's words begin.
        heights: [M] H.
        widths: [M] W.
        bounds: First and last mask of each piece.
        threads: CPU threads; 0 for all cores.

    Returns:
        Arrays for `opened`.
    """
    bounds = list(bounds)
    reaches = cpu.boundary_distance(heights, widths, cpu.REACH_RATIO)

    def part(start: int, stop: int) -> tuple[Words, Ints, Ints, Ints]:
        at = word_offsets[start : stop + 1]
        return words[at[0] : at[-1]], at - at[0], heights[start:stop], widths[start:stop]

    def boundary(start: int, stop: int) -> cpu.Boundaries:
        return cpu.boundaries(*part(start, stop), threads=threads)

    def contour(start: int, stop: int) -> cpu.Contours:
        return cpu.contours(*part(start, stop), reaches[start:stop], threads=threads)

    def pieces(draw: Callable[[int, int], Any], name: str, size: int, kind: type) -> Pieces:
        def make() -> Iterator[NDArray[Any]]:
            for start, stop in bounds:
                yield getattr(draw(start, stop), name)

        return Pieces(size, np.dtype(kind), make)

    n_words, n_masks = len(words), len(heights)
    return {
        "boundaries": pieces(boundary, "words", n_words, np.uint64),
        "boundary_areas": pieces(boundary, "areas", n_masks, np.int64),
        "contours": pieces(contour, "words", n_words, np.uint64),
        "contour_areas": pieces(contour, "areas", n_masks, np.int64),
        "wide": pieces(contour, "wide", n_words, np.uint64),
    }


def opened(arrays: Arrays, heights: Ints, widths: Ints) -> TrueBoundaries:
    """Return what `draw_boundaries` drew.

    Args:
        arrays: Its arrays, as they are or from a cache.
        heights: [M] H.
        widths: [M] W.
    """
    return TrueBoundaries(
        cpu.Boundaries(
            arrays["boundaries"],
            arrays["boundary_areas"],
            cpu.boundary_distance(heights, widths),
        ),
        cpu.Contours(
            arrays["contours"],
            arrays["wide"],
            arrays["contour_areas"],
            cpu.boundary_distance(heights, widths, cpu.REACH_RATIO),
        ),
    )
