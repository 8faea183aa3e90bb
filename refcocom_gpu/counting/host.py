"""Arrays or CPU tensors in, counts in host memory out, by NumPy and Numba."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.counting.backend import Ints
from refcocom_gpu.counting.counter import Counter
from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import HOST_MEASURES
from refcocom_gpu.counting.rows import N_COLUMNS
from refcocom_gpu.masks.rle import Column
from refcocom_gpu.predictions.resize import as_float32, as_logits
from refcocom_gpu.predictions.values import SEVERAL, is_bool, is_float, read_stack


class HostCounter(Counter):
    """Counts in host memory; see `Counter`."""

    @cached_property
    def measures(self) -> Sequence[Measure]:
        """As `Backend.measures`."""
        threads = self.options.threads
        chosen = [
            HOST_MEASURES[name](self.store, threads)
            for name in self.metrics
            if name in HOST_MEASURES
        ]
        return [*chosen, *self.savers]

    @property
    def heights(self) -> Ints:
        """[M] H of each sample."""
        return self.store.heights

    @property
    def widths(self) -> Ints:
        """[M] W of each sample."""
        return self.store.widths

    def zeros(self, k: int) -> Ints:
        """Return [K, C] int64 zeros."""
        return np.zeros((k, self.n_columns), np.int64)

    def joined(self, parts: Sequence[Ints], axis: int) -> Ints:
        """Return arrays joined along an axis."""
        return np.concatenate(parts, axis)

    def pixels_of(self, masks: Any) -> NDArray[np.uint8]:
        """As `Backend.pixels_of`."""
        masks = np.stack(masks) if isinstance(masks, list) else as_array(masks)
        return as_bytes(masks if masks.dtype in (np.bool_, np.uint8) else masks != 0)

    def place(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array itself."""
        return array

    def stack(self, values: Any, sample: Ints, known: Ints | None) -> Ints:
        """As `Counter.stack`; tensors are read as arrays, apart from bfloat16, which NumPy does not have."""
        if not isinstance(values, list | np.ndarray):
            if is_float(values):
                values = as_float32(values, self.options.threshold)
            if str(values.dtype) != "torch.bfloat16":
                values = as_array(values)
        rows: Ints = super().stack(values, sample, known)
        return rows

    def readable(self, values: Any) -> NDArray[Any]:
        """Return floats as an array."""
        return values if isinstance(values, np.ndarray) else as_array(values.float())

    def from_tensors(self, *tensors: Any) -> tuple[NDArray[Any], ...]:
        """Return the tensors as arrays."""
        return tuple(tensor.cpu().numpy() for tensor in tensors)

    def masks(self, masks: Any, sample: Ints) -> tuple[Ints, Ints]:
        """As `Backend.masks`; masks may also be a list of K [H, W] arrays, which are not stacked."""
        looks, faults = not is_bool(masks[0]), np.zeros(len(masks), np.int64)
        if looks and str(masks[0].dtype) not in ("uint8", "torch.uint8"):
            # The kernel takes bytes that are 0 or not; wider integers are looked at before they become such.
            stacked = np.stack(masks) if isinstance(masks, list) else masks
            read = read_stack(stacked, np.ones(len(masks), np.bool_), self.options)
            masks, faults, looks = read.values, faults + read.faults, False
        store, threads = self.store, self.options.threads
        truth = store.words, store.word_offsets
        if isinstance(masks, list):
            own = [as_bytes(mask) for mask in masks]
            counted = cpu.mask_list_counts(own, sample, *truth, looks=looks, threads=threads)
        else:
            flat = as_bytes(masks).reshape(len(masks), masks.shape[1] * masks.shape[2])
            counted = cpu.mask_counts(flat, sample, *truth, looks=looks, threads=threads)
        if looks:
            faults += counted.mixed * np.int64(SEVERAL)
        return counted.counts, faults

    def logits(
        self,
        logits: Any,
        sample: Ints,
        *,
        threshold: float,
        valid: NDArray[np.float64] | None,
        known: Ints | None = None,
    ) -> tuple[Ints, NDArray[np.int8]]:
        """As `Backend.logits`."""
        counts, kinds, _ = cpu.logit_counts(
            as_logits(logits, threshold),
            sample,
            self.store.heights,
            self.store.widths,
            self.store.words,
            self.store.word_offsets,
            threshold=threshold,
            valid=valid,
            threads=self.options.threads,
        )
        return counts, kinds

    def curve(
        self,
        logits: Any,
        sample: Ints,
        *,
        thresholds: Sequence[float],
        valid: NDArray[np.float64] | None,
        known: Ints | None = None,
    ) -> Ints:
        """As `Backend.curve`."""
        return cpu.logit_curve(
            as_logits(logits, self.options.threshold),
            sample,
            self.store.heights,
            self.store.widths,
            self.store.words,
            self.store.word_offsets,
            np.array(thresholds, np.float32),
            valid=valid,
            threads=self.options.threads,
        )

    def logit_masks(
        self,
        logits: Any,
        sample: Ints,
        *,
        threshold: float,
        valid: NDArray[np.float64] | None,
        known: Ints | None = None,
    ) -> NDArray[np.uint8]:
        """As `Backend.logit_masks`."""
        return cpu.logit_masks(
            as_logits(logits, threshold),
            sample,
            self.heights,
            self.widths,
            *self.largest(known),
            threshold=threshold,
            valid=valid,
            threads=self.options.threads,
        )

    def rle(self, strings: Column, sample: Ints) -> tuple[Ints, NDArray[np.int8], Ints]:
        """Count RLE strings without decoding them.

        Args:
            strings: K compressed strings.
            sample: [K] the sample of each.

        Returns:
            [K, 2 + C − 5] counts, [K] status and [K] detail as `rle_status` explains them; counts are 0 where a string
            is malformed.
        """
        store, threads = self.store, self.options.threads
        counts, status, detail = cpu.rle_counts(
            strings.data,
            strings.offsets,
            sample,
            store.ends,
            store.run_offsets,
            store.pixels,
            threads=threads,
        )
        if not self.measures:
            return counts, status, detail
        rows = np.flatnonzero(status == rle_status.OK)
        if len(rows) < len(sample):
            strings = strings.take(rows)
        own = sample[rows]
        runs = cpu.rle_parse(strings.data, strings.offsets, store.pixels[own], threads=threads)
        columns = np.zeros((len(sample), self.n_columns - N_COLUMNS), np.int64)
        columns[rows] = self.joined(
            [one.runs(runs.ends, runs.offsets, own) for one in self.measures], 1
        )
        return self.joined([counts, columns], 1), status, detail


def as_array(values: Any) -> NDArray[Any]:
    """Return an array, or a tensor of a type that NumPy has, as an array."""
    if isinstance(values, np.ndarray):
        return values
    if values.requires_grad or not values.is_cpu:
        values = values.detach().cpu()
    array: NDArray[Any] = values.numpy()
    return array


def as_bytes(mask: Any) -> NDArray[np.uint8]:
    """Return a mask, or a stack of them, of bools or bytes as contiguous bytes."""
    return np.ascontiguousarray(as_array(mask)).view(np.uint8)
