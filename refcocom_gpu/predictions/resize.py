"""Logits in, a mask at the image's size out, letterboxed (SAM, LISA: the image fills the top left) or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.masks.rle import run_ends
from refcocom_gpu.predictions.options import VALUES, ReadOptions

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


def as_logits(array: Any) -> NDArray[Any]:
    """A float array or tensor as the CPU kernels read it.

    Args:
        array: [h, w] of any float type, on any device.

    Returns:
        [h, w] float32 or float16, or the bits of bfloat16 as uint16; C-contiguous. Other types become float32.
    """
    if isinstance(array, np.ndarray):
        native = array.dtype in (np.float16, np.float32)
        with np.errstate(over="ignore"):
            # What float32 cannot hold becomes infinite, and is refused as such.
            return np.ascontiguousarray(
                array, array.dtype.newbyteorder("=") if native else np.float32
            )
    tensor = array.detach().cpu().contiguous()
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind == "bfloat16":
        import torch

        return tensor.view(torch.uint16).numpy()  # type: ignore[no-any-return]
    return (tensor if kind in {"float16", "float32"} else tensor.float()).numpy()  # type: ignore[no-any-return]


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


def logit_runs(
    array: Any, height: int, width: int, options: ReadOptions
) -> NDArray[np.int32] | None:
    """Resize logits or probabilities to an image, threshold them, and give the runs of the mask.

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
    # The exponent of bfloat16, whose bits NumPy cannot read, is all ones for NaN and infinity.
    finite = (logits & 0x7F80) != 0x7F80 if logits.dtype == np.uint16 else np.isfinite(logits)
    if not finite.all():
        return None
    valid = None
    if options.letterbox is not None:
        valid = valid_cells(height, width, options.letterbox, (logits.shape[0], logits.shape[1]))
    threshold = VALUES[options.values]
    return cpu.logit_runs(logits[None], height, width, threshold=threshold, valid=valid, threads=1)[
        0
    ]


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


def resized_sizes(
    heights: NDArray[np.int64], widths: NDArray[np.int64], side: int
) -> NDArray[np.int64]:
    """`resized` of many images.

    Args:
        heights: [B] H of the images.
        widths: [B] W.
        side: Side of the padded square input.

    Returns:
        [B, 2] int64 height and width in pixels of the input.
    """
    sizes = np.stack([heights, widths], axis=1)
    scale = side / sizes.max(axis=1, keepdims=True)
    inner: NDArray[np.int64] = np.maximum(1, np.floor(sizes * scale + 0.5)).astype(np.int64)
    return inner


def valid_regions(
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    options: ReadOptions,
    cells: Sequence[int],
) -> NDArray[np.float64] | None:
    """`valid_cells` of a batch, [B, 2] float64; None where logits are not letterboxed.

    Args:
        heights: [B] H of the images.
        widths: [B] W.
        options: `letterbox` is the side of the padded square.
        cells: h, w of the logits.
    """
    side = options.letterbox
    if side is None:
        return None
    region: NDArray[np.float64] = resized_sizes(heights, widths, side) * np.array(cells) / side
    return region


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
