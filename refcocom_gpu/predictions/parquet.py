"""A native table in, RLE batches out: columns stay columns, without a Python object per row. Parquet is read here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.batches import Batches, RLEBatch
from refcocom_gpu.predictions.box_rows import read_box_table
from refcocom_gpu.predictions.header import SCHEMA, check_fields, metadata_of
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.labels import FIELD
from refcocom_gpu.predictions.mask_columns import (
    differing_sentences,
    is_list,
    join_masks,
    nulls,
    read_keys,
    read_sizes,
    read_strings,
)
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.rle_batches import finish_batch
from refcocom_gpu.predictions.suggest import WITNESSES, boxes_instead
from refcocom_gpu.utils.files import VERIFIED

BATCH_ROWS = 8192
"""Rows read at a time, some megabytes of strings. A batch costs a millisecond whatever it holds."""

BATCH_ROWS_BESIDE = 2048
"""The same where a batch is counted while the next is read: counting must not wait long for the first."""


def read_parquet(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read Parquet with the key columns, `segmentation` struct<size, counts> and, optionally, `sentence`."""
    try:
        file = pq.ParquetFile(path, memory_map=True, **VERIFIED)
    except (pa.ArrowException, OSError) as error:
        problems.add("malformed", str(path), f"not a Parquet file: {error}")
        return

    n_rows = BATCH_ROWS if options.threads == 1 else BATCH_ROWS_BESIDE

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        # Arrow cannot join nested dictionaries of two row groups, so such files are read a group at a time.
        nested = any(_holds_dictionary(file.schema_arrow.field(name).type) for name in columns)
        groups = range(file.num_row_groups) if nested else [None]
        for group in groups:
            only = None if group is None else [group]
            yield from file.iter_batches(
                n_rows, row_groups=only, columns=columns, use_threads=False
            )

    with file:
        yield from read_table(file.schema_arrow, batches, str(path), keys, options, problems)


def read_table(
    schema: pa.Schema,
    batches: Callable[[list[str]], Iterator[pa.RecordBatch]],
    path: str,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> Batches:
    """Read a table with the columns of the native format.

    Args:
        schema: Of the table.
        batches: Returns some columns of the table, by their names, a batch of rows at a time.
        path: What messages call the table.
        keys: Resolver of this read.
        options: How predictions are read.
        problems: Collects what is wrong.
    """
    if options.box_format is not None:
        yield from read_box_table(schema, batches, path, keys, options, problems)
        return
    metadata = metadata_of(schema)
    if metadata.get("schema") == SCHEMA:
        check_fields(metadata, path, keys.dataset, problems)
    renames = keys.renames
    fields = keys.fields if keys.form is None else ()
    wanted = [*fields, "segmentation"]
    keys.look_at(path, partial(_some_rows, schema, batches))
    absent = [name for name in wanted if renames.column(name) not in schema.names]
    unseen = renames.unseen(schema.names)
    if absent or unseen:
        names = [name for name in absent if name not in renames.given]
        not_found = f"{', '.join(names)} not found" if names else None
        hint = keys.hint(schema.names) if set(absent) & set(fields) else ""
        if "segmentation" in absent:
            masks = [field.name for field in schema if _wrong_type(field.type) is None]
            hint += f"; try fields={{'segmentation': {masks[0]!r}}}" if masks else ""
            hint += boxes_instead(schema.names)
        problems.add(
            "no column",
            path,
            f"{' and '.join(filter(None, (not_found, unseen)))}; "
            f"the file has {', '.join(schema.names) or 'no columns'}{hint}",
        )
        return
    also = (*(("sentence",) if keys.form is None else keys.form.fields), FIELD)
    wanted += [name for name in also if renames.column(name) in schema.names]
    columns = {name: str(renames.column(name)) for name in wanted}
    if keys.own:
        keys.own.see(name for name in schema.names if name not in renames.given.values())
        columns |= {name: name for name in keys.own.names if name in keys.own.seen}
        wanted = list(columns)
    if repeated := [name for name in columns.values() if schema.names.count(name) > 1]:
        problems.add("no column", path, f"the file has {', '.join(repeated)} more than once")
        return
    for name in fields:
        kind = schema.field(columns[name]).type
        if not _may_be_ids(kind):
            problems.add("bad key", path, f"{renames.called(name)} is {kind}, not an integer")
            return
    if reason := _wrong_type(schema.field(columns["segmentation"]).type):
        problems.add("no column", path, reason)
        return
    read = batches(list(columns.values()))
    if renames:
        read = (batch.select(list(columns.values())).rename_columns(wanted) for batch in read)
    first_row = 0
    try:
        for batch in read:
            yield _batch(batch, first_row, path, keys, options, problems)
            first_row += len(batch)
    except (pa.ArrowException, OSError) as error:
        problems.add("malformed", path, f"after row {first_row}: {error}")
    finally:
        keys.look_at(path, None)


def _some_rows(
    schema: pa.Schema, batches: Callable[[list[str]], Iterator[pa.RecordBatch]]
) -> Iterator[dict[str, Any]]:
    """Read the first rows of what may be ids or sentences."""
    columns = [f.name for f in schema if _may_be_ids(f.type) and schema.names.count(f.name) == 1]
    # What is damaged is recorded when it is read for its masks.
    with contextlib.suppress(pa.ArrowException, OSError):
        for batch in islice(batches(columns), 1 if columns else 0):
            yield from batch.slice(0, WITNESSES).to_pylist()


def _holds_dictionary(kind: pa.DataType) -> bool:
    """Tell whether the counts of a column of masks are a dictionary."""
    is_mask = pa.types.is_struct(kind) and kind.get_field_index("counts") >= 0
    return bool(is_mask and pa.types.is_dictionary(kind.field("counts").type))


def _may_be_ids(kind: pa.DataType) -> bool:
    types = pa.types
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return types.is_integer(kind) or types.is_floating(kind) or text  # type: ignore[no-any-return]


def _wrong_type(kind: pa.DataType) -> str | None:
    """Return what is wrong with the type of `segmentation`; None if all is well."""
    if is_list(kind) and pa.types.is_struct(kind.value_type):
        kind = kind.value_type
    fields = {kind.field(k).name: kind.field(k).type for k in range(kind.num_fields)}
    if _is_text(kind):
        return (
            f"segmentation is {kind}, not a struct with size and counts; if it is JSON text, parse it with json.loads "
            "before the table is written, or write JSON lines"
        )
    if not pa.types.is_struct(kind) or not {"size", "counts"} <= set(fields):
        return f"segmentation is {kind}, not a struct with size and counts"
    size, counts = fields["size"], fields["counts"]
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    if not (is_list(size) and any(is_number(size.value_type) for is_number in numbers)):
        return f"segmentation.size is {size}, not a list of two whole numbers"
    if pa.types.is_dictionary(counts):
        counts = counts.value_type
    if not (is_list(counts) or _is_text(counts) or pa.types.is_null(counts)):
        return f"segmentation.counts is {counts}, not a string or a list of runs"
    return None


def _is_text(kind: pa.DataType) -> bool:
    return kind in (
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
    ) or pa.types.is_fixed_size_binary(kind)


def _batch(
    batch: pa.RecordBatch,
    first_row: int,
    path: str,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> RLEBatch:
    """Make an `RLEBatch` of the rows that can be read; record the others."""

    def where(row: int) -> str:
        return f"{path}, row {first_row + row}"

    masks, not_joined = join_masks(batch.column("segmentation"), options)
    # Unlike field(), flatten() makes the fields of a null struct null.
    names = [masks.type.field(k).name for k in range(masks.type.num_fields)]
    fields = dict(zip(names, masks.flatten(), strict=True))
    null = nulls(masks)
    no_key: dict[int, str] = {}
    if keys.form is None:
        no_key, columns = read_keys([batch.column(name) for name in keys.fields], keys.fields)
    sizes, no_size = read_sizes(fields["size"])
    strings, no_mask = read_strings(fields["counts"])
    for row in np.flatnonzero(no_size).tolist():
        no_mask[row] = "size must be two positive whole numbers"
    # A null struct has no size and no counts either, but it is an explicit empty.
    no_mask = {row: why for row, why in no_mask.items() if not null[row]} | not_joined
    unreadable = sorted(no_mask)
    for row, reason in sorted(no_key.items()):
        problems.add("bad key", where(row), reason)
    for row in unreadable:
        problems.add("malformed mask", where(row), no_mask[row])
    if keys.form is None:
        has_key = np.arange(len(batch))
        if no_key:
            has_key = np.setdiff1d(has_key, np.fromiter(no_key, np.int64))
        index = np.full(len(batch), -1, np.int64)
        index[has_key] = keys.resolve(
            [column[has_key] for column in columns], lambda k: where(int(has_key[k]))
        )
    else:
        held = [name for name in batch.schema.names if name not in ("segmentation", FIELD)]
        # A table without such columns, as keys=order takes, has no rows of its own.
        rows = batch.select(held).to_pylist() if held else [{}] * len(batch)
        index = keys.resolve_rows(rows, where)
    if keys.own:
        held = [name for name in keys.own.names if name in batch.schema.names]
        rows = batch.select(held).to_pylist() if held else [{}] * len(batch)
        keys.own.keep(index, rows, where, keys.problems)
    # Their examples stay claimed, so that a malformed mask is not reported as missing too.
    index[unreadable] = -1
    sentences = None
    if "sentence" in batch.schema.names:
        column = batch.column("sentence")
        sentences = (
            column.to_pylist() if keys.needs_sentences else differing_sentences(column, index, keys)
        )
    labels = batch.column(FIELD).to_pylist() if FIELD in batch.schema.names else None
    return finish_batch(keys, index, strings, null, sizes, sentences, where, labels)
