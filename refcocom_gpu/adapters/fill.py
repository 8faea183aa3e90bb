"""Closed lines in, the pixels that they cover by more than half out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.masks.polygons import Points

ROWS = 8
"""Lines of samples in a row of pixels; along them, coverage is exact. On blobs of radius 20 to 90, one pixel in 10,000
differs from what 64 lines give."""

HALF = 0.5 + 1e-9
"""A pixel is set above this part. Sums are rounded, and a pixel that is covered by exactly half is not set."""


def fill(lines: Sequence[Points], height: int, width: int) -> NDArray[np.bool_]:
    """Fill lines by the nonzero rule: a pixel is set if more than half of it is inside.

    Args:
        lines: [P, 2] x and y of each line in pixels, the upper left corner of the image at 0, 0. The last point is
            joined to the first.
        height: H of the image.
        width: W of the image.

    Returns:
        [H, W] bool.

    >>> fill([np.array([[1.0, 0.0], [3.0, 0.0], [3.0, 0.6], [1.0, 0.6]])], 2, 4).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    row, x, turn = _crossings(lines, height)
    # Left to right in each row. The lines are closed, so that every row ends outside, where the next one begins.
    order = np.lexsort((x, row))
    row, x, turn = row[order], x[order], turn[order]
    winding = np.cumsum(turn)
    enters = (winding != 0) & (winding == turn)
    leaves = winding == 0
    at = enters | leaves
    sign = np.where(enters, 1.0, -1.0)[at] / ROWS
    row, x = row[at] // ROWS, x[at].clip(0, width)
    # From x on, pixels are inside: the one that holds x in part, and those right of it whole.
    column = np.floor(x)
    part = x - column
    first = row * (width + 2) + column.astype(np.int64)
    change = np.bincount(first, sign * (1 - part), height * (width + 2))
    change += np.bincount(first + 1, sign * part, height * (width + 2))
    covered = np.cumsum(change.reshape(height, width + 2)[:, :width], axis=1)
    mask: NDArray[np.bool_] = covered > HALF
    return mask


def _crossings(
    lines: Sequence[Points], height: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return where edges cross the lines of samples.

    Returns:
        [C] number of the line of samples, x in pixels, and 1 for an edge that goes down or −1 for one that goes up.
    """
    a = np.concatenate([np.zeros((0, 2)), *lines])
    b = np.concatenate([np.zeros((0, 2)), *(np.roll(line, -1, axis=0) for line in lines)])
    turn = np.where(b[:, 1] > a[:, 1], 1, -1)
    upper = np.where(turn[:, None] > 0, a, b)
    lower = np.where(turn[:, None] > 0, b, a)
    # The lines of samples lie in the middle of their parts of a pixel. An edge crosses those in [upper, lower).
    first = np.ceil(upper[:, 1] * ROWS - 0.5).clip(0, height * ROWS).astype(np.int64)
    last = np.ceil(lower[:, 1] * ROWS - 0.5).clip(0, height * ROWS).astype(np.int64)
    lengths = last - first
    edge = np.repeat(np.arange(len(a)), lengths)
    row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    along = ((row + 0.5) / ROWS - upper[edge, 1]) / (lower[edge, 1] - upper[edge, 1])
    x = upper[edge, 0] + along * (lower[edge, 0] - upper[edge, 0])
    return row, x, turn[edge]
