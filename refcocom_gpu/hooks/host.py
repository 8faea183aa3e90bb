"""Stacks and indices in host memory in, rows of the state out; counted and recorded with NumPy and Numba.

Without the torch operators of `device.py`, whose dispatch costs a tenth of what counting 32 masks does. What is wrong
is known at once here, and raised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import cpu
from torch import Tensor

from refcocom_gpu.counters.host import as_bytes
from refcocom_gpu.errors import Problems
from refcocom_gpu.hooks.batches import Stack, place, swapped
from refcocom_gpu.hooks.state import (
    BEYOND_UNIT,
    CONFLICT,
    FAULTS,
    INTERSECTION,
    N_COUNTS,
    NON_FINITE,
    SWAPPED,
)
from refcocom_gpu.letterbox import NON_FINITE as IS_NON_FINITE
from refcocom_gpu.letterbox import as_logits, valid_regions
from refcocom_gpu.predictions.batches import VALUES, ReadOptions
from refcocom_gpu.store import MaskStore

Ints = NDArray[np.int64]


class HostHook:
    """Counts batches against a store in host memory.

    Args:
        store: Ground truth.
        options: What float arrays mean.

    Attributes:
        last: Index and rows of the last batch that was counted.
    """

    def __init__(self, store: MaskStore, options: ReadOptions) -> None:
        self.device = torch.device("cpu")
        self.last: tuple[Any, Any] | None = None
        self._store, self._options = store, options
        words, word_offsets = store.tensors(self.device).bits
        self._words = words.numpy().view(np.uint64)
        self._word_offsets: Ints = word_offsets.numpy()
        # Height and width in one number: one comparison a batch.
        self._sizes: Ints = (store.heights << 32) + store.widths

    def count(self, stacks: list[Stack], index: Ints) -> Ints:
        """Count a batch.

        Args:
            stacks: Its predictions.
            index: [B] in 0…N−1.

        Returns:
            [B, 5] int64 rows of the state.

        Raises:
            PredictionError: For a mask whose height and width are swapped, logits that are not finite.
        """
        problems = Problems()
        rows = np.zeros((len(index), 5), np.int64)
        for values, where in stacks:
            # One stack is the whole batch nearly always, and is not picked apart.
            own = index if where is None else index[where]
            count = self._floats if values.is_floating_point() else self._masks
            found = count(values, own, where, problems)
            if where is None:
                rows = found
            else:
                rows[where] = found
        problems.raise_if_any()
        return rows

    def record(self, state: Tensor, index: Ints, rows: Ints) -> None:
        """Add a batch to a state, in place; equal to `state.record`."""
        table: Ints = state.numpy()
        before = table[index]
        if np.count_nonzero(before[:, INTERSECTION] < 0) == len(index):
            # Nearly always the batch is new and names nothing twice, or says the same of it.
            table[index] = rows
            if np.count_nonzero(table[index] != rows) == 0:
                return
            table[index] = before
        counts = rows[:, :N_COUNTS]
        kept = np.where(before[:, :N_COUNTS] < 0, counts, before[:, :N_COUNTS])
        # Of an index that is assigned to twice the last stays, which is the first of the batch.
        table[index[::-1], :N_COUNTS] = kept[::-1]
        conflict = (table[index, :N_COUNTS] != counts).any(axis=1)
        table[index[conflict], CONFLICT] = 1
        table[index[rows[:, BEYOND_UNIT] == 1], BEYOND_UNIT] = 1

    def _floats(self, values: Tensor, index: Ints, where: Any, problems: Problems) -> Ints:
        found = self._resized(as_logits(values), index, VALUES[self._options.values])
        for k in np.flatnonzero(found.flags == cpu.NON_FINITE).tolist():
            problems.add(FAULTS[NON_FINITE], place(where[k] if where else k), IS_NON_FINITE)
        rows = np.zeros((len(index), 5), np.int64)
        rows[:, :N_COUNTS] = found.counts
        rows[:, BEYOND_UNIT] = found.flags != cpu.UNIT_RANGE
        return rows

    def _masks(self, values: Tensor, index: Ints, where: Any, problems: Problems) -> Ints:
        store = self._store
        sample = store.example_sample[index]
        _, h, w = values.shape
        sizes = self._sizes[sample]
        fits = sizes == (h << 32) + w
        rows = np.zeros((len(index), 5), np.int64)
        rows[:, BEYOND_UNIT] = 1
        masks = as_bytes(values)
        if np.count_nonzero(fits) == len(fits):
            flat = masks.reshape(len(masks), h * w)
            rows[:, :N_COUNTS] = cpu.mask_counts(flat, sample, self._words, self._word_offsets)
            return rows
        for k in np.flatnonzero(~fits & (sizes == (w << 32) + h)).tolist():
            problems.add(FAULTS[SWAPPED], place(where[k] if where else k), swapped(h, w))
        for chosen, fit in ((np.flatnonzero(fits), True), (np.flatnonzero(~fits), False)):
            if fit and len(chosen):
                flat = masks[chosen].reshape(len(chosen), h * w)
                counts = cpu.mask_counts(flat, sample[chosen], self._words, self._word_offsets)
                rows[chosen, :N_COUNTS] = counts
            elif len(chosen):
                # A mask of another size is what a model gave at its own: resized as certain probabilities are.
                certain = (masks[chosen] != 0).astype(np.float16)
                found = self._resized(certain, index[chosen], VALUES["probabilities"])
                rows[chosen, :N_COUNTS] = found.counts
        return rows

    def _resized(self, values: NDArray[Any], index: Ints, threshold: float) -> cpu.LogitCounts:
        store = self._store
        sample = store.example_sample[index]
        valid = None
        if self._options.letterbox is not None:
            sizes = store.heights[sample], store.widths[sample]
            valid = valid_regions(*sizes, self._options, values.shape[1:])
        return cpu.logit_counts(
            values,
            sample,
            store.heights,
            store.widths,
            self._words,
            self._word_offsets,
            threshold=threshold,
            valid=valid,
        )
