"""Predictions of one run in, kept as RLE until all are there; the pixels that each two of a sample share out.

Predictions stream in any order, and a measure sees neither their examples nor each other. So a measure that needs two
at once keeps each and counts its *ticket*: its number among those kept, from 1. The tickets reach the rows of examples
as counts do. `with_pairs` follows them back, and 0 is an example without a prediction.

A mask takes a byte or two a run: 0.7 KB on the average of masks like those of RefCOCO-M, 4 MB for its 5,598. Noise, the
worst that there is, takes about half a byte a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.measures import PAIRS, TICKET, Column, Ints, Measure
from refcocom_gpu.masks import rle
from refcocom_gpu.store.others import PAIRS as AT_A_TIME
from refcocom_gpu.store.others import pair_counts, pairs_of_images

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


class Kept:
    """Masks in the order in which they came, as RLE strings."""

    def __init__(self) -> None:
        self._parts: list[rle.Column] = []
        self._n = 0

    def add(self, ends: NDArray[np.int32], offsets: Ints, *, threads: int = 0) -> Ints:
        """Keep masks.

        Args:
            ends: [R] int32 run ends of valid masks.
            offsets: [K + 1] int64 where those of each begin.
            threads: 0 for all cores.

        Returns:
            [K] their tickets.
        """
        self._parts.append(rle.Column(*cpu.rle_write(ends, offsets, threads=threads)))
        first, self._n = self._n, self._n + len(offsets) - 1
        return 1 + np.arange(first, self._n)

    def strings(self) -> rle.Column:
        """Return all masks; that of a ticket is in row ticket − 1."""
        lengths = [np.diff(part.offsets) for part in self._parts]
        if len(self._parts) != 1:
            data = [np.zeros(0, np.uint8), *(part.data for part in self._parts)]
            offsets = cpu.offsets_from(np.concatenate([np.zeros(0, np.int64), *lengths]))
            self._parts = [rle.Column(np.concatenate(data), offsets)]
        return self._parts[0]


class HostKeeper(Measure):
    """Keeps the predictions in host memory; what it counts are tickets.

    Args:
        kept: Where they are kept.
        store: Ground truth.
        threads: 0 for all cores.
    """

    def __init__(self, kept: Kept, store: MaskStore, threads: int) -> None:
        self._kept, self._store, self._threads = kept, store, threads

    def masks(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """As `Measure.masks`."""
        tickets = np.zeros((len(masks), 1), np.int64)
        for rows, height, width in rows_of_sizes(self._store, sample):
            images = np.ascontiguousarray(masks[rows, :height, :width]).view(np.uint8)
            ends, offsets = cpu.mask_runs(images, threads=self._threads)
            tickets[rows, 0] = self._kept.add(ends, offsets, threads=self._threads)
        return tickets

    def runs(self, ends: NDArray[np.int32], offsets: Ints, sample: Ints) -> Ints:
        """As `Measure.runs`."""
        return self._kept.add(ends, offsets, threads=self._threads)[:, None]


def rows_of_sizes(store: MaskStore, sample: Ints) -> list[tuple[Ints, int, int]]:
    """Return the rows of samples whose images have one size, with its H and W, for each size."""
    sizes, of_row = np.unique(
        np.stack([store.heights[sample], store.widths[sample]], 1), axis=0, return_inverse=True
    )
    of_row = of_row.reshape(-1)
    return [(np.flatnonzero(of_row == k), *size) for k, size in enumerate(sizes.tolist())]


def later_pairs(sample: Ints) -> tuple[Ints, Ints]:
    """Return each pair of examples of one sample once, the first by index and then the second.

    Args:
        sample: [N] the sample of each example.

    Returns:
        [X] the first example of each pair, and [X] the second, which is later.

    >>> later_pairs(np.array([0, 0, 0, 1]))
    (array([0, 0, 1]), array([1, 2, 2]))
    """
    second, first = pairs_of_images(sample, sample)
    is_later = second > first
    return first[is_later], second[is_later]


def pair_intersections(tickets: Ints, strings: rle.Column, store: MaskStore) -> Ints:
    """Count the pixels that the predictions of each two sentences of a sample share.

    Args:
        tickets: [N] the ticket of each example's prediction; 0 for none, which shares no pixel.
        strings: From `Kept.strings`.
        store: Ground truth.

    Returns:
        [X] int64 in the order of `later_pairs`.
    """
    first, second = later_pairs(store.example_sample)
    shared = np.zeros(len(first), np.int64)
    counted = np.flatnonzero((tickets[first] > 0) & (tickets[second] > 0))
    for start in range(0, len(counted), AT_A_TIME):
        part = counted[start : start + AT_A_TIME]
        used, place = np.unique(np.stack([first[part], second[part]]), return_inverse=True)
        a, b = place.reshape(2, -1)
        masks = strings.take(tickets[used] - 1)
        pixels = store.pixels[store.example_sample[used]]
        runs = cpu.rle_parse(masks.data, masks.offsets, pixels)
        shared[part] = pair_counts(masks, a, b, runs.ends, runs.offsets, pixels)[:, 0]
    return shared


def with_pairs(
    measured: Mapping[str, Column], kept: Kept, store: MaskStore
) -> dict[str, NDArray[Any]]:
    """Return the columns of metrics with those of pairs in the place of tickets, if there are any.

    Args:
        measured: From `measures.measured_columns`.
        kept: The predictions of the tickets.
        store: Ground truth.

    Returns:
        [K] for each column; of `PAIRS` [X], in the order of `later_pairs`.
    """
    columns = dict(measured)
    if (tickets := columns.pop(TICKET, None)) is not None:
        columns[PAIRS] = pair_intersections(tickets, kept.strings(), store)
    return columns
