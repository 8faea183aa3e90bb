"""Counted batches in, added to a state with a row per example, which keeps the counts it was first given."""

from __future__ import annotations

import numpy as np

from refcocom_kernels.cpu.pool import Int64


def tally(state: Int64, index: Int64, rows: Int64, conflict: int = 1) -> int:
    """Add a batch to a state, in place; equal to `reference.tally`.

    Args:
        state: [N, C] as `reference.tally` describes it, C-contiguous.
        index: [B] rows of the state; a row may come twice.
        rows: [B, C], C-contiguous.
        conflict: The bit that an example gets if it came before with other counts.

    Returns:
        How many rows of the batch had other counts than their example.
    """
    from refcocom_kernels.cpu.numba.tally import tally as kernel

    found = np.zeros(1, np.int64)
    kernel(state.reshape(-1), index, rows.reshape(-1), state.shape[1], conflict, found)
    return int(found[0])
