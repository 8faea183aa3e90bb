"""Several masks for one expression in, one prediction out: their union, or the best by its score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.normalise import (
    as_dense,
    as_numpy,
    as_prediction,
    is_one,
    is_picture,
    is_rle,
    is_tensor,
)
from refcocom_gpu.predictions.options import COMBINES, ReadOptions
from refcocom_gpu.predictions.values import explain_fault, read_stack


def combine_masks(masks: Any, scores: Any = None, *, combine: str | None = None) -> Any:
    """Return one prediction for one expression.

    Args:
        masks: K masks: RLE objects, arrays, tensors, PIL pictures or None (an empty mask) in a list; a [K, H, W] or
            [K, 1, H, W] array or tensor; or a list of (mask, score). A single mask counts as K = 1.
        scores: K numbers; None if there are none, or if `masks` holds them.
        combine: `union` (a pixel that any mask sets) or `best` (the mask with the highest score; of equal ones the
            first). One mask needs neither.

    Returns:
        None if K = 0: nothing was found. The mask itself, unchanged, if K = 1 or with `best`. The union is an RLE
        object if all masks are RLE objects or None, otherwise [H, W] bool.

    Raises:
        UsageError: There are several masks and `combine` is None, `combine` is unknown, or `best` has no scores.
        DataError: The masks cannot be joined or their scores cannot be compared.

    >>> masks = np.array([[[1, 0]], [[0, 1]], [[0, 0]]], bool)
    >>> combine_masks(masks, combine="union")
    array([[ True,  True]])
    >>> combine_masks(masks, [0.5, 0.9, 0.9], combine="best")
    array([[False,  True]])
    >>> combine_masks(masks)
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: 3 masks for one expression; pass combine=union (every pixel that any of them
    sets) or combine=best (the one with the highest score, of equal ones the first)
    """
    if combine is not None and combine not in COMBINES:
        raise UsageError(f"combine must be {' or '.join(COMBINES)}, not {combine!r}")
    listed, numbers = _listed(masks, scores)
    if not listed:
        return None
    if len(listed) == 1:
        return listed[0]
    if combine is None:
        raise UsageError(
            f"{len(listed)} masks for one expression; pass combine=union (every pixel that any of them sets) or "
            "combine=best (the one with the highest score, of equal ones the first)"
        )
    return _union(listed) if combine == "union" else listed[_best(numbers)]


def as_one(value: Any, options: ReadOptions) -> Any:
    """Return what was given for one expression as one prediction, as `normalise.as_prediction` does.

    Args:
        value: A prediction, or several masks as `combine_masks` takes them.
        options: How several become one.

    Raises:
        UsageError: It is nothing that can be a prediction, or several masks that `combine` does not join.
        DataError: The masks cannot be joined.
    """
    if is_tensor(value):
        # A tensor of other kinds may have no shape to look at.
        value = as_dense(value)
    if _are_several(value):
        value = combine_masks(value, combine=options.combine)
    return as_prediction(value, options)


def joined_rle(segmentations: list[Any], options: ReadOptions) -> Any:
    """Return several RLE objects of a file as one RLE object, or None for an empty mask.

    Args:
        segmentations: K RLE objects, each with a `score` if `best` is asked for.
        options: How several become one.

    Raises:
        UsageError: `combine` does not join them.
        DataError: They cannot be joined, or one is no object.
    """
    for k, entry in enumerate(segmentations):
        if not isinstance(entry, dict):
            kind = "null" if entry is None else type(entry).__name__
            raise DataError(
                f"entry {k} of the list of masks is {kind}, not an object with size and counts as the first"
            )
    scores = [entry.get("score") for entry in segmentations]
    return combine_masks(segmentations, scores, combine=options.combine)


def _are_several(value: Any) -> bool:
    """Return whether this is several masks: not one mask as nested lists, nor a picture with colours."""
    if isinstance(value, list | tuple):
        first: Any = value[0] if value else None
        if _is_pair(first):
            first = first[0]
        return is_rle(first) or is_picture(first) or getattr(first, "ndim", 0) >= 2
    shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
    if len(shape) == 4 and shape[1] == 1:
        shape = (shape[0], *shape[2:])
    has_colours = len(shape) == 3 and shape[2] <= 4 < shape[0]
    return len(shape) == 3 and shape[0] > 1 and not has_colours


def plain_mask(value: Any) -> Any:
    """Return one mask as pixels, an RLE object, or None for an empty one: what needs no option to be scored.

    Args:
        value: An RLE object, None, a PIL picture, or an array or tensor [H, W], also with leading axes of 1: bools,
            integers of 0 and one other value, or floats of exactly 0 and 1.

    Returns:
        [H, W] bool, the RLE object, or None.

    Raises:
        DataError: The values are no mask, such as logits or labels.
        UsageError: It is nothing that can be a prediction.

    >>> plain_mask(np.array([[[0.0, 1.0]]]))
    array([[False,  True]])
    >>> plain_mask(np.array([[-3.5, 1.0]]))
    Traceback (most recent call last):
    refcocom_gpu.errors.DataError: a mask of floats holds 0 and 1 alone, this one -3.5 to 1; pass mask > 0 if they are
    logits, mask > 0.5 if they are probabilities
    """
    value = as_prediction(value, ReadOptions())
    if value is None:
        return None
    if is_rle(value):
        rle.check(value)
        return value
    array = as_numpy(value)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"a mask is [H, W], not of shape {list(array.shape)}")
    if array.dtype.kind == "f":
        if not ((array == 0) | (array == 1)).all():
            raise DataError(
                f"a mask of floats holds 0 and 1 alone, this one {array.min():.6g} to {array.max():.6g}; "
                "pass mask > 0 if they are logits, mask > 0.5 if they are probabilities"
            )
        return array == 1
    read = read_stack(array[None], np.ones(1, np.bool_), ReadOptions())
    if fault := int(np.max(read.faults)):
        raise DataError(explain_fault(fault, len(array), array.shape[1], ReadOptions(), array))
    mask: NDArray[np.bool_] = read.values[0]
    return mask


def _listed(masks: Any, scores: Any) -> tuple[list[Any], list[float | None]]:
    """Return K masks, and K scores or Nones."""
    if is_one(masks):
        listed = [masks]
    elif hasattr(masks, "ndim"):
        if masks.ndim == 4 and masks.shape[1] == 1:
            masks = masks[:, 0]
        if masks.ndim != 3:
            raise DataError(f"several masks are [K, H, W], not of shape {list(masks.shape)}")
        listed = list(masks)
    elif isinstance(masks, str | bytes) or not hasattr(masks, "__iter__"):
        raise DataError(f"several masks are a list or an array, not {type(masks).__name__}")
    else:
        listed = list(masks)
        if listed and all(map(_is_pair, listed)):
            if scores is not None:
                raise DataError("the masks come with scores of their own; pass no others")
            listed, scores = (list(part) for part in zip(*listed, strict=True))
    if scores is None:
        return listed, [None] * len(listed)
    try:
        numbers = [None if score is None else float(score) for score in scores]
    except (TypeError, ValueError):
        raise DataError("scores are K numbers") from None
    if len(numbers) != len(listed):
        raise DataError(f"{len(listed)} masks came with {len(numbers)} scores")
    if any(number is not None and math.isnan(number) for number in numbers):
        raise DataError("a score is NaN, which no other can be compared with")
    return listed, numbers


def _is_pair(value: Any) -> bool:
    """Return whether this is a mask and its score; two rows of pixels are none."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    mask, score = value
    is_number = isinstance(score, int | float | np.number) or getattr(score, "ndim", None) == 0
    return (is_number or score is None) and not isinstance(mask, int | float | np.number)


def _best(scores: list[float | None]) -> int:
    numbers = [score for score in scores if score is not None]
    if len(numbers) < len(scores):
        raise UsageError(
            f"combine=best needs a score for each mask, and {len(scores) - len(numbers)} of {len(scores)} have none; "
            "pass the scores, or combine=union"
        )
    return numbers.index(max(numbers))


def _union(masks: list[Any]) -> Any:
    plain = [mask for mask in map(plain_mask, masks) if mask is not None]
    if not plain:
        return None
    pixels = [rle.decode(mask) if is_rle(mask) else mask for mask in plain]
    shapes = {mask.shape for mask in pixels}
    if len(shapes) > 1:
        sizes = ", ".join(f"{height}×{width}" for height, width in sorted(shapes))
        raise DataError(f"the masks of one expression have different sizes: {sizes}")
    joined = np.logical_or.reduce(pixels)
    return rle.encode(joined) if all(map(is_rle, plain)) else joined
