"""The arguments `index` and `masks` of a call in, in either order of that call; swapped or foreign ones are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.normalise import as_ints, as_pairs, is_picture, is_rle, is_tensor

WRITE = "writer.write(index, masks)"
UPDATE = "metric.update(masks, index)"

LONGEST_KEY = 3
"""Fields of the longest key, `(image_id, position, sentence_idx)`: a wider row of numbers is a row of pixels."""


class _Absent:
    def __repr__(self) -> str:
        return "…"


ABSENT: Any = _Absent()
"""Stands for an argument that was not given; None is an empty mask."""


def index_and_masks(index: Any, masks: Any, call: str) -> tuple[Any, Any]:
    """Return what names the examples, and their predictions.

    Args:
        index: Row numbers or keys, or `ABSENT` if `masks` is a dict of predictions by either, which may come here too.
        masks: Predictions, or `ABSENT` if the dict came as `index`.
        call: The right call, `WRITE` or `UPDATE`, which errors show.

    Raises:
        UsageError: One is absent, both are swapped, or the index is a target mask.

    >>> index_and_masks({7: None}, ABSENT, WRITE)
    ([7], [None])
    >>> index_and_masks([[[True]]], 7, WRITE)
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: masks and index are swapped; the call is writer.write(index, masks), or by name: ...
    """
    index = ABSENT if index is None else index
    for one, other in ((masks, index), (index, masks)):
        if other is ABSENT and isinstance(one, Mapping) and not is_rle(one):
            return as_pairs(one)
    by_name = f"{call}, or by name: index=…, masks=…"
    if index is ABSENT:
        raise UsageError(f"index, which names the example of each mask, is not given; {by_name}")
    if has_pixels(index):
        if masks is not ABSENT and _names_examples(masks):
            raise UsageError(f"masks and index are swapped; the call is {by_name}")
        raise UsageError(
            "index is not a target mask, because the store holds the true masks; it is the row number in the store of "
            'the example of each prediction: batch["index"] of DataLoader(rc.ExpressionDataset(dataset), …, '
            f"collate_fn=rc.collate). The call is {by_name}"
        )
    if masks is ABSENT:
        raise UsageError(f"masks are not given, and None is an empty mask; {by_name}")
    return index, masks


def has_pixels(value: Any) -> bool:
    """Return whether a value is a mask, or several, rather than row numbers or keys.

    >>> import numpy as np
    >>> has_pixels(np.zeros((4, 5))), has_pixels([np.zeros((4, 5))]), has_pixels([(20002, 0), (20002, 1)])
    (True, True, False)
    """
    depth = 0
    while isinstance(value, list | tuple) and value:
        value, depth = value[0], depth + 1
    if is_picture(value) or is_rle(value):
        return True
    is_array = is_tensor(value) or hasattr(value, "__array__")
    shape = tuple(value.shape) if is_array and hasattr(value, "shape") else ()
    depth += len(shape)
    return depth > 2 or (depth == 2 and len(shape) > 0 and shape[-1] > LONGEST_KEY)


def _names_examples(value: Any) -> bool:
    """Return whether a value could be an index."""
    if value is None or has_pixels(value) or isinstance(value, Mapping):
        return False
    try:
        return as_ints(value).ndim <= 2
    except (UsageError, TypeError):
        return False
