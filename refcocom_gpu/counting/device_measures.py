"""Dense masks or runs on a device in, the columns of measures out; see `measures`. The host never waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from refcocom_kernels import ops
from torch import Tensor

from refcocom_gpu.counting.measures import Measure, best_other
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


DEVICE_MEASURES: Mapping[str, Callable[[DeviceStore, tuple[int, int]], Measure]] = {
    "boundary": DeviceBoundary,
    "causes": DeviceCauses,
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
