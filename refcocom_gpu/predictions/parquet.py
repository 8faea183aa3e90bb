"""The native Parquet file in, RLE batches out: columns stay columns, no Python object per row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refcocom_gpu import rle
from refcocom_gpu.errors import Problems, RLEError
from refcocom_gpu.predictions.batches import Batches, ReadOptions
from refcocom_gpu.predictions.header import SCHEMA, check_fields
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.rle_batches import finish_batch

BATCH_ROWS = 8192
"""Rows read at a time: a few megabytes of strings."""


def read_parquet(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Parquet with the key columns, `segmentation` struct<size, counts> and, optionally, `sentence`."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        problems.add("malformed", str(path), f"not a Parquet file: {error}")
        return
    with file:
        yield from _read(file, str(path), keys, problems)


def _read(file: pq.ParquetFile, path: str, keys: Keys, problems: Problems) -> Batches:
    schema = file.schema_arrow
    metadata = {k.decode(): v.decode("utf-8", "replace") for k, v in (schema.metadata or {}).items()}
    if metadata.get("schema") == SCHEMA:
        check_fields(metadata, path, keys.dataset, problems)
    wanted = [*keys.fields, "segmentation"]
    absent = [name for name in wanted if name not in schema.names]
    if absent:
        problems.add(
            "no column",
            path,
            f"{', '.join(absent)} not found; the file has {', '.join(schema.names) or 'no columns'}",
        )
        return
    for name in keys.fields:
        if not pa.types.is_integer(schema.field(name).type):
            problems.add("bad key", path, f"{name} is {schema.field(name).type}, not an integer")
            return
    if reason := _wrong_type(schema.field("segmentation").type):
        problems.add("no column", path, reason)
        return
    if "sentence" in schema.names:
        wanted.append("sentence")
    first_row = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            yield _batch(batch, first_row, path, keys, problems)
            first_row += len(batch)
    except (pa.ArrowInvalid, OSError) as error:
        problems.add("malformed", path, f"after row {first_row}: {error}")


def _wrong_type(kind: pa.DataType) -> str | None:
    fields = {kind.field(k).name for k in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    if {"size", "counts"} <= fields:
        return None
    return f"segmentation is {kind}, not a struct with size and counts"


def _batch(batch: pa.RecordBatch, first_row: int, path: str, keys: Keys, problems: Problems) -> Any:
    """One `RLEBatch`; rows that cannot be read are recorded and left out."""
    rows = np.arange(len(batch))

    def where(row: int) -> str:
        return f"{path}, row {first_row + int(rows[row])}"

    masks = batch.column("segmentation")
    if pa.types.is_dictionary(masks.type):
        masks = masks.dictionary_decode()
    # flatten() hands the nulls of the struct down to its fields, field() does not.
    names = [masks.type.field(k).name for k in range(masks.type.num_fields)]
    fields = dict(zip(names, masks.flatten(), strict=True))
    null = _numpy(masks.is_null())
    bad: dict[int, tuple[str, str]] = {}
    columns = []
    for name in keys.fields:
        column = batch.column(name)
        for row in np.flatnonzero(_numpy(column.is_null())).tolist():
            bad[row] = ("bad key", f"{name} is null; a key is {' and '.join(keys.fields)}")
        columns.append(_int64(column))
    sizes, no_size = _sizes(fields["size"], len(batch))
    for row in np.flatnonzero(no_size & ~null).tolist():
        bad.setdefault(row, ("malformed mask", "size must be two positive whole numbers"))
    strings, no_counts = _strings(fields["counts"])
    for row, reason in no_counts.items():
        if not null[row]:
            bad.setdefault(row, ("malformed mask", reason))
    for row, (kind, reason) in sorted(bad.items()):
        problems.add(kind, where(row), reason)
    if bad:
        kept = np.setdiff1d(rows, np.fromiter(bad, np.int64))
        claimed = [row for row, (kind, _) in bad.items() if kind != "bad key"]
        keys.resolve([c[claimed] for c in columns], lambda k: f"{path}, row {first_row + claimed[k]}")
        rows = kept
        columns = [column[kept] for column in columns]
        strings, null, sizes = strings.take(kept), null[kept], sizes[kept]
        batch = batch.take(pa.array(kept))
    sentences = None
    if "sentence" in batch.schema.names:
        sentences = _differing_sentences(batch.column("sentence"), columns, keys)
    return finish_batch(keys, columns, strings, null, sizes, sentences, where)


def _numpy(array: pa.Array) -> NDArray[Any]:
    return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _int64(column: pa.Array) -> NDArray[np.int64]:
    # A uint64 beyond int64 is no id of any dataset; −1 is not one either.
    filled = pc.fill_null(column, pa.scalar(0, column.type))
    if column.type == pa.uint64():
        filled = pc.if_else(pc.greater(filled, pa.scalar(2**63 - 1, pa.uint64())), pa.scalar(0, pa.uint64()), filled)
    return _numpy(filled.cast(pa.int64()))


def _sizes(column: pa.Array, n: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """[B, 2] sizes, and which rows have none."""
    lengths = _numpy(pc.fill_null(pc.list_value_length(column), 0))
    values = column.flatten()
    flat = _numpy(pc.fill_null(values.cast(pa.float64(), safe=False), float("nan")))
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


def _strings(column: pa.Array) -> tuple[rle.Column, dict[int, str]]:
    """Counts of any Arrow string or list type as one buffer, and the rows that have none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list_strings(column)
    bad = dict.fromkeys(np.flatnonzero(_numpy(column.is_null())).tolist(), "counts is null")
    column = column.cast(pa.large_binary())
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)
    if bad:
        # A null slot may hold any bytes; filling gives it none.
        return _strings(pc.fill_null(column, b""))[0], bad
    # Rebased, so that a slice does not drag its parent's buffer along.
    return rle.Column(data[offsets[0] : offsets[-1]], offsets - offsets[0]), bad


def _list_strings(column: pa.Array) -> tuple[rle.Column, dict[int, str]]:
    """List-form counts: checked and compressed row by row, the rare path."""
    strings, bad = [], {}
    for row, runs in enumerate(column.to_pylist()):
        try:
            strings.append(rle.check_counts(runs))
        except RLEError as error:
            strings.append(b"")
            bad[row] = str(error)
    return rle.column(strings), bad


def _differing_sentences(column: pa.Array, columns: list[NDArray[np.int64]], keys: Keys) -> list[Any]:
    """Sentences that differ from the dataset's, None elsewhere: equality is decided in Arrow."""
    index = keys.lookup(columns)
    known = np.flatnonzero(index >= 0)
    truth = keys.dataset.examples.column("sentence").take(pa.array(index[known])).cast(pa.large_string())
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    given = column.take(pa.array(known)).cast(pa.large_string())
    equal = _numpy(pc.fill_null(pc.equal(pa.chunked_array([given]), truth), True))
    result: list[Any] = [None] * len(index)
    for k in np.flatnonzero(~equal).tolist():
        result[int(known[k])] = given[k].as_py()
    return result
