"""Arrays or CPU tensors in, counts in host memory out, by NumPy and Numba."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.counter import Counter, Ints
from refcocom_gpu.counting.rows import N_COLUMNS
from refcocom_gpu.masks.rle import Column
from refcocom_gpu.predictions.resize import as_logits


class HostCounter(Counter):
    """Counts in host memory; see `Counter`."""

    @property
    def heights(self) -> Ints:
        """[M] H of each sample."""
        return self.store.heights

    @property
    def widths(self) -> Ints:
        """[M] W of each sample."""
        return self.store.widths

    def zeros(self, k: int) -> Ints:
        """Return [K, 5] int64 zeros."""
        return np.zeros((k, N_COLUMNS), np.int64)

    def place(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array itself."""
        return array

    def masks(self, masks: Any, sample: Ints) -> Ints:
        """As `Counter.masks`."""
        pixels = as_bytes(masks)
        return cpu.mask_counts(
            pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2]),
            sample,
            self.store.words,
            self.store.word_offsets,
            threads=self.options.threads,
        )

    def mask_list(self, masks: Sequence[Any], sample: Ints) -> Ints:
        """Count masks that each have the size of their image, without stacking them.

        Args:
            masks: K [H, W] arrays or tensors of bools or integers.
            sample: [K] the sample of each.

        Returns:
            [K, 2] intersection and predicted area.
        """
        return cpu.mask_list_counts(
            [as_bytes(mask) for mask in masks],
            sample,
            self.store.words,
            self.store.word_offsets,
            threads=self.options.threads,
        )

    def logits(
        self,
        logits: Any,
        sample: Ints,
        *,
        threshold: float | None = None,
        valid: NDArray[np.float64] | None = None,
        known: Ints | None = None,
    ) -> tuple[Ints, NDArray[np.int8]]:
        """As `Counter.logits`."""
        counts, flags, _ = cpu.logit_counts(
            as_logits(logits),
            sample,
            self.store.heights,
            self.store.widths,
            self.store.words,
            self.store.word_offsets,
            threshold=self.options.threshold if threshold is None else threshold,
            valid=self.valid(sample, logits.shape) if valid is None else valid,
            threads=self.options.threads,
        )
        return counts, flags

    def rle(self, strings: Column, sample: Ints) -> tuple[Ints, NDArray[np.int8], Ints]:
        """Count RLE strings without decoding them.

        Args:
            strings: K compressed strings.
            sample: [K] the sample of each.

        Returns:
            [K, 2] counts, [K] status and [K] detail as `rle_status` explains them; counts are 0 where a string is
            malformed.
        """
        store = self.store
        return cpu.rle_counts(
            strings.data,
            strings.offsets,
            sample,
            store.ends,
            store.run_offsets,
            store.pixels,
            threads=self.options.threads,
        )


def as_bytes(mask: Any) -> NDArray[np.uint8]:
    """Return a mask, or a stack of them, of bools or integers as contiguous bytes, 0 where it is 0."""
    array = mask if isinstance(mask, np.ndarray) else mask.detach().cpu().numpy()
    if array.dtype.itemsize > 1:
        array = array != 0
    return np.ascontiguousarray(array).view(np.uint8)
