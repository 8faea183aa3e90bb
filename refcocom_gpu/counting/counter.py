"""Masks or logits and their samples in, integer counts out: what a counter does on the host and on a device.

`host.py` and `device.py` do the counting. The arithmetic here is written once for NumPy arrays and torch tensors, which
index, compare and assign alike. None of it makes the host wait for a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.rows import BEYOND_UNIT, FAULT, N_COUNTS, NON_FINITE, SWAPPED
from refcocom_gpu.predictions.options import VALUES, ReadOptions
from refcocom_gpu.predictions.resize import padded_sizes, valid_region
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]
Vector = Any
"""[K] or [K, …] numbers on the counter's side: an array in host memory, or a tensor on its device."""


class Counter(ABC):
    """Counts against a store.

    Letters: `K` predictions of one shape and type, `h w` their cells, `M` samples of the store.

    Args:
        store: Ground truth.
        options: How predictions are read.
    """

    def __init__(self, store: MaskStore, options: ReadOptions) -> None:
        self.store, self.options = store, options

    @property
    @abstractmethod
    def heights(self) -> Vector:
        """[M] H of each sample."""

    @property
    @abstractmethod
    def widths(self) -> Vector:
        """[M] W of each sample."""

    @abstractmethod
    def zeros(self, k: int) -> Vector:
        """Return [K, 5] int64 zeros."""

    @abstractmethod
    def place(self, array: NDArray[Any]) -> Vector:
        """Return an array of the host on the counter's side: itself, or a tensor on the device."""

    @abstractmethod
    def masks(self, masks: Any, sample: Vector) -> Vector:
        """Count masks that have the size of their images.

        Args:
            masks: [K, H, W] bool or uint8; what is not 0 is set.
            sample: [K] the sample of each.

        Returns:
            [K, 2] intersection and predicted area.
        """

    @abstractmethod
    def logits(
        self,
        logits: Any,
        sample: Vector,
        *,
        threshold: float | None = None,
        valid: Vector | None = None,
        known: Ints | None = None,
    ) -> tuple[Vector, Vector]:
        """Resize logits to their images, threshold and count.

        Args:
            logits: [K, h, w] floats.
            sample: [K] the sample of each.
            threshold: The value that a set pixel lies strictly above; by default that of `values`.
            valid: [K, 2] float64 rows and columns of cells that the image fills; by default those of `letterbox`.
            known: `sample` in host memory, if the host has it.

        Returns:
            [K, 2] intersection and predicted area, 0 where a logit is not finite; [K] flags of `refcocom_kernels`.
        """

    @cached_property
    def _sizes(self) -> Ints:
        """[M] H and W of each sample in one number, so that one comparison tells whether both fit."""
        sizes: Ints = (self.store.heights << 32) + self.store.widths
        return sizes

    @cached_property
    def _padded(self) -> Vector:
        """[M, 2] height and width of each image in the padded input."""
        side = self.options.letterbox
        assert side is not None
        return self.place(padded_sizes(self.store.heights, self.store.widths, side))

    def valid(self, sample: Vector, cells: Any) -> Vector | None:
        """Return [K, 2] rows and columns of `cells` that the images fill; None if logits are not letterboxed."""
        side = self.options.letterbox
        return None if side is None else valid_region(self._padded[sample], cells, side)

    def stack(self, values: Tensor, sample: Vector, known: Ints | None) -> Vector:
        """Count a stack of a training loop.

        Args:
            values: [K, h, w] masks of any size, or floats.
            sample: [K] the sample of each.
            known: `sample` in host memory, if the host has it.

        Returns:
            [K, 5] int64 as `rows` describes them.
        """
        rows = self.zeros(len(values))
        if values.is_floating_point():
            counts, flags = self.logits(values, sample, known=known)
            rows[:, FAULT] = (flags == cpu.NON_FINITE) * NON_FINITE
            rows[:, BEYOND_UNIT] = flags != cpu.UNIT_RANGE
        else:
            rows[:, BEYOND_UNIT] = 1
            if known is not None and self._all_fit(values.shape, known):
                counts = self.masks(values, sample)
            else:
                counts, swapped = self._resized_masks(values, sample, known)
                rows[:, FAULT] = swapped * SWAPPED
        rows[:, :N_COUNTS] = counts
        return rows

    def _all_fit(self, shape: Any, sample: Ints) -> bool:
        """Return whether all images have the size of masks of one shape."""
        _, h, w = shape
        return int(np.count_nonzero(self._sizes[sample] == (h << 32) + w)) == len(sample)

    def _resized_masks(
        self, masks: Tensor, sample: Vector, known: Ints | None
    ) -> tuple[Vector, Vector]:
        """Count masks, some of another size than their image; those are resized as probabilities of 0 and 1.

        Returns:
            [K, 2] counts, and [K] whether height and width of the mask are swapped.
        """
        _, h, w = masks.shape
        heights, widths = self.heights[sample], self.widths[sample]
        fits = (heights == h) & (widths == w)
        valid = self.valid(sample, (h, w))
        if valid is not None:
            # A mask of the size of its image is not letterboxed: all of it is valid, and resizing leaves it unchanged.
            valid[:, 0] = fits * h + ~fits * valid[:, 0]
            valid[:, 1] = fits * w + ~fits * valid[:, 1]
        threshold = VALUES["probabilities"]
        probabilities = (masks != 0).half()
        counts, _ = self.logits(
            probabilities, sample, threshold=threshold, valid=valid, known=known
        )
        return counts, ~fits & (heights == w) & (widths == h)
