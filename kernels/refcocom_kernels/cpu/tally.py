"""Counted batches in, added to a state with a row per example, which keeps the counts it was first given."""

from __future__ import annotations

from refcocom_kernels.cpu.pool import Int64


def tally(state: Int64, index: Int64, rows: Int64) -> None:
    """Add a batch to a state, in place; equal to `reference.tally`.

    Args:
        state: [N, 5] as `reference.tally` describes it, C-contiguous.
        index: [B] rows of the state; a row may come twice.
        rows: [B, 5], C-contiguous.
    """
    from refcocom_kernels.cpu.numba.tally import tally as kernel

    kernel(state.reshape(-1), index, rows.reshape(-1))
