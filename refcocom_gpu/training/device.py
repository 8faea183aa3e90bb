"""Stacks on a device in, rows of the state out, counted and recorded by torch operators: nothing waits for the device.

What is wrong with a prediction is not known here then: its row says so (`FAULT`), and the end of the epoch reads it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import cpu, ops
from torch import Tensor

from refcocom_gpu.predictions.options import VALUES, ReadOptions
from refcocom_gpu.predictions.resize import resized_sizes
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.batches import Index, Stack, refuse_unknown
from refcocom_gpu.training.state import (
    BEYOND_UNIT,
    FAULT,
    N_COUNTS,
    NON_FINITE,
    SWAPPED,
    UNKNOWN,
    record,
)


class DeviceHook:
    """Counts batches against a store on a device.

    Args:
        store: Ground truth.
        options: What float arrays mean.
        device: Where predictions, truth and state are.

    Attributes:
        last: Index and rows of the last batch that was counted.
    """

    def __init__(self, store: MaskStore, options: ReadOptions, device: torch.device) -> None:
        self.device = device
        self.last: tuple[Tensor, Tensor] | None = None
        self._store, self._options = store, options
        self._truth = store.tensors(device)
        self._bounds = int(store.heights.max()), int(store.widths.max())

    def count(self, stacks: list[Stack], index: Index) -> None:
        """Count a batch, which is then the last one.

        Args:
            stacks: Its predictions.
            index: [B] on the device or the host.

        Raises:
            PredictionError: For an index that the host knows to name no example.
        """
        known = None
        n = len(self._store)
        if isinstance(index, np.ndarray):
            refuse_unknown(index, n)
            known = self._store.example_sample[index]
            index = torch.from_numpy(index).to(self._truth.device, non_blocking=True)
        unknown = (index < 0) | (index >= n)
        sample = self._truth.example_sample[index.clamp(0, n - 1)]
        index = index.masked_fill(unknown, n)
        chosen, rows = [], []
        for values, where in stacks:
            of_stack = known if known is None or where is None else known[where]
            counted = self._count(values, _take(sample, where), of_stack)
            counted[:, FAULT].masked_fill_(_take(unknown, where), UNKNOWN)
            chosen.append(_take(index, where))
            rows.append(counted)
        if len(rows) == 1:
            self.last = chosen[0], rows[0]
        elif rows:
            # In the order of the batch again: of an example that comes twice the first counts.
            order = np.argsort(np.concatenate([where for _, where in stacks])).tolist()
            self.last = _take(torch.cat(chosen), order), _take(torch.cat(rows), order)
        else:
            self.last = index, index.new_zeros(0, 5)

    def record(self, state: Tensor) -> None:
        """Add the last batch to a state, in place."""
        assert self.last is not None
        record(state, *self.last)

    def rows(self) -> Tensor:
        """The last batch as [B, 6] int64: the index, N where it names nothing, then the row of a state."""
        assert self.last is not None
        index, rows = self.last
        return torch.cat([index[:, None], rows], 1)

    def _count(self, values: Tensor, sample: Tensor, known: NDArray[np.int64] | None) -> Tensor:
        """Rows of a stack; `known` is `sample` where the host knows it too."""
        rows = sample.new_zeros(len(sample), 5)
        if values.is_floating_point():
            valid = self._valid(values, sample)
            counts, flags = self._resized(values, sample, VALUES[self._options.values], valid)
            rows[:, FAULT] = (flags == cpu.NON_FINITE) * NON_FINITE
            rows[:, BEYOND_UNIT] = flags != cpu.UNIT_RANGE
        elif known is not None and self._fit(values, known):
            rows[:, :N_COUNTS] = ops.mask_counts(values, sample, *self._truth.bits)
            rows[:, BEYOND_UNIT] = 1
            return rows
        else:
            # Which sizes the images have is on the device. Resized to the size it has, a mask stays as it is.
            _, h, w = values.shape
            heights, widths = self._truth.heights[sample], self._truth.widths[sample]
            fits = (heights == h) & (widths == w)
            valid = self._valid(values, sample)
            if valid is not None:
                whole = valid.new_empty(2)
                whole[0], whole[1] = h, w
                valid = torch.where(fits[:, None], whole, valid)
            certain = (values != 0).half()
            counts, _ = self._resized(certain, sample, VALUES["probabilities"], valid)
            rows[:, FAULT] = (~fits & (heights == w) & (widths == h)) * SWAPPED
            rows[:, BEYOND_UNIT] = 1
        rows[:, :N_COUNTS] = counts
        return rows

    def _fit(self, masks: Tensor, sample: NDArray[np.int64]) -> bool:
        """Whether all masks have the sizes of their images."""
        _, h, w = masks.shape
        store = self._store
        return bool(((store.heights[sample] == h) & (store.widths[sample] == w)).all())

    def _resized(
        self, values: Tensor, sample: Tensor, threshold: float, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        truth = self._truth
        counts: Tensor
        flags: Tensor
        counts, flags = ops.logit_counts(
            values,
            sample,
            truth.heights,
            truth.widths,
            *truth.bits,
            *self._bounds,
            threshold,
            valid,
        )
        return counts, flags

    @cached_property
    def _inner(self) -> Tensor:
        """[M, 2] size of each image in the padded input."""
        assert self._options.letterbox is not None
        sizes = resized_sizes(self._store.heights, self._store.widths, self._options.letterbox)
        return torch.from_numpy(sizes).to(self._truth.device)

    def _valid(self, values: Tensor, sample: Tensor) -> Tensor | None:
        """[K, 2] float64 rows and columns that the image fills, by the arithmetic of `valid_regions`."""
        if self._options.letterbox is None:
            return None
        _, h, w = values.shape
        inner = self._inner[sample]
        filled = torch.stack([inner[:, 0] * h, inner[:, 1] * w], 1)
        return filled.double() / self._options.letterbox


def _take(rows: Tensor, where: list[int] | None) -> Tensor:
    """Some rows of what is on a device; slices, because a list of rows would have to be sent there."""
    if where is None:
        return rows
    return torch.cat([rows[row : row + 1] for row in where])
