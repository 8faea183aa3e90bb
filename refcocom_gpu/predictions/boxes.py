"""A box as a file has it in, its corners in pixels out; a box that cannot be of the declared form is refused.

A box is x0, y0, x1, y1 and half-open, as in `masks.boxes`: the left upper pixel alone is 0, 0, 1, 1, and the box of the
whole image ends at its width and height. Corners stay floats: nothing is rounded, and nothing is cut at the edges of
the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError, Problems
from refcocom_gpu.masks.polygons import is_number
from refcocom_gpu.predictions.options import BOX_FORMATS, BOX_FORMS, UNITS, ReadOptions
from refcocom_gpu.predictions.polygon_scale import BEYOND, BEYOND_PIXELS, TINY

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

Corners = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

Floats = NDArray[np.float64]

NONE: Corners = (0.0, 0.0, 0.0, 0.0)
"""Stands for an explicit 'no box'."""


def box_in_pixels(value: Any, size: tuple[int, int] | None, options: ReadOptions) -> Corners:
    """Return the corners of a box in pixels of its image.

    Args:
        value: Four numbers as `box_format` and `box_scale` say, or None for no box.
        size: H and W of the image; None where it is not known, and then only the form is checked.
        options: Declare both.

    Returns:
        x0, y0, x1, y1; `NONE` for no box.

    Raises:
        DataError: It is no box of that form, or reaches beyond its image by more than `BEYOND` of a side and
            `BEYOND_PIXELS` pixels.

    >>> box_in_pixels([0.25, 0.5, 0.5, 0.5], (10, 40), ReadOptions(box_format="xywh", box_scale="normalized"))
    (10.0, 5.0, 30.0, 10.0)
    >>> box_in_pixels([10, 5, 3, 9], (10, 40), ReadOptions(box_format="xyxy", box_scale="pixels"))
    Traceback (most recent call last):
    refcocom_gpu.errors.DataError: box is [10, 5, 3, 9], not x0 ≤ x1 and y0 ≤ y1 as box_format=xyxy has them; it fits...
    """
    if value is None:
        return NONE
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(is_number, value)):
        raise DataError(f"box is {value!r:.80}, not four finite numbers; null is no box on purpose")
    a, b, c, d = map(float, value)
    form = options.box_format
    unit = UNITS.get(str(options.box_scale))
    if form == "xywh":
        if c < 0 or d < 0:
            raise DataError(f"box is {value!r:.80}, and its width or height is negative")
        c, d = a + c, b + d
    elif c < a or d < b:
        raise DataError(
            f"box is {value!r:.80}, not x0 ≤ x1 and y0 ≤ y1 as box_format=xyxy has them{_other(value, size, options)}"
        )
    if size is None:
        return a, b, c, d
    height, width = size
    if unit is not None:
        # The product first: 29 / 1000 * 1000 is below 29.
        a, b, c, d = a * width / unit, b * height / unit, c * width / unit, d * height / unit
    if not fits_image((a, b, c, d), size):
        raise DataError(
            f"box is {value!r:.80}, which reaches beyond the image of {height}×{width} pixels by more than "
            f"{BEYOND:.1%} of a side, as {form} in {options.box_scale}{_other(value, size, options)}; {BOX_FORMS}"
        )
    return a, b, c, d


def fits_image(corners: Corners, size: tuple[int, int]) -> bool:
    """Return whether corners in pixels lie in an image, or overshoot it as little as models do."""
    x0, y0, x1, y1 = corners
    return all(
        max(-low, high - side) <= max(side * BEYOND, BEYOND_PIXELS) and low <= high
        for low, high, side in ((x0, x1, size[1]), (y0, y1, size[0]))
    )


def _other(value: Any, size: tuple[int, int] | None, options: ReadOptions) -> str:
    """Return the hint that a box fits in the other format; empty where it does not."""
    if size is None:
        return ""
    a, b, c, d = map(float, value)
    (other,) = (form for form in BOX_FORMATS if form != options.box_format)
    if other == "xywh":
        c, d = a + c, b + d
    unit = UNITS.get(str(options.box_scale))
    x, y = (1.0, 1.0) if unit is None else (size[1] / unit, size[0] / unit)
    fits = fits_image((a * x, b * y, c * x, d * y), size)
    return f"; it fits box_format={other}" if fits else ""


def judge_boxes(
    boxes: Floats, dataset: Dataset, options: ReadOptions, source: str, problems: Problems
) -> None:
    """Record a problem if the boxes of a whole set are on a smaller scale than was declared.

    One box of a few pixels is possible; only all of them tell that numbers of 0…1 were declared to be something else.

    Args:
        boxes: [N, 4] from `box_in_pixels`, one for each example; 0, 0, 0, 0 where there is none.
        dataset: What they are for.
        options: As there.
        source: Name of the set.
        problems: Collects what is wrong.

    >>> import refcocom_gpu as rc
    >>> dataset, problems = rc.load_dataset("sample"), Problems()
    >>> boxes = np.tile([0.1, 0.2, 0.5, 1.0], (dataset.n_examples, 1))
    >>> pixels = ReadOptions(box_format="xyxy", box_scale="pixels")
    >>> judge_boxes(boxes, dataset, pixels, "p.jsonl", problems)
    >>> print(problems.kept[0])  # doctest: +ELLIPSIS
    p.jsonl: box scale: no number of 297 boxes exceeds 1, so they are not in pixels; declare box_format=...
    """
    present = np.flatnonzero(boxes.any(1))
    sample = dataset.example_sample[present]
    sides = np.stack([dataset.widths[sample], dataset.heights[sample]] * 2, 1)
    scale = str(options.box_scale)
    if scale == "normalized" or not len(present) or sides.max() <= TINY:
        return
    numbers = boxes[present]
    if scale in UNITS:
        numbers = numbers / sides * UNITS[scale]
    if numbers.max() <= 1:
        n = len(numbers)
        problems.add(
            "box scale",
            source,
            f"no number of {n} box{'es' if n > 1 else ''} exceeds 1, so they are not in {scale}; {BOX_FORMS}",
        )
