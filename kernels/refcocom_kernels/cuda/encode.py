"""Dense masks or logits in, run ends out: runs of 0 and 1 down the columns, as COCO RLE has them.

A run ends at every pixel that differs from the one before it down the columns. Before the top of a column comes the
bottom of the column to its left; before the first pixel comes a 0. There are two passes over tiles of pixels. The first
counts these changes in each column of each tile. Prefix sums in column order give their places in the result; their
number is read back. The second pass writes them, and skips tiles without any. Both passes resize logits in registers
and write no pixels.

Shapes: `B` masks, `H` × `W` pixels, `h` × `w` logit cells, `R` runs, `T` tiles down a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.cuda.resize import axis_entries, cell_range, margin, resized


@triton.jit
def _set_pixels(source, rows, columns, w, threshold, y, x, height, width):
    """Pixels [Y, X] of one mask as bool; pixels outside the image are not set."""
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    if rows is None:
        at = (y * width)[:, None] + x[None, :]
        is_set = tl.load(source + at, mask=inside, other=0) != 0
    else:
        # Lanes outside compute the pixel at the edge.
        y = tl.minimum(tl.maximum(y, 0), height - 1)
        x = tl.minimum(tl.maximum(x, 0), width - 1)
        values = resized(source, w, tl.load(rows + y), tl.load(columns + x))
        is_set = (values > threshold) & inside
    return is_set


@triton.jit
def _changes(
    source, rows, columns, w, threshold, y0, x0, height, width, TILE_Y: tl.constexpr, TILE_X: tl.constexpr
):  # fmt: skip
    """Pixels [TILE_Y, TILE_X] that differ from the one before them, as int32."""
    y, x = y0 + tl.arange(0, TILE_Y), x0 + tl.arange(0, TILE_X)
    here = _set_pixels(source, rows, columns, w, threshold, y, x, height, width)
    before = _set_pixels(source, rows, columns, w, threshold, y - 1, x, height, width)
    if y0 == 0:
        bottom = height - 1 + tl.arange(0, 1)
        corner = _set_pixels(source, rows, columns, w, threshold, bottom, x - 1, height, width)
        before |= corner & (y == 0)[:, None]
    inside = (y < height)[:, None] & (x < width)[None, :]
    return ((here ^ before) & inside).to(tl.int32)


@triton.jit
def count_changes(
    source, rows, columns, counts, stride, w, height, width, tiles_x, tiles_y, threshold,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr, CELLS_Y: tl.constexpr, CELLS_X: tl.constexpr,
):  # fmt: skip
    """Changes in each column of one tile, to `counts` [B, W, T] int32.

    `source` is [B, H, W] uint8, or [B, h, w] logits if `rows` and `columns` are their entries (`resize.axis_entries`)
    and not None; `stride` is the pixels or cells of one. Program `(b · tiles_y + tile_y) · tiles_x + tile_x`.
    """
    x0 = tl.program_id(0) % tiles_x * TILE_X
    tile_y = tl.program_id(0) // tiles_x % tiles_y
    example = (tl.program_id(0) // tiles_x // tiles_y).to(tl.int64)
    y0 = tile_y * TILE_Y
    source += example * stride
    x = x0 + tl.arange(0, TILE_X)
    counts += (example * width + x) * tiles_y + tile_y
    if rows is None:
        on_one_side = y0 < 0
    else:
        # The row above the tile is included, as the first row is compared with it. Nothing is above the first row.
        above = tl.maximum(y0 - 1, 0)
        y1, x1 = tl.minimum(y0 + TILE_Y, height) - 1, tl.minimum(x0 + TILE_X, width) - 1
        lowest, highest = cell_range(source, w, rows, columns, above, y1, x0, x1, CELLS_Y, CELLS_X)
        clear = margin(lowest, highest, tl.cast(threshold, tl.float32))
        on_one_side = (y0 > 0) & ((highest < threshold - clear) | (lowest > threshold + clear))
    if on_one_side:
        tl.store(counts, tl.zeros([TILE_X], tl.int32), mask=x < width)
    else:
        changes = _changes(
            source, rows, columns, w, threshold, y0, x0, height, width, TILE_Y, TILE_X
        )
        tl.store(counts, tl.sum(changes, axis=0), mask=x < width)


@triton.jit
def write_changes(
    source, rows, columns, counts, totals, ends, stride, w, height, width, tiles_x, tiles_y, threshold,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Positions of the changes of one tile, to `ends` [R] int32; as `count_changes`.

    `totals` [B, W, T] int64 is the prefix sum of all `counts`.
    """
    x0 = tl.program_id(0) % tiles_x * TILE_X
    tile_y = tl.program_id(0) // tiles_x % tiles_y
    example = (tl.program_id(0) // tiles_x // tiles_y).to(tl.int64)
    y0 = tile_y * TILE_Y
    y, x = y0 + tl.arange(0, TILE_Y), x0 + tl.arange(0, TILE_X)
    column = (example * width + x) * tiles_y + tile_y
    count = tl.load(counts + column, mask=x < width, other=0)
    if tl.sum(count) == 0:
        return
    source += example * stride
    changes = _changes(source, rows, columns, w, threshold, y0, x0, height, width, TILE_Y, TILE_X)
    # Each mask before this one has one more run, the last, which ends with the mask.
    first = tl.load(totals + column, mask=x < width, other=0) - count + example
    place = first[None, :] + (tl.cumsum(changes, axis=0) - changes)
    tl.store(ends + place, (x * height)[None, :] + y[:, None], mask=changes != 0)


def _runs(
    source: Tensor,
    entries: tuple[Tensor | None, Tensor | None],
    height: int,
    width: int,
    tile: tuple[int, int],
    threshold: float,
    cells: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Run ends and offsets of [B, H, W] uint8 masks, or of [B, h, w] logits with the entries of their resize."""
    n_rows, device = len(source), source.device
    offsets = torch.zeros(n_rows + 1, dtype=torch.int64, device=device)
    if n_rows == 0:
        return torch.empty(0, dtype=torch.int32, device=device), offsets
    tiles_y, tiles_x = triton.cdiv(height, tile[0]), triton.cdiv(width, tile[1])
    counts = torch.empty(n_rows, width, tiles_y, dtype=torch.int32, device=device)
    geometry = (source[0].numel(), source.shape[2], height, width, tiles_x, tiles_y, threshold)
    options: dict[str, Any] = {"TILE_Y": tile[0], "TILE_X": tile[1], "enable_fp_fusion": False}
    grid = (n_rows * tiles_y * tiles_x,)
    with on_device_of(source):
        count_changes[grid](
            source, *entries, counts, *geometry, CELLS_Y=cells[0], CELLS_X=cells[1], **options
        )
        totals = counts.view(-1).cumsum(0, dtype=torch.int64)
        last_runs = torch.arange(1, n_rows + 1, device=device)
        torch.add(totals.view(n_rows, -1)[:, -1], last_runs, out=offsets[1:])
        ends = torch.empty(int(offsets[-1]), dtype=torch.int32, device=device)
        write_changes[grid](source, *entries, counts, totals, ends, *geometry, **options)
    return ends.index_fill_(0, offsets[1:] - 1, height * width), offsets


def mask_runs(masks: Tensor, *, tile: tuple[int, int] = (64, 128)) -> tuple[Tensor, Tensor]:
    """Run ends of dense masks of one size. Waits for the device once, to learn the number of runs.

    Args:
        masks: [B, H, W] bool or uint8; any nonzero byte is a set pixel; H·W at most 2**30.
        tile: Rows and columns of pixels that a program takes, powers of two.

    Returns:
        [R] int32 run ends and [B + 1] int64 offsets, as `rle.rle_write` takes them.
    """
    _, height, width = masks.shape
    pixels = masks.contiguous().view(torch.uint8)
    return _runs(pixels, (None, None), height, width, tile, 0.0, (1, 1))


def logit_runs(
    logits: Tensor,
    height: int,
    width: int,
    threshold: float = 0.0,
    valid: Sequence[float] | None = None,
    *,
    tile: tuple[int, int] = (32, 32),
    cells: tuple[int, int] = (16, 16),
) -> tuple[Tensor, Tensor]:
    """Resize logits to one size, threshold, and return the runs. Waits for the device once, to learn their number.

    Args:
        logits: [B, h, w] float32, float16 or bfloat16; finite; h·w below 2**31.
        height: H.
        width: W; H·W at most 2**30.
        threshold: Values strictly above it are set.
        valid: Rows and columns of cells that hold content; all by default.
        tile: Rows and columns of pixels that a program takes, powers of two.
        cells: Rows and columns of cells that a program reads at a time for their range, powers of two.

    Returns:
        [R] int32 run ends and [B + 1] int64 offsets, as `rle.rle_write` takes them.
    """
    _, h, w = logits.shape
    device = logits.device
    # All examples share one table, that of a single stored mask of this size.
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    region = None
    if valid is not None:
        region = torch.full((1, 2), valid[0], dtype=torch.float64, device=device)
        region[:, 1] = valid[1]
    rows = axis_entries(zero, zero + height, region, axis=0, cells=h, longest=height)
    columns = axis_entries(zero, zero + width, region, axis=1, cells=w, longest=width)
    source = logits.contiguous()
    return _runs(source, (rows, columns), height, width, tile, threshold, cells)
