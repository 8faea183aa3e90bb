"""Stacks and indices in host memory in, rows of the state out; counted and recorded with NumPy and Numba.

Without the torch operators of `device.py`, whose dispatch costs a tenth of what counting 32 masks does. What is wrong
is known at once here, and raised.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import cpu
from torch import Tensor

from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.options import VALUES, ReadOptions
from refcocom_gpu.predictions.resize import NON_FINITE as IS_NON_FINITE
from refcocom_gpu.predictions.resize import as_logits, valid_regions
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.batches import Index, Stack, place, refuse_unknown, swapped
from refcocom_gpu.training.state import BEYOND_UNIT, FAULTS, N_COUNTS, NON_FINITE, SWAPPED

Ints = NDArray[np.int64]


class Counted(NamedTuple):
    """A batch after counting.

    Attributes:
        example: [B] index.
        counts: [B, 2] intersection and predicted area.
        beyond: [B] `BEYOND_UNIT`.
    """

    example: Ints
    counts: Ints
    beyond: NDArray[np.bool_]


_NOTHING = Counted(np.zeros(0, np.int64), np.zeros((0, 2), np.int64), np.zeros(0, np.bool_))


class HostHook:
    """Counts batches against a store in host memory.

    Args:
        store: Ground truth.
        options: What float arrays mean.

    Attributes:
        last: The last batch that was counted.
    """

    def __init__(self, store: MaskStore, options: ReadOptions) -> None:
        self.device = torch.device("cpu")
        self.last = _NOTHING
        self._store, self._options, self._n = store, options, len(store)
        words, word_offsets = store.tensors(self.device).bits
        self._words = words.numpy().view(np.uint64)
        self._word_offsets: Ints = word_offsets.numpy()
        # Height and width in one number: one comparison a batch.
        self._sizes: Ints = (store.heights << 32) + store.widths

    def count(self, stacks: list[Stack], index: Index) -> None:
        """Count a batch, which is then the last one.

        Args:
            stacks: Its predictions.
            index: [B] on the host.

        Raises:
            PredictionError: For an index that names no example, a mask whose height and width are swapped, logits
                that are not finite.
            UsageError: When the index is on another device.
        """
        if not isinstance(index, np.ndarray):
            raise UsageError(f"index is on {index.device}, predictions are on the CPU")
        refuse_unknown(index, self._n)
        problems = Problems()
        parts = []
        for values, where in stacks:
            # One stack is the whole batch nearly always, and is not picked apart.
            own = index if where is None else index[where]
            count = self._floats if values.is_floating_point() else self._masks
            parts.append(count(values, own, where, problems))
        problems.raise_if_any()
        if len(parts) == 1:
            self.last = parts[0]
        elif parts:
            # In the order of the batch again: of an example that comes twice the first counts.
            order = np.argsort(np.concatenate([where for _, where in stacks]))
            self.last = Counted(
                *(np.concatenate(columns)[order] for columns in zip(*parts, strict=True))
            )
        else:
            self.last = _NOTHING

    def record(self, state: Tensor) -> None:
        """Add the last batch to a state, in place; equal to `state.record`."""
        cpu.tally(state.numpy(), *self.last)

    def rows(self) -> Tensor:
        """The last batch as [B, 6] int64: the index, then the row of a state."""
        last = self.last
        rows = np.zeros((len(last.example), 6), np.int64)
        rows[:, 0], rows[:, 1 : 1 + N_COUNTS] = last.example, last.counts
        rows[:, 1 + BEYOND_UNIT] = last.beyond
        return torch.from_numpy(rows)

    def _floats(self, values: Tensor, index: Ints, where: Any, problems: Problems) -> Counted:
        found = self._resized(as_logits(values), index, VALUES[self._options.values])
        for k in np.flatnonzero(found.flags == cpu.NON_FINITE).tolist():
            problems.add(FAULTS[NON_FINITE], place(where[k] if where else k), IS_NON_FINITE)
        return Counted(index, found.counts, found.flags != cpu.UNIT_RANGE)

    def _masks(self, values: Tensor, index: Ints, where: Any, problems: Problems) -> Counted:
        sample = self._store.example_sample[index]
        n, h, w = values.shape
        sizes = self._sizes[sample]
        fits = sizes == (h << 32) + w
        masks = np.ascontiguousarray(values.numpy()).view(np.uint8)
        beyond = np.ones(n, np.bool_)
        if np.count_nonzero(fits) == n:
            return Counted(index, self._whole(masks, sample), beyond)
        for k in np.flatnonzero(~fits & (sizes == (w << 32) + h)).tolist():
            problems.add(FAULTS[SWAPPED], place(where[k] if where else k), swapped(h, w))
        counts = np.zeros((n, 2), np.int64)
        counts[fits] = self._whole(masks[fits], sample[fits])
        # A mask of another size is what a model gave at its own: resized as certain probabilities are.
        certain = (masks[~fits] != 0).astype(np.float16)
        counts[~fits] = self._resized(certain, index[~fits], VALUES["probabilities"]).counts
        return Counted(index, counts, beyond)

    def _whole(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """Counts of masks of their images' size."""
        flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2])
        return cpu.mask_counts(flat, sample, self._words, self._word_offsets)

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
