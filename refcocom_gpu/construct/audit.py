"""Decisions in; tables with a row per instance, per expression and per proposal out, every removal with its cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from refcocom_gpu.construct.filter import Harm
from refcocom_gpu.construct.keep import CAUSES, EXPRESSION_CAUSES, Decision
from refcocom_gpu.construct.measurements import ImageResult
from refcocom_gpu.dataset.table import Dataset

SCHEMA_VERSION = "1"

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

INSTANCES = {
    "sample_id": _INT, "image_id": _INT, "position": _INT, "category": _TEXT, "height": _INT, "width": _INT,
    "kept": _BOOL, "cause": _TEXT, "reason": _TEXT, "confidence": _FLOAT, "iou": _FLOAT, "boundary_iou": _FLOAT,
    "box_iou": _FLOAT, "original_iou": _FLOAT, "original_boundary_iou": _FLOAT, "is_medoid": _BOOL,
    "n_proposals": _INT, "n_candidates": _INT, "n_sentences": _INT, "n_sentences_kept": _INT,
    "original_area": _INT, "area": _INT, "original_counts": _TEXT, "counts": _TEXT,
}  # fmt: skip
"""Columns of `audit/instances.parquet`. `iou` and `boundary_iou` compare the candidates with each other; `counts` is
the refined mask, null where there is none; areas are in pixels."""

EXPRESSIONS = {
    "sample_id": _INT, "sentence_idx": _INT, "sentence": _TEXT, "kept": _BOOL, "cause": _TEXT, "reason": _TEXT,
    "new_sentence_idx": _INT, "word": _TEXT, "label": _TEXT, "score": _FLOAT,
}  # fmt: skip
"""Columns of `audit/expressions.parquet`. `new_sentence_idx` is the place in the written dataset, null where the
expression is removed. The cause `instance` means that its instance was removed."""

CANDIDATES = {
    "sample_id": _INT, "proposer": _TEXT, "usable": _BOOL, "reason": _TEXT, "score": _FLOAT, "iou": _FLOAT,
    "boundary_iou": _FLOAT, "consensus_iou": _FLOAT, "original_iou": _FLOAT, "counts": _TEXT,
}  # fmt: skip
"""Columns of `audit/candidates.parquet`: every proposal, with its mask where it is usable."""


class Audit(NamedTuple):
    """The tables, in the order of the dataset's samples.

    Attributes:
        instances: Columns `INSTANCES`.
        expressions: Columns `EXPRESSIONS`.
        candidates: Columns `CANDIDATES`.
    """

    instances: pa.Table
    expressions: pa.Table
    candidates: pa.Table


def make_audit(
    dataset: Dataset,
    results: Sequence[ImageResult],
    decisions: Sequence[Sequence[Decision]],
    areas: Sequence[int],
) -> Audit:
    """Put measurements and decisions into tables.

    Args:
        dataset: The original set.
        results: The measurements of each image.
        decisions: For each image, one for each of its samples.
        areas: Pixels of each original mask.
    """
    instances: list[dict[str, Any]] = []
    expressions: list[dict[str, Any]] = []
    candidates: list[dict[str, Any]] = []
    for result, of_image in zip(results, decisions, strict=True):
        harms = iter(result.harm)
        for decision in of_image:
            instances.append(_instance(dataset, decision, int(areas[decision.measured.sample])))
            expressions += _expressions(dataset, decision, harms)
            candidates += _candidates(dataset, decision)
    return Audit(
        _table(instances, INSTANCES),
        _table(expressions, EXPRESSIONS),
        _table(candidates, CANDIDATES),
    )


def counts_of(audit: Audit) -> dict[str, Any]:
    """Numbers kept and removed, by every cause, for the card and the summary."""
    counts: dict[str, Any] = {}
    for name, table, causes in (
        ("instances", audit.instances, tuple(CAUSES)),
        ("expressions", audit.expressions, (*EXPRESSION_CAUSES, "instance")),
    ):
        by_cause = Counter(table["cause"].to_pylist())
        counts[name] = {
            "original": table.num_rows,
            "kept": by_cause[""],
            "removed": {cause: by_cause[cause] for cause in causes},
        }
    return counts


def _table(rows: list[dict[str, Any]], columns: dict[str, pa.DataType]) -> pa.Table:
    layout = pa.schema(
        columns.items(), metadata={"schema": "refcocom-construct-audit", "version": SCHEMA_VERSION}
    )
    return pa.Table.from_pylist(rows, schema=layout)


def _instance(dataset: Dataset, decision: Decision, area: int) -> dict[str, Any]:
    measured, sample = decision.measured, decision.measured.sample
    n_kept = sum(not cause for cause, _ in decision.sentences)
    return {
        "sample_id": int(dataset.sample_ids[sample]),
        "image_id": int(dataset.image_ids[dataset.sample_image[sample]]),
        "position": int(dataset.positions[sample]),
        "category": dataset.samples["category"][sample].as_py(),
        "height": int(dataset.heights[sample]),
        "width": int(dataset.widths[sample]),
        "kept": not decision.cause,
        "cause": decision.cause,
        "reason": decision.reason,
        "confidence": decision.confidence,
        "iou": measured.iou,
        "boundary_iou": measured.boundary_iou,
        "box_iou": measured.box_iou,
        "original_iou": measured.original_iou,
        "original_boundary_iou": measured.original_boundary_iou,
        "is_medoid": measured.is_medoid,
        "area": measured.area,
        "n_proposals": len(measured.proposed),
        "n_candidates": measured.n_candidates,
        "n_sentences": len(decision.sentences),
        "n_sentences_kept": 0 if decision.cause else n_kept,
        "original_area": area,
        "original_counts": dataset.counts.row(sample).decode("ascii"),
        "counts": measured.counts.decode("ascii") or None,
    }


def _expressions(
    dataset: Dataset, decision: Decision, harms: Iterator[Harm]
) -> Iterator[dict[str, Any]]:
    sample = decision.measured.sample
    first = int(dataset.first_example[sample])
    place = 0
    for k, (cause, reason) in enumerate(decision.sentences):
        harm = next(harms)
        if not cause and decision.cause:
            cause, reason = "instance", decision.reason
        yield {
            "sample_id": int(dataset.sample_ids[sample]),
            "sentence_idx": k,
            "sentence": dataset.examples["sentence"][first + k].as_py(),
            "kept": not cause,
            "cause": cause,
            "reason": reason,
            "new_sentence_idx": None if cause else place,
            "word": harm.word,
            "label": harm.label,
            "score": harm.score,
        }
        place += not cause


def _candidates(dataset: Dataset, decision: Decision) -> Iterator[dict[str, Any]]:
    for proposed in decision.measured.proposed:
        yield {
            "sample_id": int(dataset.sample_ids[decision.measured.sample]),
            "proposer": proposed.proposer,
            "usable": not proposed.reason,
            "reason": proposed.reason,
            "score": proposed.score,
            "iou": proposed.iou,
            "boundary_iou": proposed.boundary_iou,
            "consensus_iou": proposed.consensus_iou,
            "original_iou": proposed.original_iou,
            "counts": proposed.counts.decode("ascii") or None,
        }
