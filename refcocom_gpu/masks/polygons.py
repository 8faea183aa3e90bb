"""Polygons in, a compressed RLE out; pycocotools draws them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import OutsideError, RLEError

Points = NDArray[np.float64]
"""[P, 2] x and y of the points of one polygon."""


def parse_polygons(polygons: list[Any]) -> list[Points]:
    """Return the points of the COCO polygons of one mask.

    Args:
        polygons: `[[x1, y1, x2, y2, …], …]`.

    Raises:
        RLEError: There is no polygon, or one is malformed.

    >>> parse_polygons([[0, 0, 4, 0, 4, 2]])[0].tolist()
    [[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]]
    """
    if not polygons:
        raise RLEError("mask is an empty list of polygons; null is an explicit empty mask")
    parsed = []
    for k, polygon in enumerate(polygons):
        if isinstance(polygon, dict):
            raise RLEError(
                f"entry {k} of the list is an object, as RLE is, and others are polygons"
            )
        if not isinstance(polygon, list) or not all(map(is_number, polygon)):
            raise RLEError(f"polygon {k} is not a list of finite numbers [x1, y1, x2, y2, …]")
        if len(polygon) < 6 or len(polygon) % 2:
            raise RLEError(
                f"polygon {k} has {len(polygon)} numbers; at least three points are needed"
            )
        parsed.append(np.array(polygon, np.float64).reshape(-1, 2))
    return parsed


def rasterise(
    polygons: Sequence[Points], height: int, width: int, scale: str | None
) -> tuple[int, int, bytes]:
    """Convert the polygons of one mask to (H, W, compressed counts).

    Args:
        polygons: From `parse_polygons`, at least one; the mask is their union.
        height: H of the image; polygons do not hold it.
        width: W of the image.
        scale: The unit of the coordinates, `pixels` or `normalized`; None is an error.

    Raises:
        RLEError: The scale is not declared, or a polygon does not fit it.
        OutsideError: A polygon in pixels has a corner far outside the image.
    """
    if scale is None:
        raise RLEError(
            "mask is a list of polygons, and their scale is not declared: "
            "pass polygons=pixels or polygons=normalized"
        )
    scaled = []
    for k, points in enumerate(polygons):
        if scale == "normalized":
            if points.min() < 0 or points.max() > 1:
                raise RLEError(f"polygon {k} has coordinates outside 0…1, but polygons=normalized")
            points = points * (width, height)
        # pycocotools allocates memory by the length of an edge.
        elif points.min() < -width - height or points.max() > 2 * (width + height):
            raise OutsideError(f"polygon {k} lies far outside the image of {height}×{width} pixels")
        scaled.append(points.ravel().tolist())
    from pycocotools import mask as coco

    merged = coco.merge(coco.frPyObjects(scaled, height, width))
    return height, width, merged["counts"]


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that float64 can hold; a whole number of JSON may be larger."""
    largest = sys.float_info.max
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and -largest <= value <= largest
