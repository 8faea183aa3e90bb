"""Masks, or run ends of whole columns of masks, in, their tight boxes out; runs are not decoded.

A box is x0, y0, x1, y1 in pixels, half-open: it holds the columns x0 … x1 − 1 and the rows y0 … y1 − 1. The box of an
empty mask is 0, 0, 0, 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Vector = Any
"""[R] integers: an array, or a tensor on any device."""


def mask_boxes(masks: NDArray[Any], heights: Ints, widths: Ints) -> Ints:
    """Return the tight box of each dense mask.

    Args:
        masks: [K, h, w] bool or bytes; what is not 0 is set. What lies beyond the H×W at the top left means nothing.
        heights: [K] H of each.
        widths: [K] W of each.

    Returns:
        [K, 4] int64.

    >>> mask_boxes(np.array([[[0, 0, 0], [0, 1, 1]]], bool), np.array([2]), np.array([3]))
    array([[1, 1, 3, 2]])
    """
    boxes = np.zeros((len(masks), 4), np.int64)
    # The maximum of bytes is several times as fast as `any`, which converts them first.
    for box, mask, height, width in zip(boxes, masks.view(np.uint8), heights, widths, strict=True):
        image = mask[:height, :width]
        rows = np.flatnonzero(image.max(axis=1))
        if len(rows):
            y0, y1 = rows[0], rows[-1] + 1
            columns = np.flatnonzero(image[y0:y1].max(axis=0))
            box[:] = columns[0], y0, columns[-1] + 1, y1
    return boxes


def run_boxes(ends: NDArray[np.int32], offsets: Ints, heights: Ints) -> Ints:
    """Return the tight box of each mask given as runs.

    Args:
        ends: [R] run ends of valid masks, down the columns; the first run of a mask is unset.
        offsets: [K + 1] where the runs of each mask begin.
        heights: [K] H of each.

    Returns:
        [K, 4] int64.

    >>> run_boxes(np.array([3, 4, 5, 6], np.int32), np.array([0, 4]), np.array([2]))
    array([[1, 1, 3, 2]])
    """
    mask = np.repeat(np.arange(len(heights)), np.diff(offsets))
    number = np.arange(len(ends)) - offsets[mask]
    stops = ends.astype(np.int64)
    starts = np.concatenate([stops[:1] * 0, stops[:-1]])
    is_set = (number % 2 == 1) & (stops > starts)
    mask = mask[is_set]
    extents = run_extents(starts[is_set], stops[is_set], heights[mask])
    first = np.flatnonzero(
        np.diff(mask, prepend=-1)
    )  # of the runs of each mask that has a set pixel
    boxes = np.zeros((len(heights), 4), np.int64)
    for side, (extent, bound) in enumerate(
        zip(extents, (np.minimum, np.minimum, np.maximum, np.maximum), strict=True)
    ):
        boxes[mask[first], side] = bound.reduceat(extent, first)
    return boxes


def run_extents(starts: Vector, stops: Vector, heights: Vector) -> tuple[Vector, ...]:
    """Return the box of each run of set pixels.

    Args:
        starts: [R] the first pixel of each, down the columns.
        stops: [R] the pixel after its last.
        heights: [R] H of its image.

    Returns:
        [R] x0, y0, x1, y1. A run that goes on in another column holds the last row of one and the first of the next.
    """
    last = stops - 1
    x0, x1 = starts // heights, last // heights + 1
    wraps = x1 - x0 > 1
    y0 = ~wraps * (starts % heights)
    y1 = wraps * heights + ~wraps * (last % heights + 1)
    return x0, y0, x1, y1
