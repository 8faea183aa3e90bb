"""Columns of a table of masks in, arrays out: keys, sizes and strings, and the rows that lack them with the reason.

`B` rows of a batch. A column without nulls, as nearly all are, is not searched for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError, RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.combine import joined_rle
from refcocom_gpu.predictions.key_forms import whole_number
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.arrow import filled, from_numpy, to_numpy


def nulls(column: pa.Array) -> NDArray[np.bool_]:
    """Return [B] which rows are null: nearly always none, which a column knows."""
    return to_numpy(column.is_null()) if column.null_count else np.zeros(len(column), np.bool_)


def join_masks(masks: pa.Array, options: ReadOptions) -> tuple[pa.Array, dict[int, str]]:
    """Return several masks in each row as one, and the rows where they cannot be joined, with the reason."""
    if not is_list(masks.type):
        return masks, {}
    joined, bad = [], {}
    for row, entries in enumerate(masks.to_pylist()):
        try:
            if entries == []:
                raise DataError("mask is an empty list; null is an explicit empty mask")
            joined.append(None if entries is None else joined_rle(entries, options))
        except (DataError, UsageError) as error:
            joined.append(None)
            bad[row] = str(error)
    fields = pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.string())])
    return pa.array(joined, fields), bad


def read_keys(
    columns: list[pa.Array], names: tuple[str, ...]
) -> tuple[dict[int, str], list[NDArray[np.int64]]]:
    """Return the rows that have no key, each with the reason, and the key columns with 0 in those rows."""
    bad: dict[int, str] = {}
    numbers = []
    key = " and ".join(names)
    for name, column in zip(names, columns, strict=True):
        for row in np.flatnonzero(nulls(column)).tolist():
            bad.setdefault(row, f"{name} is null; a key is {key}")
        if not pa.types.is_integer(column.type):
            values = column.to_pylist()
            column = pa.array([whole_number(value) for value in values], pa.int64())
            for row in np.flatnonzero(nulls(column)).tolist():
                bad.setdefault(row, f"{name} is {values[row]!r:.60}; a key is {key}")
        column = filled(column, 0)
        if column.type == pa.uint64():
            beyond = pc.greater(column, pa.scalar(2**63 - 1, pa.uint64()))
            for row in np.flatnonzero(to_numpy(beyond)).tolist():
                bad.setdefault(row, f"{name} is {column[row]}; ids are below 2**63")
            column = pc.if_else(beyond, pa.scalar(0, pa.uint64()), column)
        numbers.append(to_numpy(column.cast(pa.int64())))
    return bad, numbers


def read_sizes(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return [B, 2] sizes, and which rows have no valid size."""
    n = len(column)
    lengths = to_numpy(filled(pc.list_value_length(column), 0))
    values = column.flatten()
    if pa.types.is_integer(values.type) and not values.null_count and (lengths == 2).all():
        # Nearly every file.
        pairs = to_numpy(values).reshape(n, 2)
        if pairs.min(initial=1) >= 1 and pairs.max(initial=1) <= rle.MAX_PIXELS:
            return pairs.astype(np.int64), np.zeros(n, np.bool_)
    flat = to_numpy(filled(values.cast(pa.float64(), safe=False), float("nan")))
    sizes = np.full((n, 2), -1, np.int64)
    two = np.flatnonzero(lengths == 2)
    starts = np.cumsum(lengths) - lengths
    pair = np.stack([flat[starts[two]], flat[starts[two] + 1]], axis=1).reshape(-1, 2)
    whole = np.isfinite(pair) & (pair == np.floor(pair)) & (pair >= 1) & (pair <= rle.MAX_PIXELS)
    good = whole.all(axis=1)
    sizes[two[good]] = pair[good].astype(np.int64)
    absent = np.ones(n, np.bool_)
    absent[two[good]] = False
    return sizes, absent


def read_strings(column: pa.Array) -> tuple[rle.Column, dict[int, str]]:
    """Return counts of any Arrow string or list type as one buffer, and the rows that have none with the reason."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if is_list(kind):
        return _list_strings(column)
    bad = dict.fromkeys(np.flatnonzero(nulls(column)).tolist(), "counts is null")
    column = column.cast(pa.large_binary())
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[
        column.offset : column.offset + len(column) + 1
    ]
    data = np.frombuffer(data_buffer or b"", np.uint8)
    if bad:
        # A null slot may hold any bytes; filling makes it empty.
        return read_strings(filled(column, b""))[0], bad
    # A slice shares the buffer of its parent; only its own bytes are kept.
    return rle.Column(data[offsets[0] : offsets[-1]], offsets - offsets[0]), bad


def _list_strings(column: pa.Array) -> tuple[rle.Column, dict[int, str]]:
    """Check and compress counts in list form, row by row, because they are rare."""
    strings, bad = [], {}
    for row, runs in enumerate(column.to_pylist()):
        try:
            strings.append(rle.check_counts(runs))
        except RLEError as error:
            strings.append(b"")
            bad[row] = str(error)
    return rle.column(strings), bad


def differing_sentences(column: pa.Array, index: NDArray[np.int64], keys: Keys) -> list[Any] | None:
    """Return sentences that differ from the dataset's, None elsewhere, or if none does; Arrow compares them."""
    known = np.flatnonzero(index >= 0)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    given = column.cast(pa.large_string()).take(from_numpy(known))
    truth = (
        keys.dataset.examples.column("sentence")
        .take(from_numpy(index[known]))
        .cast(pa.large_string())
    )
    equal = to_numpy(filled(pc.equal(pa.chunked_array([given]), truth), True))
    if equal.all():
        return None
    differing: list[Any] = [None] * len(index)
    for k in np.flatnonzero(~equal).tolist():
        differing[int(known[k])] = given[k].as_py()
    return differing


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is that of lists, of any kind."""
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)  # type: ignore[no-any-return]
