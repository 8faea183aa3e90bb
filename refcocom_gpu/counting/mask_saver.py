"""Masks that a counter counts in, their RLE strings out: a measure that keeps what the others only count.

Its one column is a number of the mask. The number goes with the counts through whatever chooses among them (retries,
masks of several sizes, logits that are refused), so the mask found for an example is the one that was counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.measure import Ints, Measure, Vector
from refcocom_gpu.masks.rle import Column, joined

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

TAKEN = 2048
"""Strings that are put in order at a time, because that takes 24 bytes for each of their characters."""

NO_MASK = 0
"""The number of no mask; masks are numbered from 1."""


class MaskSaver(Measure):
    """Keeps masks as RLE strings in host memory, about a kilobyte a mask; counters of both sides may share one.

    Args:
        store: Ground truth, whose images the masks have the sizes of.
        threads: 0 for all cores.
    """

    def __init__(self, store: MaskStore, threads: int) -> None:
        self._heights, self._widths, self._threads = store.heights, store.widths, threads
        self._parts = [Column(np.zeros(0, np.uint8), np.zeros(2, np.int64))]
        self._n = 1

    def masks(self, masks: Any, sample: Vector) -> Vector:
        """As `Measure.masks`."""
        known = _on_host(sample)
        sizes = np.stack([self._heights[known], self._widths[known]], 1)
        numbers = np.zeros(len(known), np.int64)
        for height, width in np.unique(sizes, axis=0).tolist():
            rows = np.flatnonzero((sizes == (height, width)).all(1))
            images = masks if len(rows) == len(known) else masks[rows]
            numbers[rows] = self._kept(*_runs(images[:, :height, :width], self._threads))
        return _beside(numbers, sample)

    def runs(self, ends: Vector, offsets: Vector, sample: Vector) -> Vector:
        """As `Measure.runs`."""
        return _beside(self._kept(_on_host(ends), _on_host(offsets)), sample)

    def empty(self, sample: Ints) -> Ints:
        """Keep an empty mask for each sample of [K], and return [K] their numbers."""
        ends = (self._heights[sample] * self._widths[sample]).astype(np.int32)
        return self._kept(ends, np.arange(len(sample) + 1))

    def strings(self, numbers: Ints) -> Column:
        """Return masks by their numbers.

        Args:
            numbers: [N] from the column of this measure, `NO_MASK` where there is none.

        Returns:
            N compressed strings, empty where there is no mask.
        """
        kept = joined(self._parts)
        blocks = range(0, len(numbers), TAKEN)
        return joined([kept.take(numbers[first : first + TAKEN]) for first in blocks])

    def _kept(self, ends: NDArray[np.int32], offsets: Ints) -> Ints:
        """Keep masks and return their numbers."""
        self._parts.append(Column(*cpu.rle_write(ends, offsets, threads=self._threads)))
        first, self._n = self._n, self._n + len(offsets) - 1
        return np.arange(first, self._n)


def _runs(images: Any, threads: int) -> tuple[NDArray[np.int32], Ints]:
    """Return the runs of [K, H, W] masks of one size; only they leave a device."""
    if isinstance(images, np.ndarray):
        return cpu.mask_runs(np.ascontiguousarray(images).view(np.uint8), threads=threads)
    from refcocom_kernels import ops

    ends, offsets = ops.mask_runs(images)
    return ends.cpu().numpy(), offsets.cpu().numpy()


def _on_host(vector: Vector) -> NDArray[Any]:
    return vector if isinstance(vector, np.ndarray) else vector.cpu().numpy()


def _beside(numbers: Ints, vector: Vector) -> Vector:
    """Return [K, 1] numbers on the side of a vector."""
    if isinstance(vector, np.ndarray):
        return numbers[:, None]
    import torch

    return torch.from_numpy(numbers).to(vector.device)[:, None]
