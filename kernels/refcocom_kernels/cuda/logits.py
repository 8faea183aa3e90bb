"""Logits and stored packed bits in, counts out: resized, thresholded and counted in one pass, no full-size mask.

A program takes one tile of target pixels of one example. If the cells under it all lie on one side of the threshold
(`resize.cell_range`), the tile is empty, or counted by a popcount over the packed truth. Otherwise each of its pixels
is interpolated. The grid covers the largest target of the batch; programs beyond the target of their example return at
once. A second kernel looks at every logit, padding included, and says what the values look like.

Shapes: `B` examples, `h` × `w` cells, `H` × `W` pixels, `M` stored masks, `P` packed words.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from refcocom_kernels.codes import BINARY, CLEAR, FAINT, LARGE, NON_FINITE, SIGNED, SOFT, ZERO
from refcocom_kernels.cuda.bits import bits32_at, popcount
from refcocom_kernels.cuda.launch import on_device_of
from refcocom_kernels.cuda.resize import axis_entries, cell_range, margin, resized

MAX_TILE = 2**14
"""Most pixels of a tile: the low half of an int32 holds its area, the high half its intersection."""

_INFINITY = 0x7F800000
"""The bits of infinity in float32; those of NaN are larger."""


@triton.jit
def _truth_in_tile(truth, y0, x0, height, width, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """Set bits of a tile of a packed mask whose first 32-bit word is at `truth`."""
    y = y0 + tl.arange(0, TILE_Y)[:, None]
    x = x0 + 32 * tl.arange(0, TILE_X // 32)[None, :]
    left = tl.where(y < height, tl.minimum(width - x, 32), 0)
    bits = bits32_at(truth, y * width + x, (height * width + 31) >> 5)
    # A shift by 32 is undefined, so words without pixels are cleared at the end.
    bits = bits & (
        tl.full([1, 1], 0xFFFFFFFF, tl.uint32) >> (32 - tl.maximum(left, 1)).to(tl.uint32)
    )
    return tl.sum(tl.ravel(tl.where(left > 0, popcount(bits), 0).to(tl.int32)))


@triton.jit
def count_tiles(
    logits, sample, heights, widths, words, word_offsets, rows, columns, counts, cells, w, max_height, max_width,
    tiles_x, tiles, threshold,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr, CELLS_Y: tl.constexpr, CELLS_X: tl.constexpr,
):  # fmt: skip
    """Add one tile's intersection and area to `counts` [B, 2] int64.

    `words` is the packed words as int32, `rows` and `columns` are [B, max_height] and [B, max_width] int64 entries of
    the resize (`axis_entries`); program `b · tiles + tile`.
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
    threshold = tl.cast(threshold, tl.float32)
    y1 = tl.minimum(y0 + TILE_Y, height) - 1
    x1 = tl.minimum(x0 + TILE_X, width) - 1
    lowest, highest = cell_range(source, w, rows, columns, y0, y1, x0, x1, CELLS_Y, CELLS_X)
    clear = margin(lowest, highest, threshold)
    if highest < threshold - clear:
        return
    if lowest > threshold + clear:
        area = (y1 - y0 + 1) * (x1 - x0 + 1)
        intersection = _truth_in_tile(truth, y0, x0, height, width, TILE_Y, TILE_X)
    else:
        y, x = y0 + tl.arange(0, TILE_Y), x0 + tl.arange(0, TILE_X)
        inside = (y < height)[:, None] & (x < width)[None, :]
        # Lanes beyond the target repeat its last row or column.
        y, x = tl.minimum(y, y1), tl.minimum(x, x1)
        values = resized(source, w, tl.load(rows + y), tl.load(columns + x))  # [TILE_Y, TILE_X]
        set_pixels = ((values > threshold) & inside).to(tl.int32)
        bit = (y * width)[:, None] + x[None, :]
        true = (tl.load(truth + (bit >> 5)) >> (bit & 31)) & set_pixels
        both = tl.sum(tl.ravel(set_pixels + (true << 16)))
        area = both & 0xFFFF
        intersection = both >> 16
    tl.atomic_add(counts + 2 * example, intersection.to(tl.int64), sem="relaxed")
    tl.atomic_add(counts + 2 * example + 1, area.to(tl.int64), sem="relaxed")


@triton.jit
def inspect_cells(logits, seen, cells, blocks, BLOCK: tl.constexpr):
    """Take the maxima of a block of one example's cells into `seen` [B, 3] int32; program `b · blocks + block`.

    They are the largest magnitude, the largest magnitude of a negative value, both as bits of float32, which order as
    integers do, and 1 if a value is neither 0 nor 1.
    """
    example = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(logits + example * cells + at, mask=at < cells, other=0.0).to(tl.float32)
    bits = values.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    negative = tl.where(bits < 0, magnitude, 0)
    odd = ((magnitude != 0) & (bits != 0x3F800000)).to(tl.int32)
    tl.atomic_max(seen + 3 * example, tl.max(magnitude), sem="relaxed")
    tl.atomic_max(seen + 3 * example + 1, tl.max(negative), sem="relaxed")
    tl.atomic_max(seen + 3 * example + 2, tl.max(odd), sem="relaxed")


def _kinds(seen: Tensor) -> Tensor:
    """[B, 3] int32 as `inspect_cells` leaves them to [B] int8 what the values look like."""
    bits = seen[:, 0]
    magnitudes = seen.view(torch.float32)
    largest, lowest = magnitudes[:, 0], magnitudes[:, 1]
    kinds = torch.full((len(seen),), SOFT, dtype=torch.int8, device=seen.device)
    # The last that holds stays, so the first of `codes` comes last.
    kinds.masked_fill_(bits == 0, ZERO)
    kinds.masked_fill_((largest == 1.0) & (seen[:, 2] == 0), BINARY)
    kinds.masked_fill_(largest > 1.0 + CLEAR, LARGE)
    kinds.masked_fill_((largest >= FAINT) & (lowest > CLEAR * largest.clamp(max=1.0)), SIGNED)
    return kinds.masked_fill_(bits >= _INFINITY, NON_FINITE)


def logit_counts(
    logits: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    words: Tensor,
    word_offsets: Tensor,
    max_height: int,
    max_width: int,
    threshold: float = 0.0,
    valid: Tensor | None = None,
    *,
    tile: tuple[int, int] = (32, 32),
    cells: tuple[int, int] = (16, 16),
    block: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Resize logits to the stored masks' sizes, threshold and count, in one pass.

    Equal to `reference.logit_counts` to the last pixel. Nothing waits for the device.

    Args:
        logits: [B, h, w] float32, float16 or bfloat16; h·w below 2**31.
        sample: [B] int64 stored mask each is scored against.
        heights: [M] int64 H.
        widths: [M] int64 W; H·W at most 2**30.
        words: [P] int64 (the bits of uint64) packed masks, row-major, low bit first.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        max_height: At least the largest H of the batch; given, so that the launch does not wait for the device.
        max_width: At least the largest W of the batch.
        threshold: Values strictly above it are set.
        valid: [B, 2] float64 rows and columns of cells that hold content, from the top left; all by default.
        tile: Rows and columns of pixels that a program takes, powers of two; at least 32 columns, at most 2**14 pixels.
        cells: Rows and columns of cells that a program reads at a time for their range, powers of two.
        block: Cells that a program of the second kernel takes, a power of two.

    Returns:
        [B, 2] int64 intersection and predicted area, 0 where a logit is not finite, and [B] int8 what the
        values look like, as `codes` says.
    """
    n_rows, h, w = logits.shape
    if h * w >= 2**31:
        raise ValueError(
            f"an example of {h} × {w} logits is too large: it must have fewer than 2**31"
        )
    if tile[0] * tile[1] > MAX_TILE or tile[1] < 32:
        raise ValueError(
            f"a tile must have at least 32 columns and at most {MAX_TILE} pixels, not {tile[0]} × {tile[1]}"
        )
    counts = torch.zeros(n_rows, 2, dtype=torch.int64, device=logits.device)
    seen = torch.zeros(n_rows, 3, dtype=torch.int32, device=logits.device)
    if n_rows == 0:
        return counts, _kinds(seen)
    logits, sample = logits.contiguous(), sample.contiguous()
    heights, widths = heights.contiguous(), widths.contiguous()
    valid = None if valid is None else valid.contiguous()
    tiles_y, tiles_x = triton.cdiv(max_height, tile[0]), triton.cdiv(max_width, tile[1])
    blocks = triton.cdiv(h * w, block)
    rows = axis_entries(sample, heights, valid, axis=0, cells=h, longest=max_height)
    columns = axis_entries(sample, widths, valid, axis=1, cells=w, longest=max_width)
    with on_device_of(logits):
        inspect_cells[(n_rows * blocks,)](logits, seen, h * w, blocks, BLOCK=block)
        count_tiles[(n_rows * tiles_y * tiles_x,)](
            logits, sample, heights, widths, words.contiguous().view(torch.int32), word_offsets.contiguous(),
            rows, columns, counts, h * w, w, max_height, max_width, tiles_x, tiles_y * tiles_x, threshold,
            TILE_Y=tile[0], TILE_X=tile[1], CELLS_Y=cells[0], CELLS_X=cells[1], enable_fp_fusion=False,
        )  # fmt: skip
    kinds = _kinds(seen)
    return counts.masked_fill_((kinds == NON_FINITE)[:, None], 0), kinds
