"""Making a tensor's device current for a launch: shared by every launcher."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device current, because Triton launches there; do nothing for a tensor in host memory."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
