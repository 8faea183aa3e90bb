"""One image in; measurements of its instances, their proposals and their expressions out.

This is the only task of a construction, the same for every engine. It decides nothing: `keep` decides from these
measurements, so that another threshold does not ask any model again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.construct.agree import (
    Agreement,
    Floats,
    agree,
    boundaries_of,
    iou_with,
    pack_groups,
)
from refcocom_gpu.construct.boxes import box_iou, stated_box, tight_box
from refcocom_gpu.construct.filter import ExpressionFilter
from refcocom_gpu.construct.instances import Candidate, Instance, Proposals, Proposer, Refused, Runs
from refcocom_gpu.construct.measurements import ImageResult, Measured, Proposed
from refcocom_gpu.construct.refine import refine
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.errors import DataError, DatasetError
from refcocom_gpu.masks import rle
from refcocom_gpu.store.store import MaskStore


@dataclass(frozen=True, eq=False)
class Work:
    """What every task of a construction needs.

    Attributes:
        store: The original masks.
        images: Their pictures; None where nobody needs them.
        proposers: Who proposes masks.
        filter: Finds harm in expressions.
        rules: How candidates are made into one mask; the thresholds are not used here.
    """

    store: MaskStore
    images: Images | None
    proposers: tuple[Proposer, ...]
    filter: ExpressionFilter
    rules: Rules


def construct_image(work: Work, image: int) -> ImageResult:
    """Propose, agree, refine and measure for one image.

    Args:
        work: The same for all images.
        image: Row of `dataset.images`.

    Raises:
        DataError: A proposer returns masks of another size or type, or a wrong number of lists.
    """
    instances = instances_of(work.store, image)
    harm = tuple(work.filter.find([text for one in instances for text in one.sentences]))
    picture: NDArray[np.uint8] | None = None
    if work.images is not None:
        try:
            picture = np.asarray(work.images[image])
        except DatasetError as error:
            unmeasured = tuple(Measured(one.sample, ()) for one in instances)
            return ImageResult(image, str(error), unmeasured, harm)
    proposals = _propose(work.proposers, picture, instances)
    return ImageResult(image, "", _measure(work, instances, proposals), harm)


def instances_of(store: MaskStore, image: int) -> list[Instance]:
    """The instances of an image of a store's dataset, by position."""
    dataset = store.dataset
    first, last = np.searchsorted(dataset.sample_image, [image, image + 1]).tolist()
    instances = []
    for sample in range(first, last):
        begin, end = dataset.first_example[sample : sample + 2].tolist()
        height, width = int(dataset.heights[sample]), int(dataset.widths[sample])
        mask = rle.decode_ends(_original_runs(store, sample), height, width)
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


def _original_runs(store: MaskStore, sample: int) -> Runs:
    return store.ends[store.run_offsets[sample] : store.run_offsets[sample + 1]]


def _propose(
    proposers: Sequence[Proposer], picture: NDArray[np.uint8] | None, instances: list[Instance]
) -> list[Proposals]:
    """The checked proposals for each instance; none where the original mask is empty."""
    proposals: list[Proposals] = [[] for _ in instances]
    rows = [row for row, instance in enumerate(instances) if instance.mask.any()]
    if not rows:
        return proposals
    for proposer in proposers:
        answers = proposer.propose(
            picture if proposer.needs_picture else None, [instances[row] for row in rows]
        )
        if len(answers) != len(rows):
            raise DataError(
                f"proposer {proposer.name}: {len(answers)} lists of proposals for {len(rows)} instances"
            )
        for row, answer in zip(rows, answers, strict=True):
            proposals[row] += [_checked(proposal, instances[row]) for proposal in answer]
    return proposals


def _checked(proposal: Candidate | Refused, instance: Instance) -> Candidate | Refused:
    """The proposal as it was, with runs of length zero merged; refused where its mask is empty."""
    if isinstance(proposal, Refused):
        return proposal
    ends, (height, width) = np.asarray(proposal.ends), instance.mask.shape
    where = f"proposer {proposal.proposer}, sample {instance.sample_id}"
    if tuple(proposal.size) != (height, width):
        size = "×".join(map(str, proposal.size))
        raise DataError(f"{where}: a candidate must be {height}×{width} pixels, not {size}")
    if ends.dtype != np.int32 or ends.ndim != 1:
        raise DataError(f"{where}: run ends must be [R] int32, not {ends.dtype} {list(ends.shape)}")
    if not len(ends) or ends[-1] != height * width:
        raise DataError(f"{where}: the last run must end at {height * width} pixels")
    if ends[0] < 0 or (ends[1:] < ends[:-1]).any():
        raise DataError(f"{where}: run ends must begin at 0 or more and never fall")
    ends = _merged(ends)
    return (
        proposal._replace(ends=ends) if len(ends) > 1 else Refused(proposal.proposer, "empty mask")
    )


def _merged(ends: Runs) -> Runs:
    """Run ends without runs of length zero, so that equal masks give equal strings.

    Pixels change at a run end; two changes at the same place cancel.

    >>> _merged(np.array([2, 2, 5, 5, 9], np.int32)), _merged(np.array([0, 0, 9], np.int32))
    (array([9], dtype=int32), array([9], dtype=int32))
    """
    inner, times = np.unique(ends[ends < ends[-1]], return_counts=True)
    return np.append(inner[times % 2 == 1], ends[-1])


def _measure(
    work: Work, instances: Sequence[Instance], proposals: Sequence[Proposals]
) -> tuple[Measured, ...]:
    """The measurements of each instance of one image."""
    rows = [
        row
        for row, of_instance in enumerate(proposals)
        if any(isinstance(proposal, Candidate) for proposal in of_instance)
    ]
    measured = {}
    if rows:
        compared = _compare(
            work, [instances[row] for row in rows], [proposals[row] for row in rows]
        )
        measured = dict(zip(rows, compared, strict=True))
    return tuple(
        measured.get(row) or Measured(instance.sample, _audited(proposals[row], iter(())))
        for row, instance in enumerate(instances)
    )


def _compare(
    work: Work, instances: Sequence[Instance], proposals: Sequence[Proposals]
) -> list[Measured]:
    """Compare, vote, refine and measure instances that have at least one candidate each."""
    candidates = [
        [proposal for proposal in of_instance if isinstance(proposal, Candidate)]
        for of_instance in proposals
    ]
    flat = [candidate for of_instance in candidates for candidate in of_instance]
    n_candidates = np.array([len(of_instance) for of_instance in candidates], np.int64)
    sizes = np.array([instance.mask.shape for instance in instances], np.int64)
    one_each = np.ones(len(instances), np.int64)

    masks = pack_groups([candidate.ends for candidate in flat], sizes, n_candidates)
    agreement = agree(masks, consensus=work.rules.consensus)
    refined = [
        refine(agreement.consensus.row(g), islands=work.rules.islands, holes=work.rules.holes)
        for g in range(len(instances))
    ]
    refined_ends = [rle.run_ends(mask) for mask in refined]
    refined_counts = _strings(refined_ends, sizes.tolist())
    chosen = pack_groups(refined_ends, sizes, one_each)
    original_ends = [_original_runs(work.store, instance.sample) for instance in instances]
    original = pack_groups(original_ends, sizes, one_each)
    original_iou = iou_with(chosen, original)
    original_boundary_iou = iou_with(boundaries_of(chosen), boundaries_of(original))
    usable = iter(_usable(flat, agreement, iou_with(masks, original)))
    return [
        Measured(
            sample=instance.sample,
            proposed=_audited(proposals[g], usable),
            counts=refined_counts[g],
            area=int(np.count_nonzero(refined[g])),
            iou=float(agreement.iou[g]),
            boundary_iou=float(agreement.boundary_iou[g]),
            box_iou=box_iou(tight_box(refined[g]), instance.box),
            original_iou=float(original_iou[g]),
            original_boundary_iou=float(original_boundary_iou[g]),
            is_medoid=bool(agreement.is_medoid[g]),
        )
        for g, instance in enumerate(instances)
    ]


def _usable(
    candidates: Sequence[Candidate], agreement: Agreement, original_iou: Floats
) -> list[Proposed]:
    counts = _strings([c.ends for c in candidates], [c.size for c in candidates])
    return [
        Proposed(
            proposer=candidate.proposer,
            score=float(candidate.score),
            counts=counts[m],
            iou=float(agreement.mask_iou[m]),
            boundary_iou=float(agreement.mask_boundary_iou[m]),
            consensus_iou=float(agreement.consensus_iou[m]),
            original_iou=float(original_iou[m]),
        )
        for m, candidate in enumerate(candidates)
    ]


def _audited(proposals: Proposals, usable: Iterator[Proposed]) -> tuple[Proposed, ...]:
    """All proposals in their order; those of candidates are taken from `usable`, one after the other."""
    return tuple(
        Proposed(proposal.proposer, reason=proposal.reason)
        if isinstance(proposal, Refused)
        else next(usable)
        for proposal in proposals
    )


def _strings(ends: Sequence[Runs], sizes: Sequence[Sequence[int]]) -> list[bytes]:
    """Compressed COCO strings of masks."""
    return [mask["counts"].encode() for mask in rle.encode_ends(ends, sizes, threads=1)]
