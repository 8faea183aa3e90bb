"""A batch and a store in, [B, 2] counts out: on the CPU with NumPy and Numba, elsewhere with torch.

The CPU path imports no torch unless a tensor is handed in. The torch path runs the naive definitions of
`refcocom_kernels.reference` on any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.errors import Problems
from refcocom_gpu.letterbox import (
    NON_FINITE,
    as_logits,
    as_tensor,
    finite_range,
    logit_mask,
    valid_cells,
)
from refcocom_gpu.predictions.arrays import is_float
from refcocom_gpu.predictions.batches import VALUES, ArrayBatch, Batch, ReadOptions, RLEBatch
from refcocom_gpu.store import MaskStore, Packed

if TYPE_CHECKING:
    from torch import Tensor

Counts = NDArray[np.int64]


class Counter:
    """Counts batches against a store on the store's device.

    Args:
        store: Ground truth.
        options: What float arrays mean.
        problems: Collects malformed RLE and non-finite logits.
        threads: CPU threads, 0 for all cores.
    """

    def __init__(
        self, store: MaskStore, options: ReadOptions, problems: Problems, threads: int
    ) -> None:
        self.store, self.options, self.problems, self.threads = store, options, problems, threads
        # Probabilities read as logits would all be set; None until a float array is seen.
        self.only_unit_range: bool | None = None

    def count(self, batch: Batch) -> Counts:
        """Intersection and predicted area, [B, 2] int64; zeros for rows recorded as problems."""
        if isinstance(batch, RLEBatch):
            return self._rle(batch)
        counts = np.zeros((len(batch.index), 2), np.int64)
        floats = np.array([is_float(array) for array in batch.arrays], np.bool_)
        for rows, count in (
            (np.flatnonzero(floats), self._logits),
            (np.flatnonzero(~floats), self._masks),
        ):
            if len(rows):
                part = ArrayBatch(
                    batch.index[rows],
                    [batch.arrays[row] for row in rows],
                    lambda k, rows=rows: batch.where(int(rows[k])),  # type: ignore[misc]
                )
                counts[rows] = count(part)
        return counts

    def _rle(self, batch: RLEBatch) -> Counts:
        store = self.store
        sample = store.example_sample[batch.index]
        strings = batch.strings
        if store.device == "cpu":
            counts, status, detail = cpu.rle_counts(
                strings.data,
                strings.offsets,
                sample,
                store.ends,
                store.run_offsets,
                store.pixels,
                threads=self.threads,
            )
        else:
            runs = cpu.rle_parse(
                strings.data, strings.offsets, store.pixels[sample], threads=self.threads
            )
            status, detail = runs.status, runs.detail
            counts = self._rle_on_device(sample, runs)
        for row in np.flatnonzero(status != rle_status.OK).tolist():
            reason = rle_status.explain(
                int(status[row]), int(detail[row]), int(store.pixels[sample[row]])
            )
            self.problems.add("malformed mask", batch.where(row), reason)
        return counts

    def _masks(self, batch: ArrayBatch) -> Counts:
        if self.store.device != "cpu":
            return self._on_device(
                batch, lambda array, target, _: _reference().mask_counts(array, target)
            )
        counts = np.zeros((len(batch.index), 2), np.int64)
        for packed in self.store.packed(self.store.example_sample[batch.index]):
            counts[packed.rows] = cpu.mask_list_counts(
                [_as_bytes(batch.arrays[row]) for row in packed.rows],
                packed.sample,
                packed.words,
                packed.word_offsets,
                threads=self.threads,
            )
        return counts

    def _logits(self, batch: ArrayBatch) -> Counts:
        # SAM's two resizes are not one table: they are left to the reference.
        if self.store.device != "cpu" or self.options.resize == "sam":
            return self._logits_on_device(batch)
        counts = np.zeros((len(batch.index), 2), np.int64)
        groups: dict[Any, list[int]] = {}
        arrays = [as_logits(array) for array in batch.arrays]
        for row, array in enumerate(arrays):
            groups.setdefault((array.shape, array.dtype.name), []).append(row)
        samples = self.store.example_sample[batch.index]
        for rows in groups.values():
            for packed in self.store.packed(samples[rows]):
                own = np.array(rows)[packed.rows]
                counts[own] = self._count_logits(
                    np.stack([arrays[row] for row in own]), own, packed, batch
                )
        return counts

    def _count_logits(
        self, logits: NDArray[Any], rows: NDArray[np.int64], packed: Packed, batch: ArrayBatch
    ) -> Counts:
        """One stack of logits against one shard; `rows` are their places in the batch."""
        store, side = self.store, self.options.letterbox
        first = store.example_sample[batch.index[rows[:1]]][0] - packed.sample[0]
        valid = None
        if side is not None:
            own = packed.sample + first
            cells = (logits.shape[1], logits.shape[2])
            sizes = zip(store.heights[own].tolist(), store.widths[own].tolist(), strict=True)
            valid = np.array([valid_cells(h, w, side, cells) for h, w in sizes])
        found = cpu.logit_counts(
            logits,
            packed.sample,
            store.heights[first:],
            store.widths[first:],
            packed.words,
            packed.word_offsets,
            threshold=VALUES[self.options.values],
            valid=valid,
            threads=self.threads,
        )
        for k in np.flatnonzero(found.flags == cpu.NON_FINITE).tolist():
            self.problems.add("non-finite", batch.where(int(rows[k])), NON_FINITE)
        self._saw_unit_range(bool((found.flags == cpu.UNIT_RANGE).all()))
        return found.counts

    def _saw_unit_range(self, only: bool) -> None:
        self.only_unit_range = only and self.only_unit_range is not False

    def _logits_on_device(self, batch: ArrayBatch) -> Counts:
        def count(logits: Tensor, target: Tensor, row: int) -> Tensor | None:
            seen = finite_range(logits)
            if seen is None:
                self.problems.add("non-finite", batch.where(row), NON_FINITE)
                return None
            self._saw_unit_range(seen[0] >= 0 and seen[1] <= 1)
            mask = logit_mask(logits, target.shape[0], target.shape[1], self.options)
            return _reference().mask_counts(mask, target)  # type: ignore[no-any-return]

        return self._on_device(batch, count)

    def _on_device(self, batch: ArrayBatch, count: Any) -> Counts:
        """Count each array with torch on the store's device; one read-back for the batch."""
        import torch

        device = torch.device(self.store.device)
        counts = torch.zeros((len(batch.index), 2), dtype=torch.int64, device=device)
        targets = self._targets(self.store.example_sample[batch.index], device)
        for row, target in targets:
            array = as_tensor(batch.arrays[row]).to(device, non_blocking=True)
            counted = count(array, target, row)
            if counted is not None:
                counts[row] = counted
        return counts.cpu().numpy()

    def _rle_on_device(self, sample: NDArray[np.int64], runs: cpu.Runs) -> Counts:
        import torch

        reference = _reference()
        device = torch.device(self.store.device)
        counts = torch.zeros((len(sample), 2), dtype=torch.int64, device=device)
        ends = torch.from_numpy(runs.ends).to(device)
        for row, target in self._targets(sample, device):
            if runs.status[row] == rle_status.OK:
                own = ends[runs.offsets[row] : runs.offsets[row + 1]]
                counts[row] = reference.mask_counts(
                    reference.decode_runs(own, *target.shape), target
                )
        return counts.cpu().numpy()

    def _targets(self, sample: NDArray[np.int64], device: Any) -> Any:
        """(row, [H, W] bool on the device) for each row; the packed words go to the device once."""
        reference = _reference()
        for packed in self.store.packed(sample):
            words = self.store.on_device(packed.words, device)
            for k, row in enumerate(packed.rows.tolist()):
                start, stop = packed.word_offsets[packed.sample[k] : packed.sample[k] + 2]
                mask = sample[row]
                yield (
                    row,
                    reference.unpack(
                        words[start:stop],
                        int(self.store.heights[mask]),
                        int(self.store.widths[mask]),
                    ),
                )


def _reference() -> Any:
    from refcocom_kernels import reference

    return reference


def _as_bytes(mask: Any) -> NDArray[np.uint8]:
    """A mask of bools or integers as contiguous bytes that are 0 where it is 0."""
    array = mask if isinstance(mask, np.ndarray) else mask.detach().cpu().numpy()
    if array.dtype.itemsize > 1:
        array = array != 0
    return np.ascontiguousarray(array).view(np.uint8)
