"""Dense masks or runs on a device in, the columns of measures out; see `measures`.

The host waits only for `squashed` and `warped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import ops
from torch import Tensor

from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import best_other
from refcocom_gpu.counting.squashed import HostSquashed
from refcocom_gpu.counting.warped import HostWarped
from refcocom_gpu.masks.boxes import run_extents
from refcocom_gpu.masks.squash import SQUASHED
from refcocom_gpu.masks.warp import WARPED
from refcocom_gpu.predictions.options import VALUES
from refcocom_gpu.store.device import DeviceStore
from refcocom_gpu.store.others import NOBODY


class _DeviceMeasure(Measure):
    """Counts masks on a device; runs are drawn first.

    Args:
        truth: The tensors of the store.
        largest: The largest H and the largest W of all images.
    """

    def __init__(self, truth: DeviceStore, largest: tuple[int, int]) -> None:
        self._truth, self._largest = truth, largest

    def runs(self, ends: Tensor, offsets: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.runs`."""
        heights = self._truth.heights[sample]
        counts: Tensor = self.masks(draw_runs(ends, offsets, heights, self._largest), sample)
        return counts


class DeviceBoundary(_DeviceMeasure):
    """Counts for the metric `boundary` on a device."""

    def masks(self, masks: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.masks`."""
        counts: Tensor = ops.mask_boundary_counts(masks, sample, *self._truth.boundaries)
        return counts


class DeviceCauses(_DeviceMeasure):
    """Counts for the metric `causes` on a device: the other sample of the image that a prediction fits best."""

    def masks(self, masks: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.masks`."""
        truth, others = self._truth, self._truth.others[sample]
        # As probabilities of 0 and 1, because the kernel for logits takes images of different sizes.
        values = (masks != 0).half()
        sizes = torch.stack([truth.heights[sample], truth.widths[sample]], 1).double()
        counts = values.new_zeros((*others.shape, 2), dtype=torch.int64)
        for place in range(others.shape[1]):
            other = others[:, place]
            is_there = other != NOBODY
            counted, _ = ops.logit_counts(
                values,
                torch.where(is_there, other, sample),
                truth.heights,
                truth.widths,
                truth.words,
                truth.word_offsets,
                *self._largest,
                VALUES["probabilities"],
                sizes,
            )
            counts[:, place] = counted * is_there[:, None]
        return torch.stack(best_other(counts, truth.areas[others]), 1)


class DeviceBoxes(Measure):
    """Finds tight boxes for the metric `boxes` on a device, as `masks.boxes` does in host memory.

    Args:
        truth: The tensors of the store.
        largest: The largest H and the largest W of all images.
    """

    def __init__(self, truth: DeviceStore, largest: tuple[int, int]) -> None:
        self._truth, self._beyond = truth, max(largest)

    def masks(self, masks: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.masks`."""
        _, h, w = masks.shape
        y, x = (torch.arange(n, device=masks.device) for n in (h, w))
        in_rows = y < self._truth.heights[sample][:, None]  # [K, h]
        in_columns = x < self._truth.widths[sample][:, None]  # [K, w]
        is_set = masks.bool() & in_rows[:, :, None] & in_columns[:, None]  # [K, h, w]
        first, last = [], []
        for places, holds in ((x, is_set.any(1)), (y, is_set.any(2))):
            first.append(torch.where(holds, places, self._beyond).amin(1))
            last.append(torch.where(holds, places + 1, 0).amax(1))
        return _boxes(torch.stack(first, 1), torch.stack(last, 1))

    def runs(self, ends: Tensor, offsets: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.runs`."""
        mask = torch.repeat_interleave(
            torch.arange(len(sample), device=ends.device), offsets.diff(), output_size=len(ends)
        )
        number = torch.arange(len(ends), device=ends.device) - offsets[mask]
        stops = ends.long()
        starts = torch.cat([torch.zeros_like(stops[:1]), stops[:-1]])
        is_set = (number % 2 == 1) & (stops > starts)
        x0, y0, x1, y1 = run_extents(starts, stops, self._truth.heights[sample][mask])
        # Runs are not selected, because their number would have to be read; those of no set pixel change no box.
        at = mask[:, None].expand(-1, 2)
        lowest = torch.where(is_set[:, None], torch.stack([x0, y0], 1), self._beyond)
        highest = is_set[:, None] * torch.stack([x1, y1], 1)
        first = torch.full_like(highest[:1], self._beyond).repeat(len(sample), 1)
        last = torch.zeros_like(first)
        return _boxes(
            first.scatter_reduce(0, at, lowest, "amin"), last.scatter_reduce(0, at, highest, "amax")
        )


class _OnHost(Measure):
    """Counts in host memory what is on a device: the host waits for it.

    Args:
        truth: The tensors of the store.
        largest: Taken as of every measure.
    """

    host: type[HostSquashed | HostWarped]

    def __init__(self, truth: DeviceStore, largest: tuple[int, int]) -> None:
        self._device, self._host = truth.device, self.host(truth.host, threads=0)

    def masks(self, masks: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.masks`."""
        return self._sent(self._host.masks(*_fetched(masks, sample)))

    def runs(self, ends: Tensor, offsets: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.runs`."""
        return self._sent(self._host.runs(*_fetched(ends, offsets, sample)))

    def unresized(self, values: Tensor, sample: Tensor, threshold: float) -> Tensor:
        """As `Measure.unresized`."""
        if values.dtype == torch.bfloat16:  # which NumPy does not have
            values = values.float()
        given, of_samples = _fetched(values, sample)
        return self._sent(self._host.unresized(given, of_samples, threshold))

    def _sent(self, columns: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(columns).to(self._device)


class DeviceSquashed(_OnHost):
    """Counts for the metric `squashed`."""

    host, takes = HostSquashed, staticmethod(HostSquashed.takes)


class DeviceWarped(_OnHost):
    """Counts for the metric `warped`."""

    host, takes = HostWarped, staticmethod(HostWarped.takes)


def _fetched(*tensors: Tensor) -> Iterator[NDArray[Any]]:
    return (tensor.cpu().numpy() for tensor in tensors)


def _boxes(first: Tensor, last: Tensor) -> Tensor:
    """Return [K, 4] boxes of [K, 2] lowest and highest columns and rows; an empty mask has no highest, but 0."""
    return torch.cat([torch.minimum(first, last), last], 1)


DEVICE_MEASURES: Mapping[str, Callable[[DeviceStore, tuple[int, int]], Measure]] = {
    "boundary": DeviceBoundary,
    "causes": DeviceCauses,
    "boxes": DeviceBoxes,
    SQUASHED: DeviceSquashed,
    WARPED: DeviceWarped,
}


def draw_runs(ends: Tensor, offsets: Tensor, heights: Tensor, largest: tuple[int, int]) -> Tensor:
    """Draw masks from their runs.

    Args:
        ends: [R] int32 run ends of valid masks.
        offsets: [K + 1] int64 where those of each begin.
        heights: [K] H of each.
        largest: At least the largest H and the largest W.

    Returns:
        [K, largest H, largest W] bool, each image at the top left; what lies beyond it means nothing.

    >>> draw_runs(torch.tensor([1, 3, 6]), torch.tensor([0, 3]), torch.tensor([2]), (2, 3)).int()
    tensor([[[0, 1, 0],
             [1, 0, 0]]], dtype=torch.int32)
    """
    k, (height, width) = len(offsets) - 1, largest
    row = torch.repeat_interleave(
        torch.arange(k, device=ends.device), offsets.diff(), output_size=len(ends)
    )
    x, y = ends.long() // heights[row], ends % heights[row]
    # One column more than there is, for the last end of each mask, which no pixel follows.
    size = (width + 1) * height
    changes = torch.zeros(k * size, dtype=torch.int8, device=ends.device)
    one = torch.ones((), dtype=torch.int8, device=ends.device).expand(len(ends))
    changes.index_add_(0, row * size + x * height + y, one)
    # Where the sum is odd a run of ones is under way. That it wraps around does not change its last bit.
    is_set = changes.view(k, size).cumsum(1, dtype=torch.int8) & 1
    return is_set.view(k, width + 1, height)[:, :width].transpose(1, 2).bool().contiguous()
