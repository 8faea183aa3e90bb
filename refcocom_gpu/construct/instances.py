"""What the stages of a construction hand to each other: a referred instance, and the masks proposed for it.

Letters: `H` × `W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


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
        category: As the record has it, maybe empty.
    """

    sample: int
    sample_id: int
    first_example: int
    mask: Mask
    box: tuple[float, float, float, float]
    sentences: tuple[str, ...]
    category: str


class Candidate(NamedTuple):
    """A mask proposed for an instance.

    Attributes:
        proposer: Name of who proposes it.
        mask: [H, W] bool, not empty.
        score: What the proposer thinks of it, 0…1; NaN where it says nothing.
    """

    proposer: str
    mask: Mask
    score: float


class Refused(NamedTuple):
    """A proposal that cannot be used.

    Attributes:
        proposer: Name of who made it.
        reason: What is wrong with it, for the audit.
    """

    proposer: str
    reason: str


Proposals = list[Candidate | Refused]


class Proposer(Protocol):
    """Where candidate masks come from. It is pickled to the workers, so what is heavy is opened where it is used.

    Attributes:
        name: Unique among the proposers of a construction.
        needs_picture: Whether `propose` looks at the picture.
    """

    name: str
    needs_picture: bool

    def identity(self) -> dict[str, Any]:
        """All that decides its proposals, JSON values: what the dataset card states and a resumed run compares."""

    def propose(
        self, picture: NDArray[np.uint8] | None, instances: Sequence[Instance]
    ) -> list[Proposals]:
        """Propose masks for the instances of one image.

        Args:
            picture: [H, W, 3] RGB; None where it is not needed.
            instances: Of this image, at least one; all masks are [H, W].

        Returns:
            A list for each instance; every proposal is there, usable or refused.
        """
