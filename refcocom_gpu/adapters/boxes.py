"""The boxes that one answer holds in, one box in pixels out: what `boxes=keep` makes of answers with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from refcocom_gpu.errors import AnswerError, UsageError
from refcocom_gpu.masks.polygons import is_number
from refcocom_gpu.predictions.boxes import Corners, fits_image
from refcocom_gpu.predictions.polygon_scale import BEYOND


class BoxCandidate(NamedTuple):
    """A box that an answer holds for its expression.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the image, half-open.
        score: What `best` goes by; None where the answer has none.
    """

    box: Corners
    score: float | None = None


def box_of(
    edges: Sequence[Any], height: int, width: int, unit: tuple[float, float], score: float | None
) -> BoxCandidate:
    """Return a box of an answer in pixels.

    Args:
        edges: x0, y0, x1, y1 in the unit.
        height: H of the image.
        width: W of the image.
        unit: What x is at the right edge of the image and y at the lower one.
        score: Of the box.

    Raises:
        AnswerError: It is no box, covers nothing, or reaches beyond its image by more than `predictions.boxes` allows.

    >>> box_of([250, 0, 500, 1000], 2, 4, (1000.0, 1000.0), None).box
    (1.0, 0.0, 2.0, 2.0)
    """
    if len(edges) != 4 or not all(map(is_number, edges)):
        raise AnswerError(f"box is {edges!r:.60}, not four finite numbers")
    x0, y0, x1, y1 = map(float, edges)
    if x0 >= x1 or y0 >= y1:
        raise AnswerError(f"box is {edges!r:.60}, not x0 < x1 and y0 < y1")
    # The product first: 29 / 1000 * 1000 is below 29.
    box = x0 * width / unit[0], y0 * height / unit[1], x1 * width / unit[0], y1 * height / unit[1]
    if not fits_image(box, (height, width)):
        raise AnswerError(
            f"box is {edges!r:.60}, which reaches beyond the image of {height}×{width} pixels by more than "
            f"{BEYOND:.1%} of a side"
        )
    return BoxCandidate(box, score)


def one_box(candidates: Sequence[BoxCandidate], combine: str | None) -> Corners | None:
    """Return the box of an answer; None where it names no object.

    Args:
        candidates: Of the answer.
        combine: `best`; of equal scores, the first is best. None refuses several boxes.

    Raises:
        UsageError: There are several boxes and `combine` does not choose one of them.

    >>> one_box([BoxCandidate((0, 0, 1, 1), 0.4), BoxCandidate((2, 0, 3, 1), 0.5)], "best")
    (2, 0, 3, 1)
    """
    if len(candidates) < 2:
        return candidates[0].box if candidates else None
    if combine != "best":
        why = "their union is no box; " if combine == "union" else ""
        raise UsageError(
            f"{len(candidates)} boxes for one expression; {why}pass combine=best (the one with the highest score, of "
            "equal ones the first)"
        )
    scores = [candidate.score for candidate in candidates if candidate.score is not None]
    if len(scores) < len(candidates):
        n = len(candidates) - len(scores)
        raise UsageError(
            f"combine=best needs a score for each box, and {n} of {len(candidates)} have none"
        )
    return candidates[scores.index(max(scores))].box
