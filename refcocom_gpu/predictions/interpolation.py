"""Logits in, their values at the pixels of an image out, by nearest or bicubic interpolation; bilinear has kernels.

Both are separable: a value is a weighted sum of cells along the rows, then along the columns. Positions are float64,
weights are rounded to float32 once, and each product and sum is rounded by itself, so that every device gives equal
bits. With `valid` cells and `n` pixels along an axis:

- `nearest` is `F.interpolate(mode="nearest")`, as `cv2.INTER_NEAREST`: pixel i takes cell ⌊i · valid / n⌋, in float32
  as there. It is not `resize_masks=nearest`, which takes the cell under the centre of a pixel ("nearest-exact").
- `bicubic` is `F.interpolate(mode="bicubic", align_corners=False)`: pixel i lies at (i + 0.5) · valid / n − 0.5, and
  the four cells around it have the weights of Keys' kernel with a = −0.75; beyond an edge the cell at the edge stands.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.predictions.options import BILINEAR, NEAREST

if TYPE_CHECKING:
    from torch import Tensor

CUBIC = -0.75
"""The a of Keys' kernel that torch and OpenCV use; Pillow uses −0.5."""


class Taps(NamedTuple):
    """One axis of a resize to N pixels, of n cells each.

    Attributes:
        cells: [n, N] int64.
        weights: [n, N] float32.
    """

    cells: NDArray[np.int64]
    weights: NDArray[np.float32]


@lru_cache(maxsize=512)
def axis_taps(valid: float, target: int, interpolation: str) -> Taps:
    """Return the cells and weights of one axis.

    Args:
        valid: Cells that hold content, from 0; a fraction where a letterbox ends inside a cell.
        target: N pixels.
        interpolation: `nearest` or `bicubic`.

    >>> axis_taps(2, 4, "nearest").cells.tolist(), axis_taps(2, 2, "bicubic").weights[:, 1].tolist()
    ([[0, 0, 1, 1]], [0.0, 1.0, 0.0, 0.0])
    """
    last = int(np.ceil(valid)) - 1
    pixels = np.arange(target)
    if interpolation == NEAREST:
        scale = np.float32(valid) / np.float32(target)
        cells = np.floor(pixels.astype(np.float32) * scale).astype(np.int64)
        return Taps(np.minimum(cells, last)[None], np.ones((1, target), np.float32))
    position = (pixels + 0.5) * valid / target - 0.5
    first = np.floor(position)
    distance = position - first + np.array([[1], [0], [-1], [-2]])  # [4, N]
    near, far = np.abs(distance), np.abs(distance)
    inner = ((CUBIC + 2) * near - (CUBIC + 3)) * near**2 + 1
    outer = ((CUBIC * far - 5 * CUBIC) * far + 8 * CUBIC) * far - 4 * CUBIC
    cells = first.astype(np.int64) + np.array([[-1], [0], [1], [2]])
    weights = np.where(near <= 1, inner, outer)
    return Taps(cells.clip(0, last), weights.astype(np.float32))


def interpolated(
    logits: Tensor,
    height: int,
    width: int,
    valid: tuple[float, float] | None,
    interpolation: str,
) -> Tensor:
    """Resize logits or probabilities to an image.

    Args:
        logits: [h, w] float of any kind, on any device.
        height: H of the image.
        width: W of the image.
        valid: Cells (rows, columns) from the top left that the image fills; all by default.
        interpolation: One of `options.INTERPOLATIONS`.

    Returns:
        [H, W] float32.
    """
    import torch
    from refcocom_kernels import reference

    if interpolation == BILINEAR:
        return reference.resize_logits(logits, height, width, valid)
    values = logits.float()
    sizes = valid or (float(logits.shape[0]), float(logits.shape[1]))
    for axis, target in ((1, width), (0, height)):
        cells, weights = (
            torch.from_numpy(part).to(values.device)
            for part in axis_taps(float(sizes[axis]), target, interpolation)
        )
        # Each rounded step has a name, so that a compiler sees no expression to fuse.
        total = None
        for tap, weight in zip(cells, weights, strict=True):
            product = values.index_select(axis, tap) * (weight if axis == 1 else weight[:, None])
            total = product if total is None else total + product
        assert total is not None
        values = total
    return values
