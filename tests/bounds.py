"""Every address that an interpreted kernel touches, checked against the tensors that it was launched with.

Also what no test can fill: a *vast* tensor is address space that the system backs only where it is touched, so that
offsets beyond 2**31 can be tried.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from triton.runtime import interpreter

MAP_NORESERVE = 0x4000  # not in `mmap`: Linux


class Memory:
    """The interpreter's memory.

    Attributes:
        touched: Offsets into the vast tensor, in bytes, that were read.
    """

    def __init__(self, real: Any) -> None:
        self._real = real
        self._ranges: dict[int, int] = {}
        self._vast = (0, 0)
        self.touched: set[int] = set()

    def vast(self, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        """A tensor of zeros of any size; reads of it are recorded."""
        n_bytes = math.prod(shape) * dtype.itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        tensor = torch.frombuffer(mmap.mmap(-1, n_bytes, flags=flags), dtype=dtype)
        self._vast = (tensor.data_ptr(), n_bytes)
        return tensor.reshape(shape)

    def add(self, tensor: torch.Tensor) -> None:
        start = tensor.data_ptr()
        # From the first to the last element, which may lie apart.
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        span = 1 + sum((n - 1) * stride for n, stride in steps) if tensor.numel() else 0
        self._ranges[start] = max(self._ranges.get(start, 0), span * tensor.itemsize)

    def _check(self, what: str, addresses: Any, active: Any, n_bytes: int) -> None:
        addresses = addresses[
            active.astype(bool)
        ]  # what `&` makes of a vector and a scalar is of bytes
        inside = np.zeros(addresses.shape, bool)
        for start, size in self._ranges.items():
            inside |= (addresses >= start) & (addresses + np.uint64(n_bytes) <= start + size)
        if not inside.all():
            raise IndexError(f"{what} of {n_bytes} bytes outside every tensor")

    def load(self, addresses: Any, active: Any, other: Any, dtype: Any) -> Any:
        self._check("read", addresses, active, np.dtype(dtype).itemsize)
        start, size = self._vast
        inside = active.astype(bool) & (addresses >= start) & (addresses < start + size)
        self.touched.update((addresses[inside] - np.uint64(start)).tolist())
        return self._real.load(addresses, active, other, dtype)

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
        # Host tensors are used in place; copying them back onto themselves would touch all of a vast one.
        patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
        patch.setattr(torch, "empty", poisoned)
        yield memory
