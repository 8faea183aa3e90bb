"""The counter of the CPU: NumPy and Numba, torch only where a tensor is handed in or SAM's resize is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.counting.sam import sam_counts
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.arrays import is_float
from refcocom_gpu.predictions.batches import ArrayBatch, Batch, RLEBatch
from refcocom_gpu.predictions.options import VALUES, ReadOptions
from refcocom_gpu.predictions.resize import NON_FINITE, as_logits, valid_regions
from refcocom_gpu.store.store import MaskStore, Packed

Counts = NDArray[np.int64]


class HostCounter:
    """Counts batches against a store in host memory; see `Counter`."""

    def __init__(
        self, store: MaskStore, options: ReadOptions, problems: Problems, threads: int
    ) -> None:
        self.store, self.options, self.problems, self.threads = store, options, problems, threads
        self.only_unit_range: bool | None = None
        self._counts = np.zeros((len(store), 2), np.int64)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self._counts[batch.index] = self.count(batch)

    def finish(self) -> Counts:
        """[N, 2] counts of all examples."""
        return self._counts

    def count(self, batch: Batch) -> Counts:
        """Intersection and predicted area, [B, 2] int64; zeros for rows recorded as problems."""
        if isinstance(batch, RLEBatch):
            return self._rle(batch)
        counts = np.zeros((len(batch.index), 2), np.int64)
        for part, rows, count in split_kinds(batch, self._logits, self._masks):
            counts[rows] = count(part)
        return counts

    def _rle(self, batch: RLEBatch) -> Counts:
        store = self.store
        sample = store.example_sample[batch.index]
        counts, status, detail = cpu.rle_counts(
            batch.strings.data,
            batch.strings.offsets,
            sample,
            store.ends,
            store.run_offsets,
            store.pixels,
            threads=self.threads,
        )
        for row in np.flatnonzero(status != rle_status.OK).tolist():
            pixels = int(store.pixels[sample[row]])
            reason = rle_status.explain(int(status[row]), int(detail[row]), pixels)
            self.problems.add("malformed mask", batch.where(row), reason)
        return counts

    def _masks(self, batch: ArrayBatch) -> Counts:
        counts = np.zeros((len(batch.index), 2), np.int64)
        for packed in self.store.packed(self.store.example_sample[batch.index]):
            counts[packed.rows] = cpu.mask_list_counts(
                [as_bytes(batch.arrays[row]) for row in packed.rows],
                packed.sample,
                packed.words,
                packed.word_offsets,
                threads=self.threads,
            )
        return counts

    def _logits(self, batch: ArrayBatch) -> Counts:
        if self.options.resize == "sam":
            counted, in_unit = sam_counts(batch, self.store, self.options, self.problems, "cpu")
            self.only_unit_range = in_unit and self.only_unit_range is not False
            return counted.numpy()
        counts = np.zeros((len(batch.index), 2), np.int64)
        groups: dict[Any, list[int]] = {}
        arrays = [as_logits(array) for array in batch.arrays]
        for row, array in enumerate(arrays):
            groups.setdefault((array.shape, array.dtype.name), []).append(row)
        samples = self.store.example_sample[batch.index]
        for rows in groups.values():
            for packed in self.store.packed(samples[rows]):
                own = np.array(rows)[packed.rows]
                stacked = np.stack([arrays[row] for row in own])
                counts[own] = self._count_logits(stacked, own, packed, batch)
        return counts

    def _count_logits(
        self, logits: NDArray[Any], rows: NDArray[np.int64], packed: Packed, batch: ArrayBatch
    ) -> Counts:
        """One stack of logits against one shard; `rows` are their places in the batch."""
        store = self.store
        heights, widths = store.heights[packed.first :], store.widths[packed.first :]
        found = cpu.logit_counts(
            logits,
            packed.sample,
            heights,
            widths,
            packed.words,
            packed.word_offsets,
            threshold=VALUES[self.options.values],
            valid=valid_regions(
                heights[packed.sample], widths[packed.sample], self.options, logits.shape[1:]
            ),
            threads=self.threads,
        )
        for k in np.flatnonzero(found.flags == cpu.NON_FINITE).tolist():
            self.problems.add("non-finite", batch.where(int(rows[k])), NON_FINITE)
        in_unit = bool((found.flags == cpu.UNIT_RANGE).all())
        self.only_unit_range = in_unit and self.only_unit_range is not False
        return found.counts


def split_kinds(batch: ArrayBatch, logits: Any, masks: Any) -> Any:
    """The float arrays and the others of a batch, as (part, rows in the batch, what is to be done with it)."""
    floats = np.array([is_float(array) for array in batch.arrays], np.bool_)
    for rows, do in ((np.flatnonzero(floats), logits), (np.flatnonzero(~floats), masks)):
        if len(rows):
            yield batch.take(rows), rows, do


def as_bytes(mask: Any) -> NDArray[np.uint8]:
    """A mask of bools or integers as contiguous bytes that are 0 where it is 0."""
    array = mask if isinstance(mask, np.ndarray) else mask.detach().cpu().numpy()
    if array.dtype.itemsize > 1:
        array = array != 0
    return np.ascontiguousarray(array).view(np.uint8)
