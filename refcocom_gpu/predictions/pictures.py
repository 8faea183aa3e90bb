"""A PIL picture in, the array of a mask, of labels or of probabilities out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.optional import require

_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies the values of PNGs of two and four bits by."""


def read_png(file: Path | BinaryIO, options: ReadOptions) -> NDArray[Any]:
    """Read a PNG as `picture_array` does.

    Args:
        file: A path, or a file that is open.
        options: As for `picture_array`.

    Raises:
        ValueError: It is no PNG, or not one of a mask.
    """
    pillow = require("PIL.Image", "PNG masks need Pillow", "images")
    try:
        # Pillow goes by content: a JPEG under this name would be opened, and its noise counted.
        image = pillow.open(file, formats=("PNG",))
    except pillow.UnidentifiedImageError:
        raise ValueError(
            "not a PNG image, whatever its name says; save masks as PNG, which keeps every pixel"
        ) from None
    with image:
        return picture_array(image, options)


def picture_array(picture: Any, options: ReadOptions) -> NDArray[Any]:
    """Return the pixels of a picture with one channel.

    Args:
        picture: A PIL picture: black and white, grey of any depth, or with a palette. Its file may be read here.
        options: `label` reads the indices of a palette; `values=probabilities` reads a palette of greys as 8-bit grey.

    Returns:
        [H, W] bool, uint8, uint16, int32 or float32. A palette becomes 0 where its colour is black or transparent,
        and another number for each other colour that is used.

    Raises:
        ValueError: The picture has several channels, or a palette from which the set pixels cannot be told.
    """
    if picture.mode in ("P", "PA"):
        return _palette_array(picture, options)
    if len(picture.getbands()) != 1:
        raise ValueError(f"a mask has one channel, this image is {picture.mode}")
    # The raw mode is known only before the pixels are loaded.
    tiles = getattr(picture, "tile", None) or [(None, None, 0, None)]
    step = _GREY_STEPS.get(str(tiles[0][3]), 1)
    array = np.asarray(picture)
    if picture.mode == "I" and array.min(initial=0) >= 0 and array.max(initial=0) < 2**16:
        # How older versions of Pillow open 16-bit grey.
        return array.astype(np.uint16)
    if options.label is not None and array.dtype == np.bool_:
        return array.astype(np.uint8)
    is_scaled = step > 1 and (options.label is not None or options.values != "probabilities")
    return array // step if is_scaled else array


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
