"""Tensors of the operators in, the contiguous arrays that the CPU kernels take out; memory is shared where possible."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def words_of(words: Tensor) -> NDArray[Any]:
    """[P] int64 words as contiguous uint64, the type of the CPU kernels."""
    return words.contiguous().numpy().view("uint64")


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor as a contiguous array, as the CPU kernels need it."""
    return tensor.contiguous().numpy()


def bytes_of(masks: Tensor) -> NDArray[Any]:
    """[B, H, W] bool or uint8 as contiguous bytes."""
    if masks.dtype not in (torch.bool, torch.uint8):
        raise TypeError(f"masks are bool or uint8, not {masks.dtype}")
    return masks.contiguous().view(torch.uint8).numpy()


def floats_of(logits: Tensor) -> NDArray[Any]:
    """[B, h, w] logits as a contiguous array; NumPy has no bfloat16, so its bits are given as uint16."""
    logits = logits.detach().contiguous()
    if logits.dtype == torch.bfloat16:
        return logits.view(torch.uint16).numpy()
    if logits.dtype not in (torch.float32, torch.float16):
        raise TypeError(f"logits are float32, float16 or bfloat16, not {logits.dtype}")
    return logits.numpy()
