"""`Results` of Ultralytics for one image in, one mask at the image's size out; the library itself is not needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.adapters.fields import attribute
from refcocom_gpu.errors import DataError
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.polygons import rasterise
from refcocom_gpu.predictions.combine import combine_masks, plain_mask
from refcocom_gpu.predictions.normalise import as_numpy
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import logit_runs

WHAT = "Results of Ultralytics"


def results(value: Any, *, combine: str | None = None) -> Any:
    """Return the mask of the results of one image, from `masks.data`.

    `masks.data` is [K, h, w] of 0 and 1: at the size of the letterboxed input, in which the resized image is centred;
    with `retina_masks=True` at the size of the image, `orig_shape`. The padding is cut off and the rest resized
    bilinearly and set above 0.5, as `ops.scale_masks` and `supervision` do (ultralytics 8.4.190, `data/augment.py`
    `LetterBox`, `utils/ops.py`; supervision 0.31, `detection/utils/internal.py`). Where the padding is odd, its last
    row or column is at the end. Older versions cut `int(padding)`, which may differ by one cell. `masks.data` is uint8
    now and was float32; `masks` is None where nothing was found.

    Args:
        value: One entry of what the model returns, or its rows that answer one expression, such as
            `value[value.boxes.cls == 2]`.
        combine: As in `predictions.combine.combine_masks`; the score of a mask is `boxes.conf`.

    Returns:
        [H, W] bool, an RLE object if it was resized, or None where nothing was found.

    Raises:
        DataError: It is something else, or holds boxes without masks.
        UsageError: There are several masks, and `combine` does not say what becomes of them.

    >>> from types import SimpleNamespace as Any_
    >>> data = np.array([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]], np.uint8)
    >>> found = Any_(orig_shape=(2, 4), boxes=Any_(conf=[0.9]), masks=Any_(data=data))
    >>> rle.decode(results(found)).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    height, width, masks, scores = _parts(value)
    if masks is None:
        return None
    data = as_numpy(attribute(masks, "data", WHAT))
    if data.ndim != 3:
        raise DataError(f"masks.data of Ultralytics is [K, h, w], not of shape {list(data.shape)}")
    at_size = [_at_size(plain_mask(mask), height, width) for mask in data]
    return plain_mask(combine_masks(at_size, scores, combine=combine))


def polygons(value: Any, *, combine: str | None = None) -> Any:
    """Return the mask of the results of one image, from the polygons in `masks.xy`.

    `masks.xy` holds one [P, 2] polygon of x and y for each mask, in pixels of the image: the outlines of all its parts,
    joined by lines there and back, without its holes (`masks2segments(…, strategy="all")`; older versions: the largest
    part alone). The points are the columns and rows of cells, so the last of them are lost at the right and at the
    bottom: take `results` where `masks.data` is at hand.

    Args:
        value: As for `results`.
        combine: As for `results`.

    Returns:
        An RLE object, or None where nothing was found.

    Raises:
        DataError: It is something else, or holds boxes without masks.
        UsageError: There are several masks, and `combine` does not say what becomes of them.

    >>> from types import SimpleNamespace as Any_
    >>> square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    >>> found = Any_(orig_shape=(3, 3), boxes=Any_(conf=[0.9]), masks=Any_(xy=[square]))
    >>> rle.decode(polygons(found)).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])
    """
    height, width, masks, scores = _parts(value)
    if masks is None:
        return None
    drawn: list[Any] = []
    for outline in attribute(masks, "xy", WHAT):
        points = np.asarray(outline, np.float64)
        if points.size and (points.ndim != 2 or points.shape[1] != 2):
            raise DataError(f"masks.xy of Ultralytics are [P, 2], not {list(points.shape)}")
        # One or two cells have an outline that encloses nothing.
        if len(points) < 3:
            drawn.append(None)
            continue
        _, _, counts = rasterise([points], height, width, "pixels")
        drawn.append({"size": [height, width], "counts": counts.decode("ascii")})
    return plain_mask(combine_masks(drawn, scores, combine=combine))


def _parts(value: Any) -> tuple[int, int, Any, Any]:
    """Return H, W, the masks or None, and their scores or None."""
    height, width = (int(side) for side in attribute(value, "orig_shape", WHAT)[:2])
    masks, boxes = attribute(value, "masks", WHAT), getattr(value, "boxes", None)
    if boxes is None:
        return height, width, masks, None
    if masks is not None:
        return height, width, masks, attribute(boxes, "conf", WHAT)
    if len(boxes):
        raise DataError(
            f"these results are {len(boxes)} boxes without masks; take a model that segments"
        )
    return height, width, None, None


def _at_size(mask: NDArray[np.bool_], height: int, width: int) -> Any:
    """Return a mask of the letterboxed input at the size of its image."""
    if mask.shape == (height, width):
        return mask
    options = ReadOptions(values="probabilities", letterbox="center")
    ends = logit_runs(mask.astype(np.float32), height, width, options)
    return rle.encode_ends([ends], [[height, width]], threads=1)[0]
