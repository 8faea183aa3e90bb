"""What was found about instances and expressions in, which of them stay and why the others go out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from refcocom_gpu.construct.agree import CONSENSUS
from refcocom_gpu.construct.image import Found, Harm, ImageResult
from refcocom_gpu.errors import UsageError

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
class Rules:
    """Every number that decides what becomes of an instance. They are choices of ours, not of RefCOCO-M's authors.

    Attributes:
        consensus: How candidates become one mask: `majority`, `weighted` or `medoid`.
        islands: Pieces below this share of the largest are removed: specks that a vote leaves along an outline.
        holes: Holes below this share of the largest piece are filled.
        min_candidates: Fewer usable candidates than this have nothing to agree with.
        confidence: The lowest confidence that is kept. 0.7 keeps about two in three of the simulated instances of
            docs/construct.md, where it was set on another seed than the one reported.
        original_iou: The lowest IoU with the original mask: below a half, more is different than alike, and the
            expressions may speak of another object.
        pair_weight: Weight of the mean IoU of all pairs of candidates in the confidence.
        boundary_weight: Weight of their mean boundary IoU.
        box_weight: Weight of the IoU of the refined mask's box with the original box. All are equal because nothing
            was found that does better throughout.
        harm: The score from which a harmful label removes an expression.

    Raises:
        UsageError: For a number out of range.
    """

    consensus: str = "majority"
    islands: float = 0.01
    holes: float = 0.01
    min_candidates: int = 2
    confidence: float = 0.7
    original_iou: float = 0.5
    pair_weight: float = 1.0
    boundary_weight: float = 1.0
    box_weight: float = 1.0
    harm: float = 0.5

    def __post_init__(self) -> None:
        if self.consensus not in CONSENSUS:
            raise UsageError(f"consensus must be {', '.join(CONSENSUS)}, not {self.consensus!r}")
        for name in ("islands", "holes", "confidence", "original_iou", "harm"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is a share from 0 to 1, not {value}")
        if self.min_candidates < 1:
            raise UsageError(f"min_candidates must be at least 1, not {self.min_candidates}")
        weights = (self.pair_weight, self.boundary_weight, self.box_weight)
        if not all(0 <= w < math.inf for w in weights) or not sum(weights):
            raise UsageError(f"the weights of the confidence are 0 or more, not all 0: {weights}")

    def identity(self) -> dict[str, Any]:
        """Name to number, for the card and the audit."""
        return asdict(self)


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
