"""The masks that one output holds in, one mask out: several are combined only as declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import AnswerError
from refcocom_gpu.masks.polygons import Points, is_number
from refcocom_gpu.predictions.combine import combine_masks


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
    """
    masks = [candidate.mask for candidate in candidates]
    joined = combine_masks(masks, [candidate.score for candidate in candidates], combine=combine)
    return np.zeros((height, width), np.bool_) if joined is None else joined


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
