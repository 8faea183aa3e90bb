"""Batches of prediction files in, counts of all examples out; predictions that cannot be counted are recorded.

A batch counter takes the batches of one run with `add` and returns the counts of all examples with `finish`. A device
may thus still work on one batch while the next is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.counting.host import HostCounter
from refcocom_gpu.counting.sam import sam_counts
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.arrays import is_float
from refcocom_gpu.predictions.batches import ArrayBatch, Batch, RLEBatch
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import NON_FINITE, as_logits

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

Ints = NDArray[np.int64]


class BatchCounter(ABC):
    """Counts the batches of one run.

    Args:
        store: Ground truth.
        options: How predictions are read.
        problems: Collects predictions that cannot be counted.

    Attributes:
        only_unit_range: Whether every float array so far lay in 0…1, as probabilities do; None before the first.
    """

    def __init__(self, store: MaskStore, options: ReadOptions, problems: Problems) -> None:
        self.only_unit_range: bool | None = None
        self._store, self._options, self._problems = store, options, problems

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Count a batch; problems are recorded by the end of `finish`."""

    @abstractmethod
    def finish(self) -> Ints:
        """Return [N, 2] intersection and predicted area of all examples, 0 for those that no batch held."""

    def _saw_unit_range(self, only: bool) -> None:
        self.only_unit_range = only and self.only_unit_range is not False


class HostBatches(BatchCounter):
    """Counts batches in host memory; see `BatchCounter`."""

    def __init__(self, store: MaskStore, options: ReadOptions, problems: Problems) -> None:
        super().__init__(store, options, problems)
        self._counter = HostCounter(store, options)
        self._counts = np.zeros((len(store), 2), np.int64)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        if isinstance(batch, RLEBatch):
            self._counts[batch.index] = self._rle(batch)
            return
        for part, is_logits in split_kinds(batch):
            count = self._logits if is_logits else self._masks
            self._counts[part.index] = count(part)

    def finish(self) -> Ints:
        """Return [N, 2] counts of all examples."""
        return self._counts

    def _rle(self, batch: RLEBatch) -> Ints:
        sample = self._store.example_sample[batch.index]
        counts, status, detail = self._counter.rle(batch.strings, sample)
        for row in np.flatnonzero(status != rle_status.OK).tolist():
            pixels = int(self._store.pixels[sample[row]])
            reason = rle_status.explain(int(status[row]), int(detail[row]), pixels)
            self._problems.add("malformed mask", batch.where(row), reason)
        return counts

    def _masks(self, batch: ArrayBatch) -> Ints:
        return self._counter.mask_list(batch.arrays, self._store.example_sample[batch.index])

    def _logits(self, batch: ArrayBatch) -> Ints:
        if self._options.resize == "sam":
            sam, in_unit = sam_counts(batch, self._store, self._options, self._problems, "cpu")
            self._saw_unit_range(in_unit)
            return sam.numpy()
        counts = np.zeros((len(batch.index), 2), np.int64)
        arrays = [as_logits(array) for array in batch.arrays]
        for rows in group_rows([(array.shape, array.dtype.name) for array in arrays]):
            stacked = np.stack([arrays[row] for row in rows])
            sample = self._store.example_sample[batch.index[rows]]
            counts[rows], flags = self._counter.logits(stacked, sample)
            for row in rows[flags == cpu.NON_FINITE].tolist():
                self._problems.add("non-finite", batch.where(row), NON_FINITE)
            self._saw_unit_range(bool((flags == cpu.UNIT_RANGE).all()))
        return counts


def split_kinds(batch: ArrayBatch) -> Iterator[tuple[ArrayBatch, bool]]:
    """Split a batch into its float arrays and its masks; yield each part and whether it holds floats."""
    floats = np.array([is_float(array) for array in batch.arrays], np.bool_)
    for rows, are_floats in ((np.flatnonzero(floats), True), (np.flatnonzero(~floats), False)):
        if len(rows):
            yield batch.take(rows), are_floats


def group_rows(kinds: Sequence[Hashable]) -> Iterator[Ints]:
    """Yield the rows of each kind; kinds come in the order of their first rows.

    >>> list(group_rows(["a", "b", "a"]))
    [array([0, 2]), array([1])]
    """
    groups: dict[Hashable, list[int]] = {}
    for row, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(row)
    for rows in groups.values():
        yield np.array(rows)
