"""The Numba kernel that adds counted batches to a state with a row per example. Launched by `cpu/tally.py`."""

from __future__ import annotations

from typing import Any

from refcocom_kernels.cpu.numba.jit import jit


@jit("out i8, in i8, in i8, i8, i8, out i8 -> void")
def tally(state: Any, index: Any, rows: Any, columns: int, conflict: int, found: Any) -> None:
    """`state` [N, C] and `rows` [B, C] flat, of `columns` C; they are those of `reference.tally`.

    `found` counts the conflicts.
    """
    for row in range(len(index)):
        to, of = columns * index[row], columns * row
        is_new, differs = state[to] < 0, False
        for column in range(columns):
            here, there = state[to + column], rows[of + column]
            if 2 <= column < 5:
                state[to + column] = max(here, there)
            elif is_new:
                state[to + column] = there
            elif here != there:
                differs = True
        if differs:
            state[to + 4] |= conflict
            found[0] += 1
