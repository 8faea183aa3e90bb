"""Counted batches in, one int64 row per example out: the same whatever the batches, their order and the ranks.

A state is an [N + 1, 5] int64 tensor. Row i belongs to the example of index i; the last one takes what names no
example, which on a device nobody may look at before the end. An example that is seen again keeps its first counts.

| column | |
|---|---|
| `INTERSECTION`, `PRED_AREA` | the counts, −1 where unseen |
| `FAULT` | 0, or what was wrong with the prediction: a key of `FAULTS` |
| `BEYOND_UNIT` | 1 unless it was a float array within 0…1, as probabilities are |
| `CONFLICT` | 1 where the example was seen twice with different counts |
"""

from __future__ import annotations

import torch
from torch import Tensor

UNSEEN = -1
INTERSECTION, PRED_AREA, FAULT, BEYOND_UNIT, CONFLICT = range(5)
N_COUNTS = 2
"""Columns of counts; of the others the largest of all sightings stays."""

NON_FINITE, SWAPPED, UNKNOWN = 1, 2, 3
FAULTS = {NON_FINITE: "non-finite", SWAPPED: "wrong size", UNKNOWN: "unknown key"}
"""Kinds of problems, as an error names them."""


def empty_state(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The state before anything was seen.

    Args:
        n: N examples.
        device: Where it lives.

    Returns:
        [N + 1, 5] int64.
    """
    state = torch.zeros(n + 1, 5, dtype=torch.int64, device=device)
    state[:, :N_COUNTS] = UNSEEN
    return state


def record(state: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add a batch to a state, in place; waits for no device.

    Args:
        state: [N + 1, 5].
        index: [B] int64 in 0…N.
        rows: [B, 5] int64; a batch may name an example twice.

    >>> state = empty_state(2)
    >>> record(state, torch.tensor([1, 1]), torch.tensor([[3, 4, 0, 1, 0], [3, 5, 0, 1, 0]]))
    >>> state.tolist()
    [[-1, -1, 0, 0, 0], [3, 4, 0, 1, 1], [-1, -1, 0, 0, 0]]
    """
    # The first row of the batch that names each example: the one nobody else overwrites.
    n_rows = len(index)
    place = torch.arange(n_rows, device=state.device)
    first = place.new_full((len(state),), n_rows).scatter_reduce_(0, index, place, "amin")[index]
    counts = rows[:, :N_COUNTS]
    before = state[index, :N_COUNTS]
    kept = torch.where(before < 0, counts[first], before)
    marks = rows[:, N_COUNTS:].clone()
    marks[:, CONFLICT - N_COUNTS] = (counts != kept).any(1)
    # Rows of one example write equal counts, so their order does not matter.
    state[:, :N_COUNTS].index_copy_(0, index, kept)
    state[:, N_COUNTS:].scatter_reduce_(0, index[:, None].expand(marks.shape), marks, "amax")


def merge(states: Tensor) -> Tensor:
    """The states of all ranks as one: each example as the first rank saw it.

    Whole rows at a time: the largest of each column could mix two ranks.

    Args:
        states: [ranks, N + 1, 5].

    Returns:
        [N + 1, 5].

    >>> one, two = empty_state(1), empty_state(1)
    >>> record(two, torch.tensor([0]), torch.tensor([[3, 4, 0, 1, 0]]))
    >>> merge(torch.stack([one, two])).tolist()
    [[3, 4, 0, 1, 0], [-1, -1, 0, 0, 0]]
    """
    counts = states[:, :, :N_COUNTS]
    seen = counts[:, :, :1] >= 0  # [ranks, N + 1, 1]
    owner = first_rank(states)[None, :, None]
    kept = counts.take_along_dim(owner, 0)  # [1, N + 1, 2]
    marks = states[:, :, N_COUNTS:].amax(0)
    conflict = (seen & (counts != kept)).any(2).any(0)
    marks[:, CONFLICT - N_COUNTS] |= conflict
    return torch.cat([kept[0], marks], 1)


def first_rank(states: Tensor) -> Tensor:
    """The first rank that saw each example, 0 where none did.

    Args:
        states: [ranks, N + 1, 5].

    Returns:
        [N + 1] int64.
    """
    # Of several largest values argmax gives the first.
    return (states[:, :, INTERSECTION] >= 0).int().argmax(0)
