"""A user's file of tags in, a column per tag out, a row per example; mistakes of the file are errors.

A row of the file has key columns, which a result has too, and tags, which are the other columns. It tags every example
that agrees with it in all its keys. An example without a row, or with an empty value, has no tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refcocom_gpu.dataset.lookup import normal_text
from refcocom_gpu.errors import TagsError, UsageError
from refcocom_gpu.predictions.key_forms import whole_number
from refcocom_gpu.scores.slices.groupings import ALL, GROUPINGS
from refcocom_gpu.scores.under import sample_numbers
from refcocom_gpu.utils.files import hash_file, regular
from refcocom_gpu.utils.text import first_line

SUFFIXES = (".csv", ".parquet")

KEYS = ("index", "sample_id", "image_id", "sentence_idx", "sentence")
"""Columns of a file that name examples; the others are tags."""

MASK = "segmentation"
"""The masks of native predictions, which are passed over: their Parquet files can serve as tags."""

HOLDERS = ("index", "sample_id", "image_id")
"""Keys of which a file needs one: texts and positions repeat."""

Key = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Tags:
    """What a file says of the examples of a result.

    Attributes:
        columns: Name to [N] values, null where an example has no tag.
        about: The file, its hash and its columns, ready for JSON.
    """

    columns: Mapping[str, pa.Array]
    about: dict[str, Any]


def read_tags(path: str | Path, examples: pa.Table) -> Tags:
    """Read a file of tags.

    Args:
        path: Ends in one of `SUFFIXES`.
        examples: N rows with `KEYS`: `per_example` of a result or `described` of a dataset.

    Raises:
        UsageError: The file cannot be read.
        TagsError: A column cannot be a key or a tag, a key is of no example, or rows of one key disagree.
    """
    path = Path(path)
    table = _read(path)
    keys, names = _columns(path, table, examples)
    table = pa.table({name: _plain(table.column(name)) for name in table.column_names})
    rows = _row_of_each(path, table.select(keys), table.select(names), examples)
    at = _nullable(rows)
    columns = {name: table.column(name).combine_chunks().take(at) for name in names}
    about = {"file": str(path), "xxh3_128": hash_file(path), "keys": keys, "columns": names}
    return Tags(columns, about)


def _read(path: Path) -> pa.Table:
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"tags={path}: a file of tags ends in {' or '.join(SUFFIXES)}")
    regular(path)
    try:
        if path.suffix.lower() == ".csv":
            with path.open("rb") as file:
                options = pa.csv.ConvertOptions(strings_can_be_null=True)
                table = pa.csv.read_csv(file, convert_options=options)
            table.column_names  # noqa: B018 (Arrow decodes the names when they are asked for)
            if binary := [field.name for field in table.schema if pa.types.is_binary(field.type)]:
                raise UsageError(
                    f"tags={path} cannot be read: column {binary[0]} is not UTF-8 text; save the file as UTF-8"
                )
            return table
        with pq.ParquetFile(path.absolute()) as parquet:
            names = parquet.schema_arrow.names
            return parquet.read([name for name in names if name != MASK])
    except UnicodeDecodeError:
        raise UsageError(
            f"tags={path} cannot be read: the names of its columns are not UTF-8; save the file as UTF-8"
        ) from None
    except pa.ArrowException as error:
        raise UsageError(f"tags={path} cannot be read: {first_line(error)}") from None
    except OSError as error:
        raise UsageError(f"tags={path} cannot be read: {error.strerror or error}") from None


def _columns(path: Path, table: pa.Table, examples: pa.Table) -> tuple[list[str], list[str]]:
    """Return the names of the keys and of the tags, checked."""
    names = table.column_names
    keys = [name for name in KEYS if name in names]
    tags = [name for name in names if name not in KEYS]
    held = [name for name in HOLDERS if name in keys]
    if len({*names}) < len(names) or "" in names:
        raise TagsError(
            f"{path}: every column needs a name of its own; there are {', '.join(map(repr, names))}"
        )
    if not held:
        raise TagsError(
            f"{path} names no example: it needs a column {', '.join(HOLDERS)}; it has {', '.join(names)}"
        )
    if held == ["image_id"] and "sentence_idx" in keys:
        raise TagsError(f"{path}: sentence_idx counts the sentences of a sample; add sample_id")
    if not tags:
        raise TagsError(f"{path} holds no tag: all its columns, {', '.join(keys)}, name examples")
    if taken := [name for name in tags if name in {*GROUPINGS, ALL, *examples.column_names}]:
        raise TagsError(
            f"{path}: {', '.join(taken)} would be confused with what a result has already; "
            "leave out or rename such columns"
        )
    if odd := [name for name in tags if not _can_be_tag(table.schema.field(name).type)]:
        raise TagsError(
            f"{path}: tags are text, numbers or booleans; column {odd[0]} holds "
            f"{table.schema.field(odd[0]).type}"
        )
    if "sample_id" in held and "index" not in held:
        ids = examples.select([name for name in held if name in examples.column_names])
        if len(ids.group_by(held).aggregate([])) < int(sample_numbers(examples)[-1]):
            raise TagsError(
                f"{path}: in this dataset a {' and '.join(held)} names several samples; name examples by index"
            )
    return keys, tags


def _can_be_tag(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    kinds = ("string", "large_string", "boolean", "integer", "floating", "temporal", "null")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in kinds)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text, numbers or booleans, in which what is no value is null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_temporal(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return column


def _row_of_each(
    path: Path, keys: pa.Table, tags: pa.Table, examples: pa.Table
) -> NDArray[np.int64]:
    """Return [N] the row of the file that tags each example, -1 where there is none."""
    named = [*zip(*(_key_values(keys, name) for name in keys.column_names), strict=True)]
    known: list[Key] = [
        *zip(*(_key_values(examples, name) for name in keys.column_names), strict=True)
    ]
    first: dict[Key, int] = {}
    repeated: list[tuple[int, int]] = []
    for row, key in enumerate(named):
        if first.setdefault(key, row) != row:
            repeated.append((first[key], row))
    values = tags.to_pylist() if repeated else []
    disagreeing = [(a, b) for a, b in repeated if values[a] != values[b]]
    wanted = {*known}
    unknown = [row for row, key in enumerate(named) if key not in wanted]
    problems = []
    if unknown:
        problems.append(
            f"{len(unknown):,} of {len(named):,} rows are of no example of this dataset; "
            f"the first is {_described(keys, unknown[0])}"
        )
    if disagreeing:
        a, b = disagreeing[0]
        problems.append(
            f"{len(disagreeing):,} rows have another value than an earlier row of the same key; "
            f"the first is {_described(keys, b)}, which row {a + 1:,} holds too"
        )
    if problems:
        raise TagsError(f"{path}: {'; '.join(problems)}")
    return np.array([first.get(key, -1) for key in known], np.int64)


def _key_values(table: pa.Table, name: str) -> Sequence[Any]:
    """Return a key column so that equal keys compare equal; what cannot be a key becomes None."""
    values: list[Any] = table.column(name).to_pylist()
    if name == "sentence":
        return [normal_text(value) if isinstance(value, str) else None for value in values]
    return [whole_number(value) for value in values]


def _described(keys: pa.Table, row: int) -> str:
    values = keys.slice(row, 1).to_pylist()[0]
    return (
        f"row {row + 1:,} ({', '.join(f'{name} {value!r:.60}' for name, value in values.items())})"
    )


def _nullable(rows: NDArray[np.int64]) -> pa.Array:
    """Return row numbers as a column, null for -1."""
    valid = pa.py_buffer(np.packbits(rows >= 0, bitorder="little"))
    return pa.Array.from_buffers(pa.int64(), len(rows), [valid, pa.py_buffer(rows)])
