"""Logits on the CPU: resized, thresholded and counted in one pass, or written as runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_kernels.codes import BFLOAT16, FLOAT16, FLOAT32
from refcocom_kernels.cpu.encode import fit_runs
from refcocom_kernels.cpu.masks import row_words
from refcocom_kernels.cpu.pool import Bytes, Int32, Int64, Status, Words, most, over_rows
from refcocom_kernels.tables import Table, axis_table


class LogitCounts(NamedTuple):
    """The result of `logit_counts`.

    Attributes:
        counts: [B, 2] intersection and predicted area; 0 where a logit is not finite.
        kinds: [B] what the values look like, as `codes` says.
        mixed_cells: [B] cells whose corners lie on both sides of the threshold: only these are interpolated.
    """

    counts: Int64
    kinds: Status
    mixed_cells: Int64


def logit_counts(
    logits: NDArray[Any],
    sample: Int64,
    heights: Int64,
    widths: Int64,
    words: Words,
    word_offsets: Int64,
    *,
    threshold: float = 0.0,
    valid: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> LogitCounts:
    """Resize logits to the stored masks' sizes, threshold and count, in one pass.

    Equal to `reference.logit_counts` to the last pixel.

    Args:
        logits: [B, h, w] float32 or float16, or bfloat16 as its bits in uint16; C-contiguous.
        sample: [B] the stored mask each is scored against.
        heights: [M] H.
        widths: [M] W.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threshold: Values strictly above it are set.
        valid: [B, 2] rows and columns of cells that hold content, from the top left; all by default.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import logits as kernels

    n_rows, h, w = logits.shape
    raw16, raw32, kind = _raw(logits)
    tables, flat_layout = _tables(logits, sample, heights, widths, valid)
    counts = np.zeros((n_rows, 2), np.int64)
    kinds = np.zeros(n_rows, np.int8)
    mixed_cells = np.zeros(n_rows, np.int64)
    flat_counts = counts.reshape(-1)
    widest = most(widths[sample])
    over_rows(
        lambda a, b: kernels.count_logits(
            raw16,
            raw32,
            kind,
            h,
            w,
            sample,
            widths,
            words,
            word_offsets,
            np.float32(threshold),
            *tables,
            flat_layout,
            widest,
            a,
            b,
            flat_counts,
            kinds,
            mixed_cells,
        ),
        n_rows,
        threads,
        min_rows=1,
    )
    return LogitCounts(counts, kinds, mixed_cells)


def logit_masks(
    logits: NDArray[Any],
    sample: Int64,
    heights: Int64,
    widths: Int64,
    max_height: int,
    max_width: int,
    *,
    threshold: float = 0.0,
    valid: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> Bytes:
    """Resize logits to the stored masks' sizes and threshold: the pixels that `logit_counts` counts.

    Args:
        logits: [B, h, w] as for `logit_counts`; finite.
        sample: [B] the stored mask whose size each gets.
        heights: [M] H.
        widths: [M] W.
        max_height: At least the largest H of the batch.
        max_width: At least the largest W.
        threshold: Values strictly above it are set.
        valid: As for `logit_counts`.
        threads: 0 for all cores.

    Returns:
        [B, max_height, max_width] bytes of 0 and 1, each image at the top left, 0 beyond it.
    """
    from refcocom_kernels.cpu.numba import bits

    n_rows, h, w = logits.shape
    raw16, raw32, kind = _raw(logits)
    tables, layout = _tables(logits, sample, heights, widths, valid)
    masks = np.zeros((n_rows, max_height, max_width), np.uint8)
    flat, scratch = masks.reshape(-1), row_words(heights[sample], widths[sample])
    over_rows(
        lambda a, b: bits.masks_from_logits(
            raw16,
            raw32,
            kind,
            h,
            w,
            sample,
            heights,
            widths,
            np.float32(threshold),
            *tables,
            layout,
            max_height * max_width,
            max_width,
            scratch,
            a,
            b,
            flat,
        ),
        n_rows,
        threads,
        min_rows=1,
    )
    return masks


def logit_curve(
    logits: NDArray[Any],
    sample: Int64,
    heights: Int64,
    widths: Int64,
    words: Words,
    word_offsets: Int64,
    thresholds: NDArray[np.float32],
    *,
    valid: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> Int64:
    """Resize logits to the stored masks' sizes once, and count at each of several thresholds.

    Equal to `reference.logit_curve`, and at each threshold to `logit_counts`, to the last pixel.

    Args:
        logits: [B, h, w] as for `logit_counts`; finite.
        sample: [B] the stored mask each is scored against.
        heights: [M] H.
        widths: [M] W.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        thresholds: [T] ascending; at each, the values strictly above it are set.
        valid: As for `logit_counts`.
        threads: 0 for all cores.

    Returns:
        [B, T, 2] intersection and predicted area.
    """
    from refcocom_kernels.cpu.numba import curve as kernels

    n_rows, h, w = logits.shape
    raw16, raw32, kind = _raw(logits)
    tables, layout = _tables(logits, sample, heights, widths, valid)
    counts = np.zeros((n_rows, len(thresholds), 2), np.int64)
    flat_counts, widest = counts.reshape(-1), most(widths[sample])
    over_rows(
        lambda a, b: kernels.count_curve(
            raw16,
            raw32,
            kind,
            h,
            w,
            sample,
            widths,
            words,
            word_offsets,
            np.ascontiguousarray(thresholds, np.float32),
            *tables,
            layout,
            widest,
            a,
            b,
            flat_counts,
        ),
        n_rows,
        threads,
        min_rows=1,
    )
    return counts


def value_kinds(logits: NDArray[Any], *, threads: int = 0) -> Status:
    """Say what the values of logits or probabilities look like; equal to `reference.value_kind`.

    Args:
        logits: [B, h, w] as for `logit_counts`.
        threads: 0 for all cores.

    Returns:
        [B] as `codes` says.
    """
    from refcocom_kernels.cpu.numba import logits as kernels

    n_rows, h, w = logits.shape
    raw16, raw32, kind = _raw(logits)
    kinds = np.zeros(n_rows, np.int8)
    over_rows(
        lambda a, b: kernels.kinds_of_values(raw16, raw32, kind, h * w, a, b, kinds),
        n_rows,
        threads,
    )
    return kinds


def logit_runs(
    logits: NDArray[Any],
    height: int,
    width: int,
    *,
    threshold: float = 0.0,
    valid: Sequence[float] | None = None,
    threads: int = 0,
) -> tuple[Int32, Int64]:
    """Resize logits to one size, threshold, and return the runs.

    Args:
        logits: [B, h, w] as for `logit_counts`; finite.
        height: H.
        width: W.
        threshold: Values strictly above it are set.
        valid: Rows and columns of cells that hold content; all by default.
        threads: 0 for all cores.

    Returns:
        [R] run ends and [B + 1] offsets, as `rle_write` takes them.
    """
    from refcocom_kernels.cpu.numba import bits

    n_rows, h, w = logits.shape
    raw16, raw32, kind = _raw(logits)
    valid_h, valid_w = valid or (float(h), float(w))
    y_table, x_table = axis_table(float(valid_h), height), axis_table(float(valid_w), width)
    return fit_runs(
        lambda room, a, b, ends, n: bits.runs_from_logits(
            raw16,
            raw32,
            kind,
            h,
            w,
            height,
            width,
            np.float32(threshold),
            *y_table,
            *x_table,
            room,
            a,
            b,
            ends,
            n,
        ),
        n_rows,
        height * width,
        threads,
    )


def _raw(logits: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.int32], int]:
    """The bits of logits as 16-bit and 32-bit integers, one of them empty, and the code of their type."""
    kind = {"float32": FLOAT32, "float16": FLOAT16, "uint16": BFLOAT16}[logits.dtype.name]
    flat = logits.reshape(-1)
    if kind == FLOAT32:
        return np.zeros(0, np.int16), flat.view(np.int32), kind
    return flat.view(np.int16), np.zeros(0, np.int32), kind


def _tables(
    logits: NDArray[Any],
    sample: Int64,
    heights: Int64,
    widths: Int64,
    valid: NDArray[np.float64] | None,
) -> tuple[Table, Int64]:
    """The tables of a batch, concatenated, and the `layout` of `numba.logits.count_logits`, [B, 6] flat."""
    n_rows, h, w = logits.shape
    pool = _TablePool()
    layout = np.empty((n_rows, 6), np.int64)
    for b, mask in enumerate(sample.tolist()):
        valid_h, valid_w = (float(h), float(w)) if valid is None else valid[b].tolist()
        layout[b, :3] = pool.place(valid_h, int(heights[mask]))
        layout[b, 3:] = pool.place(valid_w, int(widths[mask]))
    return pool.concatenated(), layout.reshape(-1)


class _TablePool:
    """The resize tables of a batch, concatenated for a kernel; equal tables are stored once."""

    def __init__(self) -> None:
        self._places: dict[tuple[float, int], tuple[int, int, int]] = {}
        self._tables: list[Table] = []
        self._used = [0, 0]

    def place(self, valid: float, target: int) -> tuple[int, int, int]:
        """Return where a table begins, where its `first_pixel` begins, and how many cells it has."""
        key = (valid, target)
        if key not in self._places:
            table = axis_table(valid, target)
            self._places[key] = (self._used[0], self._used[1], len(table.first_pixel) - 1)
            self._tables.append(table)
            self._used[0] += target
            self._used[1] += len(table.first_pixel)
        return self._places[key]

    def concatenated(self) -> Table:
        """All tables, one after the other."""
        if len(self._tables) <= 1:
            return self._tables[0] if self._tables else axis_table(1.0, 1)
        return Table(*(np.concatenate(columns) for columns in zip(*self._tables, strict=True)))
