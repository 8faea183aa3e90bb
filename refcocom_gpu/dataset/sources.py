"""A name or a path in, the flat columns of its records out, with one reader for each kind of source.

No image byte is read: of Parquet files only the needed columns are read, and Arrow files are mapped. `datasets` is
imported only for a Hub name or an Arrow folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.dataset import records
from refcocom_gpu.dataset.hub import open_hub
from refcocom_gpu.dataset.locate import locate, parquet_files
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.utils.cache import Built, cache_root, cached
from refcocom_gpu.utils.files import VERIFIED, regular
from refcocom_gpu.utils.text import first_line

HUB_COLUMNS = ("image_id", "file_name", "samples")
"""The fields to request from the Hub: the published features without the picture. Requesting an absent one fails."""


_Read = tuple[records.Columns, records.Invalid]


class Source(NamedTuple):
    """The records of a source.

    Attributes:
        columns: The flat columns.
        commit: Of the source, where it is known.
        is_published: Whether the source is meant to be RefCOCO-M, although no name says so.
        invalid: The references of an original set that cannot be scored and are not in the columns.
    """

    columns: records.Columns
    commit: str | None
    is_published: bool
    invalid: records.Invalid


def read_source(
    source: str | Path, revision: str | None, split: str, cache: bool | str | Path
) -> Source:
    """Read the records of any source.

    Args:
        source: As for `load_dataset`.
        revision: As for `load_dataset`.
        split: As for `load_dataset`.
        cache: As for `load_dataset`.

    Returns:
        The records and what is known of them.

    Raises:
        UsageError: There is no such source, split or revision.
        DatasetError: The records are malformed, or the Hub cannot be reached.
    """
    kind, path, commit = locate(source, revision)
    is_published, invalid = False, records.Invalid()
    if kind == "parquet":
        files = parquet_files(path, split)
        columns, invalid = _read_parquet(files, split)
        # A constructed set, which has this file, and a copy of an original set are other sets.
        constructed = (path / "construct.json").is_file()
        is_published = path.is_dir() and not constructed and not any(map(_is_mirror, files))
    elif kind == "arrow":
        columns = _from_datasets(open_arrow_folder(path, split), str(path))
    elif kind == "json":
        columns, invalid = _read_jsonl(path, split, cache)
    elif kind == "refer":
        columns, invalid = records.from_refer(path, split)
    elif kind == "hub":
        columns, invalid, commit = _read_hub(str(source), split, revision)
    else:
        from refcocom_gpu.dataset.sample import make_records

        columns = records.from_records(make_records(), "sample")
    return Source(columns, commit, is_published, invalid)


def _read_jsonl(path: Path, split: str, cache: bool | str | Path) -> _Read:
    text = path.read_bytes()
    rows = records.mirror_rows(text)
    if rows is not None:
        return records.from_mirror(rows, str(path), split)
    root = cache_root(cache)
    if root is None:
        return records.from_jsonl(text, str(path)), records.Invalid()
    return _read_cached(text, str(path), root), records.Invalid()


def _read_cached(text: bytes, where: str, root: Path) -> records.Columns:
    """Read image records from the columns that an earlier call kept: 2 ms where parsing takes 25 ms.

    `utils.cache` keeps each table as an array of Arrow IPC bytes, so this file and the store share one lock, one check
    of a hash, and one warning where nothing can be written.
    """

    def parse() -> Built:
        columns = records.from_jsonl(text, where)
        return {
            name: np.frombuffer(_to_ipc(table), np.uint8)
            for name, table in columns._asdict().items()
        }

    digest = xxhash.xxh3_128_hexdigest(text)
    # The version is a hash of the code that makes the columns: other code does not use them.
    modules = sorted(Path(records.__file__).parent.glob("*.py"))
    version = xxhash.xxh3_64_hexdigest(b"".join(module.read_bytes() for module in modules))
    file = root / "records" / f"{digest}-v{version}" / "columns.safetensors"
    arrays = cached(file, {"records": digest, "version": version}, parse)
    return records.Columns(
        *(pa.ipc.open_stream(arrays[name]).read_all() for name in records.Columns._fields)
    )


def _to_ipc(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _read_parquet(files: list[Path], split: str) -> _Read:
    mirrored = [path for path in files if _is_mirror(path)]
    if mirrored and len(mirrored) < len(files):
        other = next(path for path in files if path not in mirrored)
        raise DatasetError(
            f"{mirrored[0]} holds rows of instances with ref_id, {other} does not: pass one or the other"
        )
    if mirrored:
        rows = (row for path in mirrored for row in _mirror_rows(path))
        # The rows of a file that is named after a split may name it otherwise, such as `testA` in `test-….parquet`.
        named = all(split.lower() in path.name.lower() for path in mirrored)
        return records.from_mirror(rows, str(mirrored[0]), split, named=named)
    tables = [records.from_arrow(_project(path), str(path)) for path in files]
    return records.concatenate(tables), records.Invalid()


def _is_mirror(path: Path) -> bool:
    """Tell whether the rows are instances. A file that cannot be read is not; the reader of images refuses it."""
    try:
        names = set(pq.read_schema(path.absolute()).names)
    except (pa.ArrowException, OSError):
        return False
    return records.is_mirror(names)


def _mirror_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with pq.ParquetFile(path.absolute(), **VERIFIED) as file:
            names = [n for n in file.schema_arrow.names if n in records.MIRROR_FIELDS]
            number = 0
            for batch in file.iter_batches(1024, columns=names):
                for row in batch.to_pylist():
                    yield f"{path}, row {number}", row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None


def _project(path: Path) -> pa.Table:
    """Read the leaf columns that `records` needs. Parquet stores each leaf apart, so the others are not read."""
    try:
        # Absolute, because pyarrow takes a relative `a:b` for a URL.
        with pq.ParquetFile(path.absolute(), **VERIFIED) as file:
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            wanted = [leaf for leaf in leaves if _is_wanted(leaf.split("."))]
            table = file.read(columns=wanted)
            if "samples" in table.schema.names:
                return table
            present = ", ".join(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    raise DatasetError(f"{path}: missing samples in the records; fields found: {present}")


def _is_wanted(leaf: list[str]) -> bool:
    if leaf[0] == "samples":
        return not set(records.UNREAD_SAMPLE_FIELDS).intersection(leaf[1:])
    return leaf[0] in records.RECORD_FIELDS


def open_arrow_folder(folder: Path, split: str) -> Any:
    """Open a folder that `save_to_disk` wrote as a `datasets.Dataset`; its files are mapped, not read.

    Raises:
        UsageError: The folder holds no such split.
        DatasetError: The folder cannot be read.
    """
    import datasets

    for file in folder.rglob("*"):
        regular(file)
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DatasetError(f"{folder}: cannot be read as saved by save_to_disk: {error}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise UsageError(f"{folder} holds no split {split!r}; it holds {', '.join(loaded)}")
        loaded = loaded[split]
    return loaded


def _from_datasets(loaded: Any, where: str) -> records.Columns:
    # Selecting columns reads nothing: the file stays mapped, and the pages of the pictures are not touched.
    wanted = [name for name in loaded.column_names if name in records.RECORD_FIELDS]
    return records.from_arrow(loaded.select_columns(wanted).with_format("arrow")[:], where)


def _read_hub(
    name: str, split: str, revision: str | None
) -> tuple[records.Columns, records.Invalid, str | None]:
    opened, commit = open_hub(name, split, revision, HUB_COLUMNS)
    if isinstance(opened, list):
        return *_read_parquet(opened, split), commit
    return _from_datasets(opened, name), records.Invalid(), commit
