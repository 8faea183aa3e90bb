"""Logits to runs on a device in roboflow's manner: no mask is drawn, changes are appended and sorted on the host.

The ideas are those of `rfdetr/triton_postprocess.py` in `roboflow/inference`; each line was written here. One kernel
finds where each mask has cells above 0. Another interpolates the pixels around them and appends their changes to one
list of all masks, by atomic additions. Interpolation is ours, so that the pixels are the same.

Shapes: `B` masks, `H` × `W` pixels, `h` × `w` logit cells, `R` runs.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.cuda.resize import axis_entries, cells_of, resized
from torch import Tensor

TILE = (512, 8)
"""Rows and columns of pixels that a program scans at a time, as roboflow's kernel does."""

BANDS = 64
"""Programs for the columns of a mask; each takes every 64th band, as roboflow's do."""

CELLS = 1024
"""Cells that a program reads to find where a mask lies."""

CAPACITY = 4096
"""Changes of a mask that there is room for, on average."""


@triton.jit
def find_positive(logits, edges, h, w, BLOCK: tl.constexpr):
    """Where the positive cells of a mask lie; program (b, block of cells).

    `edges` [B, 4] int32, zeros before, gets the largest of h − y, y + 1, w − x and x + 1.
    """
    example = tl.program_id(0).to(tl.int64)
    cell = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(logits + example * h * w + cell, mask=cell < h * w, other=0)
    positive = (values > 0).to(tl.int32)
    if tl.max(positive) == 1:
        y, x = cell // w, cell % w
        edges += 4 * example
        tl.atomic_max(edges, tl.max(positive * (h - y)))
        tl.atomic_max(edges + 1, tl.max(positive * (y + 1)))
        tl.atomic_max(edges + 2, tl.max(positive * (w - x)))
        tl.atomic_max(edges + 3, tl.max(positive * (x + 1)))


@triton.jit
def _span(entries, size, first, last, SIZE: tl.constexpr):
    """First pixel, and one past the last, that interpolate a cell from `first` to `last`."""
    pixel = tl.arange(0, SIZE)
    low, high, _, _ = cells_of(tl.load(entries + pixel, mask=pixel < size, other=0))
    near = (low <= last) & (high >= first) & (pixel < size)
    return tl.min(tl.where(near, pixel, size)), tl.max(tl.where(near, pixel + 1, 0))


@triton.jit
def _set_pixels(source, rows, columns, w, y, x, inside):
    """Pixels [Y, X] as bool; those outside are not set."""
    entries_y = tl.load(rows + y, mask=inside[0], other=0)
    entries_x = tl.load(columns + x, mask=inside[1], other=0)
    values = resized(source, w, entries_y, entries_x)
    return (values > 0) & inside[0][:, None] & inside[1][None, :]


@triton.jit
def append_changes(
    logits, rows, columns, edges, changes, h, w, height, width, capacity,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr, SIZE_Y: tl.constexpr, SIZE_X: tl.constexpr,
):  # fmt: skip
    """Append the changes down the columns of a mask, in any order; program (b, band of columns).

    `rows` [H] and `columns` [W] are int64 entries of the resize (`axis_entries`). `changes` [1 + capacity] int64 holds
    their number, 0 before, and then b · 2³² + x · H + y of each. A column that ends set and the next that begins set
    both write the top of the next, which cancel.
    """
    example = tl.program_id(0).to(tl.int64)
    edges += 4 * example
    top, bottom = _span(rows, height, h - tl.load(edges), tl.load(edges + 1) - 1, SIZE_Y)
    left, right = _span(columns, width, w - tl.load(edges + 2), tl.load(edges + 3) - 1, SIZE_X)
    source = logits + example * h * w
    for x0 in range(left + tl.program_id(1) * TILE_X, right, tl.num_programs(1) * TILE_X):
        x = x0 + tl.arange(0, TILE_X)
        for y0 in range(top, bottom + 1, TILE_Y):
            y = y0 + tl.arange(0, TILE_Y)
            here = _set_pixels(source, rows, columns, w, y, x, (y < bottom, x < right))
            before = _set_pixels(
                source, rows, columns, w, y - 1, x, ((y > top) & (y <= bottom), x < right)
            )
            place = x[None, :] * height + y[:, None]
            # Every mask ends where its image does, which needs no record.
            changed = ((here != before) & (place < height * width)).to(tl.int32)
            in_column = tl.sum(changed, axis=0)
            if tl.sum(in_column) > 0:
                slot = tl.atomic_add(changes, tl.sum(in_column).to(tl.int64))
                slot += (tl.cumsum(in_column) - in_column)[None, :]
                slot += tl.cumsum(changed, axis=0) - changed
                tl.store(
                    changes + 1 + slot,
                    (example << 32) + place,
                    mask=(changed == 1) & (slot < capacity),
                )


def resize_entries(logits: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """[H] and [W] int64 entries of the resize, which roboflow's code keeps from call to call."""
    zero = torch.zeros(1, dtype=torch.int64, device=logits.device)
    _, h, w = logits.shape
    rows = axis_entries(zero, zero + height, None, axis=0, cells=h, longest=height)
    columns = axis_entries(zero, zero + width, None, axis=1, cells=w, longest=width)
    return rows[0], columns[0]


def logit_runs(logits: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of resized logits above 0.

    Roboflow's code appends pairs of changes, a column at a time, and makes strings with pycocotools, mask by mask. This
    appends changes, a tile at a time, and makes no strings, which is less work.

    Args:
        logits: [B, h, w] float, contiguous.
        rows: [H] of `resize_entries`.
        columns: [W] of the same.

    Returns:
        [R] int32 run ends and [B + 1] int64 where a mask's runs begin, both on the host.

    Raises:
        RuntimeError: There are more changes than `CAPACITY` leaves room for.
    """
    n_rows, h, w = logits.shape
    height, width = len(rows), len(columns)
    capacity = CAPACITY * n_rows
    edges = torch.zeros(n_rows, 4, dtype=torch.int32, device=logits.device)
    changes = torch.empty(1 + capacity, dtype=torch.int64, device=logits.device)
    changes[0] = 0
    with on_device_of(logits):
        find_positive[(n_rows, triton.cdiv(h * w, CELLS))](logits, edges, h, w, BLOCK=CELLS)
        append_changes[(n_rows, min(BANDS, triton.cdiv(width, TILE[1])))](
            logits, rows, columns, edges, changes, h, w, height, width, capacity,
            TILE_Y=TILE[0], TILE_X=TILE[1], SIZE_Y=triton.next_power_of_2(height),
            SIZE_X=triton.next_power_of_2(width), enable_fp_fusion=False,
        )  # fmt: skip
    n_changes = int(changes[0])
    if n_changes > capacity:
        raise RuntimeError(f"{n_changes} changes in {n_rows} masks; raise CAPACITY")
    last = (np.arange(n_rows) << 32) + height * width
    keys = np.sort(np.concatenate([changes[1 : 1 + n_changes].cpu().numpy(), last]))
    cancels = np.append(keys[1:] == keys[:-1], False)
    cancels[1:] |= cancels[:-1]
    keys = keys[~cancels]
    offsets = np.searchsorted(keys >> 32, np.arange(n_rows + 1))
    # The lower half of a key is where the change is.
    return torch.from_numpy(keys.astype(np.int32)), torch.from_numpy(offsets)
