"""Gemini: a list of `{"box_2d": [y0, x0, y1, x1], "mask": …, "label": …}` in, a mask for each entry out.

`box_2d` is in 0…1000 of the image; with `boxes=keep`, it is the prediction. `mask` comes in two forms:

- A PNG in base64, mostly behind `data:image/png;base64,`: a map of probabilities 0…255 of the inside of the box.
  Google's documentation (ai.google.dev/gemini-api/docs/image-understanding, "Segmentation") says to resize it to the
  box and to binarize it at the confidence threshold, "127 for the midpoint". Its cookbook (google-gemini/cookbook,
  quickstarts/Spatial_understanding.ipynb) resizes bilinearly with Pillow, cuts the edges of the box to whole pixels,
  and sets what is above 127. So does this module. One sample of the documentation sets what is above 128.
- A list of points in 0…1000 of the image, as Gemini 3.5 Flash and Robotics-ER 1.6 answer
  (discuss.ai.google.dev/t/146559). No documentation says whether a point is [y, x], like the box, or [x, y], as that
  thread has it; so `points=` declares it, and points outside the box are refused.

Gemini 2.5 may also print tokens, `<start_of_mask><seg_4>…`. Only Google can decode them, so that is no answer.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.adapters.boxes import BoxCandidate, box_of
from refcocom_gpu.adapters.combine import Candidate, score_of
from refcocom_gpu.adapters.points import draw, objects_of, to_polygons
from refcocom_gpu.errors import AnswerError, UsageError
from refcocom_gpu.masks.polygons import Points, is_number
from refcocom_gpu.predictions.options import UNITS, ReadOptions
from refcocom_gpu.predictions.pictures import picture_array
from refcocom_gpu.utils.optional import require

THRESHOLD = 127
"""A pixel is set above this value of 0…255: the midpoint of Google's documentation."""

POINTS = ("yx", "xy")
"""The order of the numbers of a point."""

UNIT = UNITS["thousandths"]

ROUNDING = 1.0
"""Thousandths by which a point may lie outside its box: both are rounded to whole numbers."""


def masks_of(output: Any, height: int, width: int, *, points: str | None = None) -> list[Candidate]:
    """Return the masks of an answer.

    Args:
        output: The list, or one entry; parsed JSON. An empty list says that there is no such object.
        height: H of the image.
        width: W of the image.
        points: `yx` or `xy`, the order of the numbers of a point; needed for masks of points.

    Returns:
        A mask for each entry.

    Raises:
        AnswerError: An entry has no box or no mask that can be read, or its points lie outside its box.
        UsageError: A mask is a list of points and their order is not declared, or Pillow is absent.

    >>> entry = {"box_2d": [0, 0, 1000, 500], "mask": [[0, 0], [0, 500], [1000, 500], [1000, 0]], "label": "cup"}
    >>> masks_of([entry], 2, 4, points="yx")[0].mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    if points is not None and points not in POINTS:
        raise UsageError(f"points must be {' or '.join(POINTS)}, not {points!r}")
    return [_mask_of(entry, height, width, points) for entry in objects_of(output)]


def boxes_of(output: Any, height: int, width: int) -> list[BoxCandidate]:
    """Return the boxes of an answer, whose entries may have masks too.

    Raises:
        AnswerError: An entry has no box that can be read.

    >>> boxes_of([{"box_2d": [0, 250, 1000, 500]}], 2, 4)[0].box
    (1.0, 0.0, 2.0, 2.0)
    """
    found = []
    for entry in objects_of(output):
        y0, x0, y1, x1 = _box(entry)
        found.append(box_of([x0, y0, x1, y1], height, width, (UNIT, UNIT), score_of(entry)))
    return found


def _mask_of(entry: dict[str, Any], height: int, width: int, order: str | None) -> Candidate:
    mask = entry.get("mask")
    if isinstance(mask, list):
        if order is None:
            raise UsageError(
                "a mask is a list of points, and sources disagree whether Gemini writes [y, x] or [x, y]: "
                "pass points=yx or points=xy"
            )
        polygons = to_polygons(mask)
        if "box_2d" in entry:
            _check_inside(polygons, _box(entry), order)
        if order == "yx":
            polygons = [polygon[:, ::-1] for polygon in polygons]
        return draw(polygons, height, width, UNIT, score_of(entry))
    if not isinstance(mask, str):
        raise AnswerError(f"the object has {', '.join(entry) or 'nothing'}, and no mask")
    y0, x0, y1, x1 = _box(entry)
    # The product first: 29 / 1000 * 1000 is below 29.
    top, bottom = (math.floor(y * height / UNIT) for y in (y0, y1))
    left, right = (math.floor(x * width / UNIT) for x in (x0, x1))
    if top >= bottom or left >= right:
        raise AnswerError(f"box_2d {entry['box_2d']} covers no pixel")
    canvas = np.zeros((height, width), np.bool_)
    canvas[top:bottom, left:right] = _map_of(mask, bottom - top, right - left) > THRESHOLD
    return Candidate(canvas, score_of(entry))


def _box(entry: dict[str, Any]) -> list[float]:
    """Return y0, x0, y1, x1 of an entry, in thousandths."""
    box = entry.get("box_2d")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(is_number(edge) and 0 <= edge <= UNIT for edge in box)
        or box[0] >= box[2]
        or box[1] >= box[3]
    ):
        raise AnswerError(f"box_2d is {box!r:.60}, not [y0, x0, y1, x1] in 0…1000")
    return box


def _check_inside(polygons: list[Points], box: list[float], order: str) -> None:
    """Refuse polygons that leave their box; say so if they would not in the other order."""
    low = np.array(box[:2]) - ROUNDING
    high = np.array(box[2:]) + ROUNDING

    def inside(order: str) -> bool:
        step = 1 if order == "yx" else -1
        return all(((p[:, ::step] >= low) & (p[:, ::step] <= high)).all() for p in polygons)

    if not inside(order):
        other = POINTS[1 - POINTS.index(order)]
        hint = f"; with points={other} they lie inside" if inside(other) else ""
        raise AnswerError(f"points lie outside box_2d {box} with points={order}{hint}")


def _map_of(mask: str, height: int, width: int) -> NDArray[np.uint8]:
    """Decode a map of probabilities and resize it to its box, as Google's cookbook does."""
    if "<seg_" in mask or "<start_of_mask>" in mask:
        raise AnswerError(
            "the mask is tokens (<start_of_mask>…), which only Google can decode; ask again, with thinking off"
        )
    pillow = require("PIL.Image", "masks of Gemini are PNGs, which need Pillow", "images")
    try:
        data = base64.b64decode(mask.removeprefix("data:image/png;base64,"), validate=True)
        with pillow.open(io.BytesIO(data), formats=("PNG",)) as image:
            array = picture_array(image, ReadOptions(values="probabilities"))
    except (ValueError, OSError, SyntaxError, pillow.DecompressionBombError) as error:
        reason = f"{mask[:40]!r} is no PNG in base64"
        if not isinstance(error, binascii.Error | pillow.UnidentifiedImageError):
            reason = str(error)
        raise AnswerError(f"the mask cannot be read: {reason}") from None
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype == np.uint16:
        array = array // 257
    grey = pillow.fromarray(array.astype(np.uint8))
    resized: NDArray[np.uint8] = np.asarray(
        grey.resize((width, height), pillow.Resampling.BILINEAR)
    )
    return resized
