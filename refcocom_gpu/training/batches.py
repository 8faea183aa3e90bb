"""What a training loop hands over in, stacks of predictions of one shape and type and their indices out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refcocom_gpu.counting.stacks import Index, Stack
from refcocom_gpu.errors import Problems, RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.batches import row_of_batch
from refcocom_gpu.predictions.combine import as_one
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.normalise import (
    as_dense,
    as_ints,
    as_rows,
    is_picture,
    is_rle,
)
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import as_tensor

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset


def read_batch(
    masks: Any, index: Any, dataset: Dataset, options: ReadOptions, device: torch.device
) -> tuple[Index, list[Stack]]:
    """Read the arguments of `RefCOCOMMetric.update`.

    Args:
        masks: [B, h, w] or [B, 1, …, h, w], one [h, w], or B predictions in any container: arrays, tensors, pictures,
            RLE objects, or None for an empty mask.
        index: [B] row numbers, or [B, F] keys; those of one prediction may also be an int, or a tuple.
        dataset: What the keys are of.
        options: How pictures are read.
        device: Where pictures and RLE objects go, which have no device of their own.

    Returns:
        [B] int64 indices and the stacks of the batch.

    Raises:
        PredictionError: A key is unknown.
        UsageError: Something has another form, or their numbers differ.
    """
    stacked = _stacked(masks)
    if stacked is not None and np.ndim(index) < 2 and not isinstance(index, tuple):
        numbers = as_index(index)
        if len(numbers) != len(stacked):
            raise UsageError(f"{len(numbers)} indices came with {len(stacked)} predictions")
        return numbers, [Stack(stacked, None)] if len(stacked) else []
    is_there = isinstance(index, Tensor) and not index.is_cpu and index.ndim < 2
    n_fields = len(dataset.example_key_fields)
    # Indices on a device are not looked at, which would wait for it; their number is known.
    rows = as_rows(np.zeros(index.numel(), np.int64) if is_there else index, masks, n_fields)
    numbers = as_index(index) if is_there else _known(rows.keys, dataset)
    return numbers, list(_by_shape([_as_mask(value, options, device) for value in rows.values]))


def _stacked(masks: Any) -> Tensor | None:
    """Return a batch that is one array or tensor as [B, h, w]; None for other containers."""
    if isinstance(masks, Tensor):
        values: Tensor = as_dense(masks)
    elif isinstance(masks, np.ndarray) and masks.dtype.kind in "biuf" and type(masks) is np.ndarray:
        values = as_tensor(masks)
    else:
        return None
    if values.ndim == 2:
        values = values[None]
    while values.ndim > 3 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3:
        raise UsageError(
            f"predictions are [B, h, w] or [B, 1, h, w], one mask for each sentence, not {tuple(values.shape)}"
        )
    if len(values) and 0 in values.shape[1:]:
        raise UsageError(f"predictions have no pixels: {tuple(values.shape)}")
    return values


def _known(keys: NDArray[np.int64], dataset: Dataset) -> NDArray[np.int64]:
    """Return indices, or the indices of keys."""
    if keys.ndim == 1:
        return keys
    problems = Problems()
    # Examples may come again here, so nothing is claimed.
    index = Keys(dataset, problems).look_up(list(keys.T), row_of_batch)
    problems.raise_if_any()
    return index


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


def _as_mask(value: Any, options: ReadOptions, device: torch.device) -> Tensor | None:
    """Return one prediction as a tensor [h, w]; None for an empty mask."""
    has_device = not is_picture(value)
    value = as_one(value, options)
    if value is None:
        return None
    if is_rle(value):
        try:
            value = torch.from_numpy(rle.decode(value)).to(device)
        except RLEError as error:
            raise UsageError(f"an RLE object cannot be read: {error}") from None
    elif not isinstance(value, Tensor):
        value = as_tensor(value) if has_device else as_tensor(value).to(device)
    shape = tuple(value.shape)
    while value.ndim > 2 and value.shape[0] == 1:
        value = value[0]
    if value.ndim != 2 or 0 in value.shape:
        raise UsageError(f"predictions in a list are [h, w] or [1, h, w], not {shape}")
    return value  # type: ignore[no-any-return]


def _by_shape(masks: list[Tensor | None]) -> Iterator[Stack]:
    groups: dict[Any, list[int]] = {}
    for row, mask in enumerate(masks):
        kind = None if mask is None else (mask.shape, mask.dtype, mask.device)
        groups.setdefault(kind, []).append(row)
    for kind, rows in groups.items():
        stacked = None if kind is None else torch.stack([masks[row] for row in rows])  # type: ignore[misc]
        yield Stack(stacked, rows)
