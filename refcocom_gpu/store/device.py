"""A store's arrays as tensors on one device: moved there when first needed, shared by every scorer on it."""

from __future__ import annotations

import threading
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import cpu, ops
from torch import Tensor

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


class DeviceStore:
    """Tensors of a `MaskStore`; letters as there.

    Args:
        store: The arrays.
        device: Where the tensors live.
    """

    def __init__(self, store: MaskStore, device: torch.device) -> None:
        self.device = device
        self._store = store
        self._lock = threading.Lock()
        self._bits: tuple[Tensor, Tensor] | None = None

    def _send(self, array: NDArray[Any]) -> Tensor:
        with warnings.catch_warnings():
            # A mapped file is read-only, which torch warns of. Nothing here is written to, so it is shared.
            warnings.simplefilter("ignore")
            return torch.from_numpy(array).to(self.device)

    @cached_property
    def heights(self) -> Tensor:
        """[M] int64 H."""
        return self._send(self._store.heights)

    @cached_property
    def widths(self) -> Tensor:
        """[M] int64 W."""
        return self._send(self._store.widths)

    @cached_property
    def pixels(self) -> Tensor:
        """[M] int64 H·W."""
        return self._send(self._store.pixels)

    @cached_property
    def example_sample(self) -> Tensor:
        """[N] int64 the sample of each example."""
        return self._send(self._store.example_sample)

    @cached_property
    def ends(self) -> Tensor:
        """[R] int32 run ends of all masks."""
        return self._send(self._store.ends)

    @cached_property
    def run_offsets(self) -> Tensor:
        """[M + 1] int64 where a mask's runs begin."""
        return self._send(self._store.run_offsets)

    @cached_property
    def ranks(self) -> Tensor:
        """[R] int32 set pixels of a mask before each of its run ends."""
        return ops.run_ranks(self.ends, self.run_offsets)

    @property
    def bits(self) -> tuple[Tensor, Tensor]:
        """[P] int64 packed words of all masks, and [M + 1] int64 where each mask begins.

        Host memory is the store's own where it has one shard; several are put together in a copy.
        """
        with self._lock:
            if self._bits is None:
                shards = list(self._store.packed(np.arange(len(self._store.areas))))
                # torch has no operations on uint64; the bits are the same.
                words = [shard.words.view(np.int64) for shard in shards]
                if len(words) == 1:
                    whole = self._send(words[0])
                else:
                    ends = np.cumsum([0, *map(len, words)])
                    whole = torch.empty(ends[-1], dtype=torch.int64, device=self.device)
                    for part, first, last in zip(words, ends[:-1], ends[1:], strict=True):
                        whole[first:last] = self._send(part)
                self._bits = whole, self._send(cpu.word_offsets_for(self._store.pixels))
            return self._bits
