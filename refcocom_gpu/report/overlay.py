"""A picture and masks in, the picture with the masks drawn on it out: fills, stripes and thin outlines.

The colours are those of Okabe and Ito (2008), which people with any common colour blindness tell apart; what was missed
is striped too, so that it differs by more than its colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice]
Colour = tuple[int, int, int]

HIT, EXTRA, MISSED = (86, 180, 233), (213, 94, 0), (240, 228, 66)
"""Sky blue, vermilion and yellow: pixels of both masks, of the prediction alone, of the truth alone."""

FIRST, SECOND = (230, 159, 0), (86, 180, 233)
"""Orange and sky blue: outlines of the first and the second version of a mask."""

LIGHT, DARK = (255, 255, 255), (0, 0, 0)
GREY = 190

FILL = 0.6
"""Opacity of a fill: the picture, without its colours, still shows through."""

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue (ITU-R BT.601). Below a fill a picture is grey: an orange object is no fill."""

STRIPE = 6
"""Pixels from one stripe to the next."""

MARGIN = 0.35
"""Space around the masks, as a share of the larger side of both."""

ASPECT = 4 / 3
"""Width over height of the pictures on a page."""

LEAST = 0.3
"""Least share of an image's side that a window shows, so that a small object keeps its surroundings."""


def window_of(mask: Mask, *, margin: float = MARGIN, least: float = LEAST) -> Window:
    """Return the part of an image that shows a mask and what is around it, in the shape of a card where it can.

    Args:
        mask: [H, W], the union of all that is to be seen; the window of an empty one is the whole image.
        margin: Space around the mask, as a share of its larger side.
        least: Least share of the image's sides that a window shows.

    >>> mask = np.zeros((100, 200), bool)
    >>> mask[40:60, 100:120] = True
    >>> window_of(mask)
    (slice(27, 73, None), slice(80, 140, None))
    """
    if not mask.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] + (0, 1) for axis in (1, 0)]
    reach = 2 * margin * max(int(end - first) for first, end in spans)
    height, width = (
        max(int(end - first) + reach, least * side)
        for (first, end), side in zip(spans, mask.shape, strict=True)
    )
    sides = max(height, width / ASPECT), max(width, height * ASPECT)
    rows, columns = (
        _around((int(first) + int(end)) / 2, side, whole)
        for (first, end), side, whole in zip(spans, sides, mask.shape, strict=True)
    )
    return rows, columns


def _around(middle: float, side: float, whole: int) -> slice:
    """Return a span around a place, moved where it would leave the image."""
    side = min(side, whole)
    first = min(max(middle - side / 2, 0.0), whole - side)
    return slice(int(first), math.ceil(first + side))


def fitted(
    picture: Pixels, masks: Sequence[Mask], window: Window, side: int | None
) -> list[Pixels]:
    """Cut a picture and its masks to a window and scale them down so that no side exceeds `side`.

    Args:
        picture: [H, W, 3].
        masks: [H, W] each.
        window: From `window_of`.
        side: Pixels; None keeps the size. A picture smaller than a third of it is enlarged.

    Returns:
        The picture [h, w, 3], then each mask [h, w] as bytes 0 and 1; a pixel is set where most of it is.
    """
    from PIL import Image

    part = np.ascontiguousarray(picture[window])
    shown = [np.ascontiguousarray(mask[window]).view(np.uint8) for mask in masks]
    height, width = part.shape[:2]
    longest = max(height, width)
    if side is None or side / 3 < longest <= side:
        return [part, *shown]
    size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
    how = Image.Resampling.BILINEAR
    scaled = np.asarray(Image.fromarray(part).resize(size, how, reducing_gap=2.0))
    shares = (np.asarray(Image.fromarray(255 * mask).resize(size, how)) for mask in shown)
    return [scaled, *((share > 127).view(np.uint8) for share in shares)]


def scored(picture: Pixels, truth: Pixels, prediction: Pixels) -> Pixels:
    """Draw a prediction and its truth: the prediction filled, what it missed striped, both with a thin outline.

    Args:
        picture: [h, w, 3].
        truth: [h, w] 0 or 1.
        prediction: [h, w] 0 or 1.

    Returns:
        [h, w, 3].

    >>> grey = np.full((1, 4, 3), 100, np.uint8)
    >>> scored(grey, np.array([[0, 0, 0, 0]]), np.array([[0, 1, 1, 0]]))[0, 1].tolist()
    [213, 94, 0]
    """
    shown = picture.copy()
    true, said = truth.astype(bool), prediction.astype(bool)
    _fill(shown, true & said, HIT)
    _fill(shown, said & ~true, EXTRA)
    rows, columns = np.ogrid[: shown.shape[0], : shown.shape[1]]
    _fill(shown, true & ~said & ((rows + columns) % STRIPE < STRIPE // 2), MISSED, opacity=0.85)
    shown[said & ~eroded(said) & ~true] = EXTRA
    return outlined(shown, [(true, LIGHT)])


def outlined(picture: Pixels, masks: Sequence[tuple[Mask, Colour]], thickness: int = 1) -> Pixels:
    """Draw the outline of each mask in its colour, with a dark line outside, which shows it on light pictures too.

    Args:
        picture: [h, w, 3], changed in place.
        masks: [h, w] bool each, and its colour; the later ones lie above.
        thickness: Pixels of the coloured line.

    Returns:
        The picture.
    """
    for mask, colour in masks:
        inside = mask
        for _ in range(thickness):
            inside = eroded(inside)
        picture[~mask & ~eroded(~mask)] = DARK
        picture[mask & ~inside] = colour
    return picture


def faded(picture: Pixels, share: float = 0.6) -> Pixels:
    """Return a picture with a share of its colours replaced by grey, on which coloured lines stand out.

    Args:
        picture: [h, w, 3].
        share: 0…1.
    """
    grey = (picture @ LUMINANCE)[..., None]
    mixed: Pixels = (picture * (1 - share) + grey * share).astype(np.uint8)
    return mixed


def eroded(mask: Mask) -> Mask:
    """Return the pixels of a mask whose four neighbours are set too; beyond the image counts as set.

    >>> eroded(np.array([[1, 1, 1], [1, 1, 0]], bool)).astype(int)
    array([[1, 1, 0],
           [1, 0, 0]])
    """
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner


def _fill(picture: Pixels, mask: Mask, colour: Colour, opacity: float = FILL) -> None:
    tint = np.array(colour, np.float32) * opacity
    grey = picture[mask] @ LUMINANCE * (1 - opacity)
    picture[mask] = (grey[:, None] + tint).astype(np.uint8)
