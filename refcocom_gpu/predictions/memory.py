"""Pairs `(index, masks)` in memory in, batches out, under the same rules as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from refcocom_gpu.errors import Problems, RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.arrays import batched, check_array
from refcocom_gpu.predictions.batches import Batches, RLEBatch
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.rle_batches import finish_batch


def read_pairs(
    pairs: Iterable[tuple[Any, Any]], keys: Keys, options: ReadOptions, problems: Problems
) -> Batches:
    """Read an iterable of `(index, masks)`.

    Args:
        pairs: `index` is an int or [B] ints, row numbers in the store. `masks` is one [H, W] array or tensor, a
            [B, H, W] or [B, 1, H, W] one, a list of [H, W], or COCO RLE objects (one, or a list).
        keys: Resolver of this read.
        options: What floats mean.
        problems: Collects what is wrong.

    Raises:
        UsageError: When the predictions are not pairs.
    """
    if not isinstance(pairs, Iterable):
        raise UsageError(
            f"predictions are paths or (index, masks) pairs, not {type(pairs).__name__}"
        )
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(
                f"predictions in memory are (index, masks) pairs, not {type(pair).__name__}"
            )
        given, masks = as_lists(*pair)
        places = [f"batch {number}, row {row}" for row in range(len(given))]
        index = keys.resolve_indices(given, places.__getitem__)
        if masks and isinstance(masks[0], dict):
            yield _rle(index, masks, places, keys, problems)
        else:
            yield from batched(_arrays(index, masks, places, keys, problems), options.batch_size)


def as_lists(index: Any, masks: Any) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[Any]]:
    """Return indices as an int64 vector, and masks as a list of as many [H, W] arrays or RLE objects.

    Raises:
        UsageError: When their numbers differ, or the indices are not whole numbers.
    """
    indices = np.atleast_1d(as_ints(index))
    if isinstance(masks, dict) or (hasattr(masks, "ndim") and masks.ndim == 2):
        masks = [masks]
    try:
        # Iterating a [B, H, W] array or tensor yields views, not copies.
        listed = list(masks)
    except TypeError:
        raise UsageError(
            f"masks are arrays, tensors or RLE objects, not {type(masks).__name__}"
        ) from None
    if indices.ndim != 1 or len(indices) != len(listed):
        raise UsageError(f"{indices.size} indices came with {len(listed)} masks")
    return indices, listed


def as_ints(numbers: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the whole numbers of any container as int64.

    Raises:
        UsageError: For anything else: NumPy would cut 1.9 to 1 and take False for 0.
    """
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu().numpy()
    try:
        array = np.asarray(numbers)
    except ValueError:
        raise UsageError("indices and keys are whole numbers in rows of one length") from None
    if array.dtype.kind not in "iu" and array.size:
        raise UsageError(f"indices and keys are whole numbers, not {array.dtype}")
    # An unsigned number beyond int64 turns negative here, and no index is negative.
    return array.astype(np.int64)


def _arrays(
    index: Any, masks: list[Any], places: list[str], keys: Keys, problems: Problems
) -> Iterator[tuple[int, Any, str]]:
    for example, mask, place in zip(index.tolist(), masks, places, strict=True):
        if example < 0:
            continue
        checked = check_array(mask, example, place, keys, problems)
        if checked is not None:
            yield example, checked, place


def _rle(
    index: Any, masks: list[Any], places: list[str], keys: Keys, problems: Problems
) -> RLEBatch:
    strings, sizes, index = [], np.zeros((len(masks), 2), np.int64), index.copy()
    for row, mask in enumerate(masks):
        try:
            height, width, counts = rle.check(mask)
        except RLEError as error:
            problems.add("malformed mask", places[row], str(error))
            # Its example stays claimed, so that a malformed mask is not reported as missing too.
            index[row], height, width, counts = -1, 0, 0, b""
        sizes[row] = height, width
        strings.append(counts)
    null = np.zeros(len(masks), np.bool_)
    return finish_batch(keys, index, rle.column(strings), null, sizes, None, places.__getitem__)
