"""Run ends of whole columns of masks in, those of the masks squashed to 480² out; no mask is decoded.

LAVT and ReLA compare masks of that size, without the aspect ratio of the image. A pixel of the square takes the one
that Pillow's `Image.resize` takes with `NEAREST`, which LAVT calls. So a pixel of the image counts as often as the
square takes it, which may be never, and a run is as long as its pixels count. That gives the counts of the squashed
masks, but not the order of their pixels: where a column repeats, the square holds it once more beside itself.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SIDE = 480
"""Rows and columns: `args.py: img_size` of LAVT, `configs/referring_R50.yaml: IMAGE_SIZE` of ReLA."""

SQUASHED = "squashed"
"""The metric that counts them."""

COLUMNS = ("squashed_intersection", "squashed_pred_area", "squashed_target_area")
"""Columns of their counts, as `intersection`, `pred_area` and `target_area` are of masks at the image's size."""

RESIZED = "squashed_resized"
"""Column that holds 1 for a prediction of another size, which was squashed; 0 for one of 480² or for none."""


class SquashedMasks(NamedTuple):
    """Masks whose pixels count as often as a square of 480² takes them.

    Attributes:
        ends: [R] int32 run ends.
        areas: [M] int64 set pixels of the square.
    """

    ends: NDArray[np.int32]
    areas: Ints


@cache
def taken(size: int) -> Ints:
    """Return [480] the row (or column) of an image that each of the square takes.

    Args:
        size: Rows (or columns) of the image.

    >>> taken(960)[:3], taken(240)[:4]
    (array([1, 3, 5]), array([0, 0, 1, 1]))
    """
    # Pillow adds steps of float64 instead of multiplying. Where a centre lies on an edge between two pixels, as in
    # every third column of 640, the rounding of the sum decides.
    step = size / SIDE
    return np.cumsum([step / 2, *[step] * (SIDE - 1)]).astype(np.int64)


def squashed_ends(
    ends: NDArray[np.int32], offsets: Ints, heights: Ints, widths: Ints
) -> NDArray[np.int32]:
    """Return run ends in which a pixel counts as often as the square takes it.

    Args:
        ends: [R] int32 run ends of valid masks, down the columns.
        offsets: [K + 1] where those of each mask begin.
        heights: [K] H of each.
        widths: [K] W of each.

    Returns:
        [R] int32; the last of each mask is 480².

    >>> one = np.array([1])
    >>> squashed_ends(np.array([2, 3, 4], np.int32), np.array([0, 3]), 2 * one, 2 * one)
    array([115200, 172800, 230400], dtype=int32)
    """
    if not len(ends):
        return ends
    n = np.diff(offsets)
    column, row = np.divmod(ends.astype(np.int64), np.repeat(heights, n))
    below_columns, first_column = _takers(widths)
    below_rows, first_row = _takers(heights)
    column += np.repeat(first_column, n)
    row += np.repeat(first_row, n)
    before = below_columns[column]
    repeats = below_columns[column + 1] - before
    ends_of_square: Ints = before * SIDE + repeats * below_rows[row]
    return ends_of_square.astype(np.int32)


def _takers(sizes: Ints) -> tuple[Ints, Ints]:
    """Return tables of how many rows of the square take one below 0, 1, …, n + 1; and [K] where that of each begins."""
    unique, which = np.unique(sizes, return_inverse=True)
    tables = [np.searchsorted(taken(n), np.arange(n + 2)) for n in unique.tolist()]
    return np.concatenate(tables), np.cumsum([0, *map(len, tables)])[which]


def squash(ends: NDArray[np.int32], offsets: Ints, heights: Ints, widths: Ints) -> SquashedMasks:
    """Squash masks; the arguments are those of `squashed_ends`."""
    ends = squashed_ends(ends, offsets, heights, widths)
    number = np.arange(len(ends)) - np.repeat(offsets[:-1], np.diff(offsets))
    lengths = np.diff(ends, prepend=np.int32(0)).astype(np.int64) * (number % 2)
    totals = np.concatenate([[0], np.cumsum(lengths)])
    return SquashedMasks(ends, totals[offsets[1:]] - totals[offsets[:-1]])
