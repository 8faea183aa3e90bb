"""The Numba kernel that adds counted batches to a table with a row per example. Launched by `cpu/tally.py`."""

from __future__ import annotations

from typing import Any

from refcocom_kernels.cpu.numba.jit import jit


@jit("out i8, in i8, in i8, in b1 -> void")
def tally(table: Any, index: Any, counts: Any, beyond: Any) -> None:
    """`table` [N, 5] flat, `counts` [B, 2] flat; the columns are those of `cpu.tally`."""
    for row in range(len(index)):
        at = 5 * index[row]
        intersection = counts[2 * row]
        area = counts[2 * row + 1]
        if table[at] < 0:
            table[at] = intersection
            table[at + 1] = area
        elif table[at] != intersection or table[at + 1] != area:
            table[at + 4] = 1
        if beyond[row]:
            table[at + 3] = 1
