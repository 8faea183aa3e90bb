"""Qwen-VL: JSON objects with polygons or boxes in, a mask for each object out; the coordinates depend on the version.

- Qwen2-VL and Qwen3-VL: 0…1000 of the image (QwenLM/Qwen3-VL, issue 189 and README: "relative coordinates ranging from
  0 to 1000"). Alibaba's documentation of Qwen3-VL says 0…999 (issue 1741); the README's divisor is used.
- Qwen2.5-VL: pixels of the image as the processor resized it (issue 676: "the size after processer";
  cookbooks/spatial_understanding.ipynb: `image_grid_thw` × 14). That size differs from image to image, so it comes with
  each answer.

The cookbooks name `bbox_2d`, [x0, y0, x1, y1], and `point_2d`. No key for polygons is documented: `points`, `polygon`
and `polygons` are read. A box is no mask, and a point covers no pixels. With `boxes=keep`, predictions are the boxes.

Qwen2-VL also writes boxes in its text, `<|object_ref_start|>the cup<|object_ref_end|>` before each
`<|box_start|>(x0,y0),(x1,y1)<|box_end|>` (arXiv 2409.12191, "Visual Grounding").
"""

from __future__ import annotations

import re
from typing import Any

from refcocom_gpu.adapters.boxes import BoxCandidate, box_of
from refcocom_gpu.adapters.combine import Candidate, score_of
from refcocom_gpu.adapters.points import NAMES, draw, objects_of, polygons_in, to_polygons
from refcocom_gpu.errors import AnswerError, UsageError
from refcocom_gpu.masks.polygons import is_number
from refcocom_gpu.predictions.answers import KEEP
from refcocom_gpu.predictions.options import UNITS

VERSIONS = ("2", "2.5", "3")

BOXES = ("fill",)
"""What may be made of a box: the mask of all its pixels."""

_TEXT_BOX = re.compile(r"<\|box_start\|>(.*?)(<\|box_end\|>|\Z)", re.DOTALL)
_CORNERS = re.compile(r"\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*")


def masks_of(
    output: Any,
    height: int,
    width: int,
    *,
    version: str | float | None = None,
    processed_size: Any = None,
    boxes: str | None = None,
) -> list[Candidate]:
    """Return the masks of an answer.

    Args:
        output: A list of objects, or one; parsed JSON. An empty list says that there is no such object. Or the text
            of Qwen2-VL with boxes.
        height: H of the image.
        width: W of the image.
        version: 2, 2.5 or 3.
        processed_size: [height, width] of the image after the processor; needed for 2.5, refused for the others.
        boxes: `fill` takes a box for the mask of all its pixels. None refuses boxes.

    Returns:
        A mask for each object.

    Raises:
        AnswerError: An object has no polygon, or one that does not fit the coordinates.
        UsageError: The version is not declared, or the processed size is missing.

    >>> box = [{"bbox_2d": [0, 0, 14, 28], "label": "cup"}]
    >>> masks_of(box, 2, 4, version=2.5, processed_size=[28, 28], boxes="fill")[0].mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    name = check_version(version)
    if boxes is not None and boxes not in BOXES:
        raise UsageError(f"boxes must be {' or '.join((*BOXES, KEEP))}, not {boxes!r}")
    if isinstance(output, str):
        output = _boxes_in(output, name)
    unit = _unit(name, processed_size)
    return [
        draw(to_polygons(_polygons(entry, boxes)), height, width, unit, score_of(entry))
        for entry in objects_of(output)
    ]


def boxes_of(
    output: Any,
    height: int,
    width: int,
    *,
    version: str | float | None = None,
    processed_size: Any = None,
) -> list[BoxCandidate]:
    """Return the boxes of an answer, as `masks_of` returns masks.

    Raises:
        AnswerError: An object has no box, or one that does not fit the coordinates.
        UsageError: As of `masks_of`.

    >>> boxes_of([{"bbox_2d": [0, 0, 14, 28]}], 2, 4, version=2.5, processed_size=[28, 28])[0].box
    (0.0, 0.0, 2.0, 2.0)
    """
    name = check_version(version)
    if isinstance(output, str):
        output = _boxes_in(output, name)
    unit = _unit(name, processed_size)
    found = []
    for entry in objects_of(output):
        box = _box(entry)
        if isinstance(unit, float):
            if not all(is_number(edge) and 0 <= edge <= unit for edge in box):
                raise AnswerError(f"bbox_2d is {box!r:.60}, not in 0…{unit:g}")
            found.append(box_of(box, height, width, (unit, unit), score_of(entry)))
        else:
            found.append(box_of(box, height, width, unit, score_of(entry)))
    return found


def check_version(version: str | float | None = None, **_: Any) -> str:
    """Return the version as `VERSIONS` has it; the other options do not matter.

    Raises:
        UsageError: It is not declared, or unknown.

    >>> check_version(3.0)
    '3'
    """
    name = str(version).removesuffix(".0")
    if name not in VERSIONS:
        raise UsageError(
            "Qwen-VL needs version=2, version=2.5 or version=3: 2 and 3 write 0…1000, 2.5 writes pixels of the "
            f"processed image; not {version!r}"
        )
    return name


def _boxes_in(text: str, version: str) -> list[dict[str, Any]]:
    """Return the boxes that stand in a text, as the JSON of the other versions has them."""
    found = _TEXT_BOX.findall(text)
    if not found:
        raise AnswerError(f"no JSON and no <|box_start|> in the answer: {text.strip()[:60]!r}")
    if version != "2":
        raise UsageError(f"boxes in the text are written by version=2, not by version={version}")
    boxes = []
    for corners, end in found:
        match = _CORNERS.fullmatch(corners)
        if not end:
            raise AnswerError("its text is cut off within a box; allow the model more tokens")
        if match is None:
            raise AnswerError(f"the box is {corners[:60]!r}, not (x0,y0),(x1,y1)")
        boxes.append({"bbox_2d": [float(number) for number in match.groups()]})
    return boxes


def _unit(version: str, processed_size: Any) -> float | tuple[float, float]:
    """Return the unit of coordinates, as `points.draw` takes it."""
    if version == "2.5":
        return _processed(processed_size)
    if processed_size is not None:
        raise UsageError(f"processed_size is for version=2.5; version={version} writes 0…1000")
    return UNITS["thousandths"]


def _processed(size: Any) -> tuple[float, float]:
    """Return x and y of the lower right corner of the processed image."""
    if size is None:
        raise UsageError(
            "version=2.5 writes pixels of the processed image: give processed_size=[height, width] with each answer "
            "(image_grid_thw × 14)"
        )
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(
            isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size
        )
    ):
        raise UsageError(f"processed_size is {size!r:.40}, not [height, width] in pixels")
    return float(size[1]), float(size[0])


def _polygons(entry: dict[str, Any], boxes: str | None) -> Any:
    if any(entry.get(name) is not None for name in NAMES):
        return polygons_in(entry)
    if entry.get("bbox_2d") is None:
        return polygons_in(entry)
    box = _box(entry)
    if boxes is None:
        raise AnswerError(
            "the object has a box and no polygon; boxes=fill takes all pixels of a box, boxes=keep leaves it a box"
        )
    x0, y0, x1, y1 = box
    rectangle = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    (corners,) = to_polygons(rectangle)
    if not (corners[0] < corners[2]).all():
        raise AnswerError(f"bbox_2d is {box}, not [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
    return rectangle


def _box(entry: dict[str, Any]) -> list[Any]:
    """Return the four edges of an object, as they are."""
    box = entry.get("bbox_2d")
    if not isinstance(box, list) or len(box) != 4:
        raise AnswerError(f"bbox_2d is {box!r:.60}, not [x0, y0, x1, y1]")
    return box
