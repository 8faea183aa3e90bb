"""What was found about instances and expressions in, which of them stay and why the others go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refcocom_gpu.construct.image import Found, Harm, ImageResult
from refcocom_gpu.construct.rules import Rules

CAUSES = {
    "picture": "its picture cannot be used",
    "original": "the refined mask is not of the original object",
    "candidates": "too few usable candidates",
    "confidence": "the candidates do not agree enough",
    "expressions": "no expression is left",
}
"""Why an instance is removed, in the order in which it is asked."""

EXPRESSION_CAUSES = {
    "word": "it holds a word of the list",
    "classifier": "a harmful label scores too high",
}
"""Why an expression is removed."""


@dataclass(frozen=True)
class Decision:
    """What becomes of an instance.

    Attributes:
        found: What it is decided from.
        confidence: 0…1; NaN where there is no pair of candidates.
        cause: A key of `CAUSES`, empty where it stays.
        reason: The same with its numbers, for a person.
        sentences: For each of its expressions a key of `EXPRESSION_CAUSES` and the reason, empty where it stays.
    """

    found: Found
    confidence: float
    cause: str
    reason: str
    sentences: tuple[tuple[str, str], ...]


def decide(result: ImageResult, n_sentences: Sequence[int], rules: Rules) -> list[Decision]:
    """Decide about the instances of one image.

    Args:
        result: What was found.
        n_sentences: Expressions of each of its instances.
        rules: What decides.
    """
    harm = iter(result.harm)
    decisions = []
    for found, n in zip(result.found, n_sentences, strict=True):
        sentences = tuple(_harm(next(harm), rules) for _ in range(n))
        confidence = confidence_of(found, rules)
        cause, reason = _cause(result, found, confidence, sentences, rules)
        decisions.append(Decision(found, confidence, cause, reason, sentences))
    return decisions


def confidence_of(found: Found, rules: Rules) -> float:
    """The weighted mean of the candidates' agreement, of their boundaries' and of the boxes'; NaN without a pair."""
    parts = (
        (rules.pair_weight, found.iou),
        (rules.boundary_weight, found.boundary_iou),
        (rules.box_weight, found.box_iou),
    )
    return sum(w * value for w, value in parts if w) / sum(w for w, _ in parts)


def _cause(
    result: ImageResult,
    found: Found,
    confidence: float,
    sentences: tuple[tuple[str, str], ...],
    rules: Rules,
) -> tuple[str, str]:
    if result.error:
        return "picture", result.error
    n = found.n_candidates
    if n < rules.min_candidates:
        refused = "; ".join(f"{p.proposer}: {p.reason}" for p in found.proposed if p.reason)
        more = f" ({refused})" if refused else ""
        return "candidates", f"{n} usable candidates, {rules.min_candidates} are needed{more}"
    if found.original_iou < rules.original_iou:
        return (
            "original",
            f"IoU with the original mask {found.original_iou:.4f} < {rules.original_iou}",
        )
    # A single candidate, where one is enough, has no agreement to be measured by.
    if n > 1 and confidence < rules.confidence:
        return "confidence", f"confidence {confidence:.4f} < {rules.confidence}"
    if all(cause for cause, _ in sentences):
        return "expressions", "all its expressions were removed" if sentences else "it has none"
    return "", ""


def _harm(found: Harm, rules: Rules) -> tuple[str, str]:
    if found.word:
        return "word", f"holds {found.word!r}"
    if found.label and found.score >= rules.harm:
        return "classifier", f"{found.label} {found.score:.3f} ≥ {rules.harm}"
    return "", ""
