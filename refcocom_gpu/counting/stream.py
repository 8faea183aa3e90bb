"""Batches of prediction files in, counts of all examples out, counted on a device in parts that fit into its memory.

The host waits for the device only at the end, and counts stay on the device until `finish`. The verdict on each row (is
its string well-formed, are its logits finite?) comes back a few parts later, while the row is still held for a message.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status
from torch import Tensor

from refcocom_gpu.counting.batches import BatchCounter, HostBatches, group_rows, on_host
from refcocom_gpu.counting.device import DeviceCounter
from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import IOU
from refcocom_gpu.counting.rows import FAULT, N_COLUMNS, N_COUNTS
from refcocom_gpu.counting.staging import BUFFER_BYTES, Staging
from refcocom_gpu.errors import Problems
from refcocom_gpu.masks.causes import explain_counts
from refcocom_gpu.predictions.batches import ArrayBatch, Batch, RLEBatch
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import as_logits
from refcocom_gpu.predictions.values import is_float
from refcocom_gpu.store.store import MaskStore

FREE_SHARE = 8
"""A part takes at most one in this many bytes of the device's free memory, because a model may be training too."""

BEHIND = 2
"""Parts whose verdicts are outstanding: as many as there are staging buffers, so that waiting for one is rare."""

Rows = NDArray[np.int64]


class DeviceBatches(BatchCounter):
    """Counts batches on a device; see `BatchCounter`."""

    def __init__(
        self,
        store: MaskStore,
        options: ReadOptions,
        problems: Problems,
        metrics: Sequence[str] = (IOU,),
        saver: Measure | None = None,
    ) -> None:
        super().__init__(store, options, problems)
        self._counter = DeviceCounter(store, options, metrics=metrics, saver=saver)
        self._device = self._counter.device
        self._staging = Staging(self._device)
        self._rows = self._counter.zeros(len(store))
        self._verdicts: deque[tuple[Tensor, Any, Callable[[NDArray[Any]], None]]] = deque()
        self._part_bytes = BUFFER_BYTES
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            self._part_bytes = min(BUFFER_BYTES, free // FREE_SHARE)
        # Counts single predictions that do not fit on the device; `finish` adds their counts to the others.
        self._host = HostBatches(store, options, problems, metrics, saver)
        self._on_host: list[int] = []

    def add(self, batch: Batch) -> None:
        """Queue a batch."""
        if isinstance(batch, RLEBatch):
            if self._counter.readings.need_values:
                self._refuse_masks(batch)
                return
            lengths = np.diff(batch.strings.offsets)
            if self._counter.measures:
                # Their masks are drawn.
                lengths = np.maximum(
                    lengths, self._store.pixels[self._store.example_sample[batch.index]]
                )
            self._in_parts(batch, lengths, lambda rows: self._rle(batch, rows))
        else:
            self._arrays(batch)

    def finish(self) -> NDArray[np.int64]:
        """Wait for the device and return [N, C] rows of all examples."""
        self._settle(0)
        rows = self._rows.cpu().numpy()
        rows[self._on_host] = self._host.finish()[self._on_host]
        return rows

    # Parts ----------------------------------------------------------------------------------------

    def _in_parts(
        self, batch: Batch, sizes: NDArray[np.int64], count: Callable[[Rows], None]
    ) -> None:
        """Count rows in parts of at most `_part_bytes`, which is halved when the device runs out of memory."""
        ends = np.cumsum(sizes)
        first = 0
        while first < len(sizes):
            limit = self._part_bytes + (ends[first - 1] if first else 0)
            last = max(first + 1, int(np.searchsorted(ends, limit, side="right")))
            rows = np.arange(first, last)
            try:
                count(rows)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                self._part_bytes = int(sizes[rows].sum()) // 2
                if len(rows) == 1:
                    self._count_on_host(batch.take(rows))
                    first = last
                continue
            first = last

    def _count_on_host(self, batch: Batch) -> None:
        if not self._on_host:
            warnings.warn(
                f"refcocom: {self._store.device} has no memory left for {batch.where(0)}; it is counted on the CPU",
                RuntimeWarning,
                stacklevel=2,
            )
        self._host.add(batch)
        self._on_host += batch.index.tolist()

    # Kinds ----------------------------------------------------------------------------------------

    def _rle(self, batch: RLEBatch, rows: Rows) -> None:
        if len(rows) < len(batch.index):
            batch = batch.take(rows)
        strings, samples = batch.strings, self._store.example_sample[batch.index]
        data, offsets, sample, index = self._staging.send(
            strings.data, strings.offsets, samples, batch.index
        )
        counts, valid = self._counter.rle(data, offsets, sample)
        self._rows[:, :N_COUNTS].index_copy_(0, index, counts)
        if self._counter.measures:
            self._measure_runs(batch, samples)

        def report(valid: NDArray[np.bool_]) -> None:
            malformed = np.flatnonzero(~valid)
            pixels = self._store.pixels[samples[malformed]]
            column = strings.take(malformed)
            # The kernel says which strings are malformed; the host says why.
            parsed = cpu.rle_parse(column.data, column.offsets, pixels)
            for k, row in enumerate(malformed.tolist()):
                reason = explain_counts(
                    column.row(k), int(parsed.status[k]), int(parsed.detail[k]), int(pixels[k])
                )
                self._problems.add("malformed mask", batch.where(row), reason)

        self._later(valid, report)

    def _measure_runs(self, batch: RLEBatch, samples: Rows) -> None:
        """Parse strings on the host and count their masks for all measures."""
        pixels, strings = self._store.pixels[samples], batch.strings
        status = cpu.rle_parse(strings.data, strings.offsets, pixels).status
        valid = np.flatnonzero(status == rle_status.OK)
        if not len(valid):
            return
        strings = strings.take(valid)
        runs = cpu.rle_parse(strings.data, strings.offsets, pixels[valid])
        ends, offsets, sample, index = self._staging.send(
            runs.ends, runs.offsets, samples[valid], batch.index[valid]
        )
        columns = self._counter.runs(ends, offsets, sample)
        self._rows[:, N_COLUMNS:].index_copy_(0, index, columns)

    def _arrays(self, batch: ArrayBatch) -> None:
        """Stack arrays of one shape and type, and count each stack."""
        on_device = [
            isinstance(array, Tensor) and array.device == self._device for array in batch.arrays
        ]
        arrays = [
            array.detach() if is_there else _sendable(array, self._options.threshold)
            for array, is_there in zip(batch.arrays, on_device, strict=True)
        ]
        samples = self._store.example_sample[batch.index]
        kinds = [
            (tuple(array.shape), str(array.dtype), is_there)
            for array, is_there in zip(arrays, on_device, strict=True)
        ]
        for group in group_rows(kinds):
            sizes = np.array([arrays[row].nbytes for row in group], np.int64)

            def count_rows(part: Rows, group: Rows = group) -> None:
                rows = group[part]
                stacked, sample, index = self._send(
                    [arrays[row] for row in rows],
                    samples[rows],
                    batch.index[rows],
                    on_device[rows[0]],
                )
                if stacked.dtype == torch.uint16 and is_float(batch.arrays[rows[0]]):
                    # NumPy has no bfloat16, so its bits were sent.
                    stacked = stacked.view(torch.bfloat16)
                counted = self._counter.stack(stacked, sample, samples[rows])
                self._rows.index_copy_(0, index, counted)
                self._later(counted[:, FAULT], lambda faults: self._report(batch, rows, faults))

            self._in_parts(batch.take(group), sizes, count_rows)

    def _send(
        self, arrays: Sequence[Any], sample: Rows, index: Rows, are_on_device: bool
    ) -> list[Tensor]:
        if are_on_device:
            return [torch.stack(list(arrays)), *self._staging.send(sample, index)]
        return self._staging.send(arrays, sample, index)

    # Verdicts -------------------------------------------------------------------------------------

    def _later(self, verdict: Tensor, report: Callable[[NDArray[Any]], None]) -> None:
        """Start copying a small tensor to the host; `report` gets it once it has arrived."""
        event = None
        if self._device.type == "cuda":
            host = torch.empty(verdict.shape, dtype=verdict.dtype, pin_memory=True)
            host.copy_(verdict, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            verdict = host
        self._verdicts.append((verdict, event, report))
        self._settle(BEHIND)

    def _settle(self, behind: int) -> None:
        """Report the oldest verdicts until `behind` are outstanding."""
        while len(self._verdicts) > behind:
            verdict, event, report = self._verdicts.popleft()
            if event is not None:
                event.synchronize()
            report(verdict.numpy())


def _sendable(array: Any, threshold: float) -> NDArray[Any]:
    """Return a prediction in host memory as an array of a type that a device reads."""
    if is_float(array):
        return as_logits(array, threshold)
    array = on_host(array)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
