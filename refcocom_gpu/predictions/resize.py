"""Logits in, a mask at the image's size out; letterboxed logits hold it at the top left or in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.masks.rle import run_ends
from refcocom_gpu.predictions.interpolation import interpolated
from refcocom_gpu.predictions.options import BILINEAR, CENTER, VALUES, ReadOptions

if TYPE_CHECKING:
    from torch import Tensor


def as_tensor(array: Any) -> Tensor:
    """Return an array or tensor as a tensor without a graph; memory is shared where torch can.

    torch cannot read reversed or foreign-endian arrays or floats of more than 64 bits, and warns of read-only arrays.
    """
    import torch

    if isinstance(array, np.ndarray):
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            wide, array = array, array.astype(np.float64)
            for threshold in VALUES.values():
                # What is above a threshold stays above it, as in `as_float32`.
                array[(wide > threshold) & (array <= threshold)] = np.nextafter(threshold, 1)
        array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    return torch.as_tensor(array).detach()


def as_logits(array: Any, threshold: float) -> NDArray[Any]:
    """Return a float array or tensor as the CPU kernels read it.

    Args:
        array: [..., h, w] of any float type, on any device; or what this function returned.
        threshold: The value that a set pixel lies strictly above; see `as_float32`.

    Returns:
        [..., h, w] float32 or float16, or the bits of bfloat16 as uint16; C-contiguous. Other types become float32.
    """
    if isinstance(array, np.ndarray):
        if array.dtype == np.uint16:
            return array
        if array.dtype in (np.float16, np.float32):
            return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        with np.errstate(over="ignore"):
            # A number beyond float32 becomes infinite, and infinity is refused.
            rounded = np.ascontiguousarray(array, np.float32)
        rounded[(array > threshold) & (rounded <= threshold)] = _just_above(threshold)
        return rounded
    import torch

    tensor = as_float32(array.detach().cpu(), threshold).contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    return tensor.numpy()


def as_float32(values: Tensor, threshold: float) -> Tensor:
    """Return floats as the kernels read them: float32, float16 and bfloat16 as they are, others as float32.

    Rounding a float64 moves none across the threshold: what is above it stays above.

    Args:
        values: [..., h, w] of any float type, on any device.
        threshold: The value that a set pixel lies strictly above.
    """
    import torch

    if values.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return values
    rounded = values.float()
    if values.dtype == torch.float64:
        rounded.masked_fill_((values > threshold) & (rounded <= threshold), _just_above(threshold))
    return rounded


def _just_above(threshold: float) -> float:
    """Return the next float32, or the smallest that no device takes for 0."""
    return max(float(np.nextafter(np.float32(threshold), np.float32(1))), 2.0**-126)


def nearest_cells(
    masks: Any, heights: Any, widths: Any, region: Any, largest: tuple[int, int]
) -> tuple[Any, Any]:
    """Resize masks to their images: a pixel takes the cell under its centre, as `F.interpolate(mode="nearest-exact")`.

    Args:
        masks: [K, h, w] bool.
        heights: [K] H of the images.
        widths: [K] W.
        region: [K, 2] float64 rows and columns of cells that the images fill; None for all.
        largest: At least the largest H and W.

    Returns:
        [K, largest H, largest W] bool, and [K, 2] float64 H and W: the part that is the image.

    >>> masks, one = np.array([[[True, False]]]), np.array([1])
    >>> nearest_cells(masks, one, 4 * one, None, (1, 4))[0].astype(int)
    array([[[1, 1, 0, 0]]])
    """
    n, cells = len(masks), masks.shape[1:]
    taken = []
    for axis, sizes in enumerate((heights, widths)):
        filled = sizes * 0.0 + cells[axis] if region is None else region[:, axis]
        if isinstance(masks, np.ndarray):
            at = np.arange(largest[axis]) + 0.5
            taken.append((at * filled[:, None] / sizes[:, None]).astype(np.int64))
        else:
            import torch

            centres = torch.arange(largest[axis], device=masks.device) + 0.5
            taken.append((centres.double() * filled[:, None] / sizes[:, None]).long())
        taken[axis] = taken[axis].clip(max=cells[axis] - 1)
    rows, columns = taken
    if isinstance(masks, np.ndarray):
        return masks[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]], np.stack(
            [heights, widths], 1
        ).astype(np.float64)
    import torch

    first = torch.arange(n, device=masks.device)[:, None, None]
    return masks[first, rows[:, :, None], columns[:, None, :]], torch.stack(
        [heights, widths], 1
    ).double()


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
    return resized_values(logits, height, width, options) > options.threshold


def resized_values(
    logits: Tensor, height: int, width: int, options: ReadOptions, interpolation: str = BILINEAR
) -> Tensor:
    """Resize logits or probabilities to an image.

    Args:
        logits: As of `logit_mask`.
        height: H of the image.
        width: W of the image.
        options: As of `logit_mask`.
        interpolation: One of `options.INTERPOLATIONS`; `resize=sam` is bilinear.

    Returns:
        [H, W] float32.
    """
    from refcocom_kernels import reference

    logits = as_float32(logits, options.threshold)
    side = options.letterbox
    if isinstance(side, int) and options.resize == "sam" and tuple(logits.shape) != (height, width):
        inner_height, inner_width = map(int, padded_sizes(height, width, side))
        return reference.resize_logits_sam(logits, height, width, side, (inner_height, inner_width))
    part, valid = image_part(logits, height, width, options)
    return interpolated(part, height, width, valid, interpolation)


def logit_runs(array: Any, height: int, width: int, options: ReadOptions) -> NDArray[np.int32]:
    """Resize logits or probabilities to an image, threshold them, and return the runs of the mask.

    Args:
        array: [h, w] of any float type, array or tensor, finite.
        height: H of the image.
        width: W of the image.
        options: `values`, `letterbox` and `resize` say what the numbers mean.

    Returns:
        [R] int32 run ends as `rle.run_ends` gives them.
    """
    if options.resize == "sam":
        return run_ends(logit_mask(as_tensor(array), height, width, options).cpu().numpy())
    part, valid = image_part(array, height, width, options)
    logits = as_logits(part, options.threshold)
    runs, _ = cpu.logit_runs(
        logits[None], height, width, threshold=options.threshold, valid=valid, threads=1
    )
    return runs


def image_part(
    array: Any, height: int, width: int, options: ReadOptions
) -> tuple[Any, tuple[float, float] | None]:
    """Return the part of one prediction that begins with its image, and its rows and columns that the image fills.

    A prediction of the size of its image is not letterboxed: it would be a square.

    Args:
        array: [h, w], array or tensor.
        height: H of the image.
        width: W of the image.
        options: `letterbox` says where the image lies.

    Returns:
        The array, or a view of it; and the rows and columns, None for all.
    """
    side, cells = options.letterbox, tuple(array.shape)
    if side is None or (height, width) == cells:
        return array, None
    if side == CENTER:
        (top, left), filled = centred_regions(height, width, cells)
        rows, columns = filled.astype(int)
        return array[top : top + rows, left : left + columns], None
    assert isinstance(side, int)
    rows, columns = valid_region(padded_sizes(height, width, side), cells, side).tolist()
    return array, (rows, columns)


def centred_regions(
    heights: Any, widths: Any, cells: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the cells that images fill which were resized with their proportions into the middle of the input.

    They are whole cells, as `ops.scale_masks` of Ultralytics 8.4.190 cuts them; an odd row or column of padding is at
    the end. Nothing needs the size of the input: the cells have its proportions.

    Args:
        heights: [...] H of the images.
        widths: [...] W.
        cells: h and w of the predictions.

    Returns:
        [..., 2] the first row and column; [..., 2] the number of rows and columns, whole.

    >>> centred_regions(480, 640, (160, 160))
    (array([20,  0]), array([120., 160.]))
    """
    sizes = np.stack([heights, widths], axis=-1)
    gain = (np.array(cells) / sizes).min(axis=-1, keepdims=True)
    # At least one cell, so that a sliver of an image still has logits; and no more than there are.
    filled = np.clip(np.rint(sizes * gain), 1, cells)
    return (np.array(cells) - filled.astype(np.int64)) // 2, filled


def turned(values: Any, first: Any) -> Any:
    """Turn the rows and columns of each prediction so that a given cell becomes its first; those before it come last.

    Args:
        values: [K, h, w], array or tensor.
        first: [K, 2] integers: row and column.

    Returns:
        [K, h, w], where cell (i, j) is cell (i + row, j + column) of `values`, counted around.

    >>> turned(np.array([[[1, 2, 3]]]), np.array([[0, 1]]))
    array([[[2, 3, 1]]])
    """
    ranges: list[Any] = [np.arange(n) for n in values.shape]
    if not isinstance(values, np.ndarray):
        import torch

        ranges = [torch.arange(n, device=values.device) for n in values.shape]
        first = torch.as_tensor(first, device=values.device)
    k, *cells = ranges
    rows, columns = ((first[:, axis, None] + at) % len(at) for axis, at in enumerate(cells))
    return values[k[:, None, None], rows[:, :, None], columns[:, None, :]]


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
