"""Pairs `(index, masks)`, or triples with labels, in memory in, batches out, under the same rules as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from refcocom_gpu.errors import Problems, RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.arrays import REFUSED, batched, check_prediction
from refcocom_gpu.predictions.batches import Batches, RLEBatch
from refcocom_gpu.predictions.keys import Keys, refuse_extra
from refcocom_gpu.predictions.labels import listed_labels
from refcocom_gpu.predictions.normalise import as_pairs, as_rows, is_rle
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.rle_batches import finish_batch


def read_pairs(
    pairs: Iterable[Any], keys: Keys, options: ReadOptions, problems: Problems
) -> Batches:
    """Read an iterable of `(index, masks)` or `(index, masks, no_target)`.

    Args:
        pairs: `index` and `masks` are what `as_rows` takes as keys and values: row numbers or keys, and one prediction
            or several. A dict maps row numbers or keys to predictions. `no_target` is what `listed_labels` takes.
        keys: Resolver of this read.
        options: What values mean.
        problems: Collects what is wrong.

    Raises:
        UsageError: When the predictions are not pairs.
    """
    refuse_extra(options)
    if isinstance(pairs, Mapping):
        pairs = [as_pairs(pairs)]
    if not isinstance(pairs, Iterable):
        raise UsageError(
            f"predictions are paths or (index, masks) pairs, not {type(pairs).__name__}"
        )
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) not in (2, 3):
            raise UsageError(
                f"predictions in memory are (index, masks) pairs, not {type(pair).__name__}"
            )
        rows = as_rows(pair[0], pair[1], len(keys.fields))
        places = [f"batch {number}, row {row}" for row in range(len(rows.values))]
        index = keys.resolve_any(rows.keys, places.__getitem__)
        if len(pair) == 3:
            keys.label(index, listed_labels(pair[2], len(index)), places.__getitem__)
        values = [
            check_prediction(value, options, place, problems)
            for value, place in zip(rows.values, places, strict=True)
        ]
        yield from _rle(index, values, places, keys, problems)
        yield from batched(_arrays(index, values, places), options.batch_size)


def _arrays(index: Any, values: list[Any], places: list[str]) -> Iterator[tuple[int, Any, str]]:
    for example, value, place in zip(index.tolist(), values, places, strict=True):
        if example >= 0 and value is not None and value is not REFUSED and not is_rle(value):
            yield example, value, place


def _rle(
    index: Any, values: list[Any], places: list[str], keys: Keys, problems: Problems
) -> Iterator[RLEBatch]:
    """Yield the RLE objects and the empty masks of a batch, if it has any."""
    rows = [row for row, value in enumerate(values) if value is None or is_rle(value)]
    if not rows:
        return
    strings, sizes, known = [], np.zeros((len(rows), 2), np.int64), index[rows]
    null = np.array([values[row] is None for row in rows], np.bool_)
    for k, row in enumerate(rows):
        counts = b""
        if not null[k]:
            try:
                *sizes[k], counts = rle.check(values[row])
            except RLEError as error:
                problems.add("malformed mask", places[row], str(error))
                # Its example stays claimed, so that a malformed mask is not reported as missing too.
                known[k] = -1
        strings.append(counts)

    def where(k: int) -> str:
        return places[rows[k]]

    yield finish_batch(keys, known, rle.column(strings), null, sizes, None, where)
