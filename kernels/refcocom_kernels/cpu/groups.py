"""Groups of packed masks on the CPU: intersections of the pairs of each group, and its majority vote.

A group is the masks that several models propose for one instance.
"""

from __future__ import annotations

import numpy as np

from refcocom_kernels.cpu.pool import Int64, Words, offsets_from, over_rows


def group_intersections(
    words: Words, word_offsets: Int64, group_offsets: Int64, *, threads: int = 0
) -> Int64:
    """Intersections of all pairs of masks within each group.

    Args:
        words: [P] packed bits of K masks; those of a group have one size.
        word_offsets: [K + 1] where a mask's words begin.
        group_offsets: [G + 1] where a group's masks begin.
        threads: 0 for all cores.

    Returns:
        [Σk²] the [k, k] matrix of each group of k masks, in order; its diagonal holds the areas.

    >>> masks = np.array([0b0011, 0b0110, 0b0100], np.uint64)
    >>> group_intersections(masks, np.arange(4), np.array([0, 2, 3]))
    array([2, 1, 1, 2, 1])
    """
    from refcocom_kernels.cpu.numba import groups

    pair_offsets = offsets_from(np.diff(group_offsets) ** 2)
    intersections = np.zeros(pair_offsets[-1], np.int64)
    over_rows(
        lambda a, b: groups.count_groups(
            words, word_offsets, group_offsets, pair_offsets, a, b, intersections
        ),
        len(group_offsets) - 1,
        threads,
    )
    return intersections


def group_votes(
    words: Words, word_offsets: Int64, group_offsets: Int64, weights: Int64, *, threads: int = 0
) -> tuple[Words, Int64]:
    """The pixels set in masks that hold more than half of their group's weight.

    Args:
        words: [P] packed bits of K masks; those of a group have one size.
        word_offsets: [K + 1] where a mask's words begin.
        group_offsets: [G + 1] where a group's masks begin; no group is empty.
        weights: [K] weight of each mask's vote, 0 or more; a group whose weights are all 0 gets an empty mask.
        threads: 0 for all cores.

    Returns:
        Packed bits of G masks, and [G + 1] where each begins.

    >>> masks = np.array([0b0011, 0b0110, 0b0111], np.uint64)
    >>> words, _ = group_votes(masks, np.arange(4), np.array([0, 3]), np.array([1, 1, 1]))
    >>> bin(int(words[0]))
    '0b111'
    """
    from refcocom_kernels.cpu.numba import groups

    voted_offsets = offsets_from(np.diff(word_offsets)[group_offsets[:-1]])
    voted = np.zeros(voted_offsets[-1], np.uint64)
    over_rows(
        lambda a, b: groups.vote_groups(
            words, word_offsets, group_offsets, weights, voted_offsets, a, b, voted
        ),
        len(group_offsets) - 1,
        threads,
    )
    return voted, voted_offsets
