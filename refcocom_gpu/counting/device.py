"""Tensors on a device in, counts on that device out, by the torch operators; the host never waits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import curve_ops, ops
from torch import Tensor

from refcocom_gpu.counting.backend import Ints
from refcocom_gpu.counting.counter import Counter
from refcocom_gpu.counting.device_measures import DEVICE_MEASURES
from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import IOU
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import as_float32
from refcocom_gpu.predictions.values import read_stack
from refcocom_gpu.store.store import MaskStore


class DeviceCounter(Counter):
    """Counts tensors that are on a device; see `Counter`.

    Args:
        store: Ground truth.
        options: How predictions are read.
        device: By default the device of the store.
        metrics: As of `Backend`.
        saver: As of `Backend`.
    """

    def __init__(
        self,
        store: MaskStore,
        options: ReadOptions,
        device: torch.device | None = None,
        metrics: Sequence[str] = (IOU,),
        saver: Measure | None = None,
    ) -> None:
        super().__init__(store, options, metrics, saver)
        self.truth = store.tensors(device)
        self.device = self.truth.device

    @cached_property
    def measures(self) -> Sequence[Measure]:
        """As `Backend.measures`."""
        largest = self.largest(None)
        chosen = [
            DEVICE_MEASURES[name](self.truth, largest)
            for name in self.metrics
            if name in DEVICE_MEASURES
        ]
        return [*chosen, *self.savers]

    @property
    def heights(self) -> Tensor:
        """[M] H of each sample."""
        return self.truth.heights

    @property
    def widths(self) -> Tensor:
        """[M] W of each sample."""
        return self.truth.widths

    def zeros(self, k: int) -> Tensor:
        """Return [K, C] int64 zeros."""
        return torch.zeros(k, self.n_columns, dtype=torch.int64, device=self.device)

    def joined(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """Return tensors joined along an axis."""
        return torch.cat(list(parts), axis)

    def pixels_of(self, masks: Tensor) -> Tensor:
        """As `Backend.pixels_of`."""
        # torch compares no unsigned integers that are wider than a byte.
        return masks if masks.dtype in (torch.bool, torch.uint8) else masks.to(torch.int64) != 0

    def place(self, array: NDArray[Any]) -> Tensor:
        """Return the array as a tensor on the device."""
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def readable(self, values: Tensor) -> Tensor:
        """Return floats as a tensor; torch does not compare those of eight bits."""
        return as_float32(values, self.options.threshold)

    def from_tensors(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors."""
        return tensors

    def masks(self, masks: Tensor, sample: Tensor) -> tuple[Tensor, Any]:
        """As `Backend.masks`."""
        faults: Any = 0
        if masks.dtype != torch.bool:
            fits = torch.ones(len(masks), dtype=torch.bool, device=self.device)
            read = read_stack(masks, fits, self.options)
            masks, faults = read.values, read.faults
        truth = self.truth
        counts: Tensor = ops.mask_counts(masks, sample, truth.words, truth.word_offsets)
        return counts, faults

    def logits(
        self,
        logits: Tensor,
        sample: Tensor,
        *,
        threshold: float,
        valid: Tensor | None,
        known: Ints | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `Backend.logits`."""
        truth = self.truth
        counts: Tensor
        kinds: Tensor
        counts, kinds = ops.logit_counts(
            as_float32(logits, threshold),
            sample,
            truth.heights,
            truth.widths,
            truth.words,
            truth.word_offsets,
            *self.largest(known),
            threshold,
            valid,
        )
        return counts, kinds

    def curve(
        self,
        logits: Tensor,
        sample: Tensor,
        *,
        thresholds: Sequence[float],
        valid: Tensor | None,
        known: Ints | None = None,
    ) -> Tensor:
        """As `Backend.curve`."""
        truth = self.truth
        counts: Tensor = curve_ops.logit_curve(
            as_float32(logits, self.options.threshold),
            sample,
            truth.heights,
            truth.widths,
            truth.words,
            truth.word_offsets,
            *self.largest(known),
            self.place(np.array(thresholds, np.float32)),
            valid,
        )
        return counts

    def logit_masks(
        self,
        logits: Tensor,
        sample: Tensor,
        *,
        threshold: float,
        valid: Tensor | None,
        known: Ints | None = None,
    ) -> Tensor:
        """As `Backend.logit_masks`."""
        masks: Tensor = ops.logit_masks(
            as_float32(logits, threshold),
            sample,
            self.heights,
            self.widths,
            *self.largest(known),
            threshold,
            valid,
        )
        return masks

    def runs(self, ends: Tensor, offsets: Tensor, sample: Tensor) -> Tensor:
        """Count masks given as runs for all measures.

        Args:
            ends: [R] int32 run ends of K valid masks.
            offsets: [K + 1] where those of each begin.
            sample: [K] the sample of each.

        Returns:
            [K, C − 5] int64.
        """
        return self.joined([one.runs(ends, offsets, sample) for one in self.measures], 1)

    def rle(self, data: Tensor, offsets: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Count RLE strings without decoding them.

        Args:
            data: [D] uint8 characters of K strings.
            offsets: [K + 1] where each begins.
            sample: [K] the sample of each.

        Returns:
            [K, 2] counts, and [K] whether a string is valid; counts are 0 where it is not.
        """
        truth = self.truth
        counts: Tensor
        valid: Tensor
        counts, valid = ops.rle_counts(
            data, offsets, sample, truth.ends, truth.ranks, truth.run_offsets, truth.pixels
        )
        return counts, valid


def take(rows: Tensor, where: list[int]) -> Tensor:
    """Take some rows of a tensor by slices, because a list of rows would have to be sent to the device."""
    return torch.cat([rows[row : row + 1] for row in where])
