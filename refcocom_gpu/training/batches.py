"""What a training loop hands over in, stacks of predictions of one shape and type and their indices out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refcocom_gpu.counting.stacks import Index, Stack
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.memory import as_ints
from refcocom_gpu.predictions.resize import as_tensor

_KNOWN = (torch.bool, torch.float32, torch.float16, torch.bfloat16, torch.uint8)
"""The types that the kernels read."""


def as_index(index: Any) -> Index:
    """Read indices from any container.

    Args:
        index: An int, or B of them.

    Returns:
        [B] int64.

    Raises:
        UsageError: When they are not whole numbers in one row.
    """
    if isinstance(index, Tensor) and not index.is_cpu:
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise UsageError(f"indices are whole numbers, not {index.dtype}")
        if index.ndim > 1:
            raise UsageError(f"indices are one row of numbers, not {tuple(index.shape)}")
        on_device: Tensor = index.detach().long().reshape(-1)
        return on_device
    if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1:
        shared: NDArray[np.int64] = index.numpy()
        return shared
    numbers = np.atleast_1d(as_ints(index))
    if numbers.ndim > 1:
        raise UsageError(f"indices are one row of numbers, not {numbers.shape}")
    return numbers


def as_stacks(preds: Any, n: int) -> list[Stack]:
    """Read predictions from any container as stacks.

    Args:
        preds: [B, h, w] or [B, 1, …, h, w], one [h, w], or a list of B [h, w] or [1, h, w], as arrays or tensors.
        n: B, the number of indices.

    Raises:
        UsageError: When they have another form, or another number than the indices.
    """
    if isinstance(preds, list | tuple):
        if len(preds) != n:
            raise UsageError(f"{n} indices came with {len(preds)} predictions")
        return list(_by_shape([_as_mask(pred) for pred in preds]))
    values = _tensor(preds)
    if values.ndim == 2:
        values = values[None]
    while values.ndim > 3 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3:
        raise UsageError(
            f"predictions are [B, h, w] or [B, 1, h, w], one mask for each sentence, not {tuple(values.shape)}"
        )
    if len(values) != n:
        raise UsageError(f"{n} indices came with {len(values)} predictions")
    if 0 in values.shape[1:]:
        raise UsageError(f"predictions have no pixels: {tuple(values.shape)}")
    return [Stack(values, None)] if n else []


def _tensor(values: Any) -> Tensor:
    """Return predictions as a tensor without a graph, of a type that the kernels read."""
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise UsageError(f"predictions are arrays or tensors: {error}") from None
        if array.dtype.kind not in "biuf":
            raise UsageError(f"predictions are masks or floats, not {array.dtype}")
        values = as_tensor(array)
    tensor: Tensor = values.detach() if values.requires_grad else values
    if tensor.layout != torch.strided:
        raise UsageError(f"predictions are dense, not {tensor.layout}")
    if tensor.dtype in _KNOWN:
        return tensor
    if tensor.is_complex():
        raise UsageError(f"predictions are masks or floats, not {values.dtype}")
    return tensor.float() if tensor.is_floating_point() else tensor != 0


def _as_mask(pred: Any) -> Tensor:
    values = _tensor(pred)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or 0 in values.shape:
        raise UsageError(
            f"predictions in a list are [h, w] or [1, h, w], not {tuple(values.shape)}"
        )
    return values


def _by_shape(masks: list[Tensor]) -> Iterator[Stack]:
    groups: dict[Any, list[int]] = {}
    for row, mask in enumerate(masks):
        groups.setdefault((mask.shape, mask.dtype, mask.device), []).append(row)
    for rows in groups.values():
        yield Stack(torch.stack([masks[row] for row in rows]), rows)
