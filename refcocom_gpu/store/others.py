"""The masks of a store in; for each, the samples of its image that show another object out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.masks.rle import Column

Ints = NDArray[np.int64]

MASK_IOU = 0.5
"""Masks that overlap by this much are of one object. Of masks that are disjoint, at most one can share more than half
with another mask. Of the pairs of the 830 instances in 100 images of COCO, 3 overlap so much, and two of these are one
object that was annotated twice."""

PAIRS = 2**16
"""Pairs of masks compared at a time: their strings take some tens of megabytes."""

NOBODY = -1
"""Fills the rows of samples that have fewer others."""


def pairs_of_images(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """Return the pairs of samples of one image, in the order of the second set.

    Args:
        first: [A] number of the image of each sample of one set.
        second: [B] the same of the other set; negative for none.

    Returns:
        [X] the sample of the first set, and [X] that of the second.

    >>> pairs_of_images(np.array([0, 1, 0]), np.array([0, 2]))
    (array([0, 2]), array([0, 0]))
    """
    order = np.argsort(first, kind="stable")
    begin, end = (np.searchsorted(first[order], second, side) for side in ("left", "right"))
    n = end - begin
    of_second = np.repeat(np.arange(len(second)), n)
    within = np.arange(len(of_second)) - np.repeat(np.cumsum(n) - n, n)
    return order[np.repeat(begin, n) + within], of_second


def pair_counts(
    strings: Column,
    rows: Ints,
    samples: Ints,
    ends: NDArray[np.int32],
    run_offsets: Ints,
    pixels: Ints,
    *,
    threads: int = 0,
) -> Ints:
    """Intersect strings with stored masks, a part of the pairs at a time.

    Args:
        strings: Valid RLE.
        rows: [X] the string of each pair.
        samples: [X] the stored mask of each pair, of the same size.
        ends: [R] run ends of the stored masks.
        run_offsets: [M + 1] where those of each begin.
        pixels: [M] H·W of each.
        threads: 0 for all cores.

    Returns:
        [X, 2] intersection, and area of the string's mask.
    """
    counts = np.zeros((len(rows), 2), np.int64)
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        taken = strings.take(rows[part])
        counts[part], *_ = cpu.rle_counts(
            *taken, samples[part], ends, run_offsets, pixels, threads=threads
        )
    return counts


def other_samples(
    strings: Column,
    ends: NDArray[np.int32],
    run_offsets: Ints,
    areas: Ints,
    heights: Ints,
    widths: Ints,
    image: Ints,
    *,
    threads: int = 0,
) -> Ints:
    """Return the other samples of each sample's image whose true masks overlap its own by an IoU below `MASK_IOU`.

    Args:
        strings: RLE of the M masks.
        ends: [R] their run ends.
        run_offsets: [M + 1] where those of each begin.
        areas: [M] set pixels.
        heights: [M] H; a sample of another size is left out.
        widths: [M] W.
        image: [M] number of the image of each.
        threads: 0 for all cores.

    Returns:
        [M, most others of a sample] int64 samples, ascending, then `NOBODY`.
    """
    other, sample = pairs_of_images(image, image)
    fits = (heights[other] == heights[sample]) & (widths[other] == widths[sample])
    other, sample = (each[fits & (other != sample)] for each in (other, sample))
    counts = pair_counts(
        strings, other, sample, ends, run_offsets, heights * widths, threads=threads
    )
    union = areas[other] + areas[sample] - counts[:, 0]
    differ = counts[:, 0] < MASK_IOU * union
    # Two empty masks are no object, so each may stay: nothing overlaps it.
    differ |= union == 0
    other, sample = other[differ], sample[differ]
    n = np.bincount(sample, minlength=len(image))
    place = np.arange(len(sample)) - np.repeat(np.cumsum(n) - n, n)
    found = np.full((len(image), n.max(initial=0)), NOBODY)
    found[sample, place] = other
    return found
