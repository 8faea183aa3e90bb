"""Predictions that are already in memory: `(index, masks)` pairs in, batches out, under the rules of every file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from refcocom_gpu import rle
from refcocom_gpu.errors import Problems, RLEError, UsageError
from refcocom_gpu.predictions.arrays import batched, check_array
from refcocom_gpu.predictions.batches import Batches, ReadOptions
from refcocom_gpu.predictions.keys import Keys
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
        UsageError: When something else than pairs is handed in.
    """
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(f"predictions in memory are (index, masks) pairs, not {type(pair).__name__}")
        indices, masks = as_lists(*pair)
        places = [f"batch {number}, row {row}" for row in range(len(indices))]
        in_range = (indices >= 0) & (indices < keys.dataset.n_examples)
        for row in np.flatnonzero(~in_range).tolist():
            problems.add(
                "unknown key",
                places[row],
                f"index {indices[row]} is not a row of the store (0 to {keys.dataset.n_examples - 1})",
            )
        if masks and isinstance(masks[0], dict):
            yield from _rle(np.where(in_range, indices, -1), masks, places, keys, problems)
        else:
            claimed = keys.claim(np.where(in_range, indices, -1), places.__getitem__)
            yield from batched(_arrays(claimed, masks, places, keys, problems), options.batch_size)


def as_lists(index: Any, masks: Any) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[Any]]:
    """Indices as an int64 vector, masks as a list of as many [H, W] arrays or RLE objects.

    Raises:
        UsageError: When their numbers differ.
    """
    if hasattr(index, "detach"):
        index = index.detach().cpu().numpy()
    indices = np.atleast_1d(np.asarray(index, np.int64))
    if isinstance(masks, dict) or (hasattr(masks, "ndim") and masks.ndim == 2):
        masks = [masks]
    # Iterating a [B, H, W] array or tensor yields views, not copies.
    listed = list(masks)
    if indices.ndim != 1 or len(indices) != len(listed):
        raise UsageError(f"{indices.size} indices came with {len(listed)} masks")
    return indices, listed


def _arrays(
    indices: Any, masks: list[Any], places: list[str], keys: Keys, problems: Problems
) -> Iterator[tuple[int, Any, str]]:
    for index, mask, place in zip(indices.tolist(), masks, places, strict=True):
        if index < 0:
            continue
        array = mask if hasattr(mask, "dtype") else np.asarray(mask)
        checked = check_array(array, index, place, keys, problems)
        if checked is not None:
            yield index, checked, place


def _rle(
    indices: Any, masks: list[Any], places: list[str], keys: Keys, problems: Problems
) -> Batches:
    strings, sizes = [], np.full((len(masks), 2), -1, np.int64)
    good = indices >= 0
    for row, mask in enumerate(masks):
        try:
            height, width, counts = rle.check(mask)
        except RLEError as error:
            problems.add("malformed mask", places[row], str(error))
            good[row] = False
            strings.append(b"")
            continue
        sizes[row] = height, width
        strings.append(counts)
    kept = np.flatnonzero(good)
    dataset = keys.dataset
    example = indices[kept]
    sample = dataset.example_sample[example]
    columns = (
        [dataset.sample_ids[sample]]
        if len(keys.fields) == 2
        else [dataset.image_ids[dataset.sample_image[sample]], dataset.positions[sample]]
    )
    columns.append(dataset.example_sentence_idx[example])
    yield finish_batch(
        keys,
        columns,
        rle.column(strings).take(kept),
        np.zeros(len(kept), np.bool_),
        sizes[kept],
        None,
        lambda row: places[int(kept[row])],
    )
