"""Numba kernels over groups of packed masks: intersections of pairs, and majority votes. Launched by `cpu/groups.py`.

Packed bits as in `masks.py`. The masks of a group follow each other and have one size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.bits import span
from refcocom_kernels.cpu.numba.jit import jit
from refcocom_kernels.cpu.numba.vectors import popcount

_U0, _U1 = np.uint64(0), np.uint64(1)


@jit("in u8, in i8, in i8, in i8, i8, i8, out i8 -> void")
def count_groups(
    words: Any, word_offsets: Any, group_offsets: Any, pair_offsets: Any, first: int, last: int,
    intersections: Any,
) -> None:  # fmt: skip
    """Intersections of all pairs of each group, [k, k] flat from `pair_offsets[g]` on; the diagonal holds areas."""
    for g in range(first, last):
        begin, k = group_offsets[g], group_offsets[g + 1] - group_offsets[g]
        base = pair_offsets[g]
        for i in range(k):
            at = word_offsets[begin + i]
            a, b = span(words, at, word_offsets[begin + i + 1])
            for j in range(i, k):
                # Both masks start on a word and have one size, so their words lie one distance apart.
                step = word_offsets[begin + j] - at
                n = _U0
                for w in range(a, b):
                    n += popcount(words[np.uint64(w)] & words[np.uint64(w + step)])
                intersections[base + i * k + j] = n
                intersections[base + j * k + i] = n


@jit("in u8, in i8, in i8, in i8, in i8, i8, i8, out u8 -> void")
def vote_groups(
    words: Any, word_offsets: Any, group_offsets: Any, weights: Any, voted_offsets: Any, first: int, last: int,
    voted: Any,
) -> None:  # fmt: skip
    """The pixels set in masks that hold more than half of their group's weight; `voted` must be zeros."""
    for g in range(first, last):
        begin, end = group_offsets[g], group_offsets[g + 1]
        total = 0
        for m in range(begin, end):
            total += weights[m]
        for w in range(voted_offsets[g + 1] - voted_offsets[g]):
            every, some = ~_U0, _U0
            for m in range(begin, end):
                word = words[np.uint64(word_offsets[m] + w)]
                every &= word
                some |= word
            # Most words are the same in all masks; votes are added bit by bit only where masks differ.
            result, differing = every & some, some & ~every
            while differing:
                bit = differing & (~differing + _U1)
                differing ^= bit
                weight = 0
                for m in range(begin, end):
                    if words[np.uint64(word_offsets[m] + w)] & bit:
                        weight += weights[m]
                if 2 * weight > total:
                    result |= bit
            # A group whose weights are all 0 has no majority, even where its masks agree.
            if total > 0:
                voted[np.uint64(voted_offsets[g] + w)] = result
