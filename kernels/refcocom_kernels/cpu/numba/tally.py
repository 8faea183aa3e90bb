"""The Numba kernel that adds counted batches to a state with a row per example. Launched by `cpu/tally.py`."""

from __future__ import annotations

from typing import Any

from refcocom_kernels.cpu.numba.jit import jit


@jit("out i8, in i8, in i8, i8, out i8 -> void")
def tally(state: Any, index: Any, rows: Any, conflict: int, found: Any) -> None:
    """`state` [N, 5] and `rows` [B, 5] flat; the columns are those of `reference.tally`.

    `found` counts the conflicts.
    """
    for row in range(len(index)):
        to, of = 5 * index[row], 5 * row
        if state[to] < 0:
            state[to] = rows[of]
            state[to + 1] = rows[of + 1]
        elif state[to] != rows[of] or state[to + 1] != rows[of + 1]:
            state[to + 4] |= conflict
            found[0] += 1
        for column in range(2, 5):
            if rows[of + column] > state[to + column]:
                state[to + column] = rows[of + column]
