"""Candidate masks of many instances in; for each instance one mask and the agreement of its candidates out.

A *group* is the candidates of one instance. Letters: `G` groups, `K` masks in all, `P` words, `R` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.construct.rules import CONSENSUS
from refcocom_gpu.errors import UsageError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WEIGHT_UNITS = 1024
"""A weight of 1, in units. Whole units make sums of weights exact, so that they do not depend on the order."""


@dataclass(frozen=True)
class Masks:
    """Masks in groups, as packed bits in the layout of the store.

    Attributes:
        words: [P] uint64.
        word_offsets: [K + 1] where the words of each mask begin.
        group_offsets: [G + 1] where the masks of each group begin; no group is empty.
        heights: [G] H of the masks of each group.
        widths: [G] W of the masks of each group.
    """

    words: NDArray[np.uint64]
    word_offsets: Ints
    group_offsets: Ints
    heights: Ints
    widths: Ints

    @property
    def group(self) -> Ints:
        """[K] group of each mask."""
        return np.repeat(np.arange(len(self.heights)), np.diff(self.group_offsets))

    def row(self, mask: int) -> NDArray[np.bool_]:
        """Return one mask, 0…K−1, as [H, W] bool."""
        group = int(np.searchsorted(self.group_offsets, mask, side="right")) - 1
        height, width = int(self.heights[group]), int(self.widths[group])
        words = self.words[self.word_offsets[mask] : self.word_offsets[mask + 1]]
        bits = np.unpackbits(words.view(np.uint8), count=height * width, bitorder="little")
        return bits.reshape(height, width).view(np.bool_)


@dataclass(frozen=True)
class Agreement:
    """The consensus of each group, and how well its candidates agree.

    Attributes:
        mask_iou: [K] mean IoU of a candidate with the others of its group; NaN where there are no others.
        mask_boundary_iou: [K] the same for boundaries.
        iou: [G] mean IoU over the pairs of a group; NaN for a group of one.
        boundary_iou: [G] the same for boundaries.
        consensus_iou: [K] IoU of a candidate with the consensus of its group.
        medoid: [G] row, 0…K−1, of the mask with the highest mean IoU with the others; the first of several.
        is_medoid: [G] whether the consensus is the medoid itself: because `medoid` was requested, or because the vote
            has a lower mean IoU with the candidates than the medoid has. The latter happens where candidates disagree
            strongly, and where the vote is empty.
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


def pack_groups(ends: Sequence[NDArray[np.int32]], sizes: Ints, n_masks: Ints) -> Masks:
    """Pack groups of masks.

    Args:
        ends: Run ends of K valid masks, as `rle.run_ends` gives them.
        sizes: [G, 2] height and width of each group.
        n_masks: [G] number of masks of each group, at least one.
    """
    run_offsets = cpu.offsets_from(np.array([len(e) for e in ends], np.int64))
    flat = np.concatenate(ends) if len(ends) else np.zeros(0, np.int32)
    return pack_runs(flat, run_offsets, sizes, n_masks)


def pack_runs(
    ends: NDArray[np.int32], run_offsets: Ints, sizes: Ints, n_masks: Ints, *, threads: int = 1
) -> Masks:
    """As `pack_groups`, for run ends in one buffer.

    Args:
        ends: [R] run ends of K valid masks.
        run_offsets: [K + 1] where the runs of each mask begin.
        sizes: [G, 2] height and width of each group.
        n_masks: [G] number of masks of each group, at least one.
        threads: 0 for all cores.
    """
    heights, widths = np.repeat(sizes, n_masks, axis=0).T
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
        cpu.offsets_from(n_masks),
        np.ascontiguousarray(sizes[:, 0]),
        np.ascontiguousarray(sizes[:, 1]),
    )


def agree(masks: Masks, *, consensus: str = "majority", threads: int = 1) -> Agreement:
    """Compare the candidates of each group and make one mask of them.

    `majority`: a pixel is set when more than half of the candidates set it. `weighted`: the same, where the weight of
    a candidate is its mean IoU with the others. `medoid`: the candidate with the highest mean IoU with the others. The
    medoid breaks ties. It also replaces a vote that has a lower mean IoU with the candidates.

    Args:
        masks: Candidates; none is empty.
        consensus: One of `CONSENSUS`.
        threads: 0 for all cores.

    Raises:
        UsageError: The consensus is unknown.

    >>> from refcocom_gpu.masks import rle
    >>> three = [rle.run_ends(np.array([row])) for row in ([1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0])]
    >>> agreement = agree(pack_groups(three, np.array([[1, 4]]), np.array([3])))
    >>> agreement.mask_iou.round(2), agreement.consensus.row(0).astype(int)
    (array([0.5 , 0.67, 0.5 ]), array([[1, 1, 1, 0]]))
    """
    if consensus not in CONSENSUS:
        raise UsageError(f"consensus must be {', '.join(CONSENSUS)}, not {consensus!r}")
    group, first = masks.group, masks.group_offsets[:-1]
    n_masks = np.diff(masks.group_offsets)
    mask_iou, iou = _with_others(masks, masks.words, threads)
    mask_boundary_iou, boundary_iou = _with_others(
        masks, boundaries_of(masks, threads=threads).words, threads
    )
    medoid = first + _first_largest(np.nan_to_num(mask_iou), masks.group_offsets)
    weights = np.zeros(len(group), np.int64)
    if consensus == "majority":
        weights[:] = 2
    elif consensus == "weighted":
        weights[:] = 2 * np.rint(WEIGHT_UNITS * np.nan_to_num(mask_iou, nan=1.0))
    # All weights are even. One more for the medoid makes the total odd, so that no vote is tied.
    weights[medoid] += 1
    words, word_offsets = cpu.group_votes(
        masks.words, masks.word_offsets, masks.group_offsets, weights, threads=threads
    )
    votes = Masks(words, word_offsets, np.arange(len(first) + 1), masks.heights, masks.widths)
    vote_iou = iou_with(masks, votes, threads=threads)
    mean_vote_iou = np.add.reduceat(vote_iou, first) / n_masks
    # The IoU of the medoid with itself is 1.
    mean_medoid_iou = (np.nan_to_num(mask_iou[medoid]) * (n_masks - 1) + 1) / n_masks
    replaced = mean_vote_iou < mean_medoid_iou
    for g in np.flatnonzero(replaced).tolist():
        begin, end = masks.word_offsets[medoid[g]], masks.word_offsets[medoid[g] + 1]
        words[word_offsets[g] : word_offsets[g + 1]] = masks.words[begin:end]
    if replaced.any():
        vote_iou = iou_with(masks, votes, threads=threads)
    return Agreement(
        mask_iou=mask_iou,
        mask_boundary_iou=mask_boundary_iou,
        iou=iou,
        boundary_iou=boundary_iou,
        consensus_iou=vote_iou,
        medoid=medoid,
        is_medoid=replaced | (consensus == "medoid"),
        consensus=votes,
    )


def iou_with(masks: Masks, others: Masks, *, threads: int = 1) -> Floats:
    """Compute the IoU of each mask with the one mask that `others` has for its group.

    Args:
        masks: K masks of G groups.
        others: One mask for each of the G groups, of the same sizes.
        threads: 0 for all cores.

    Returns:
        [K]; 1 for two empty masks.
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
    """Return the boundaries of masks, as masks in the same groups."""
    group = masks.group
    boundaries = cpu.boundaries(
        masks.words,
        masks.word_offsets,
        masks.heights[group],
        masks.widths[group],
        threads=threads,
    )
    return replace(masks, words=boundaries.words)


def _with_others(masks: Masks, words: NDArray[np.uint64], threads: int) -> tuple[Floats, Floats]:
    """[K] mean IoU with the others of the group, and [G] its mean. `words` hold the masks or their boundaries."""
    n_masks = np.diff(masks.group_offsets)
    intersections = cpu.group_intersections(
        words, masks.word_offsets, masks.group_offsets, threads=threads
    )
    # The n × n matrices of all groups follow each other; each entry has a row and a column in the matrix of its group.
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
        # Without the 1 on the diagonal.
        mask_iou: Floats = (np.add.reduceat(ious, row_starts) - 1) / others
    return mask_iou, np.add.reduceat(mask_iou, masks.group_offsets[:-1]) / n_masks


def _ratio(intersection: Ints, union: Ints) -> Floats:
    result: Floats = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    return result


def _first_largest(values: Floats, group_offsets: Ints) -> Ints:
    """[G] position, within its group, of the first of the largest values."""
    starts = group_offsets[:-1]
    largest = np.maximum.reduceat(values, starts)
    is_largest = values == np.repeat(largest, np.diff(group_offsets))
    position = np.arange(len(values)) - np.repeat(starts, np.diff(group_offsets))
    first: Ints = np.minimum.reduceat(np.where(is_largest, position, len(values)), starts)
    return first
