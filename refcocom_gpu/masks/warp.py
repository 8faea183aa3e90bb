"""Logits of CRIS in, masks at the image's size out, as CRIS makes them with torch and OpenCV; in NumPy.

CRIS letterboxes an image into the middle of 416², takes the sigmoid of 104² logits, resizes it to 416² (bicubic,
corners aligned), warps it to the image (`cv2.warpAffine`, bicubic, zero outside) and cuts it at > 0.35. Neither step
mixes rows with columns, so each is four taps along one axis after the other.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Taps = tuple[NDArray[np.int64], Floats]
"""[n, 4] cells that each pixel takes, and [n, 4] their weights."""

WARPED = "warped"
"""The metric that counts such masks."""

COLUMNS = ("warped_intersection", "warped_pred_area", "target_area")
"""Columns of their counts; the true masks are those of the image's size."""

COUNTED = "warped_counted"
"""Column that holds 1 where logits of CRIS's size were counted; 0 for another prediction, or none."""

SIDE = 416
"""`config/refcoco/cris_r50.yaml: input_size`."""

LOGIT_SIDE = 104
"""Cells that its decoder gives for an input of 416²."""

THRESHOLD = 0.35
"""`engine/engine.py: validate, inference`."""

CUBIC = -0.75
"""The coefficient of the bicubic kernel of both torch and OpenCV."""


def warped(values: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of one prediction.

    Args:
        values: [104, 104] or [416, 416] float32 sigmoids of logits.
        height: H of the image.
        width: W of the image.

    Returns:
        [H, W] bool.

    >>> warped(np.full((104, 104), 0.4, np.float32), 1, 2)
    array([[ True,  True]])
    """
    if values.shape != (SIDE, SIDE):
        enlarge = _enlarging_taps(len(values))
        values = _apply(_apply(values, enlarge).T, enlarge).T
    rows, columns = (_warping_taps(height, width, axis) for axis in (0, 1))
    shares = _apply(_apply(values, rows).T, columns).T
    mask: NDArray[np.bool_] = shares > np.float32(THRESHOLD)
    return mask


def _apply(values: Floats, taps: Taps) -> Floats:
    """Return [n, m] weighted sums of rows of [k, m] values."""
    cells, weights = taps
    sums = weights[:, 0, None] * values[cells[:, 0]]
    for k in (1, 2, 3):
        sums += weights[:, k, None] * values[cells[:, k]]
    return sums


def _weights(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [n, 4] weights of the cells at −1, 0, 1 and 2 of pixels that lie by a fraction after cell 0."""
    a, t = CUBIC, np.abs(np.stack([fraction + 1, fraction, 1 - fraction, 2 - fraction], 1))
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, far)


@cache
def _enlarging_taps(cells: int) -> Taps:
    """The taps of `F.interpolate(mode="bicubic", align_corners=True)`, which repeats the cells of the border."""
    at = np.arange(SIDE) * ((cells - 1) / (SIDE - 1))
    first = np.floor(at)
    taken = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    return taken.clip(0, cells - 1), _weights(at - first).astype(np.float32)


@cache
def _warping_taps(height: int, width: int, axis: int) -> Taps:
    """The taps of `cv2.warpAffine` by the inverse of CRIS's `getTransformMat`; cells outside weigh nothing."""
    size = (height, width)[axis]
    scaled = size * min(SIDE / height, SIDE / width)
    # Its corner points are float32.
    begin, end = np.array([(SIDE - scaled) / 2, scaled + (SIDE - scaled) / 2], np.float32).tolist()
    at = np.arange(size) * ((end - begin) / size) + begin
    first = np.floor(at)
    taken = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    is_inside = (taken >= 0) & (taken < SIDE)
    return taken.clip(0, SIDE - 1), (_weights(at - first) * is_inside).astype(np.float32)
