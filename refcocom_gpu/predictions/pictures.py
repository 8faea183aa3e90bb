"""A PIL picture in, the array of a mask, of labels or of probabilities out."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.predictions.limits import Limits
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.optional import require

_ORIENTATION = 0x0112
"""The EXIF tag."""

_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the values of PNGs of two and four bits by."""


def read_png(file: BinaryIO, options: ReadOptions, limits: Limits) -> NDArray[Any]:
    """Read a PNG as `picture_array` does.

    Args:
        file: A file that is open.
        options: As for `picture_array`.
        limits: What it may hold; its pixels are not decompressed before its size is compared with them.

    Raises:
        ValueError: It is no PNG, or not one of a mask, or far too large.
    """
    pillow = require("PIL.Image", "PNG masks need Pillow", "images")
    try:
        # Pillow goes by content: a JPEG under this name would be opened, and its noise counted.
        image = pillow.open(file, formats=("PNG",))
    except pillow.UnidentifiedImageError:
        raise ValueError(
            "not a PNG image, whatever its name says; save masks as PNG, which keeps every pixel"
        ) from None
    except (
        pillow.DecompressionBombError
    ) as error:  # beyond any image, Pillow refuses it before we can
        raise ValueError(f"it declares too many pixels: {error}") from None
    with image:
        limits.check_shape((image.height, image.width))
        return picture_array(image, options)


def picture_array(picture: Any, options: ReadOptions) -> NDArray[Any]:
    """Return the pixels of a picture with one channel.

    Args:
        picture: A PIL picture: black and white, grey of any depth, or with a palette; also RGB, RGBA and grey with
            alpha, if the channels of colour are equal and alpha is 255 throughout. Its file may be read here.
        options: `label` reads the indices of a palette; `values=probabilities` reads a palette of greys as 8-bit grey.

    Returns:
        [H, W] bool, uint8, uint16, int32 or float32. A palette becomes 0 where its colour is black or transparent,
        and another number for each other colour that is used.

    Raises:
        ValueError: The picture has several channels that differ, a palette from which the set pixels cannot be told,
            or an EXIF orientation that turns it.
    """
    array = _stored_array(picture, options)
    # A PNG may hold its EXIF data behind the pixels.
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, OSError, struct.error) as error:
        raise ValueError(f"its EXIF data cannot be read: {error}; save it without them") from None
    if orientation not in (0, 1):
        raise ValueError(
            f"its EXIF orientation is {orientation}, so viewers turn it; save the mask as it is to be read, without it"
        )
    return array


def _stored_array(picture: Any, options: ReadOptions) -> NDArray[Any]:
    if picture.mode in ("P", "PA"):
        return _palette_array(picture, options)
    # The raw mode is known only before the pixels are loaded.
    tiles = getattr(picture, "tile", None) or [(None, None, 0, None)]
    raw_mode = str(tiles[0][3])
    if len(picture.getbands()) != 1:
        return _equal_channels(picture, raw_mode)
    step = _GREY_STEPS.get(raw_mode, 1)
    array = np.asarray(picture)
    if picture.mode == "I" and array.min(initial=0) >= 0 and array.max(initial=0) < 2**16:
        # How older versions of Pillow open 16-bit grey.
        return array.astype(np.uint16)
    if options.label is not None and array.dtype == np.bool_:
        return array.astype(np.uint8)
    is_scaled = step > 1 and (options.label is not None or options.values != "probabilities")
    return array // step if is_scaled else array


def _equal_channels(picture: Any, raw_mode: str) -> NDArray[np.uint8]:
    """Return the one channel that a picture of several has in effect: how viewers and editors save grey."""
    mode = picture.mode
    if mode not in ("RGB", "RGBA", "LA"):
        raise ValueError(f"a mask has one channel, this image is {mode}; save one channel")
    if "16" in raw_mode:
        raise ValueError(
            f"a mask has one channel, this image is {mode} of 16 bits; save one channel"
        )
    channels: NDArray[np.uint8] = np.asarray(picture)
    if mode != "RGB":
        alpha, channels = channels[..., -1], channels[..., :-1]
        if (alpha != 255).any():
            held = "varies" if (alpha != alpha[0, 0]).any() else f"is {alpha[0, 0]} throughout"
            raise ValueError(
                f"a mask has one channel, this image is {mode} and its alpha channel {held}: the mask may stand there "
                "or in the colours; save one channel"
            )
    if (channels != channels[..., :1]).any():
        raise ValueError(
            f"a mask has one channel, this image is {mode} and its colours differ, as in an overlay or a map of "
            "colours; save one channel"
        )
    return np.ascontiguousarray(channels[..., 0])


def _palette_array(picture: Any, options: ReadOptions) -> NDArray[Any]:
    if picture.mode == "PA":
        raise ValueError("a palette with an alpha channel; save one channel")
    indices: NDArray[np.uint8] = np.asarray(picture)
    if options.label is not None:
        return indices
    flat = indices.reshape(-1)
    colours = np.asarray(picture.convert("RGBA")).reshape(-1, 4)
    # One pixel of each index tells its colour, transparency included.
    used, at = np.unique(flat, return_index=True)
    first = {int(index): colours[k].tolist() for index, k in zip(used, at, strict=True)}
    numbers = np.zeros(256, np.uint8)
    if options.values == "probabilities":
        for index, (red, green, blue, alpha) in first.items():
            if not red == green == blue or alpha != 255:
                raise ValueError("probabilities are grey, this palette is coloured")
            numbers[index] = red
        return numbers[indices]
    distinct: dict[tuple[int, ...], int] = {}
    has_zero = False
    for index, colour in first.items():
        if colour[3] == 0 or not any(colour[:3]):
            has_zero = True
        else:
            numbers[index] = distinct.setdefault(tuple(colour), len(distinct) + 1)
    if len(distinct) > 1:
        beside = " beside black" if has_zero else ", none of them black or transparent"
        raise ValueError(
            f"a mask has one colour beside black, the palette of this one uses {len(distinct)}{beside}; pass "
            "values=probabilities if they are shades of grey, or label=K, an index of the palette, if they are labels"
        )
    return numbers[indices]
