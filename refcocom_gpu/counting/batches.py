"""Batches of prediction files in, counts of all examples out; predictions that cannot be counted are recorded.

A batch counter takes the batches of one run with `add` and returns the counts of all examples with `finish`. A device
may thus still work on one batch while the next is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.counting.host import HostCounter
from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import IOU
from refcocom_gpu.counting.rows import FAULT, N_COLUMNS, N_COUNTS
from refcocom_gpu.errors import Problems
from refcocom_gpu.masks.causes import explain_counts
from refcocom_gpu.predictions.batches import ArrayBatch, Batch, RLEBatch
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.values import NO_VALUES, explain_fault, fault_name, is_plain

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

Ints = NDArray[np.int64]

MOST_PENDING = 4
"""Batches of RLE that are read before they are counted, some megabytes each."""


class BatchCounter(ABC):
    """Counts the batches of one run.

    Args:
        store: Ground truth.
        options: How predictions are read.
        problems: Collects predictions that cannot be counted.
    """

    def __init__(self, store: MaskStore, options: ReadOptions, problems: Problems) -> None:
        self._store, self._options, self._problems = store, options, problems

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Count a batch; problems are recorded by the end of `finish`."""

    @abstractmethod
    def finish(self) -> Ints:
        """Return [N, C] rows of all examples as `rows` describes them, 0 for those that no batch held."""

    def _refuse_masks(self, batch: RLEBatch) -> None:
        """Record masks where values are needed; one that is empty is so however values are read."""
        pixels = self._store.pixels[self._store.example_sample[batch.index]]
        parsed = cpu.rle_parse(batch.strings.data, batch.strings.offsets, pixels)
        is_empty = (parsed.status == rle_status.OK) & (np.diff(parsed.offsets) <= 1)
        for row in np.flatnonzero(~is_empty).tolist():
            reason = explain_fault(NO_VALUES, 0, 0, self._options)
            self._problems.add(fault_name(NO_VALUES), batch.where(row), reason)

    def _report(self, batch: ArrayBatch, rows: Ints, faults: Ints) -> None:
        """Record the predictions of some rows of a batch that have a fault."""
        for k in np.flatnonzero(faults).tolist():
            row, fault = int(rows[k]), int(faults[k])
            sample = int(self._store.example_sample[batch.index[row]])
            size = int(self._store.heights[sample]), int(self._store.widths[sample])
            values = batch.arrays[row]
            if not isinstance(values, np.ndarray):
                values = values.detach().cpu()
            reason = explain_fault(fault, *size, self._options, values)
            self._problems.add(fault_name(fault), batch.where(row), reason)


class HostBatches(BatchCounter):
    """Counts batches in host memory; see `BatchCounter`.

    RLE is counted on other threads while the caller reads the next batches. With `threads=1` there are none: they would
    take a core from another file of a sweep.
    """

    def __init__(
        self,
        store: MaskStore,
        options: ReadOptions,
        problems: Problems,
        metrics: Sequence[str] = (IOU,),
        saver: Measure | None = None,
    ) -> None:
        super().__init__(store, options, problems)
        self._counter = HostCounter(store, options, metrics, saver)
        self._rows = self._counter.zeros(len(store))
        self._beside = None if options.threads == 1 else ThreadPoolExecutor(1, "refcocom-count")
        self._pending: deque[tuple[RLEBatch, Future[Any]]] = deque()

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        if isinstance(batch, RLEBatch):
            if self._counter.readings.need_values:
                self._refuse_masks(batch)
                return
            samples = self._store.example_sample[batch.index]
            if self._beside is None:
                self._keep(batch, *self._counter.rle(batch.strings, samples))
                return
            self._keep_pending(MOST_PENDING - 1)
            counting = self._beside.submit(self._counter.rle, batch.strings, samples)
            self._pending.append((batch, counting))
            return
        self._keep_pending(0)
        samples = self._store.example_sample[batch.index]
        for rows, stacked in stacks_of(batch.arrays, self._options):
            counted = self._counter.stack(stacked, samples[rows], samples[rows])
            self._rows[batch.index[rows]] = counted
            self._report(batch, rows, counted[:, FAULT])

    def finish(self) -> Ints:
        """Return [N, C] rows of all examples."""
        self._keep_pending(0)
        return self._rows

    def _keep_pending(self, most: int) -> None:
        """Keep what is counted, in the order of the batches, until `most` are pending."""
        while len(self._pending) > most:
            batch, counting = self._pending.popleft()
            self._keep(batch, *counting.result())

    def _keep(self, batch: RLEBatch, counts: Ints, status: NDArray[np.int8], detail: Ints) -> None:
        self._rows[batch.index, :N_COUNTS] = counts[:, :N_COUNTS]
        self._rows[batch.index, N_COLUMNS:] = counts[:, N_COUNTS:]
        for row in np.flatnonzero(status != rle_status.OK).tolist():
            pixels = int(self._store.pixels[self._store.example_sample[batch.index[row]]])
            counts_of_row = batch.strings.row(row)
            reason = explain_counts(counts_of_row, int(status[row]), int(detail[row]), pixels)
            self._problems.add("malformed mask", batch.where(row), reason)


def stacks_of(arrays: Sequence[Any], options: ReadOptions) -> Iterator[tuple[Ints, Any]]:
    """Yield arrays and tensors in host memory as stacks of one shape and type, each with its rows.

    Masks of the usual types stay a list, because counting needs no copy of them in one piece.

    Args:
        arrays: B [h, w] arrays or tensors.
        options: How they are read.
    """
    arrays = [on_host(array) for array in arrays]
    for rows in group_rows([(array.shape, str(array.dtype)) for array in arrays]):
        chosen = [arrays[row] for row in rows]
        if isinstance(chosen[0], np.ndarray):
            yield rows, chosen if is_plain(chosen[0], options) else np.stack(chosen)
        else:
            import torch

            yield rows, torch.stack(chosen)


def on_host(array: Any) -> Any:
    """Return an array, or a tensor in host memory if NumPy does not have its type."""
    if isinstance(array, np.ndarray):
        return array
    tensor = array.detach().cpu()
    # NumPy has no bfloat16 and no floats of eight bits.
    if tensor.dtype.is_floating_point and str(tensor.dtype)[6:] not in _NUMPY_FLOATS:
        return tensor
    return tensor.numpy()


_NUMPY_FLOATS = ("float16", "float32", "float64")


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
