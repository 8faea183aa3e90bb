"""Polygons in, a compressed RLE out; pycocotools draws them."""

from __future__ import annotations

import math
from typing import Any

from refcocom_gpu.errors import OutsideError, RLEError
from refcocom_gpu.masks.rle import check_counts


def rasterise(
    polygons: list[Any], height: int, width: int, scale: str | None
) -> tuple[int, int, bytes]:
    """Convert the COCO polygons of one mask to (H, W, compressed counts).

    Args:
        polygons: `[[x1, y1, x2, y2, …], …]`; the mask is their union. An empty list is an empty mask.
        height: H of the image; polygons do not hold it.
        width: W of the image.
        scale: The unit of the coordinates, `pixels` or `normalized`; None is an error.

    Raises:
        RLEError: The scale is not declared, or a polygon is malformed.
        OutsideError: A polygon in pixels has a corner far outside the image.
    """
    if scale is None:
        raise RLEError(
            "mask is a list of polygons, and their scale is not declared: "
            "pass polygons=pixels or polygons=normalized"
        )
    scaled = []
    for k, polygon in enumerate(polygons):
        if not isinstance(polygon, list) or not all(map(_is_number, polygon)):
            raise RLEError(f"polygon {k} is not a list of finite numbers [x1, y1, x2, y2, …]")
        if len(polygon) < 6 or len(polygon) % 2:
            raise RLEError(
                f"polygon {k} has {len(polygon)} numbers; at least three points are needed"
            )
        if scale == "normalized":
            if not all(0 <= c <= 1 for c in polygon):
                raise RLEError(f"polygon {k} has coordinates outside 0…1, but polygons=normalized")
            polygon = [c * (width, height)[i % 2] for i, c in enumerate(polygon)]
        # pycocotools allocates memory by the length of an edge.
        elif not all(-width - height <= c <= 2 * (width + height) for c in polygon):
            raise OutsideError(f"polygon {k} lies far outside the image of {height}×{width} pixels")
        scaled.append([float(c) for c in polygon])
    if not scaled:
        return height, width, check_counts([height * width])
    from pycocotools import mask as coco

    merged = coco.merge(coco.frPyObjects(scaled, height, width))
    return height, width, merged["counts"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
