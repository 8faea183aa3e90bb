"""Logits resized in registers, equal to `reference.resize_logits` to the last bit; shared by the ops on logits.

`fill_axis` is launched first. It writes `tables.axis_table` of every example, an int64 for each target row or column.
The device functions read it: `resized` computes the values of a tile of pixels, and `cell_range` the smallest and the
largest cell under the tile. If both clear the threshold by `margin`, so does every pixel of the tile, and none needs to
be interpolated.

Kernels that use these are launched with `enable_fp_fusion=False`, so that each product and sum is rounded by itself.

Shapes: `B` examples, `Y` × `X` pixels of a tile, `h` × `w` logit cells.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.cuda.launch import on_device_of

RELATIVE_MARGIN = tl.constexpr(2.0**-20)
"""Share of the largest magnitude by which cells must clear the threshold, as in the Numba kernel.

Two products, a sum, two products and a sum round by less than 4 · 2⁻²⁴ of the largest term, and two weights sum to 1
within 2⁻²⁴; 2⁻²⁰ leaves a factor of three."""

SUBNORMAL_MARGIN = tl.constexpr(2.0**-126)
"""The error of a product below the smallest normal number is not a share of it but an amount: up to 2⁻¹⁵⁰."""


@triton.jit
def fill_axis(
    sample, sizes, valid, entries, cells, longest, blocks, AXIS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Write a block of one example's entries of `entries` [B, longest] int64; program `b · blocks + block`.

    `sample` [B] and `sizes` [M] int64; `valid` [B, 2] float64, of which column `AXIS` is read, or None. An entry is the
    cell before a pixel (high half) and the float32 weight of the cell after it (low half).
    """
    example = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(sizes + tl.load(sample + example))
    content = tl.cast(cells, tl.float64)
    if valid is not None:
        content = tl.load(valid + 2 * example + AXIS).to(tl.float64)
    # Whatever `valid` says, only cells that exist are read.
    last = tl.minimum(tl.maximum(tl.ceil(content).to(tl.int32), 1), cells) - 1
    position = (pixel.to(tl.float64) + 0.5) * content / target.to(tl.float64) - 0.5
    position = tl.minimum(tl.maximum(position, 0.0), last.to(tl.float64))
    low = position.to(tl.int32)
    weight = (position - low.to(tl.float64)).to(tl.float32)
    entry = (low.to(tl.int64) << 32) | weight.to(tl.int32, bitcast=True).to(tl.int64)
    tl.store(entries + example * longest + pixel, entry, mask=(pixel < target) & (pixel < longest))


def axis_entries(
    sample: Tensor,
    sizes: Tensor,
    valid: Tensor | None,
    *,
    axis: int,
    cells: int,
    longest: int,
    block: int = 256,
) -> Tensor:
    """Table of one axis of the resize of every example.

    Args:
        sample: [B] int64 the stored mask an example is resized to.
        sizes: [M] int64 pixels of the stored masks along the axis.
        valid: [B, 2] float64 rows and columns of cells that hold content; all by default.
        axis: 0 for rows, 1 for columns: the column of `valid`.
        cells: Cells along the axis, h or w.
        longest: At least the largest size.
        block: Entries that a program writes, a power of two.

    Returns:
        [B, longest] int64 as `fill_axis` writes them; entries beyond the size of an example are not written.
    """
    n_rows = len(sample)
    entries = torch.empty(n_rows, longest, dtype=torch.int64, device=sample.device)
    blocks = triton.cdiv(longest, block)
    with on_device_of(sample):
        fill_axis[(n_rows * blocks,)](
            sample, sizes, valid, entries, cells, longest, blocks, AXIS=axis, BLOCK=block,
            enable_fp_fusion=False,
        )  # fmt: skip
    return entries


@triton.jit
def cells_of(entries):
    """Entries of an axis to the int32 cells before and after, and the float32 weight of each."""
    low = (entries >> 32).to(tl.int32)
    weight_high = entries.to(tl.int32).to(tl.float32, bitcast=True)
    # A cell of weight 0 adds nothing. It may lie beyond the last cell, so the cell before is read instead.
    high = tl.where(weight_high == 0.0, low, low + 1)
    return low, high, 1.0 - weight_high, weight_high


@triton.jit
def resized(source, w, rows, columns):
    """Values of a tile of pixels of one example.

    Args:
        source: Pointer to the example's [h, w] logits.
        w: Cells of a row in memory.
        rows: [Y] int64 entries of its rows.
        columns: [X] int64 entries of its columns.

    Returns:
        [Y, X] float32.
    """
    y_low, y_high, y_weight_low, y_weight_high = cells_of(rows)
    x_low, x_high, x_weight_low, x_weight_high = cells_of(columns)
    upper, lower = (y_low * w)[:, None], (y_high * w)[:, None]
    left, right = x_low[None, :], x_high[None, :]
    left_weight, right_weight = x_weight_low[None, :], x_weight_high[None, :]
    upper_left = tl.load(source + (upper + left)).to(tl.float32) * left_weight
    upper_right = tl.load(source + (upper + right)).to(tl.float32) * right_weight
    lower_left = tl.load(source + (lower + left)).to(tl.float32) * left_weight
    lower_right = tl.load(source + (lower + right)).to(tl.float32) * right_weight
    above = (upper_left + upper_right) * y_weight_low[:, None]
    below = (lower_left + lower_right) * y_weight_high[:, None]
    return above + below


@triton.jit
def cell_range(
    source, w, rows, columns, y0, y1, x0, x1, CELLS_Y: tl.constexpr, CELLS_X: tl.constexpr
):
    """Smallest and largest of the cells under pixels y0 … y1, x0 … x1 of one example: two float32.

    Args:
        source: Pointer to the example's [h, w] logits.
        w: Cells of a row in memory.
        rows: Pointer to its entries of rows.
        columns: Pointer to its entries of columns.
        y0: First row of pixels.
        y1: Last row of pixels.
        x0: First column of pixels.
        x1: Last column of pixels.
        CELLS_Y: Rows of cells read at a time.
        CELLS_X: Columns of cells read at a time.
    """
    first_row, _, _, _ = cells_of(tl.load(rows + y0))
    _, last_row, _, _ = cells_of(tl.load(rows + y1))
    first_column, _, _, _ = cells_of(tl.load(columns + x0))
    _, last_column, _, _ = cells_of(tl.load(columns + x1))
    lowest = tl.full([CELLS_Y, CELLS_X], float("inf"), tl.float32)
    highest = tl.full([CELLS_Y, CELLS_X], float("-inf"), tl.float32)
    for row in range(first_row, last_row + 1, CELLS_Y):
        # Lanes beyond the rectangle read its edge again.
        y = tl.minimum(row + tl.arange(0, CELLS_Y), last_row)
        for column in range(first_column, last_column + 1, CELLS_X):
            x = tl.minimum(column + tl.arange(0, CELLS_X), last_column)
            cells = tl.load(source + ((y * w)[:, None] + x[None, :])).to(tl.float32)
            lowest = tl.minimum(lowest, cells)
            highest = tl.maximum(highest, cells)
    return tl.min(tl.ravel(lowest)), tl.max(tl.ravel(highest))


@triton.jit
def margin(lowest, highest, threshold):
    """The distance from the threshold at which no rounding can carry a pixel across it."""
    largest = tl.maximum(tl.maximum(tl.abs(lowest), tl.abs(highest)), tl.abs(threshold))
    return largest * RELATIVE_MARGIN + SUBNORMAL_MARGIN
