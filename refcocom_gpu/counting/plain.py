"""Logits for SAM's resizing in two steps in, counts or masks out.

The kernels resize in one step, so plain torch counts here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import codes

from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import as_tensor, logit_mask
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from torch import Tensor


def sam_counts(
    values: Any, known: NDArray[np.int64], store: MaskStore, options: ReadOptions
) -> tuple[Tensor, Tensor]:
    """Count each prediction with `refcocom_kernels.reference`.

    Args:
        values: [K, h, w] floats, an array or a tensor on any device.
        known: [K] the sample of each, in host memory.
        store: Ground truth.
        options: How predictions are read.

    Returns:
        [K, 2] int64 intersection and predicted area, 0 where a logit is not finite, and [K] int8 what the values look
        like; both on the device of the values.
    """
    import torch
    from refcocom_kernels import reference

    logits = as_tensor(values)
    counts = torch.zeros((len(logits), 2), dtype=torch.int64, device=logits.device)
    kinds = torch.zeros(len(logits), dtype=torch.int8, device=logits.device)
    for row, sample in enumerate(known.tolist()):
        kind = kinds[row] = reference.value_kind(logits[row])
        if kind == codes.NON_FINITE:
            continue
        ends = store.ends[store.run_offsets[sample] : store.run_offsets[sample + 1]]
        height, width = int(store.heights[sample]), int(store.widths[sample])
        target = torch.from_numpy(rle.decode_ends(ends, height, width)).to(logits.device)
        mask = logit_mask(logits[row], height, width, options)
        counts[row] = reference.mask_counts(mask, target)
    return counts, kinds


def sam_masks(
    values: Any, known: NDArray[np.int64], store: MaskStore, options: ReadOptions
) -> Tensor:
    """Resize and threshold: the pixels that `sam_counts` counts.

    Args:
        values: As of `sam_counts`.
        known: As of `sam_counts`.
        store: Ground truth.
        options: How predictions are read.

    Returns:
        [K, largest H, largest W] bool, each image at the top left, on the device of the values.
    """
    import torch

    logits = as_tensor(values)
    size = int(store.heights[known].max()), int(store.widths[known].max())
    masks = torch.zeros((len(logits), *size), dtype=torch.bool, device=logits.device)
    for row, sample in enumerate(known.tolist()):
        height, width = int(store.heights[sample]), int(store.widths[sample])
        masks[row, :height, :width] = logit_mask(logits[row], height, width, options)
    return masks
