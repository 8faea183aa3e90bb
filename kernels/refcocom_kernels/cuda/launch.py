"""What every launcher shares."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device the current one, to which Triton launches; nothing for a tensor in host memory."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
