"""Logits in, a mask at the image's size out; logits may be letterboxed (SAM, LISA: the image fills the top left)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.masks.rle import run_ends
from refcocom_gpu.predictions.options import ReadOptions

if TYPE_CHECKING:
    from torch import Tensor

NON_FINITE = "logits hold NaN, infinity or more than a float32 holds"


def as_tensor(array: Any) -> Tensor:
    """Return an array or tensor as a tensor without a graph; memory is shared where torch can.

    torch cannot read reversed or foreign-endian arrays or floats of more than 64 bits, and warns of read-only arrays.
    """
    import torch

    if isinstance(array, np.ndarray):
        kind = np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
        array = np.require(array, kind, ["C", "W"])
    return torch.as_tensor(array).detach()


def as_logits(array: Any) -> NDArray[Any]:
    """Return a float array or tensor as the CPU kernels read it.

    Args:
        array: [..., h, w] of any float type, on any device; or what this function returned.

    Returns:
        [..., h, w] float32 or float16, or the bits of bfloat16 as uint16; C-contiguous. Other types become float32.
    """
    if isinstance(array, np.ndarray):
        if array.dtype == np.uint16:
            return array
        native = array.dtype in (np.float16, np.float32)
        with np.errstate(over="ignore"):
            # A number beyond float32 becomes infinite, and infinity is refused.
            return np.ascontiguousarray(
                array, array.dtype.newbyteorder("=") if native else np.float32
            )
    import torch

    tensor = array.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()  # type: ignore[no-any-return]
    if tensor.dtype not in (torch.float16, torch.float32):
        tensor = tensor.float()
    return tensor.numpy()  # type: ignore[no-any-return]


def finite_range(logits: Tensor) -> tuple[float, float] | None:
    """Return the smallest and the largest logit as float32; None if any is not finite in float32."""
    low, high = (float(x) for x in logits.float().aminmax())
    # The difference is not finite if NaN or infinity is among the logits.
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
        resized = reference.resize_logits(logits, height, width)
    elif options.resize == "sam":
        inner_height, inner_width = map(int, padded_sizes(height, width, side))
        resized = reference.resize_logits_sam(
            logits, height, width, side, (inner_height, inner_width)
        )
    else:
        valid = valid_region(padded_sizes(height, width, side), logits.shape, side)
        resized = reference.resize_logits(logits, height, width, tuple(valid.tolist()))
    return resized > options.threshold


def logit_runs(
    array: Any, height: int, width: int, options: ReadOptions
) -> NDArray[np.int32] | None:
    """Resize logits or probabilities to an image, threshold them, and return the runs of the mask.

    Args:
        array: [h, w] of any float type, array or tensor.
        height: H of the image.
        width: W of the image.
        options: `values`, `letterbox` and `resize` say what the numbers mean.

    Returns:
        [R] int32 run ends as `rle.run_ends` gives them; None when a number is not finite.
    """
    if options.resize == "sam":
        tensor = as_tensor(array)
        if finite_range(tensor) is None:
            return None
        return run_ends(logit_mask(tensor, height, width, options).cpu().numpy())
    logits = as_logits(array)
    if not _are_finite(logits):
        return None
    side, valid = options.letterbox, None
    if side is not None:
        valid = tuple(valid_region(padded_sizes(height, width, side), logits.shape, side).tolist())
    runs, _ = cpu.logit_runs(
        logits[None], height, width, threshold=options.threshold, valid=valid, threads=1
    )
    return runs


def _are_finite(logits: NDArray[Any]) -> bool:
    """Return whether all numbers are finite; see `as_logits` for their types."""
    if logits.dtype == np.uint16:
        # The bits of bfloat16: their exponent is all ones for NaN and infinity.
        return bool(((logits & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(logits).all())


def padded_sizes(heights: Any, widths: Any, side: int) -> NDArray[np.float64]:
    """Return the sizes of images after their longer side was resized to `side`, as SAM's `ResizeLongestSide` rounds it.

    Args:
        heights: [...] H of the images.
        widths: [...] W.
        side: Side of the padded square input.

    Returns:
        [..., 2] float64 whole numbers: height and width in pixels of the input.

    >>> padded_sizes(480, 640, 1024)
    array([ 768., 1024.])
    """
    sizes = np.stack([heights, widths], axis=-1)
    scale = side / sizes.max(axis=-1, keepdims=True)
    # At least one pixel, so that a sliver of an image still has logits.
    inner: NDArray[np.float64] = np.maximum(1.0, np.floor(sizes * scale + 0.5))
    return inner


def valid_region(inner: Any, cells: Sequence[int], side: int) -> Any:
    """Return the rows and columns of logits that the image fills, from the top left.

    Args:
        inner: [..., 2] float64 from `padded_sizes`, an array or a tensor on any device; not changed.
        cells: Shape of the logits of the whole square, which ends with h, w.
        side: Side of the padded square input.

    Returns:
        [..., 2] float64 of the same kind; fractions where the image ends inside a cell.

    >>> valid_region(padded_sizes(480, 640, 1024), (256, 256), 1024)
    array([192., 256.])
    """
    region = inner * 1.0
    # In place and one axis at a time: an array of the two numbers would have to be sent to a device first.
    region[..., 0] *= cells[-2]
    region[..., 1] *= cells[-1]
    region /= side
    return region
