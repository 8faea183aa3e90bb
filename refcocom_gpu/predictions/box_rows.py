"""Rows of JSON or of a table, or pairs in memory, that hold boxes in; `BoxBatch`es out: the counterpart of `rows.py`.

Rows are read one by one, because a box is four numbers: a million of them take some ten seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError, Problems, UsageError
from refcocom_gpu.predictions.batches import BoxBatch
from refcocom_gpu.predictions.boxes import NONE, box_in_pixels
from refcocom_gpu.predictions.header import SCHEMA, check_fields, check_header, metadata_of
from refcocom_gpu.predictions.keys import Keys, refuse_extra
from refcocom_gpu.predictions.labels import FIELD
from refcocom_gpu.predictions.normalise import as_ints, as_numpy, as_pairs, is_tensor
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.records import json_object
from refcocom_gpu.predictions.renames import Renames
from refcocom_gpu.predictions.suggest import BOX_NAMES

BATCH_ROWS = 4096
"""Rows looked up at a time: enough to hide the cost of a call."""

Row = tuple[str, Mapping[str, Any]]
"""The place of a row, and what it holds under the names of its file."""

BoxBatches = Iterator[Any]
"""Of `BoxBatch`es: the readers of rows give these where options declare boxes, and batches of masks otherwise."""


def read_lines(
    blocks: Iterable[bytes], source: str, keys: Keys, options: ReadOptions, problems: Problems
) -> BoxBatches:
    """Read blocks of whole JSON lines as `rows.read_lines` does."""
    lines = itertools.chain.from_iterable(b.removesuffix(b"\n").split(b"\n") for b in blocks)

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines, 1):
            is_header = number == 1 and check_header(line, source, keys.dataset, problems)
            where = f"{source}, line {number}"
            if line.strip() and not is_header:
                row = json_object(line, where, problems)
                if row is not None:
                    yield where, row

    return _batches(rows(), source, keys, options, problems)


def read_entries(
    chunks: Iterable[Sequence[msgspec.Raw]],
    source: str,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> BoxBatches:
    """Read the entries of a JSON array as `rows.read_entries` does."""

    def rows() -> Iterator[Row]:
        for number, raw in enumerate(itertools.chain.from_iterable(chunks), 1):
            where = f"{source}, entry {number}"
            row = json_object(bytes(raw), where, problems)
            if row is not None:
                yield where, row

    return _batches(rows(), source, keys, options, problems)


def read_box_table(
    schema: pa.Schema,
    batches: Callable[[list[str]], Iterator[pa.RecordBatch]],
    path: str,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> BoxBatches:
    """Read a table as `parquet.read_table` does."""
    metadata = metadata_of(schema)
    if metadata.get("schema") == SCHEMA:
        check_fields(metadata, path, keys.dataset, problems)
    renames = keys.renames
    needed = ("box", *(keys.fields if keys.form is None else ()))
    named = (*needed, "sentence", FIELD, *(() if keys.form is None else keys.form.fields))
    wanted = {renames.column(name) for name in named} | {*renames.given.values()}
    columns = [name for name in schema.names if name in wanted]
    absent = [name for name in needed if renames.column(name) not in columns]
    reason = None
    if absent or renames.unseen(columns):
        names = ", ".join(name for name in absent if name not in renames.given)
        not_found = f"{names} not found" if names else None
        reason = (
            f"{' and '.join(filter(None, (not_found, renames.unseen(columns))))}; "
            f"the file has {', '.join(schema.names) or 'no columns'}{box_column(schema.names, renames)}"
        )
    elif repeated := sorted({name for name in columns if columns.count(name) > 1}):
        reason = f"the file has {', '.join(repeated)} more than once"
    elif not _may_be_boxes(kind := schema.field(str(renames.column("box"))).type):
        reason = f"{renames.called('box')} is {kind}, not a list of four numbers"
    if reason is not None:
        problems.add("no column", path, reason)
        return

    def rows() -> Iterator[Row]:
        numbers = itertools.count()
        try:
            for batch in batches(columns):
                for row in batch.to_pylist():
                    yield f"{path}, row {next(numbers)}", row
        except (pa.ArrowException, OSError) as error:
            problems.add("malformed", path, f"after row {next(numbers)}: {error}")

    yield from _batches(rows(), path, keys, options, problems)


def box_column(names: Collection[str], renames: Renames) -> str:
    """Return the hint that names the column in which other libraries write boxes; empty where there is none."""
    found = [name for name in BOX_NAMES if name in names and name not in renames.given.values()]
    return f"; try fields.box={found[0]}" if found else ""


def _may_be_boxes(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_null(kind):
        return True
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    value = kind.value_type
    return bool(types.is_integer(value) or types.is_floating(value) or types.is_null(value))


def read_box_pairs(
    pairs: Iterable[tuple[Any, Any]], keys: Keys, options: ReadOptions, problems: Problems
) -> BoxBatches:
    """Read an iterable of `(index, boxes)` as `memory.read_pairs` reads masks.

    Args:
        pairs: `index` is what `as_rows` takes; `boxes` is [4] numbers or None for one example, or [B, 4] or a list of
            such for several. A dict maps row numbers or keys to boxes.
        keys: Resolver of this read.
        options: Declare the form of boxes.
        problems: Collects what is wrong.

    Raises:
        UsageError: They are not pairs, or the numbers of keys and boxes differ.
    """
    refuse_extra(options)
    if isinstance(pairs, Mapping):
        pairs = [as_pairs(pairs)]
    if not isinstance(pairs, Iterable):
        raise UsageError(f"boxes are paths or (index, boxes) pairs, not {type(pairs).__name__}")
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(f"boxes in memory are (index, boxes) pairs, not {type(pair).__name__}")
        numbers, boxes = as_box_rows(*pair, len(keys.fields))
        places = [f"batch {number}, row {row}" for row in range(len(boxes))]
        index = keys.resolve_any(numbers, places.__getitem__)
        yield checked_boxes(index, boxes, places, keys, options, problems)


def as_box_rows(index: Any, boxes: Any, n_fields: int) -> tuple[NDArray[np.int64], list[Any]]:
    """Return [B] row numbers or [B, F] keys, and B boxes."""
    numbers, listed = as_ints(index), _plain(boxes)
    if listed is None or not (isinstance(listed, list) and all(map(_is_box, listed))):
        is_key = isinstance(index, tuple) and numbers.shape == (n_fields,)
        numbers, listed = numbers[None] if is_key else np.atleast_1d(numbers), [listed]
    numbers = np.atleast_1d(numbers)
    if numbers.ndim > 2 or (numbers.ndim == 2 and numbers.shape[1] != n_fields and numbers.size):
        raise UsageError(f"a key has {n_fields} numbers, these are of shape {list(numbers.shape)}")
    if len(numbers) != len(listed):
        raise UsageError(f"{len(numbers)} indices came with {len(listed)} boxes")
    return numbers, listed


def _is_box(entry: Any) -> bool:
    """Return whether an entry of a list is a box of its own rather than a number of one."""
    return entry is None or isinstance(entry, list | str | Mapping)


def _plain(value: Any) -> Any:
    """Return arrays and tensors in a value as lists."""
    if is_tensor(value) or hasattr(value, "__array__"):
        return as_numpy(value).tolist()
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _batches(
    rows: Iterator[Row], source: str, keys: Keys, options: ReadOptions, problems: Problems
) -> BoxBatches:
    """Yield the boxes of rows; record what is wrong with a row, or that a renamed field stands in none."""
    seen: set[str] = set()
    while part := list(itertools.islice(rows, BATCH_ROWS)):
        seen.update(*(held for _, held in part))
        keys.look_at(source, partial(iter, [held for _, held in part]))
        batch = _batch(part, keys, options, problems)
        keys.look_at(source, None)
        if len(batch.index):
            yield batch
    if seen and (reason := keys.renames.unseen(seen)):
        problems.add("no column", source, f"{reason}: no row holds it")


def _batch(part: list[Row], keys: Keys, options: ReadOptions, problems: Problems) -> BoxBatch:
    places = [where for where, _ in part]
    rows = [keys.renames.row(held) for _, held in part]
    if keys.form is None:
        ids = [keys.ids_of(row, where, held) for row, (where, held) in zip(rows, part, strict=True)]
        named = [k for k, key in enumerate(ids) if key is not None]
        numbers = np.array([ids[k] for k in named], np.int64).reshape(-1, len(keys.fields))
        index = np.full(len(rows), -1, np.int64)
        index[named] = keys.resolve(list(numbers.T), lambda k: places[named[k]])
    else:
        index = keys.resolve_rows(rows, places.__getitem__)
    index = keys.check_sentences(index, [row.get("sentence") for row in rows], places.__getitem__)
    keys.label(index, [row.get(FIELD) for row in rows], places.__getitem__)
    boxes: list[Any] = []
    for k, (row, (where, held)) in enumerate(zip(rows, part, strict=True)):
        if keys.is_rejected(row):
            # A rejection is no box, whatever box it has.
            boxes.append(None)
            continue
        if "box" not in row:
            names = ", ".join(held) or "nothing"
            problems.add(
                "no box",
                where,
                f"no {keys.renames.called('box')}; the row has {names}; write null for no box on purpose"
                f"{box_column(held, keys.renames)}",
            )
            index[k] = -1
        boxes.append(row.get("box"))
    return checked_boxes(index, boxes, places, keys, options, problems)


def checked_boxes(
    index: NDArray[np.int64],
    boxes: list[Any],
    places: list[str],
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> BoxBatch:
    """Return the boxes in pixels of the rows that have no problem so far."""
    corners, kept = [], []
    samples = keys.dataset.example_sample[index]
    heights, widths = (keys.dataset.heights[samples], keys.dataset.widths[samples])
    for k, box in enumerate(boxes):
        size = (int(heights[k]), int(widths[k])) if index[k] >= 0 else None
        try:
            corner = box_in_pixels(box, size, options)
        except DataError as error:
            problems.add("malformed box", places[k], str(error))
            continue
        if size is not None:
            corners.append(corner)
            kept.append(k)
    found = np.array(corners or [NONE], np.float64)[: len(corners)]
    return BoxBatch(index[kept], found, lambda row: places[kept[row]])
