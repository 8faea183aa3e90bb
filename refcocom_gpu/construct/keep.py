"""Measurements of an image in; which instances and expressions stay, and why the others are removed, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refcocom_gpu.construct.filter import Harm
from refcocom_gpu.construct.measurements import ImageResult, Measured
from refcocom_gpu.construct.rules import Rules

CAUSES = {
    "picture": "its picture cannot be used",
    "original": "the refined mask is not of the original object",
    "candidates": "too few usable candidates",
    "confidence": "the candidates do not agree enough",
    "expressions": "no expression is left",
}
"""Why an instance is removed."""

EXPRESSION_CAUSES = {
    "word": "it holds a word of the list",
    "classifier": "a harmful label scores too high",
}
"""Why an expression is removed."""


@dataclass(frozen=True)
class Decision:
    """Whether an instance stays.

    Attributes:
        measured: The measurements that decide it.
        confidence: 0…1; NaN where there is no pair of candidates.
        cause: A key of `CAUSES`; empty where the instance stays.
        reason: The cause with its numbers, for a person.
        sentences: For each of its expressions a key of `EXPRESSION_CAUSES` and the reason, both empty where the
            expression stays.
    """

    measured: Measured
    confidence: float
    cause: str
    reason: str
    sentences: tuple[tuple[str, str], ...]


def decide(result: ImageResult, n_sentences: Sequence[int], rules: Rules) -> list[Decision]:
    """Decide which instances of one image stay.

    Args:
        result: The measurements of the image.
        n_sentences: Number of expressions of each of its instances.
        rules: The thresholds.
    """
    harm = iter(result.harm)
    decisions = []
    for measured, n in zip(result.instances, n_sentences, strict=True):
        sentences = tuple(_sentence_cause(next(harm), rules) for _ in range(n))
        confidence = confidence_of(measured, rules)
        cause, reason = _cause(result.error, measured, confidence, sentences, rules)
        decisions.append(Decision(measured, confidence, cause, reason, sentences))
    return decisions


def confidence_of(measured: Measured, rules: Rules) -> float:
    """The weighted mean of the IoUs of candidates, of their boundaries and of the boxes; NaN without a pair."""
    parts = (
        (rules.pair_weight, measured.iou),
        (rules.boundary_weight, measured.boundary_iou),
        (rules.box_weight, measured.box_iou),
    )
    return sum(w * value for w, value in parts if w) / sum(w for w, _ in parts)


def _cause(
    picture_error: str,
    measured: Measured,
    confidence: float,
    sentences: tuple[tuple[str, str], ...],
    rules: Rules,
) -> tuple[str, str]:
    """The first cause that applies, and its reason; both empty where the instance stays."""
    if picture_error:
        return "picture", picture_error
    n = measured.n_candidates
    if n < rules.min_candidates:
        refused = "; ".join(f"{p.proposer}: {p.reason}" for p in measured.proposed if p.reason)
        more = f" ({refused})" if refused else ""
        return "candidates", f"{n} usable candidates, {rules.min_candidates} are needed{more}"
    if measured.original_iou < rules.original_iou:
        return (
            "original",
            f"IoU with the original mask {measured.original_iou:.4f} < {rules.original_iou}",
        )
    # Where one candidate is enough, it has no agreement to be measured by.
    if n > 1 and confidence < rules.confidence:
        return "confidence", f"confidence {confidence:.4f} < {rules.confidence}"
    if all(cause for cause, _ in sentences):
        return "expressions", "all its expressions were removed" if sentences else "it has none"
    return "", ""


def _sentence_cause(harm: Harm, rules: Rules) -> tuple[str, str]:
    if harm.word:
        return "word", f"holds {harm.word!r}"
    if harm.label and harm.score >= rules.harm:
        return "classifier", f"{harm.label} {harm.score:.3f} ≥ {rules.harm}"
    return "", ""
