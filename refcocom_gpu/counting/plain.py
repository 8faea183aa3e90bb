"""Floats in, counts or masks out, for the ways of resizing that no kernel has, by plain torch.

They are SAM's resizing in two steps, and nearest and bicubic interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import codes

from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.options import BILINEAR, ReadOptions
from refcocom_gpu.predictions.resize import as_tensor, resized_values
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from torch import Tensor


def plain_counts(
    values: Any,
    known: NDArray[np.int64],
    store: MaskStore,
    options: ReadOptions,
    interpolation: str = BILINEAR,
    thresholds: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Count each prediction with `refcocom_kernels.reference`.

    Args:
        values: [K, h, w] floats, an array or a tensor on any device.
        known: [K] the sample of each, in host memory.
        store: Ground truth.
        options: How predictions are read.
        interpolation: How they are resized.
        thresholds: T numbers, ascending; by default the one in use.

    Returns:
        [K, T, 2] int64 intersection and predicted area, 0 where a logit is not finite, and [K] int8 what the values
        look like; both on the device of the values.
    """
    import torch
    from refcocom_kernels import reference

    logits = as_tensor(values)
    levels = torch.tensor(
        thresholds or [options.threshold], dtype=torch.float32, device=logits.device
    )
    counts = torch.zeros((len(logits), len(levels), 2), dtype=torch.int64, device=logits.device)
    kinds = torch.zeros(len(logits), dtype=torch.int8, device=logits.device)
    for row, sample in enumerate(known.tolist()):
        kind = kinds[row] = reference.value_kind(logits[row])
        if kind == codes.NON_FINITE:
            continue
        ends = store.ends[store.run_offsets[sample] : store.run_offsets[sample + 1]]
        height, width = int(store.heights[sample]), int(store.widths[sample])
        target = torch.from_numpy(rle.decode_ends(ends, height, width)).to(logits.device)
        resized = resized_values(logits[row], height, width, options, interpolation)
        counts[row] = reference.threshold_counts(resized, target, levels)
    return counts, kinds


def plain_masks(
    values: Any,
    known: NDArray[np.int64],
    store: MaskStore,
    options: ReadOptions,
    interpolation: str = BILINEAR,
) -> Tensor:
    """Resize and threshold: the pixels that `plain_counts` counts at the threshold in use.

    Args:
        values: As of `plain_counts`.
        known: As of `plain_counts`.
        store: Ground truth.
        options: How predictions are read.
        interpolation: How they are resized.

    Returns:
        [K, largest H, largest W] bool, each image at the top left, on the device of the values.
    """
    import torch

    logits = as_tensor(values)
    size = int(store.heights[known].max()), int(store.widths[known].max())
    masks = torch.zeros((len(logits), *size), dtype=torch.bool, device=logits.device)
    for row, sample in enumerate(known.tolist()):
        height, width = int(store.heights[sample]), int(store.widths[sample])
        resized = resized_values(logits[row], height, width, options, interpolation)
        masks[row, :height, :width] = resized > options.threshold
    return masks
