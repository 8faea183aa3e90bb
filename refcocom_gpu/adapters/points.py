"""Point lists in, masks out; their scale is declared, never guessed. Other sources with polygons draw them here.

A polygon is `[[x, y], …]` or flat `[x, y, x, y, …]`. A list of polygons is the parts of one mask. Objects with
`points`, `polygon` or `polygons`, and a `score` if they have one, are a mask each.

The scale cannot be told from the numbers: 0…1000 and pixels of an image of 640×480 overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_gpu.adapters.combine import Candidate, score_of
from refcocom_gpu.errors import AnswerError, RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.polygons import Points, parse_polygons, rasterise
from refcocom_gpu.predictions.options import SCALES, UNITS
from refcocom_gpu.predictions.polygon_scale import PolygonScale

NAMES = ("points", "polygon", "polygons")
"""The keys under which an object may carry its polygons."""


def masks_of(output: Any, height: int, width: int, *, scale: str | None = None) -> list[Candidate]:
    """Return the masks of point lists.

    Args:
        output: See above; parsed JSON.
        height: H of the image.
        width: W of the image.
        scale: One of `SCALES`.

    Returns:
        A mask for each object; one for polygons without an object.

    Raises:
        AnswerError: The output holds no polygons, or they do not fit the scale.
        UsageError: No scale is declared.

    >>> masks_of([[0, 0], [500, 0], [500, 1000], [0, 1000]], 2, 4, scale="thousandths")[0].mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    if scale not in SCALES:
        raise UsageError(
            f"point lists need scale={' or scale='.join(SCALES)}: pixels of the image, 0…1 or 0…1000 of its width "
            f"and height; not {scale!r}"
        )
    unit = UNITS.get(scale)
    if not is_objects(output):
        return [draw(to_polygons(output), height, width, unit)]
    return [
        draw(to_polygons(polygons_in(entry)), height, width, unit, score_of(entry))
        for entry in objects_of(output)
    ]


def is_objects(output: Any) -> bool:
    """Return whether an output is an object or a list of them, rather than bare numbers."""
    return isinstance(output, dict) or (
        isinstance(output, list) and bool(output) and all(isinstance(e, dict) for e in output)
    )


def objects_of(output: Any) -> list[dict[str, Any]]:
    """Return the objects of an output that is one or a list of them; an empty list names none.

    Raises:
        AnswerError: It is something else.

    >>> objects_of({"label": "cat"})
    [{'label': 'cat'}]
    """
    entries = [output] if isinstance(output, dict) else output
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnswerError(f"the answer is {output!r:.60}, not a list of objects")
    return entries


def polygons_in(entry: dict[str, Any]) -> Any:
    """Return what an object carries under one of `NAMES`.

    Raises:
        AnswerError: It carries none or several.
    """
    found = [name for name in NAMES if entry.get(name) is not None]
    if len(found) != 1:
        raise AnswerError(
            f"the object has {', '.join(entry) or 'nothing'}, not one of {', '.join(NAMES)}"
        )
    return entry[found[0]]


def to_polygons(value: Any) -> list[Points]:
    """Return the polygons of any of the forms above, in the order of their numbers.

    Raises:
        AnswerError: The value is something else, or a polygon has fewer than three points.

    >>> [p.tolist() for p in to_polygons([[[0, 0], [4, 0], [4, 2]], [0, 0, 1, 0, 1, 1]])]
    [[[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]], [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]]
    """
    if not isinstance(value, list | tuple) or not value:
        raise AnswerError(f"polygons are {value!r:.60}, not a list of points [[x, y], …]")
    one_polygon = _is_pairs(value) or not any(isinstance(part, list | tuple) for part in value)
    polygons = [value] if one_polygon else value
    try:
        return parse_polygons([_flat(polygon) for polygon in polygons])
    except RLEError as error:
        raise AnswerError(str(error)) from None


def _is_pairs(polygon: Any) -> bool:
    return isinstance(polygon, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in polygon
    )


def _flat(polygon: Any) -> Any:
    if _is_pairs(polygon):
        return [number for pair in polygon for number in pair]
    return list(polygon) if isinstance(polygon, tuple) else polygon


def draw(
    polygons: list[Points],
    height: int,
    width: int,
    unit: float | tuple[float, float] | None,
    score: float | None = None,
) -> Candidate:
    """Draw the polygons of one mask as pycocotools does, like polygons in prediction files.

    Args:
        polygons: From `to_polygons`.
        height: H of the image.
        width: W of the image.
        unit: What x is at the right edge and y at the lower one: a number for both, which no point may exceed; (x, y)
            pixels of another size of the image; or None for pixels of the image. A point in pixels may overshoot.
        score: Of the mask.

    Raises:
        AnswerError: A polygon does not fit the unit.
    """
    try:
        if isinstance(unit, float):
            for points in polygons:
                if points.min() < 0 or points.max() > unit:
                    raise AnswerError(
                        f"a point has coordinates from {points.min():g} to {points.max():g}, outside 0…{unit:g}"
                    )
        scaled = polygons
        if unit is not None:
            scaled = [points * (width, height) / np.array(unit) for points in polygons]
        in_pixels = not isinstance(unit, float)
        if in_pixels:
            PolygonScale().see(scaled, height, width)
        h, w, counts = rasterise(scaled, height, width, "pixels")
    except RLEError as error:
        raise AnswerError(str(error)) from None
    return Candidate(
        rle.decode({"size": [h, w], "counts": counts}), score, scaled if in_pixels else None
    )
