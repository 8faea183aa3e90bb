"""Run ends of whole columns of masks in, their perimeters in pixel edges out; no mask is decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def perimeters(ends: NDArray[np.int32], offsets: Ints, heights: Ints, widths: Ints) -> Ints:
    """Return the number of pixel edges between each mask and what is around it.

    An edge counts where a set pixel meets an unset one or the border of the image. The boundaries of holes count too.
    A mask of area A has 2·(2A − V − S) edges, where V pairs of set pixels are neighbours in a column and S in a row.
    V follows from the runs; S is the overlap of the runs with themselves one column further, H pixels along.

    Args:
        ends: [R] run ends of all masks, down the columns; the first run of a mask is unset.
        offsets: [M + 1] where the runs of each mask begin.
        heights: [M] H.
        widths: [M] W.

    Returns:
        [M] int64, 0 for an empty mask.

    Examples:
        A mask of 3×4 pixels with a bar of 2×1 pixels.

        >>> one = np.array([1])
        >>> perimeters(np.array([4, 6, 12], np.int32), np.array([0, 3]), 3 * one, 4 * one)
        array([6])
    """
    # All masks on one line, a column apart, so that no mask meets the next when it is shifted by its column.
    room = (widths + 1) * heights
    base = np.cumsum(room) - room
    toggles, of_mask = _toggles(ends, offsets, base)
    starts, stops = toggles[::2], toggles[1::2]
    height = heights[of_mask]
    from_base = base[of_mask]
    crossed = (stops - from_base - 1) // height - (starts - from_base) // height
    before = np.concatenate([[0], np.cumsum(stops - starts)])
    shared = _set_below(stops + height, toggles, before) - _set_below(
        starts + height, toggles, before
    )
    # A run has two ends, and two more in each column that it goes on to.
    edges = 2 * (1 + crossed + stops - starts - shared)
    total = np.concatenate([[0], np.cumsum(edges)])
    bounds = np.searchsorted(of_mask, np.arange(len(heights) + 1))
    return np.diff(total[bounds])


def _toggles(ends: NDArray[np.int32], offsets: Ints, base: Ints) -> tuple[Ints, Ints]:
    """Return where set runs start and stop in turn, [2S] ascending, and [S] the mask of each run.

    Runs of length 0 are left out, so that a set run meets no other.
    """
    n = np.diff(offsets)
    toggles = ends.astype(np.int64) + np.repeat(base, n)
    kept = np.ones(len(ends), np.bool_)
    # The last end is that of the image; it stops a set run only if the number of runs is even.
    kept[offsets[1:][n % 2 == 1] - 1] = False
    toggles = toggles[kept]
    first = np.flatnonzero(np.diff(toggles, prepend=-1))
    if len(first) < len(toggles):
        # Two ends in one place are a run of length 0: to toggle twice is to do nothing.
        times = np.diff(first, append=len(toggles))
        toggles = toggles[first[times % 2 == 1]]
    return toggles, np.searchsorted(base, toggles[::2], side="right") - 1


def _set_below(places: Ints, toggles: Ints, before: Ints) -> Ints:
    """Return how many set pixels lie before each place."""
    passed = np.searchsorted(toggles, places, side="right")
    inside = passed % 2 == 1
    below: Ints = before[passed // 2]
    below[inside] += places[inside] - toggles[passed[inside] - 1]
    return below
