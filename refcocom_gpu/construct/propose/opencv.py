"""The parts of OpenCV that proposers share. OpenCV is an optional dependency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.construct.instances import Mask
from refcocom_gpu.utils.optional import require


def open_cv() -> Any:
    """Return the module `cv2`.

    Raises:
        UsageError: OpenCV is not installed.
    """
    return require("cv2", "a construction needs OpenCV", "construct")


def depths(mask: Mask) -> NDArray[np.float32]:
    """Return the distance of each pixel to the nearest unset one. Pixels beyond the picture count as unset.

    Args:
        mask: [H, W] bool.

    Returns:
        [H, W] float32, pixels; 0 where the mask is not set.

    Raises:
        UsageError: OpenCV is not installed.

    >>> depths(np.ones((3, 3), np.bool_))
    array([[1., 1., 1.],
           [1., 2., 1.],
           [1., 1., 1.]], dtype=float32)
    """
    cv2 = open_cv()
    padded = np.pad(mask, 1).view(np.uint8)
    distances: NDArray[np.float32] = cv2.distanceTransform(
        padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return distances[1:-1, 1:-1]


def deepest_point(mask: Mask) -> tuple[int, int]:
    """Return the set pixel farthest from unset ones; of several, the first in reading order.

    Args:
        mask: [H, W] bool, not empty.

    Returns:
        x and y.

    Raises:
        UsageError: OpenCV is not installed.

    >>> deepest_point(np.ones((3, 5), np.bool_))
    (1, 1)
    """
    y, x = np.unravel_index(np.argmax(depths(mask)), mask.shape)
    return int(x), int(y)
