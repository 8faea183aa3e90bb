"""The masks that one output holds in, one mask out: several are combined only as declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import AnswerError, UsageError
from refcocom_gpu.masks.polygons import Points, is_number

COMBINES = ("union", "best")
"""How several masks become one: the pixels of any, or the mask with the highest score."""


class Candidate(NamedTuple):
    """A mask that an output holds for its expression.

    Attributes:
        mask: [H, W] bool.
        score: What `best` goes by; None where the output has none.
        polygons: The polygons in pixels that were drawn. A set of them tells whether it is in pixels. None for
            anything else.
    """

    mask: NDArray[np.bool_]
    score: float | None = None
    polygons: Sequence[Points] | None = None


def check_combine(combine: str | None) -> None:
    """Refuse an unknown way to combine masks.

    Raises:
        UsageError: It is none of `COMBINES` and not None.
    """
    if combine is not None and combine not in COMBINES:
        raise UsageError(f"combine must be {' or '.join(COMBINES)}, not {combine!r}")


def combined(
    candidates: Sequence[Candidate], height: int, width: int, combine: str | None
) -> NDArray[np.bool_]:
    """Return one mask.

    Args:
        candidates: None are an empty mask; one is returned as it is.
        height: H of the image.
        width: W of the image.
        combine: `union` or `best`; of equal scores, the first is best. None refuses several masks.

    Returns:
        [H, W] bool.

    Raises:
        UsageError: There are several masks and `combine` is None, `best` has no scores, or `combine` is unknown.

    >>> left, right = np.array([[True, False]]), np.array([[False, True]])
    >>> two = [Candidate(left, 0.4), Candidate(right, 0.4)]
    >>> combined(two, 1, 2, "union").tolist(), combined(two, 1, 2, "best").tolist()
    ([[True, True]], [[True, False]])
    >>> combined(two, 1, 2, None)
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: 2 masks for one expression; pass combine=union for the pixels of all, or
    combine=best for the mask with the highest score
    """
    check_combine(combine)
    if not candidates:
        return np.zeros((height, width), np.bool_)
    if len(candidates) == 1:
        return candidates[0].mask
    if combine is None:
        raise UsageError(
            f"{len(candidates)} masks for one expression; pass combine=union for the pixels of all, or "
            "combine=best for the mask with the highest score"
        )
    if combine == "union":
        union: NDArray[np.bool_] = np.logical_or.reduce([c.mask for c in candidates])
        return union
    scores = [c.score for c in candidates if c.score is not None]
    if len(scores) < len(candidates):
        raise UsageError(
            f"combine=best needs a score of each of the {len(candidates)} masks, and {len(scores)} have one; "
            "combine=union needs none"
        )
    return candidates[int(np.argmax(scores))].mask


def score_of(entry: Mapping[str, Any]) -> float | None:
    """Return the `score` of an entry, None if it has none.

    Raises:
        AnswerError: It is no finite number.
    """
    score = entry.get("score")
    if score is None:
        return None
    if not is_number(score):
        raise AnswerError(f"score is {score!r:.40}, not a number")
    return float(score)
