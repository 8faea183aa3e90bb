"""A name or a path in, the columns of its records out: one reader per kind of source.

Image bytes are never read: Parquet columns are projected, Arrow files are mapped. `datasets` is imported only for a
Hub name or an Arrow folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.dataset import records
from refcocom_gpu.dataset.locate import files_below, locate, parquet_files
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.utils.cache import Built, cache_root, cached

HUB_COLUMNS = ("image_id", "file_name", "samples")
"""What is asked of the Hub: the published features less the picture. An absent column fails."""


def read_source(
    source: str | Path, revision: str | None, split: str, cache: bool | str | Path
) -> tuple[records.Columns, str | None, bool]:
    """Read the records of any source.

    Args:
        source: As for `load_dataset`.
        revision: As for `load_dataset`.
        split: As for `load_dataset`.
        cache: As for `load_dataset`.

    Returns:
        Columns, the commit where one is known, and whether the source claims to be the published set.

    Raises:
        UsageError: There is no such source, split or revision.
        DatasetError: The records lack what they must hold, or the Hub cannot be reached.
    """
    kind, path, commit = locate(source, revision)
    # A constructed set says what it is.
    constructed = (path / "construct.json").is_file()
    mirrored = False
    compare = kind == "hub" or (kind == "parquet" and path.is_dir() and not constructed)
    if kind == "parquet":
        files = parquet_files(path, split)
        mirrored = any(map(_is_mirror, files))
        columns = _read_parquet(files, split)
    elif kind == "arrow":
        columns = _from_datasets(open_arrow_folder(path, split), str(path))
    elif kind == "json":
        columns = _read_jsonl(path, split, cache)
    elif kind == "refer":
        columns = records.from_refer(path, split)
    elif kind == "hub":
        columns, commit = _read_hub(str(source), split, revision)
    else:
        from refcocom_gpu.dataset.sample import make_records

        columns = records.from_records(make_records(), "sample")
    return columns, commit, compare and not mirrored


def _read_jsonl(path: Path, split: str, cache: bool | str | Path) -> records.Columns:
    """Records of JSON lines, kept as columns: parsing took 25 ms, finding out that it is the same file takes 2."""
    text = path.read_bytes()
    if (rows := records.mirror_rows(text)) is not None:
        return records.from_mirror(rows, str(path), split)
    digest = xxhash.xxh3_128_hexdigest(text)

    def parse() -> Built:
        columns = records.from_jsonl(text, str(path))
        return {
            name: np.frombuffer(_to_ipc(table), np.uint8)
            for name, table in columns._asdict().items()
        }

    root = cache_root(cache)
    if root is None:
        return records.from_jsonl(text, str(path))
    # Columns made by other code than this are not found.
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


def _read_parquet(files: list[Path], split: str) -> records.Columns:
    mirrored = [path for path in files if _is_mirror(path)]
    if mirrored and len(mirrored) < len(files):
        other = next(path for path in files if path not in mirrored)
        raise DatasetError(
            f"{mirrored[0]} holds instances by ref_id, {other} does not: one or the other"
        )
    if mirrored:
        rows = (row for path in mirrored for row in _mirror_rows(path))
        # A copy whose files are named after splits may call them otherwise in its rows, as `testA` in `test-….parquet`.
        named = all(split.lower() in path.name.lower() for path in mirrored)
        return records.from_mirror(rows, str(mirrored[0]), split, named=named)
    return records.concatenate([records.from_arrow(_project(path), str(path)) for path in files])


def _is_mirror(path: Path) -> bool:
    """Whether the rows are instances, not images; whatever cannot be read is for the reader of images to refuse."""
    try:
        names = set(pq.read_schema(path.absolute()).names)
    except (pa.ArrowException, OSError):
        return False
    return records.is_mirror(names)


def _mirror_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with pq.ParquetFile(path.absolute()) as file:
            names = [n for n in file.schema_arrow.names if n in records.MIRROR_FIELDS]
            number = 0
            for batch in file.iter_batches(1024, columns=names):
                for row in batch.to_pylist():
                    yield f"{path}, row {number}", row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}"
        ) from None


def _project(path: Path) -> pa.Table:
    """The leaves that `records` reads: Parquet stores each apart, so the rest is not touched."""
    try:
        # Absolute, because pyarrow takes a relative `a:b` for an address.
        with pq.ParquetFile(path.absolute()) as file:
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            wanted = [leaf for leaf in leaves if _is_wanted(leaf.split("."))]
            table = file.read(columns=wanted)
            if "samples" in table.schema.names:
                return table
            found = ", ".join(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}"
        ) from None
    raise DatasetError(f"{path}: missing samples in the records; fields found: {found}")


def _is_wanted(leaf: list[str]) -> bool:
    if leaf[0] == "samples":
        return not set(records.UNREAD_SAMPLE_FIELDS).intersection(leaf[1:])
    return leaf[0] in records.RECORD_FIELDS


def open_arrow_folder(folder: Path, split: str) -> Any:
    """A folder that `save_to_disk` wrote, as a `datasets.Dataset`: mapped, not read.

    Raises:
        UsageError: It holds no such split.
        DatasetError: It cannot be read.
    """
    import datasets

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
    # Selecting only drops references: the file stays mapped, the pages of pictures untouched.
    wanted = [name for name in loaded.column_names if name in records.RECORD_FIELDS]
    return records.from_arrow(loaded.select_columns(wanted).with_format("arrow")[:], where)


def _read_hub(name: str, split: str, revision: str | None) -> tuple[records.Columns, str | None]:
    found, commit = open_hub(name, split, revision, HUB_COLUMNS)
    columns = (
        _read_parquet(found, split) if isinstance(found, list) else _from_datasets(found, name)
    )
    return columns, commit


def open_hub(
    name: str, split: str, revision: str | None, columns: Sequence[str]
) -> tuple[Any, str | None]:
    """A dataset of the Hub, by way of its clients' caches.

    Args:
        name: `owner/name`.
        split: As for `load_dataset`.
        revision: As for `load_dataset`.
        columns: The fields wanted of a record.

    Returns:
        A `datasets.Dataset` of these columns, or the Parquet files of the split, with all of theirs,
        where only the Hub client's own cache has them; and the commit, where it is known.

    Raises:
        DatasetError: There is no such dataset, or it cannot be reached and no cache has it.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    at = f" at revision {revision}" if revision else ""
    reason = (
        f"cannot reach the Hub and {name}{at} is not in the local cache; "
        "download it elsewhere and pass dataset.path=/path/to/snapshot"
    )
    try:
        loaded = datasets.load_dataset(name, split=split, revision=revision, columns=list(columns))
        commit = _commit_of(loaded)
        # Without a network `datasets` ignores the revision and takes what it cached last.
        if revision in (None, commit) or getattr(_cached(name, revision), "name", None) == commit:
            return loaded, commit
    except DatasetNotFoundError as error:
        reason = f"{name}: {str(error).splitlines()[0]}"
    except Exception as error:  # requests', httpx's or httpx2's, as the Hub client's version has it
        if not _is_about_reaching(error):
            reason = f"{name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    # The Hub client's own cache may hold the files where `datasets` has no table of these columns:
    # after `snapshot_download`, after a load of other columns, for records in the other shape.
    folder = _cached(name, revision)
    if folder is None or not files_below(folder):
        raise DatasetError(reason)
    return parquet_files(folder, split), folder.name


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot of a revision in the Hub client's cache, if it is there."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except (OSError, ValueError):
        return None


def _is_about_reaching(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, ConnectionError | TimeoutError | FileNotFoundError)
        or library in ("requests", "urllib3", "httpx", "httpx2", "httpcore")
        or "Couldn't find cache" in str(error)
    )


def _commit_of(loaded: Any) -> str | None:
    """The commit that `datasets` resolved, named by older versions' checksums or the cache folder."""
    places = [*(loaded.info.download_checksums or ()), *(f["filename"] for f in loaded.cache_files)]
    found = (re.search(r"[@/\\]([0-9a-f]{40})(?=[/\\])", place) for place in places)
    return next((match[1] for match in found if match), None)
