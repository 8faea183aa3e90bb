"""Run ends of whole columns of masks in, their perimeters in pixel edges out; no mask is decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

Ints = NDArray[np.int64]


def perimeters(
    ends: NDArray[np.int32], offsets: Ints, heights: Ints, widths: Ints, *, threads: int = 0
) -> Ints:
    """Return the number of pixel edges between each mask and what is around it.

    An edge counts where a set pixel meets an unset one or the border of the image. The boundaries of holes count too.

    Args:
        ends: [R] run ends of all masks, down the columns; the first run of a mask is unset.
        offsets: [M + 1] where the runs of each mask begin.
        heights: [M] H.
        widths: [M] W.
        threads: 0 for all cores.

    Returns:
        [M] int64, 0 for an empty mask.

    Examples:
        A mask of 3×4 pixels with a bar of 2×1 pixels.

        >>> one = np.array([1])
        >>> perimeters(np.array([4, 6, 12], np.int32), np.array([0, 3]), 3 * one, 4 * one)
        array([6])
    """
    n, masks, pixels = np.diff(offsets), np.arange(len(heights)), heights * widths
    # A set pixel has a set one to its left if it is also set in the mask moved by a column, which is H pixels.
    sides, last = heights.astype(np.int32), pixels.astype(np.int32)
    moved = np.minimum(ends + np.repeat(sides, n), np.repeat(last, n))
    strings = cpu.rle_write(moved, offsets, threads=threads)
    counts, _, _ = cpu.rle_counts(*strings, masks, ends, offsets, pixels, threads=threads)

    is_set = (np.arange(len(ends)) & 1).astype(np.bool_) ^ np.repeat(offsets[:-1] % 2 == 1, n)
    is_set[1:] &= ends[1:] > ends[:-1]
    n_set = np.add.reduceat(is_set, offsets[:-1], dtype=np.int64)
    starts, stops = ends[:-1][is_set[1:]], ends[1:][is_set[1:]]
    height = np.repeat(sides, n_set)
    # A set run has a pixel edge at its top and one at its bottom, in each column that it reaches.
    tops = 1 + (stops - 1) // height - starts // height
    # But none where the next one goes on in the same column, after an unset run of length 0.
    mask = np.repeat(masks, n_set)
    goes_on = (starts[1:] == stops[:-1]) & (mask[1:] == mask[:-1]) & (stops[:-1] % height[:-1] > 0)
    tops[1:] -= goes_on
    bounds = cpu.offsets_from(n_set)
    n_tops = np.diff(np.concatenate([[0], np.cumsum(tops, dtype=np.int64)])[bounds])
    lengths = np.concatenate([[0], np.cumsum(stops - starts, dtype=np.int64)])
    n_lefts = np.diff(lengths[bounds]) - counts[:, 0]
    edges: Ints = 2 * (n_tops + n_lefts)
    return edges
