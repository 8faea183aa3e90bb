"""Candidate masks of many instances in, what they agree on and how well out; whole columns at once.

A *group* is the candidates of one instance. Letters: `G` groups, `K` masks in all, `P` words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.construct.rules import CONSENSUS
from refcocom_gpu.errors import UsageError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WEIGHT_UNITS = 1024
"""A weighted vote counts in whole units, so that no sum depends on its order."""


@dataclass(frozen=True)
class Masks:
    """Masks of groups as packed bits, as the store packs them.

    Attributes:
        words: [P] uint64.
        word_offsets: [K + 1] where a mask's words begin.
        group_offsets: [G + 1] where a group's masks begin; no group is empty.
        heights: [G] H of a group's masks.
        widths: [G] W.
    """

    words: NDArray[np.uint64]
    word_offsets: Ints
    group_offsets: Ints
    heights: Ints
    widths: Ints

    @property
    def group(self) -> Ints:
        """[K] the group of each mask."""
        return np.repeat(np.arange(len(self.heights)), np.diff(self.group_offsets))

    def row(self, mask: int) -> NDArray[np.bool_]:
        """One mask as [H, W] bool."""
        group = int(np.searchsorted(self.group_offsets, mask, side="right")) - 1
        height, width = int(self.heights[group]), int(self.widths[group])
        words = self.words[self.word_offsets[mask] : self.word_offsets[mask + 1]]
        bits = np.unpackbits(words.view(np.uint8), count=height * width, bitorder="little")
        return bits.reshape(height, width).view(np.bool_)


@dataclass(frozen=True)
class Agreement:
    """How the candidates of each group agree, and on what.

    Attributes:
        mask_iou: [K] mean IoU of a candidate with the others of its group; NaN where there is no other.
        mask_boundary_iou: [K] the same of boundaries.
        iou: [G] mean IoU over a group's pairs; NaN for a group of one.
        boundary_iou: [G] the same of boundaries.
        consensus_iou: [K] IoU of a candidate with what its group agrees on.
        medoid: [G] the mask that is most like the others, the first of several, counted over all K.
        is_medoid: [G] whether the consensus is the medoid itself: asked for, or because the vote is less like the
            candidates than the medoid is (which happens where they fall apart, and for an empty vote).
        consensus: G groups of one mask.
    """

    mask_iou: Floats
    mask_boundary_iou: Floats
    iou: Floats
    boundary_iou: Floats
    consensus_iou: Floats
    medoid: Ints
    is_medoid: NDArray[np.bool_]
    consensus: Masks


def pack_groups(ends: Sequence[NDArray[np.int32]], sizes: Ints, counts: Ints) -> Masks:
    """Groups of masks as packed bits.

    Args:
        ends: Run ends of K valid masks, as `rle.run_ends` gives them.
        sizes: [G, 2] height and width of each group.
        counts: [G] masks of each group, at least one.
    """
    run_offsets = cpu.offsets_from(np.array([len(e) for e in ends], np.int64))
    flat = np.concatenate(ends) if len(ends) else np.zeros(0, np.int32)
    return pack_runs(flat, run_offsets, sizes, counts)


def pack_runs(
    ends: NDArray[np.int32], run_offsets: Ints, sizes: Ints, counts: Ints, *, threads: int = 1
) -> Masks:
    """As `pack_groups`, of run ends that lie in one buffer.

    Args:
        ends: [R] run ends of K valid masks.
        run_offsets: [K + 1] where a mask's runs begin.
        sizes: [G, 2] height and width of each group.
        counts: [G] masks of each group, at least one.
        threads: 0 for all cores.
    """
    heights, widths = np.repeat(sizes, counts, axis=0).T
    words = cpu.rle_pack(
        ends,
        run_offsets,
        np.ascontiguousarray(heights),
        np.ascontiguousarray(widths),
        threads=threads,
    )
    return Masks(
        words,
        cpu.word_offsets_for(heights * widths),
        cpu.offsets_from(counts),
        np.ascontiguousarray(sizes[:, 0]),
        np.ascontiguousarray(sizes[:, 1]),
    )


def agree(masks: Masks, *, consensus: str = "majority", threads: int = 1) -> Agreement:
    """Compare all candidates of each group and make one mask of them.

    `majority`: a pixel is set when more than half of the candidates say so. `weighted`: a candidate's vote counts as
    much as its mean IoU with the others. `medoid`: the candidate most like the others. A tie of votes goes to the
    medoid.

    Args:
        masks: Candidates; none is empty.
        consensus: One of `CONSENSUS`.
        threads: 0 for all cores.

    Raises:
        UsageError: For a consensus that is not known.

    >>> from refcocom_gpu.masks import rle
    >>> three = [rle.run_ends(np.array([row])) for row in ([1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0])]
    >>> found = agree(pack_groups(three, np.array([[1, 4]]), np.array([3])))
    >>> found.mask_iou.round(2), found.consensus.row(0).astype(int)
    (array([0.5 , 0.67, 0.5 ]), array([[1, 1, 1, 0]]))
    """
    if consensus not in CONSENSUS:
        raise UsageError(f"consensus must be {', '.join(CONSENSUS)}, not {consensus!r}")
    group, first = masks.group, masks.group_offsets[:-1]
    n_masks = np.diff(masks.group_offsets)
    boundaries = cpu.boundaries(
        masks.words,
        masks.word_offsets,
        masks.heights[group],
        masks.widths[group],
        threads=threads,
    )
    mask_iou, iou = _with_others(masks, masks.words, threads)
    mask_boundary_iou, boundary_iou = _with_others(masks, boundaries.words, threads)
    medoid = first + _first_largest(np.nan_to_num(mask_iou), masks.group_offsets)
    weights = np.zeros(len(group), np.int64)
    if consensus == "majority":
        weights[:] = 2
    elif consensus == "weighted":
        weights[:] = 2 * np.rint(WEIGHT_UNITS * np.nan_to_num(mask_iou, nan=1.0))
    # Twice the weights and one more: a total that is odd has no tie.
    weights[medoid] += 1
    words, word_offsets = cpu.group_votes(
        masks.words, masks.word_offsets, masks.group_offsets, weights, threads=threads
    )
    voted = Masks(words, word_offsets, np.arange(len(first) + 1), masks.heights, masks.widths)
    with_vote = iou_with(masks, voted, threads=threads)
    like_vote = np.add.reduceat(with_vote, first) / n_masks
    # The medoid is as like itself as can be.
    like_medoid = (np.nan_to_num(mask_iou[medoid]) * (n_masks - 1) + 1) / n_masks
    is_medoid = (like_vote < like_medoid) | (consensus == "medoid")
    for g in np.flatnonzero(like_vote < like_medoid).tolist():
        a, b = masks.word_offsets[medoid[g]], masks.word_offsets[medoid[g] + 1]
        words[word_offsets[g] : word_offsets[g + 1]] = masks.words[a:b]
    if (like_vote < like_medoid).any():
        with_vote = iou_with(masks, voted, threads=threads)
    return Agreement(
        mask_iou, mask_boundary_iou, iou, boundary_iou, with_vote, medoid, is_medoid, voted
    )


def iou_with(masks: Masks, others: Masks, *, threads: int = 1) -> Floats:
    """IoU of each mask with the one mask that another set has for its group.

    Args:
        masks: K masks of G groups.
        others: One mask for each of the G groups, of the same sizes.
        threads: 0 for all cores.

    Returns:
        [K]; two empty masks are alike.
    """
    counts = cpu.packed_counts(
        masks.words,
        masks.word_offsets,
        masks.group,
        others.words,
        others.word_offsets,
        others.heights * others.widths,
        threads=threads,
    )
    areas = np.add.reduceat(
        np.bitwise_count(others.words), others.word_offsets[:-1], dtype=np.int64
    )
    return _ratio(counts[:, 0], counts[:, 1] + areas[masks.group] - counts[:, 0])


def boundaries_of(masks: Masks, *, threads: int = 1) -> Masks:
    """The boundaries of masks, as masks of the same groups."""
    group = masks.group
    found = cpu.boundaries(
        masks.words,
        masks.word_offsets,
        masks.heights[group],
        masks.widths[group],
        threads=threads,
    )
    return Masks(found.words, masks.word_offsets, masks.group_offsets, masks.heights, masks.widths)


def _with_others(masks: Masks, words: NDArray[np.uint64], threads: int) -> tuple[Floats, Floats]:
    """[K] mean IoU with the others of the group, and [G] their mean, of masks or of their boundaries."""
    n_masks = np.diff(masks.group_offsets)
    intersections = cpu.group_intersections(
        words, masks.word_offsets, masks.group_offsets, threads=threads
    )
    # The matrices of all groups lie one after the other; entry e is of row and column of its group's.
    pair_offsets = cpu.offsets_from(n_masks**2)
    group = np.repeat(np.arange(len(n_masks)), n_masks**2)
    row, column = np.divmod(np.arange(pair_offsets[-1]) - pair_offsets[group], n_masks[group])
    areas = intersections[row == column]
    begin = masks.group_offsets[group]
    union = areas[begin + row] + areas[begin + column] - intersections
    ious = _ratio(intersections, union)
    row_starts = cpu.offsets_from(n_masks[masks.group])[:-1]
    others = n_masks[masks.group] - 1
    with np.errstate(invalid="ignore"):
        # Less the 1 on the diagonal.
        of_mask: Floats = (np.add.reduceat(ious, row_starts) - 1) / others
    return of_mask, np.add.reduceat(of_mask, masks.group_offsets[:-1]) / n_masks


def _ratio(intersection: Ints, union: Ints) -> Floats:
    result: Floats = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    return result


def _first_largest(values: Floats, group_offsets: Ints) -> Ints:
    """[G] place within its group of the first of the largest values."""
    starts = group_offsets[:-1]
    largest = np.maximum.reduceat(values, starts)
    is_largest = values == np.repeat(largest, np.diff(group_offsets))
    place = np.arange(len(values)) - np.repeat(starts, np.diff(group_offsets))
    first: Ints = np.minimum.reduceat(np.where(is_largest, place, len(values)), starts)
    return first
