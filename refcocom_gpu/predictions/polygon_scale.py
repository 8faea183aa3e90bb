"""The polygons of a set of predictions in; a problem out where the set is on another scale than pixels.

One polygon may overshoot its image, so the scale is judged when all polygons of the set were seen. Coordinates of
0…1000 are recognised on images that are smaller than that, and not on larger ones, where they can be pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refcocom_gpu.errors import Problems, RLEError
from refcocom_gpu.masks.polygons import Points

BEYOND = 1 / 8
"""A prediction reaches beyond its image if it does by more than this part of a side; a few pixels are legitimate."""

BEYOND_PIXELS = 4
"""And by more than this, since an eighth of the side of a tiny image is less than a pixel."""

SHARE_BEYOND = 1 / 4
"""The set is on another scale if this part of it reaches beyond: on 640×480, coordinates of 0…1000 do so for every
object whose right end is beyond 72 % of the width or whose lower end is beyond 54 % of the height."""

TINY = 8
"""Where no image has a side of more pixels than this, polygons around the first pixel are no sign of another scale."""

SCALES = (
    "polygons=pixels takes x, y in pixels of the image and polygons=normalized 0…1 of its width and height; "
    "divide coordinates of 0…1000 by 1000 and declare polygons=normalized"
)
"""What to do about another scale."""


class PolygonScale:
    """Judges the scale of the polygons of one set that was declared to be in pixels."""

    def __init__(self) -> None:
        self.n_predictions = 0
        self.n_beyond = 0
        self.largest = -np.inf
        self.largest_side = 0

    def see(self, polygons: Sequence[Points], height: int, width: int) -> None:
        """Take in one prediction in pixels.

        Args:
            polygons: Of the prediction, at least one.
            height: H of its image.
            width: W of its image.

        Raises:
            RLEError: A polygon lies wholly outside the image; touching it is not outside.

        >>> from refcocom_gpu.masks.polygons import parse_polygons
        >>> scale = PolygonScale()
        >>> scale.see(parse_polygons([[0, 0, 990, 0, 990, 400]]), 480, 640)
        >>> scale.n_predictions, scale.n_beyond
        (1, 1)
        """
        side = np.array([width, height])
        lows = np.stack([points.min(axis=0) for points in polygons])
        highs = np.stack([points.max(axis=0) for points in polygons])
        reach = np.maximum(-lows, highs - side).max(axis=0)
        self.n_predictions += 1
        self.n_beyond += bool((reach > np.maximum(side * BEYOND, BEYOND_PIXELS)).any())
        self.largest = max(self.largest, float(highs.max()))
        self.largest_side = max(self.largest_side, height, width)
        for k in np.flatnonzero(((lows > side) | (highs < 0)).any(axis=1)).tolist():
            raise RLEError(
                f"polygon {k} lies outside the image of {height}×{width} pixels; {SCALES}"
            )

    def judge(self, source: str, problems: Problems) -> None:
        """Record a problem if the set, whose name is `source`, is on another scale."""
        if not self.n_predictions:
            return
        if self.largest <= 1 and self.largest_side > TINY:
            reason = (
                f"no coordinate of {self.n_predictions} predictions with polygons exceeds 1, "
                "so they are normalized"
            )
        elif self.n_beyond >= SHARE_BEYOND * self.n_predictions:
            reason = (
                f"{self.n_beyond} of {self.n_predictions} predictions with polygons reach beyond their image "
                f"by more than {BEYOND:.1%} of its side, so they are not in pixels"
            )
        else:
            return
        problems.add("polygon scale", source, f"{reason}; {SCALES}")
