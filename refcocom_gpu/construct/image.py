"""One image in: its instances proposed for, agreed on and refined, its expressions harm; what was found out.

The one task of a construction, the same for every engine. It decides nothing: `keep` does, from what is found here, so
that a threshold can be moved without asking a model again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.construct.agree import Masks, agree, boundaries_of, iou_with, pack_groups
from refcocom_gpu.construct.boxes import box_iou, stated_box, tight_box
from refcocom_gpu.construct.filter import ExpressionFilter
from refcocom_gpu.construct.instances import Candidate, Instance, Proposals, Proposer, Refused
from refcocom_gpu.construct.refine import refine
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DataError, DatasetError
from refcocom_gpu.masks import rle
from refcocom_gpu.store.store import MaskStore

NAN = float("nan")


class Proposed(msgspec.Struct, frozen=True):
    """One proposal, usable or not.

    Attributes:
        proposer: Who made it.
        reason: Why it is not usable; then nothing below is known.
        score: What the proposer thinks of it.
        counts: The mask, a compressed COCO string.
        iou: Mean IoU with the other candidates.
        boundary_iou: Mean boundary IoU with them.
        consensus_iou: IoU with what the candidates agree on.
        original_iou: IoU with the original mask.
    """

    proposer: str
    reason: str = ""
    score: float = NAN
    counts: bytes = b""
    iou: float = NAN
    boundary_iou: float = NAN
    consensus_iou: float = NAN
    original_iou: float = NAN


class Found(msgspec.Struct, frozen=True):
    """What became of an instance.

    Attributes:
        sample: Row of `dataset.samples`.
        proposed: All proposals for it, in the order of the proposers.
        counts: The refined mask; empty where there is no candidate.
        area: Its pixels.
        iou: Mean IoU of the candidates' pairs.
        boundary_iou: Mean boundary IoU of the pairs.
        box_iou: IoU of the tight box of the refined mask and the original's box.
        original_iou: IoU of the refined and the original mask.
        original_boundary_iou: Boundary IoU of these two.
        is_medoid: Whether the mask is one of the candidates rather than their vote.
    """

    sample: int
    proposed: tuple[Proposed, ...]
    counts: bytes = b""
    area: int = 0
    iou: float = NAN
    boundary_iou: float = NAN
    box_iou: float = NAN
    original_iou: float = NAN
    original_boundary_iou: float = NAN
    is_medoid: bool = False

    @property
    def n_candidates(self) -> int:
        """Usable proposals."""
        return sum(not proposal.reason for proposal in self.proposed)


class Harm(msgspec.Struct, frozen=True):
    """What was found in an expression.

    Attributes:
        word: The word of the user's list that it holds; empty for none.
        label: The classifier's harmful label with the highest score; empty without a classifier.
        score: That score, 0…1.
    """

    word: str = ""
    label: str = ""
    score: float = NAN


class ImageResult(msgspec.Struct, frozen=True):
    """All that was found out about one image.

    Attributes:
        image: Row of `dataset.images`.
        error: Why its picture cannot be used; then there are no proposals.
        found: One for each of its samples.
        harm: One for each of their expressions.
    """

    image: int
    error: str
    found: tuple[Found, ...]
    harm: tuple[Harm, ...]


@dataclass(frozen=True, eq=False)
class Work:
    """What every task of a construction is given.

    Attributes:
        store: The original masks.
        images: Their pictures; None where no proposer looks at them.
        proposers: Who proposes.
        filter: Of expressions.
        consensus: See `agree`.
        islands: See `refine`.
        holes: See `refine`.
    """

    store: MaskStore
    images: Images | None
    proposers: tuple[Proposer, ...]
    filter: ExpressionFilter
    consensus: str
    islands: float
    holes: float


def construct_image(work: Work, image: int) -> ImageResult:
    """Find out about one image.

    Args:
        work: The same for all.
        image: Row of `dataset.images`.

    Raises:
        DataError: A proposer breaks its word: other sizes, another number of lists.
    """
    dataset = work.store.dataset
    instances = instances_of(work.store, image)
    harm = work.filter.find([text for one in instances for text in one.sentences])
    picture: NDArray[np.uint8] | None = None
    error = ""
    if work.images is not None:
        try:
            picture = np.asarray(work.images[image])
        except DatasetError as wrong:
            error = str(wrong)
    found: list[Found] = []
    if instances and not error:
        usable = [one for one in instances if one.mask.any()]
        proposals = iter(_propose(work.proposers, picture, usable))
        by_instance = [next(proposals) if one.mask.any() else [] for one in instances]
        found = _agree(work, dataset, instances, by_instance)
    elif error:
        found = [Found(one.sample, ()) for one in instances]
    return ImageResult(
        image,
        error,
        tuple(found),
        tuple(Harm(word, label, score) for word, label, score in harm),
    )


def instances_of(store: MaskStore, image: int) -> list[Instance]:
    """The instances of an image of a store's dataset, by position."""
    dataset = store.dataset
    first, last = np.searchsorted(dataset.sample_image, [image, image + 1]).tolist()
    instances = []
    for sample in range(first, last):
        begin, end = dataset.first_example[sample : sample + 2].tolist()
        runs = store.ends[store.run_offsets[sample] : store.run_offsets[sample + 1]]
        mask = rle.decode_ends(runs, int(dataset.heights[sample]), int(dataset.widths[sample]))
        instances.append(
            Instance(
                sample=sample,
                sample_id=int(dataset.sample_ids[sample]),
                first_example=begin,
                mask=mask,
                box=stated_box(dataset, sample) or tight_box(mask),
                sentences=tuple(dataset.examples["sentence"].slice(begin, end - begin).to_pylist()),
                category=dataset.samples["category"][sample].as_py(),
            )
        )
    return instances


def _propose(
    proposers: Sequence[Proposer], picture: NDArray[np.uint8] | None, instances: list[Instance]
) -> list[Proposals]:
    """The proposals of all proposers for each instance, checked."""
    merged: list[Proposals] = [[] for _ in instances]
    if not instances:
        return merged
    for proposer in proposers:
        lists = proposer.propose(picture if proposer.needs_picture else None, instances)
        if len(lists) != len(instances):
            raise DataError(
                f"proposer {proposer.name}: {len(lists)} lists of proposals for {len(instances)} instances"
            )
        for own, instance, all_ in zip(lists, instances, merged, strict=True):
            all_ += [_checked(proposal, instance) for proposal in own]
    return merged


def _checked(proposal: Candidate | Refused, instance: Instance) -> Candidate | Refused:
    if isinstance(proposal, Refused):
        return proposal
    mask = np.asarray(proposal.mask)
    if mask.dtype != np.bool_ or mask.shape != instance.mask.shape:
        raise DataError(
            f"proposer {proposal.proposer}, sample {instance.sample_id}: a candidate is bool "
            f"{list(instance.mask.shape)}, not {mask.dtype} {list(mask.shape)}"
        )
    if not mask.any():
        return Refused(proposal.proposer, "empty mask")
    return Candidate(proposal.proposer, mask, proposal.score)


def _agree(
    work: Work, dataset: Dataset, instances: list[Instance], proposals: list[Proposals]
) -> list[Found]:
    """Compare, vote, refine and measure the instances of one image."""
    candidates = [[c for c in given if isinstance(c, Candidate)] for given in proposals]
    kept = [k for k, given in enumerate(candidates) if given]
    if not kept:
        return [_described(instances[k].sample, proposals[k], {}) for k in range(len(instances))]
    sizes = np.array([instances[k].mask.shape for k in kept], np.int64)
    ends = [rle.run_ends(c.mask) for k in kept for c in candidates[k]]
    masks = pack_groups(ends, sizes, np.array([len(candidates[k]) for k in kept], np.int64))
    agreement = agree(masks, consensus=work.consensus)
    refined = [
        refine(agreement.consensus.row(g), islands=work.islands, holes=work.holes)
        for g in range(len(kept))
    ]
    one_each = np.ones(len(kept), np.int64)
    refined_ends = [rle.run_ends(mask) for mask in refined]
    chosen = pack_groups(refined_ends, sizes, one_each)
    original = pack_groups([rle.run_ends(instances[k].mask) for k in kept], sizes, one_each)
    with_original = iou_with(masks, original)
    iou = iou_with(chosen, original)
    boundary_iou = iou_with(boundaries_of(chosen), boundaries_of(original))
    strings = _strings(ends, masks)
    chosen_strings = _strings(refined_ends, chosen)
    measured: dict[int, dict[str, Any]] = {}
    rows: dict[int, list[dict[str, Any]]] = {}
    for g, k in enumerate(kept):
        begin, end = masks.group_offsets[g : g + 2].tolist()
        rows[k] = [
            {
                "counts": strings[m],
                "iou": float(agreement.mask_iou[m]),
                "boundary_iou": float(agreement.mask_boundary_iou[m]),
                "consensus_iou": float(agreement.consensus_iou[m]),
                "original_iou": float(with_original[m]),
            }
            for m in range(begin, end)
        ]
        measured[k] = {
            "counts": chosen_strings[g],
            "area": int(np.count_nonzero(refined[g])),
            "iou": float(agreement.iou[g]),
            "boundary_iou": float(agreement.boundary_iou[g]),
            "box_iou": box_iou(tight_box(refined[g]), instances[k].box),
            "original_iou": float(iou[g]),
            "original_boundary_iou": float(boundary_iou[g]),
            "is_medoid": bool(agreement.is_medoid[g]),
        }
    return [
        _described(one.sample, given, measured.get(k, {}), rows.get(k, []))
        for k, (one, given) in enumerate(zip(instances, proposals, strict=True))
    ]


def _described(
    sample: int,
    proposals: Proposals,
    measured: dict[str, Any],
    rows: Sequence[dict[str, Any]] = (),
) -> Found:
    usable = iter(rows)
    proposed = tuple(
        Proposed(one.proposer, reason=one.reason)
        if isinstance(one, Refused)
        else Proposed(one.proposer, score=float(one.score), **next(usable))
        for one in proposals
    )
    return Found(sample, proposed, **measured)


def _strings(ends: list[NDArray[np.int32]], masks: Masks) -> list[bytes]:
    sizes = np.stack([masks.heights, masks.widths], axis=1)[masks.group].tolist()
    return [str(one["counts"]).encode() for one in rle.encode_ends(ends, sizes, threads=1)]
