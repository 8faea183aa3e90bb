"""The seeded workload as tensors on a device: shared by the checks and the timings."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import cpu, ops
from torch import Tensor

from benchmarks.workload import Workload

HEIGHT, WIDTH = 480, 640
BATCH = 256


class Inputs:
    """Predictions and truth.

    Args:
        device: Device of the tensors.
        small: Take only a few examples, to try the script without a GPU.
    """

    def __init__(self, device: torch.device, *, small: bool) -> None:
        self.device, self.small = device, small
        self.workload = Workload()
        w = self.workload
        words = cpu.rle_pack(w.targets.ends, w.targets.run_offsets, w.heights, w.widths)
        self.host = {
            "sample": torch.from_numpy(w.sample[: 24 if small else None].copy()),
            "heights": torch.from_numpy(w.heights),
            "widths": torch.from_numpy(w.widths),
            "pixels": torch.from_numpy(w.pixels),
            "words": torch.from_numpy(words.view(np.int64)),
            "word_offsets": torch.from_numpy(cpu.word_offsets_for(w.pixels)),
            "ends": torch.from_numpy(w.targets.ends),
            "run_offsets": torch.from_numpy(w.targets.run_offsets),
        }
        self.host["ranks"] = ops.run_ranks(self.host["ends"], self.host["run_offsets"])
        self.on_device = {name: tensor.to(device) for name, tensor in self.host.items()}

    @cached_property
    def one_size(self) -> NDArray[np.int64]:
        """The examples whose image is 480×640."""
        w = self.workload
        same_size = (w.heights[w.sample] == HEIGHT) & (w.widths[w.sample] == WIDTH)
        return np.flatnonzero(same_size)[: 8 if self.small else None]

    @cached_property
    def masks(self) -> Tensor:
        """[B, 480, 640] bool predictions on the host."""
        return torch.from_numpy(np.stack(self.workload.dense(self.one_size)))

    @cached_property
    def samples(self) -> Tensor:
        """[B] int64 the sample of each prediction in `masks`."""
        return torch.from_numpy(self.workload.sample[self.one_size].copy())

    @cached_property
    def targets(self) -> Tensor:
        """[B, 480, 640] bool true masks on the host."""
        return torch.from_numpy(np.stack(self.workload.dense_targets(self.samples.numpy())))

    def logits(self, height: int, width: int, dtype: torch.dtype, *, noise: bool = False) -> Tensor:
        """[B, h, w] on the host: smooth ones made from the predictions, or noise."""
        if noise:
            generator = torch.Generator().manual_seed(0)
            return torch.randn(len(self.masks), height, width, generator=generator).to(dtype)
        parts = [
            torch.nn.functional.interpolate(part[:, None].float(), (height, width), mode="area")[
                :, 0
            ]
            for part in self.masks.split(64)
        ]
        return (16 * (torch.cat(parts) - 0.5)).to(dtype)

    @cached_property
    def boundaries(self) -> tuple[Tensor, ...]:
        """The arguments of `ops.mask_boundary_counts` that describe the true masks, on the host."""
        sizes = self.workload.heights, self.workload.widths
        stored = self.host["words"].numpy().view(np.uint64), self.host["word_offsets"].numpy()
        found = cpu.boundaries(*stored, *sizes)
        reaches = cpu.boundary_distance(*sizes, cpu.REACH_RATIO)
        contours = cpu.contours(*stored, *sizes, reaches)
        words, drawn, wide = (
            words.view(np.int64) for words in (found.words, contours.words, contours.wide)
        )
        arrays = (*sizes, words, found.distances, drawn, wide, reaches, stored[1])
        return tuple(map(torch.from_numpy, arrays))

    def strings(self) -> tuple[Tensor, Tensor]:
        """[D] uint8 characters and [B + 1] int64 offsets of the predictions as COCO RLE, on the host."""
        column = self.workload.predictions
        offsets = column.offsets[: len(self.host["sample"]) + 1]
        return torch.from_numpy(column.data[: offsets[-1]].copy()), torch.from_numpy(offsets.copy())
