"""The types that the stages of a construction exchange: a referred instance, and the masks proposed for it.

Letters: `H` × `W` pixels, `R` runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError
from refcocom_gpu.masks.rle import run_ends

Mask = NDArray[np.bool_]
Runs = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Instance:
    """One referred instance of the original set, as a proposer sees it.

    Attributes:
        sample: Row of `dataset.samples`.
        sample_id: Its id, for messages.
        first_example: Index of its first expression; the others follow.
        mask: [H, W] bool, the original mask.
        box: x, y, w, h in pixels: the record's, or the tight box of the mask where the record has none.
        sentences: Its expressions.
        category: As in the record; may be empty.
    """

    sample: int
    sample_id: int
    first_example: int
    mask: Mask
    box: tuple[float, float, float, float]
    sentences: tuple[str, ...]
    category: str


class Candidate(NamedTuple):
    """A mask proposed for an instance. `Candidate.from_mask` makes one from pixels.

    Attributes:
        proposer: Name of the proposer.
        ends: [R] int32 run ends of the mask, as `masks.rle.run_ends` gives them.
        size: H and W of the mask.
        score: The proposer's own estimate of the quality, 0…1; NaN where it has none.
    """

    proposer: str
    ends: Runs
    size: tuple[int, int]
    score: float = math.nan

    @classmethod
    def from_mask(cls, proposer: str, mask: Mask, score: float = math.nan) -> Candidate:
        """Encode a mask.

        Args:
            proposer: Name of the proposer.
            mask: [H, W] bool.
            score: As in the attributes.

        Raises:
            DataError: The mask is not [H, W] bool.

        >>> Candidate.from_mask("mine", np.array([[False, True], [False, True]])).ends
        array([2, 4], dtype=int32)
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise DataError(
                f"proposer {proposer}: a mask must be [H, W] bool, not {mask.dtype} {list(mask.shape)}"
            )
        return cls(proposer, run_ends(mask), (mask.shape[0], mask.shape[1]), score)


class Refused(NamedTuple):
    """A proposal that cannot be used.

    Attributes:
        proposer: Name of the proposer.
        reason: What is wrong with the proposal, for the audit.
    """

    proposer: str
    reason: str


Proposals = list[Candidate | Refused]


class Proposer(Protocol):
    """A source of candidate masks. It is pickled to the workers, so it should load large things on first use.

    Attributes:
        name: Unique among the proposers of a construction.
        needs_picture: Whether `propose` looks at the picture.
    """

    name: str
    needs_picture: bool

    def identity(self) -> dict[str, Any]:
        """Everything that decides its proposals, as JSON values: shown on the dataset card, compared when resuming."""

    def propose(
        self, picture: NDArray[np.uint8] | None, instances: Sequence[Instance]
    ) -> list[Proposals]:
        """Propose masks for the instances of one image.

        Args:
            picture: [H, W, 3] RGB; None where it is not needed.
            instances: At least one, all of this image; every mask is [H, W] and not empty.

        Returns:
            One list for each instance, with every proposal, usable or refused.
        """
