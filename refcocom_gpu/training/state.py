"""Rows of counted batches in, one int64 row per example out, whatever the batches, their order and the ranks.

A state is an [N + 1, C] int64 tensor of rows as `counting.rows` describes them, with −1 for the counts of an unseen
example. Row i belongs to the example of index i. The last row takes indices that name no example, because checking them
earlier would wait for the device. An example that is seen again keeps its first counts. The last column of a metric's
state is that of `training.labels`.
"""

from __future__ import annotations

import numpy as np
import torch
from refcocom_kernels import cpu, reference
from torch import Tensor

from refcocom_gpu.counting.rows import (
    CONFLICT,
    INTERSECTION,
    N_COLUMNS,
    N_COUNTS,
    OTHER_RANK,
    SAME_RANK,
)
from refcocom_gpu.counting.stacks import Index


def empty_state(n: int, device: torch.device | str = "cpu", n_columns: int = N_COLUMNS) -> Tensor:
    """Return the state in which nothing was seen.

    Args:
        n: N examples.
        device: Where it lives.
        n_columns: C.

    Returns:
        [N + 1, C] int64.
    """
    state = torch.zeros(n + 1, n_columns, dtype=torch.int64, device=device)
    state[:, :N_COUNTS] = reference.UNSEEN
    return state


def record(state: Tensor, index: Index, rows: Tensor, conflict: int = SAME_RANK) -> bool:
    """Add a batch to a state, in place, without waiting for a device.

    Args:
        state: [N + 1, C].
        index: [B] int64 in 0…N; a batch may name an example twice.
        rows: [B, C] int64, on the device of the state.
        conflict: What is written where an example was seen before with other counts.

    Returns:
        Whether there is such an example; on a device always False, because nobody looks.

    >>> state = empty_state(2)
    >>> record(state, np.array([1, 1]), torch.tensor([[3, 4, 0, 1, 0], [3, 5, 0, 1, 0]]))
    True
    >>> state.tolist()
    [[-1, -1, 0, 0, 0], [3, 4, 0, 1, 2], [-1, -1, 0, 0, 0]]
    """
    if state.is_cpu:
        table = rows.contiguous().numpy()
        return cpu.tally(state.numpy(), np.ascontiguousarray(index), table, conflict) > 0
    reference.tally(state, torch.as_tensor(index), rows, conflict)
    return False


def merge(states: Tensor) -> Tensor:
    """Merge the states of all ranks: an example gets the row of the first rank that saw it.

    Counts of a row stay together; the maximum of each column could mix two ranks.

    Args:
        states: [ranks, N + 1, C].

    Returns:
        [N + 1, C].

    >>> one, two = empty_state(1), empty_state(1)
    >>> record(two, np.array([0]), torch.tensor([[3, 4, 0, 1, 0]]))
    False
    >>> merge(torch.stack([one, two])).tolist()
    [[3, 4, 0, 1, 0], [-1, -1, 0, 0, 0]]
    """
    counts = torch.cat([states[:, :, :N_COUNTS], states[:, :, N_COLUMNS:]], 2)
    seen = counts[:, :, :1] >= 0  # [ranks, N + 1, 1]
    owner = first_rank(states)[None, :, None]
    kept = counts.take_along_dim(owner, 0)  # [1, N + 1, C - 3]
    marks = states[:, :, N_COUNTS:N_COLUMNS].amax(0)
    conflict = (seen & (counts != kept)).any(2).any(0)
    marks[:, CONFLICT - N_COUNTS] |= conflict * OTHER_RANK
    return torch.cat([kept[0, :, :N_COUNTS], marks, kept[0, :, N_COUNTS:]], 1)


def first_rank(states: Tensor) -> Tensor:
    """Return the first rank that saw each example, 0 where none did.

    Args:
        states: [ranks, N + 1, C].

    Returns:
        [N + 1] int64.
    """
    # Of several equal maxima, argmax returns the first.
    return (states[:, :, INTERSECTION] >= 0).int().argmax(0)
