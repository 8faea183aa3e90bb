"""The measurements of one image: what `image` returns, `parts` keeps and `keep` decides from."""

from __future__ import annotations

import math

import msgspec

from refcocom_gpu.construct.filter import Harm


class Proposed(msgspec.Struct, frozen=True):
    """One proposal, usable or not.

    Attributes:
        proposer: Name of the proposer.
        reason: Why the proposal is not usable; the fields below are then empty.
        score: The proposer's own estimate.
        counts: The mask as a compressed COCO string.
        iou: Mean IoU with the other candidates.
        boundary_iou: Mean boundary IoU with the other candidates.
        consensus_iou: IoU with the consensus.
        original_iou: IoU with the original mask.
    """

    proposer: str
    reason: str = ""
    score: float = math.nan
    counts: bytes = b""
    iou: float = math.nan
    boundary_iou: float = math.nan
    consensus_iou: float = math.nan
    original_iou: float = math.nan


class Measured(msgspec.Struct, frozen=True):
    """The measurements of one instance.

    Attributes:
        sample: Row of `dataset.samples`.
        proposed: All its proposals, in the order of the proposers.
        counts: The refined mask as a compressed COCO string; empty where there is no candidate.
        area: Pixels of the refined mask.
        iou: Mean IoU over the pairs of candidates.
        boundary_iou: Mean boundary IoU over the pairs.
        box_iou: IoU of the tight box of the refined mask and the original box.
        original_iou: IoU of the refined and the original mask.
        original_boundary_iou: Boundary IoU of the refined and the original mask.
        is_medoid: Whether the consensus is one of the candidates rather than their vote.
    """

    sample: int
    proposed: tuple[Proposed, ...]
    counts: bytes = b""
    area: int = 0
    iou: float = math.nan
    boundary_iou: float = math.nan
    box_iou: float = math.nan
    original_iou: float = math.nan
    original_boundary_iou: float = math.nan
    is_medoid: bool = False

    @property
    def n_candidates(self) -> int:
        """Number of usable proposals."""
        return sum(not proposal.reason for proposal in self.proposed)


class ImageResult(msgspec.Struct, frozen=True):
    """All measurements of one image.

    Attributes:
        image: Row of `dataset.images`.
        error: Why its picture cannot be used; there are then no proposals.
        instances: One for each of its samples.
        harm: One for each expression of these samples.
    """

    image: int
    error: str
    instances: tuple[Measured, ...]
    harm: tuple[Harm, ...]
