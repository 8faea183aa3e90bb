"""COCO RLE in, masks out: one object or a list of them, each with a `score` if it has one."""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.combine import Candidate, score_of
from refcocom_gpu.adapters.points import objects_of
from refcocom_gpu.errors import AnswerError, RLEError
from refcocom_gpu.masks import rle


def masks_of(output: Any, height: int, width: int) -> list[Candidate]:
    """Return the masks of a list of RLE objects, as models that find several objects give them.

    Args:
        output: `{"size": [H, W], "counts": …}` or a list of such; parsed JSON.
        height: H of the image.
        width: W of the image.

    Returns:
        A mask for each RLE.

    Raises:
        AnswerError: An RLE is malformed, or has another size than the image.

    >>> [c.mask.tolist() for c in masks_of([{"size": [1, 3], "counts": [1, 2]}], 1, 3)]
    [[[False, True, True]]]
    """
    candidates = []
    for entry in objects_of(output):
        try:
            ends = rle.ends_of(entry, height, width)
        except RLEError as error:
            raise AnswerError(str(error)) from None
        candidates.append(Candidate(rle.decode_ends(ends, height, width), score_of(entry)))
    return candidates
