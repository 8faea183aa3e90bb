"""Host arrays in, device tensors out, through two pinned buffers and a stream for copies.

While the device copies from one buffer and computes on earlier data, the host fills the other. The host waits only
when it is two buffers ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BUFFER_BYTES = 2**26
"""Bytes of each of the two buffers: a millisecond of the link, far more than the start of a copy costs."""

_ALIGNMENT = 256
"""Bytes to which arrays in a buffer are aligned, as CUDA's own allocations are."""

Block = NDArray[Any] | Sequence[NDArray[Any]]
"""An array, or arrays of one shape and type that become one with a leading axis."""


class Staging:
    """Sends arrays to one device.

    Args:
        device: Where they go; to the CPU, copies are plain ones.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._asynchronous = device.type == "cuda"
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * 2
        self._turn = 0
        if self._asynchronous:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]

    def send(self, *blocks: Block) -> list[Tensor]:
        """Copy blocks to the device in one piece.

        Args:
            blocks: Arrays of any type that torch knows, or lists of arrays to stack; booleans as bytes.

        Returns:
            A tensor for each, ready for work that is queued on the current stream from now on.
        """
        shapes = [_shape(block) for block in blocks]
        starts, end = [], 0
        for shape, dtype in shapes:
            starts.append(end)
            size = int(np.prod(shape)) * dtype.itemsize
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        buffer = self._free_buffer(end)
        host = buffer.numpy()
        for block, (shape, dtype), start in zip(blocks, shapes, starts, strict=True):
            target = host[start:][: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
            if isinstance(block, np.ndarray):
                target[...] = block
            else:
                np.stack(block, out=target)
        sent = self._copy(buffer, end)
        return [
            sent[start:][: int(np.prod(shape)) * dtype.itemsize]
            .view(torch.from_numpy(np.empty(0, dtype)).dtype)
            .reshape(shape)
            for (shape, dtype), start in zip(shapes, starts, strict=True)
        ]

    def _free_buffer(self, size: int) -> Tensor:
        """Return the buffer whose turn it is, once the device has copied its contents."""
        self._turn ^= 1
        if self._asynchronous:
            self._copied[self._turn].synchronize()
        if len(self._buffers[self._turn]) < size:
            self._buffers[self._turn] = torch.empty(
                max(size, BUFFER_BYTES) if self._asynchronous else size,
                dtype=torch.uint8,
                pin_memory=self._asynchronous,
            )
        return self._buffers[self._turn]

    def _copy(self, buffer: Tensor, size: int) -> Tensor:
        if not self._asynchronous:
            return buffer[:size].to(self.device, copy=True)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            sent = buffer[:size].to(self.device, non_blocking=True)
            self._copied[self._turn].record(self._stream)
        computing.wait_stream(self._stream)
        # The allocator must not give this memory away while work on the current stream may still read it.
        sent.record_stream(computing)
        return sent


def _shape(block: Block) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if isinstance(block, np.ndarray):
        return block.shape, block.dtype
    return (len(block), *block[0].shape), block[0].dtype
