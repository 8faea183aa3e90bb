"""A model's answer and the true mask in, exact counts out, one example at a time; then counts in, scores out.

An answer that is missing or cannot be read counts as an empty mask, and `n_unread` says how many there were: a harness
scores what a model said when all is over, and must not lose a run to one answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refcocom_gpu.adapters.combine import combined
from refcocom_gpu.adapters.sources import reader_of
from refcocom_gpu.errors import AnswerError, UsageError
from refcocom_gpu.integrations.truths import store_of_masks
from refcocom_gpu.predictions.answers import KEEP
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scorer import count
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.conventions import get_convention

COUNTS = ("intersection", "pred_area", "target_area")
PRECISIONS = {f"precision_at_{x}": x for x in metrics.PRECISION_THRESHOLDS}
SCORES = ("miou", "ciou", *PRECISIONS, "n_examples", "n_unread")
"""What `scores_of` gives, in its order."""

_PATH = "M 0 0 h 1 v 1 h -1 z"
_PROBES = (
    [[0, 0], [1, 0], [1, 1]],
    [{"polygon": [[0, 0], [1, 0], [1, 1]]}],
    {"path": _PATH, "bbox": {"x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1}},
    _PATH,
)
"""Answers of several sources. Those of the source in use show whether an option that it always needs is missing."""


class Judged(NamedTuple):
    """What one answer counts.

    Attributes:
        iou: Intersection over union, 0…1; 1 where both masks are empty.
        intersection: Pixels in both masks.
        pred_area: Pixels in the predicted mask.
        target_area: Pixels in the true mask.
        unread: Why the answer counts as an empty mask although it does not say so; empty if it was read.
    """

    iou: float
    intersection: int
    pred_area: int
    target_area: int
    unread: str


class AnswerJudge:
    """Reads the answers of one model.

    Args:
        source: How answers are written: a name of the table in `adapters.sources`.
        combine: `union` or `best`, for answers that hold several masks; without it these cannot be read.
        options: Those of the source, such as `version=3`.

    Raises:
        UsageError: The source or an option is unknown, or one that every answer needs is missing.

    >>> judge = AnswerJudge("points", scale="pixels")
    >>> truth = {"size": [4, 4], "counts": [0, 8, 8]}
    >>> judge("It is at [[0, 0], [4, 0], [4, 2], [0, 2]].", truth)
    Judged(iou=0.333..., intersection=4, pred_area=8, target_area=8, unread='')
    >>> judge("I see none.", truth).unread
    "no JSON object or list in the answer: 'I see none.'"
    """

    def __init__(self, source: str, combine: str | None = None, **options: Any) -> None:
        if options.get("boxes") == KEEP:
            raise UsageError(f"boxes={KEEP} leaves boxes; the harnesses score masks")
        ReadOptions(combine=combine)
        self._combine = combine
        self._read = reader_of(source, options)
        for probe in _PROBES:
            with contextlib.suppress(AnswerError):
                self._read(probe, 4, 4)

    def __call__(self, answer: Any, truth: Mapping[str, Any]) -> Judged:
        """Count one answer.

        Args:
            answer: The text of the answer, or the JSON in it; None or an empty text where there is none.
            truth: The true mask, COCO RLE.

        Raises:
            UsageError: The truth is no mask.
        """
        store = store_of_masks([truth])
        height, width = int(store.heights[0]), int(store.widths[0])
        mask, unread = None, ""
        try:
            if answer is None or (isinstance(answer, str) and not answer.strip()):
                raise AnswerError("there is no answer")
            mask = combined(self._read(answer, height, width), height, width, self._combine)
        except (AnswerError, UsageError) as error:
            unread = str(error)
        counted = count([(0, mask)], store, ReadOptions(threads=1))
        intersection, pred_area = counted.counts[0].tolist()
        target_area = int(store.areas[0])
        iou = float(_ious([(intersection, pred_area, target_area)])[0])
        return Judged(iou, intersection, pred_area, target_area, unread)


def scores_of(judged: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores of some examples by the official convention.

    Args:
        judged: For each example a mapping with the fields of `Judged`.

    Returns:
        `miou`, `ciou` and `precision_at_0.5` … in 0…1, as `score` gives them for the same masks; `n_examples`, all
        that were judged, and `n_unread`, those of them whose answer was missing or could not be read.

    >>> one = Judged(0.5, 4, 8, 4, "")._asdict()
    >>> scores_of([one, Judged(0.0, 0, 0, 4, "there is no answer")._asdict()])
    {'miou': 0.25, 'ciou': 0.333..., 'precision_at_0.5': 0.5, ..., 'n_examples': 2, 'n_unread': 1}
    """
    rows = list(judged)
    counts = [tuple(int(row[name]) for name in COUNTS) for row in rows]
    columns = np.array(counts, np.int64).reshape(-1, len(COUNTS)).T
    ious, empty = _ious(counts), get_convention("official").empty
    return {
        "miou": metrics.mean(ious),
        "ciou": metrics.ciou(*columns, empty=empty),
        **{f"precision_at_{x}": share for x, share in metrics.precision_at(ious).items()},
        "n_examples": len(rows),
        "n_unread": sum(bool(row["unread"]) for row in rows),
    }


def _ious(counts: list[tuple[int, ...]]) -> Any:
    columns = np.array(counts, np.int64).reshape(-1, len(COUNTS)).T
    return metrics.iou(*columns, empty=get_convention("official").empty)
