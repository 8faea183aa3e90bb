"""Logits in, dense masks out: resized and thresholded, for measures that need the pixels of a mask.

Shapes: `B` examples, `h` × `w` cells, `H` × `W` pixels, `M` stored masks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.cuda.resize import axis_entries, resized


@triton.jit
def draw_tiles(
    logits, sample, heights, widths, rows, columns, masks, cells, w, max_height, max_width, tiles_x, tiles, threshold,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Set the pixels of one tile in `masks` [B, max_height, max_width] int8, which are zeros before.

    `rows` and `columns` are [B, max_height] and [B, max_width] int64 entries of the resize (`axis_entries`); program
    `b · tiles + tile`.
    """
    example = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    mask = tl.load(sample + example)
    height = tl.load(heights + mask).to(tl.int32)
    width = tl.load(widths + mask).to(tl.int32)
    y0 = tile // tiles_x * TILE_Y
    x0 = tile % tiles_x * TILE_X
    if (y0 >= height) | (x0 >= width):
        return
    example = example.to(tl.int64)
    y, x = y0 + tl.arange(0, TILE_Y), x0 + tl.arange(0, TILE_X)
    inside = (y < height)[:, None] & (x < width)[None, :]
    # Lanes beyond the image repeat its last row or column.
    y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)
    values = resized(
        logits + example * cells,
        w,
        tl.load(rows + example * max_height + y),
        tl.load(columns + example * max_width + x),
    )
    masks += example * max_height * max_width
    at = (y * max_width)[:, None] + x[None, :]
    tl.store(masks + at, (values > tl.cast(threshold, tl.float32)).to(tl.int8), mask=inside)


def logit_masks(
    logits: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    max_height: int,
    max_width: int,
    threshold: float = 0.0,
    valid: Tensor | None = None,
    *,
    tile: tuple[int, int] = (8, 64),
) -> Tensor:
    """Resize logits to the stored masks' sizes and threshold. Nothing waits for the device.

    Args:
        logits: [B, h, w] float32, float16 or bfloat16; h·w below 2**31.
        sample: [B] int64 the stored mask whose size each gets.
        heights: [M] int64 H.
        widths: [M] int64 W.
        max_height: At least the largest H of the batch.
        max_width: At least the largest W of the batch; max_height·max_width at most 2**30.
        threshold: Values strictly above it are set.
        valid: [B, 2] float64 rows and columns of cells that hold content, from the top left; all by default.
        tile: Rows and columns of pixels that a program takes, powers of two.

    Returns:
        [B, max_height, max_width] bool, each image at the top left, False beyond it.
    """
    n_rows, h, w = logits.shape
    masks = torch.zeros(n_rows, max_height, max_width, dtype=torch.int8, device=logits.device)
    if n_rows == 0:
        return masks.view(torch.bool)
    logits, sample = logits.contiguous(), sample.contiguous()
    heights, widths = heights.contiguous(), widths.contiguous()
    valid = None if valid is None else valid.contiguous()
    tiles_y, tiles_x = triton.cdiv(max_height, tile[0]), triton.cdiv(max_width, tile[1])
    rows = axis_entries(sample, heights, valid, axis=0, cells=h, longest=max_height)
    columns = axis_entries(sample, widths, valid, axis=1, cells=w, longest=max_width)
    with on_device_of(logits):
        draw_tiles[(n_rows * tiles_y * tiles_x,)](
            logits, sample, heights, widths, rows, columns, masks, h * w, w, max_height, max_width, tiles_x,
            tiles_y * tiles_x, threshold, TILE_Y=tile[0], TILE_X=tile[1], enable_fp_fusion=False,
        )  # fmt: skip
    return masks.view(torch.bool)
