"""The operator for several thresholds, `torch.ops.refcocom.logit_curve`; beside `ops.py`, whose letters it shares.

`T` is the number of thresholds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refcocom_kernels import cpu
from refcocom_kernels.arrays import array_of, floats_of, words_of


@torch.library.custom_op("refcocom::logit_curve", mutates_args=(), device_types="cpu")
def logit_curve(
    logits: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    words: Tensor,
    word_offsets: Tensor,
    max_height: int,
    max_width: int,
    thresholds: Tensor,
    valid: Tensor | None = None,
) -> Tensor:
    """Resize logits to the stored masks' sizes once and count at each threshold; equal to `reference.logit_curve`.

    Args:
        logits: [B, h, w] as for `ops.logit_counts`; finite.
        sample: [B] int64 the stored mask each is scored against.
        heights: [M] int64 H of the stored masks.
        widths: [M] int64 W.
        words: [P] int64 packed bits of the stored masks.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        max_height: At least the largest H of the batch.
        max_width: At least the largest W of the batch.
        thresholds: [T] float32, ascending; at each, the values strictly above it are set.
        valid: As for `ops.logit_counts`.

    Returns:
        [B, T, 2] int64 intersection and predicted area.
    """
    counts = cpu.logit_curve(
        floats_of(logits),
        array_of(sample),
        array_of(heights),
        array_of(widths),
        words_of(words),
        array_of(word_offsets),
        array_of(thresholds),
        valid=None if valid is None else array_of(valid),
    )
    return torch.from_numpy(counts)


@logit_curve.register_kernel("cuda")
def _(*arguments: Any) -> Tensor:
    from refcocom_kernels.cuda import curve as cuda

    return cuda.logit_curve(*arguments)


@logit_curve.register_fake
def _(
    logits: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    words: Tensor,
    word_offsets: Tensor,
    max_height: int,
    max_width: int,
    thresholds: Tensor,
    valid: Tensor | None = None,
) -> Tensor:
    return logits.new_empty((len(logits), len(thresholds), 2), dtype=torch.int64)
