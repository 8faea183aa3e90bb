"""Logits and stored packed bits in, counts at each of several thresholds out: resized once, no full-size mask.

As in `logits.py`, a program takes one tile of target pixels of one example. Its pixels are interpolated once and
compared with each threshold in turn. A threshold that clears all cells under the tile is counted without a comparison.

Shapes: `B` examples, `T` thresholds, `h` × `w` cells, `H` × `W` pixels, `M` stored masks, `P` packed words.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.cuda.logits import MAX_TILE
from refcocom_kernels.cuda.resize import axis_entries, cell_range, margin, resized


@triton.jit
def count_curve_tiles(
    logits, sample, heights, widths, words, word_offsets, rows, columns, thresholds, counts, cells, w, max_height,
    max_width, tiles_x, tiles, n_thresholds,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr, CELLS_Y: tl.constexpr, CELLS_X: tl.constexpr,
):  # fmt: skip
    """Add one tile's intersection and area at each threshold to `counts` [B, T, 2] int64.

    `thresholds` is [T] float32, ascending; the others are those of `logits.count_tiles`.
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
    source = logits + example * cells
    rows += example * max_height
    columns += example * max_width
    truth = words + 2 * tl.load(word_offsets + mask)
    y1 = tl.minimum(y0 + TILE_Y, height) - 1
    x1 = tl.minimum(x0 + TILE_X, width) - 1
    lowest, highest = cell_range(source, w, rows, columns, y0, y1, x0, x1, CELLS_Y, CELLS_X)
    least = tl.load(thresholds)
    if highest < least - margin(lowest, highest, least):
        return
    y, x = y0 + tl.arange(0, TILE_Y), x0 + tl.arange(0, TILE_X)
    inside = (y < height)[:, None] & (x < width)[None, :]
    # Lanes beyond the target repeat its last row or column.
    y, x = tl.minimum(y, y1), tl.minimum(x, x1)
    values = resized(source, w, tl.load(rows + y), tl.load(columns + x))  # [TILE_Y, TILE_X]
    bit = (y * width)[:, None] + x[None, :]
    true = (tl.load(truth + (bit >> 5)) >> (bit & 31)) & 1
    # The low half of a pixel counts its area, the high half its intersection.
    weights = tl.where(inside, 1 + (true << 16), 0)
    everything = tl.sum(tl.ravel(weights))
    for k in range(n_thresholds):
        threshold = tl.load(thresholds + k)
        clear = margin(lowest, highest, threshold)
        if highest >= threshold - clear:
            both = everything
            if lowest <= threshold + clear:
                both = tl.sum(tl.ravel(tl.where(values > threshold, weights, 0)))
            at = counts + 2 * (example * n_thresholds + k)
            tl.atomic_add(at, (both >> 16).to(tl.int64), sem="relaxed")
            tl.atomic_add(at + 1, (both & 0xFFFF).to(tl.int64), sem="relaxed")


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
    *,
    tile: tuple[int, int] = (32, 32),
    cells: tuple[int, int] = (16, 16),
) -> Tensor:
    """Resize logits to the stored masks' sizes once, and count at each of several thresholds.

    Equal to `reference.logit_curve` to the last pixel. Nothing waits for the device.

    Args:
        logits: [B, h, w] float32, float16 or bfloat16, finite; h·w below 2**31.
        sample: [B] int64 stored mask each is scored against.
        heights: [M] int64 H.
        widths: [M] int64 W; H·W at most 2**30.
        words: [P] int64 (the bits of uint64) packed masks, row-major, low bit first.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        max_height: At least the largest H of the batch; given, so that the launch does not wait for the device.
        max_width: At least the largest W of the batch.
        thresholds: [T] float32, ascending; at each, the values strictly above it are set.
        valid: [B, 2] float64 rows and columns of cells that hold content, from the top left; all by default.
        tile: As of `logits.logit_counts`.
        cells: As of `logits.logit_counts`.

    Returns:
        [B, T, 2] int64 intersection and predicted area.
    """
    n_rows, h, w = logits.shape
    if h * w >= 2**31:
        raise ValueError(
            f"an example of {h} × {w} logits is too large: it must have fewer than 2**31"
        )
    if tile[0] * tile[1] > MAX_TILE:
        raise ValueError(f"a tile must have at most {MAX_TILE} pixels, not {tile[0]} × {tile[1]}")
    n = len(thresholds)
    counts = torch.zeros(n_rows, n, 2, dtype=torch.int64, device=logits.device)
    if n_rows == 0 or n == 0:
        return counts
    logits, sample = logits.contiguous(), sample.contiguous()
    heights, widths = heights.contiguous(), widths.contiguous()
    valid = None if valid is None else valid.contiguous()
    tiles_y, tiles_x = triton.cdiv(max_height, tile[0]), triton.cdiv(max_width, tile[1])
    rows = axis_entries(sample, heights, valid, axis=0, cells=h, longest=max_height)
    columns = axis_entries(sample, widths, valid, axis=1, cells=w, longest=max_width)
    with on_device_of(logits):
        count_curve_tiles[(n_rows * tiles_y * tiles_x,)](
            logits, sample, heights, widths, words.contiguous().view(torch.int32), word_offsets.contiguous(),
            rows, columns, thresholds.contiguous(), counts, h * w, w, max_height, max_width, tiles_x,
            tiles_y * tiles_x, n,
            TILE_Y=tile[0], TILE_X=tile[1], CELLS_Y=cells[0], CELLS_X=cells[1], enable_fp_fusion=False,
        )  # fmt: skip
    return counts
