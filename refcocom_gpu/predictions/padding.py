"""Square logits of images that are not square in, hints that they hold padding out: a letterbox that was forgotten.

Where an image was padded to a square, no prediction sets a cell of the padding. Two ways to pad are known: the image at
the top left (SAM, LISA), and the image in the middle (YOLO). If the predictions of a set leave the padding of one way
empty, and not that of the other, they were most likely padded that way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOOKED_AT = 64
"""Predictions of a set that are looked at: enough to tell, and no cost in a loop of thousands."""

LEAST = 8
"""Predictions that must agree before anything is said."""

NARROW = 0.875
"""Images whose shorter side is more than this share of the longer one have too little padding to tell."""

SEEN, BEYOND_TOP_LEFT, BEYOND_CENTRE, SWAPPED = 0x100, 0x200, 0x400, 0x800
"""Bits of a trait: a square prediction that sets a cell and whose image is not square; whether it sets a cell where the
padding would be, for either way; and floats whose height and width are those of the image, swapped."""


def padding_traits(values: Any, heights: Any, widths: Any, threshold: float) -> Any:
    """Look at square predictions.

    Args:
        values: [K, h, h] floats, an array or a tensor.
        heights: [K] H of the images.
        widths: [K] W.
        threshold: The value that a set cell lies strictly above.

    Returns:
        [K] int64 bits.

    >>> values = np.full((1, 8, 8), -1.0); values[0, 5, 3] = 1.0
    >>> bits = padding_traits(values, np.array([30]), np.array([60]), 0.0)
    >>> bits == SEEN | BEYOND_TOP_LEFT
    array([ True])
    """
    cells = values.shape[1]
    is_set = values > threshold
    rows, columns = is_set.any(2), is_set.any(1)  # [K, h] each
    is_wide = (widths > heights)[:, None]
    # The axis along which the image does not fill the square.
    along = is_wide & rows | ~is_wide & columns
    wide = is_wide[:, 0]
    short, long = wide * heights + ~wide * widths, wide * widths + ~wide * heights
    filled = (short * cells / long)[:, None]
    at: Any = np.arange(cells) + 0.0
    if not isinstance(values, np.ndarray):
        import torch

        at = torch.arange(cells, device=values.device) + 0.0
    at = at[None]
    # One cell to spare, because the edge of a mask is soft.
    beyond_top_left = (along & (at >= filled + 1)).any(1)
    margin = (cells - filled) / 2
    beyond_centre = (along & ((at + 1 <= margin - 1) | (at >= cells - margin + 1))).any(1)
    seen = rows.any(1) & (short <= NARROW * long)
    return seen * (SEEN + beyond_top_left * BEYOND_TOP_LEFT + beyond_centre * BEYOND_CENTRE)


def padding_doubt(traits: NDArray[np.int64]) -> str | None:
    """Return a warning if a set looks padded.

    Args:
        traits: [N] of all predictions.
    """
    seen = traits[traits & SEEN != 0]
    if len(seen) < LEAST:
        return None
    top_left, centre = (bool((seen & bit).any()) for bit in (BEYOND_TOP_LEFT, BEYOND_CENTRE))
    about = (
        f"{len(seen):,} square predictions of images that are not square were looked at, and none"
    )
    if centre and not top_left:
        return (
            f"{about} sets a cell at the bottom of a wide image or at the right of a tall one, where padding would be; "
            "if the image fills the top left of a padded square, pass letterbox=SIDE, the side of that square"
        )
    if top_left and not centre:
        return (
            f"{about} sets a cell in the bands at both ends of the shorter side, where padding around a centred image "
            "would be; if the images were padded so, pass letterbox=center"
        )
    return None
