"""The arrays of a store in, tensors on one device out: sent when first needed, shared by all that counts there."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import ops
from torch import Tensor

from refcocom_gpu.masks.squash import SquashedMasks
from refcocom_gpu.store.boundaries import TrueBoundaries

Ints = NDArray[np.int64]


class HostArrays(Protocol):
    """The arrays of a `MaskStore` that a device needs; see there for what each holds."""

    heights: Ints
    widths: Ints
    pixels: Ints
    areas: Ints
    example_sample: Ints
    ends: NDArray[np.int32]
    run_offsets: Ints

    @property
    def words(self) -> NDArray[np.uint64]:
        """[P] packed bits."""

    @property
    def word_offsets(self) -> Ints:
        """[M + 1] where the words of each mask begin."""

    @property
    def others(self) -> Ints:
        """[M, most others] samples of the same image that show another object, then −1."""

    @property
    def squashed(self) -> SquashedMasks:
        """All masks squashed to 480²."""

    @property
    def boundaries(self) -> TrueBoundaries:
        """Boundaries and contours of all masks."""


class DeviceStore:
    """The tensors of a `MaskStore`, with its letters for shapes.

    Args:
        arrays: The store.
        device: Where the tensors live. On the CPU they share the memory of the store.
    """

    def __init__(self, arrays: HostArrays, device: torch.device) -> None:
        self.device = device
        self._arrays = arrays

    @property
    def host(self) -> HostArrays:
        """The arrays in host memory, for what is counted there."""
        return self._arrays

    def _send(self, array: NDArray[Any]) -> Tensor:
        with warnings.catch_warnings():
            # torch warns of read-only memory, such as a mapped file. Nothing writes to these tensors.
            warnings.simplefilter("ignore")
            return torch.from_numpy(array).to(self.device)

    @cached_property
    def heights(self) -> Tensor:
        """[M] int64 H."""
        return self._send(self._arrays.heights)

    @cached_property
    def widths(self) -> Tensor:
        """[M] int64 W."""
        return self._send(self._arrays.widths)

    @cached_property
    def pixels(self) -> Tensor:
        """[M] int64 H·W."""
        return self._send(self._arrays.pixels)

    @cached_property
    def areas(self) -> Tensor:
        """[M] int64 set pixels."""
        return self._send(self._arrays.areas)

    @cached_property
    def others(self) -> Tensor:
        """[M, most others] int64 samples of the same image that show another object, then −1."""
        return self._send(self._arrays.others)

    @cached_property
    def example_sample(self) -> Tensor:
        """[N] int64 the sample of each example."""
        return self._send(self._arrays.example_sample)

    @cached_property
    def ends(self) -> Tensor:
        """[R] int32 run ends of all masks."""
        return self._send(self._arrays.ends)

    @cached_property
    def run_offsets(self) -> Tensor:
        """[M + 1] int64 where a mask's runs begin."""
        return self._send(self._arrays.run_offsets)

    @cached_property
    def ranks(self) -> Tensor:
        """[R] int32 set pixels of a mask before each of its run ends."""
        return ops.run_ranks(self.ends, self.run_offsets)

    @cached_property
    def words(self) -> Tensor:
        """[P] int64 packed bits of all masks; torch has no operations on uint64."""
        return self._send(self._arrays.words.view(np.int64))

    @cached_property
    def word_offsets(self) -> Tensor:
        """[M + 1] int64 where the words of each mask begin."""
        return self._send(self._arrays.word_offsets)

    @cached_property
    def boundaries(self) -> tuple[Tensor, ...]:
        """What follows `sample` in the arguments of `ops.mask_boundary_counts`."""
        boundaries, contours = self._arrays.boundaries
        drawn = (boundaries.words, boundaries.distances, contours.words, contours.wide)
        words, distances, lines, wide = (self._send(array.view(np.int64)) for array in drawn)
        reaches = self._send(contours.reaches)
        sizes = self.heights, self.widths
        return *sizes, words, distances, lines, wide, reaches, self.word_offsets
