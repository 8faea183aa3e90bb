"""Logits in, a mask at the image's size out, letterboxed (SAM, LISA: the image fills the top left) or not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from refcocom_gpu.predictions.batches import VALUES, ReadOptions

if TYPE_CHECKING:
    from torch import Tensor


NON_FINITE = "logits hold NaN, infinity or more than a float32 holds"


def as_tensor(array: Any) -> Tensor:
    """An array or tensor as a tensor without a graph; copied where torch cannot share it.

    torch reads no reversed or foreign-endian array, warns of a read-only one, and knows no float wider than 64 bits.
    """
    import torch

    if isinstance(array, np.ndarray):
        kind = np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
        array = np.require(array, kind, ["C", "W"])
    return torch.as_tensor(array).detach()


def finite_range(logits: Tensor) -> tuple[float, float] | None:
    """The least and the largest logit as float32, in which they are resized; None if any is not finite there."""
    low, high = (float(x) for x in logits.float().aminmax())
    # NaN and infinity both make the difference of the extremes something else than a number.
    return (low, high) if math.isfinite(high - low) else None


def logit_mask(logits: Tensor, height: int, width: int, options: ReadOptions) -> Tensor:
    """Resize logits or probabilities to an image and threshold them.

    Args:
        logits: [h, w] float of any kind, on any device.
        height: H of the image.
        width: W of the image.
        options: `values`, `letterbox` and `resize` say what the numbers mean.

    Returns:
        [H, W] bool.
    """
    from refcocom_kernels import reference

    side = options.letterbox
    if side is None:
        resized_logits = reference.resize_logits(logits, height, width)
    elif options.resize == "sam":
        inner = resized(height, width, side)
        resized_logits = reference.resize_logits_sam(logits, height, width, side, inner)
    else:
        valid = valid_cells(height, width, side, (logits.shape[0], logits.shape[1]))
        resized_logits = reference.resize_logits(logits, height, width, valid)
    return resized_logits > VALUES[options.values]


def resized(height: int, width: int, side: int) -> tuple[int, int]:
    """Size of an image whose longer side was resized to `side`, rounded as SAM's `ResizeLongestSide` does.

    Args:
        height: H of the image.
        width: W of the image.
        side: Side of the padded square input.

    Returns:
        Height and width in pixels of the input.

    >>> resized(480, 640, 1024)
    (768, 1024)
    """
    scale = side / max(height, width)
    # At least one pixel, so that a sliver of an image still has logits.
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def valid_cells(height: int, width: int, side: int, cells: tuple[int, int]) -> tuple[float, float]:
    """Rows and columns of logits that the image fills.

    Args:
        height: H of the image.
        width: W of the image.
        side: Side of the padded square input.
        cells: h, w of the logits of the whole square.

    Returns:
        Rows and columns from the top left; fractions where the image ends inside a cell.

    >>> valid_cells(480, 640, 1024, (256, 256))
    (192.0, 256.0)
    """
    inner_h, inner_w = resized(height, width, side)
    return inner_h * cells[0] / side, inner_w * cells[1] / side
