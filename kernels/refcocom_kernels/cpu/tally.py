"""Counted batches on the CPU: added to a table with a row per example, each of which keeps what it was first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refcocom_kernels.cpu.pool import Int64


def tally(table: Int64, index: Int64, counts: Int64, beyond: NDArray[np.bool_]) -> None:
    """Add a batch to a table, in place.

    Args:
        table: [N, 5] intersection and area, −1 where unseen; a column that is left alone; 1 where `beyond` ever was;
            1 where counts came that differ from the first.
        index: [B] rows of the table, contiguous; one may come twice.
        counts: [B, 2] intersection and area.
        beyond: [B].
    """
    from refcocom_kernels.cpu.numba.tally import tally as kernel

    kernel(table.reshape(-1), index, counts.reshape(-1), beyond)
