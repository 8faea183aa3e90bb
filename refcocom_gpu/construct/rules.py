"""Everything that decides what becomes of an instance, with its default, its meaning and its check."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.options import option

CONSENSUS = ("majority", "weighted", "medoid")
"""How candidates become one mask."""

MISSING_PICTURES = ("error", "remove")
"""What becomes of a picture that is needed and cannot be used: an error, or its instances are removed."""


@dataclass
class Rules:
    """Everything that decides what becomes of an instance. The numbers are choices of ours, not of RefCOCO-M's authors.

    The metadata of each field holds its meaning.

    Raises:
        UsageError: For a number out of range or an unknown word.

    >>> Rules(confidence=0.9).identity()["confidence"]
    0.9
    """

    consensus: str = option(
        "majority",
        "how candidates become one mask: majority, weighted or medoid",
        choices=CONSENSUS,
    )
    # A vote leaves specks along an outline.
    islands: float = option(0.01, "pieces below this share of the largest piece are removed")
    holes: float = option(0.01, "holes below this share of the largest piece are filled")
    # A candidate alone has nothing to agree with.
    min_candidates: int = option(2, "instances with fewer usable candidates are removed")
    # 0.7 keeps about two in three of the simulated instances of docs/construct.md. It was set on another seed than
    # the one reported there.
    confidence: float = option(0.7, "instances whose candidates agree less are removed")
    # Below a half, the masks differ in more than they share, and the expressions may speak of another object.
    original_iou: float = option(
        0.5, "instances whose refined mask has a lower IoU with the original are removed"
    )
    # The weights are equal because no other choice was found to do better throughout.
    pair_weight: float = option(1.0, "weight of the candidates' mean IoU in the confidence")
    boundary_weight: float = option(1.0, "weight of their mean boundary IoU in it")
    box_weight: float = option(1.0, "weight of the IoU with the original box in it")
    harm: float = option(0.5, "score from which a harmful label removes an expression")
    missing_pictures: str = option(
        "error",
        "pictures that are needed and cannot be used: error, or remove to remove their instances",
        choices=MISSING_PICTURES,
    )

    def __post_init__(self) -> None:
        if self.consensus not in CONSENSUS:
            raise UsageError(f"consensus must be {', '.join(CONSENSUS)}, not {self.consensus!r}")
        if self.missing_pictures not in MISSING_PICTURES:
            raise UsageError(
                f"missing_pictures must be {' or '.join(MISSING_PICTURES)}, not {self.missing_pictures!r}"
            )
        for name in ("islands", "holes", "confidence", "original_iou", "harm"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is a share from 0 to 1, not {value}")
        if self.min_candidates < 1:
            raise UsageError(f"min_candidates must be at least 1, not {self.min_candidates}")
        weights = (self.pair_weight, self.boundary_weight, self.box_weight)
        if not all(0 <= w < math.inf for w in weights) or not sum(weights):
            raise UsageError(
                f"the weights of the confidence must be 0 or more, and not all 0: {weights}"
            )

    def identity(self) -> dict[str, Any]:
        """Name to value, for the card and the summary; of these fields alone, also where a class adds others."""
        return {entry.name: getattr(self, entry.name) for entry in fields(Rules)}
