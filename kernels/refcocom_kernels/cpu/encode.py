"""Encoding on the CPU: dense masks in, run ends out."""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.pool import Bytes, Int32, Int64, most, offsets_from, over_rows


def fit_runs(count: Any, n_rows: int, pixels: int, threads: int) -> tuple[Int32, Int64]:
    """Run ends from a kernel that needs to know how much room a mask has.

    A first pass has room for usual masks; where a mask needs more, a second pass has room for the largest.

    Args:
        count: `count(room, first, last, ends, n_runs)` fills [B, room] and [B].
        n_rows: B.
        pixels: H·W.
        threads: 0 for all cores.

    Returns:
        [R] run ends and [B + 1] offsets.
    """
    # Real masks have a few runs per column; noise has up to one per pixel.
    room = min(pixels + 1, max(64, pixels // 64))
    ends, n_runs = _runs_within(count, n_rows, room, threads)
    if most(n_runs) > room:
        room = most(n_runs)
        ends, n_runs = _runs_within(count, n_rows, room, threads)
    offsets = offsets_from(n_runs)
    used = np.arange(room) < n_runs[:, None]
    return ends[used], offsets


def _runs_within(count: Any, n_rows: int, room: int, threads: int) -> tuple[Int32, Int64]:
    ends = np.empty((n_rows, room), np.int32)
    n_runs = np.zeros(n_rows, np.int64)
    flat = ends.reshape(-1)
    over_rows(lambda a, b: count(room, a, b, flat, n_runs), n_rows, threads, min_rows=2)
    return ends, n_runs


def mask_runs(masks: Bytes, *, threads: int = 0) -> tuple[Int32, Int64]:
    """Run ends of dense masks of one size.

    Args:
        masks: [B, H, W] bytes, C-contiguous; any nonzero byte is a set pixel.
        threads: 0 for all cores.

    Returns:
        [R] run ends and [B + 1] offsets, as `rle_write` takes them.
    """
    from refcocom_kernels.cpu.numba import bits

    n_rows, height, width = masks.shape
    flat = masks.reshape(-1)
    return fit_runs(
        lambda room, a, b, ends, n: bits.runs_from_masks(flat, height, width, room, a, b, ends, n),
        n_rows,
        height * width,
        threads,
    )
