"""A mask in; the mask without small islands and holes out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.construct.instances import Mask
from refcocom_gpu.construct.propose.opencv import open_cv


def refine(mask: Mask, *, islands: float = 0.01, holes: float = 0.01) -> Mask:
    """Remove small pieces and fill small holes.

    A piece is a set of pixels connected by sides or corners. A hole is a set of unset pixels, connected by sides, that
    the mask encloses, so that a ring one pixel wide is closed. Both are compared with the largest piece, because what
    is a speck of a large mask may be a whole bird elsewhere. Pieces are removed before holes are filled.

    Args:
        mask: [H, W] bool.
        islands: Pieces with fewer pixels than this share of the largest piece are removed; 0 removes none.
        holes: Holes with fewer pixels than this share of the largest piece are filled; 0 fills none.

    Returns:
        [H, W] bool; empty only if `mask` is.

    Raises:
        UsageError: OpenCV is not installed.

    >>> refine(np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]], bool), islands=0.2, holes=0.2).astype(int)
    array([[1, 1, 1, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 1, 0, 0]])
    """
    if not mask.any():
        return mask
    labels, areas = _pieces(mask, 8)
    largest = int(areas[1:].max())
    kept = areas >= islands * largest
    kept[0] = False
    mask = kept[labels]
    if holes > 0:
        # The padding is background, so a set of pixels that touches the border is not a hole.
        labels, areas = _pieces(~np.pad(mask, 1), 4)
        filled = areas < holes * largest
        filled[[0, labels[0, 0]]] = False
        mask = mask | filled[labels][1:-1, 1:-1]
    return mask


def _pieces(mask: Mask, connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Labels of the pieces, [H, W], 0 outside, and the number of pixels of each label."""
    cv2 = open_cv()
    n, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity)
    return labels, np.bincount(labels.reshape(-1), minlength=n)
