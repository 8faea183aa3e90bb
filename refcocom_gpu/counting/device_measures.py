"""Dense masks or runs on a device in, the columns of measures out; see `measures`. The host never waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from refcocom_kernels import ops
from torch import Tensor

from refcocom_gpu.counting.measures import Measure
from refcocom_gpu.store.device import DeviceStore


class DeviceBoundary(Measure):
    """Counts for the metric `boundary` on a device.

    Args:
        truth: The tensors of the store.
        largest: The largest H and the largest W of all images.
    """

    def __init__(self, truth: DeviceStore, largest: tuple[int, int]) -> None:
        self._truth, self._largest = truth, largest

    def masks(self, masks: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.masks`."""
        counts: Tensor = ops.mask_boundary_counts(masks, sample, *self._truth.boundaries)
        return counts

    def runs(self, ends: Tensor, offsets: Tensor, sample: Tensor) -> Tensor:
        """As `Measure.runs`."""
        heights = self._truth.heights[sample]
        return self.masks(draw_runs(ends, offsets, heights, self._largest), sample)


DEVICE_MEASURES: Mapping[str, Callable[[DeviceStore, tuple[int, int]], Measure]] = {
    "boundary": DeviceBoundary
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
