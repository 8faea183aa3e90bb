"""A store's arrays as tensors on one device: moved there when first needed, shared by every scorer on it."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import ops
from torch import Tensor

if TYPE_CHECKING:
    from refcocom_gpu.store import MaskStore, Packed


class DeviceStore:
    """Tensors of a `MaskStore`; letters as there.

    Args:
        store: The arrays.
        device: Where the tensors live.
    """

    def __init__(self, store: MaskStore, device: torch.device) -> None:
        self.device = device
        self._store = store
        self._shards: dict[int, tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()

    def _send(self, array: NDArray[Any]) -> Tensor:
        # Copied because a mapped file is read-only, which torch warns of.
        return torch.from_numpy(array.copy()).to(self.device)

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

    def shard(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """[P] int64 packed words of a shard, and [m + 1] int64 where each of its masks begins."""
        with self._lock:
            if packed.shard not in self._shards:
                # torch has no operations on uint64; the bits are the same.
                self._shards[packed.shard] = (
                    self._send(packed.words.view(np.int64)),
                    self._send(packed.word_offsets),
                )
            return self._shards[packed.shard]
