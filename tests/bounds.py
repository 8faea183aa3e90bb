"""Every address that an interpreted kernel touches, checked against the tensors that it was launched with.

Also what no test can allocate: a *virtual* tensor has an address and a size but no memory, so that offsets beyond 2**31
can be seen. Import this after TRITON_INTERPRET is set.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

VIRTUAL = 1 << 44
"""Address of the virtual tensor; nothing is mapped there."""


class Memory:
    """The interpreter's memory.

    Attributes:
        touched: Addresses inside the virtual tensor that were read, less `VIRTUAL`.
    """

    def __init__(self, real: Any) -> None:
        self._real = real
        self._ranges: dict[int, int] = {}
        self._virtual_bytes = 0
        self.touched: set[int] = set()

    def virtual(self, dtype: torch.dtype, n_bytes: int) -> torch.Tensor:
        """A tensor that reads as zeros, all `n_bytes` of it, whatever its shape says."""
        self._virtual_bytes = n_bytes
        return torch.frombuffer((ctypes.c_char * 8).from_address(VIRTUAL), dtype=dtype)

    def add(self, tensor: torch.Tensor) -> None:
        start = tensor.data_ptr()
        n_bytes = self._virtual_bytes if start == VIRTUAL else tensor.numel() * tensor.itemsize
        self._ranges[start] = max(self._ranges.get(start, 0), n_bytes)

    def _check(self, what: str, addresses: np.ndarray, active: np.ndarray, n_bytes: int) -> None:
        addresses = addresses[active]
        inside = np.zeros(addresses.shape, bool)
        for start, size in self._ranges.items():
            inside |= (addresses >= start) & (addresses + np.uint64(n_bytes) <= start + size)
        if not inside.all():
            raise IndexError(f"{what} of {n_bytes} bytes outside every tensor")

    def load(self, addresses: Any, active: Any, other: Any, dtype: Any) -> Any:
        self._check("read", addresses, active, np.dtype(dtype).itemsize)
        away = active & (addresses >= VIRTUAL) & (addresses < VIRTUAL + self._virtual_bytes)
        self.touched.update((addresses[away] - np.uint64(VIRTUAL)).tolist())
        return np.where(
            away, np.zeros_like(other), self._real.load(addresses, active & ~away, other, dtype)
        )

    def store(self, addresses: Any, values: Any, active: Any) -> Any:
        self._check("write", addresses, active, values.dtype.itemsize)
        return self._real.store(addresses, values, active)

    def atomic_rmw(self, operation: Any, addresses: Any, values: Any, active: Any, sem: Any) -> Any:
        self._check("update", addresses, active, values.dtype.itemsize)
        return self._real.atomic_rmw(operation, addresses, values, active, sem)


@contextmanager
def checked_memory() -> Iterator[Memory]:
    """Check all accesses, and fill what `torch.empty` gives with a pattern, so that nothing relies on what it held."""
    memory = Memory(interpreter._interpreter)
    convert, empty = interpreter._implicit_cvt, torch.empty

    def recorded(argument: Any) -> Any:
        if isinstance(argument, torch.Tensor):
            memory.add(argument)
        return convert(argument)

    def poisoned(*shape: Any, **options: Any) -> torch.Tensor:
        tensor = empty(*shape, **options)
        tensor.view(torch.uint8).fill_(0xA5)
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_interpreter", memory)
        patch.setattr(interpreter, "_implicit_cvt", recorded)
        # Host tensors are used in place; copying them back onto themselves would touch a virtual one.
        patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
        patch.setattr(torch, "empty", poisoned)
        yield memory
