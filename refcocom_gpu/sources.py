"""A name or a path in, the columns of its records out: one reader per kind of source.

Image bytes are never read: Parquet columns are projected, Arrow files are mapped. `datasets` is imported only for a
Hub name or an Arrow folder.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu import records
from refcocom_gpu.cache import Built, cache_root, cached
from refcocom_gpu.errors import DatasetError, UsageError

HUB_COLUMNS = ("image_id", "file_name", "samples")
"""What is asked of the Hub: the published features less the picture. An absent column fails."""

SPLIT_NAMES = (
    {"train", "training"},
    {"validation", "valid", "val", "dev"},
    {"test", "testing"},
)
"""Words that name a split in a file or folder, those of one set being synonyms."""


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
    path = Path(source).expanduser()
    commit = None
    compare = False
    if path.is_dir():
        path, commit = _snapshot(path, revision)
        is_arrow = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        columns = _read_arrow_folder(path, split) if is_arrow else _read_parquet_folder(path, split)
        compare = not is_arrow
    elif path.is_file():
        commit = _recorded_commit(path)
        columns = _read_file(path, cache)
    elif source == "sample":
        from refcocom_gpu.sample import make_records

        columns = records.from_records(make_records(), "sample")
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        columns, commit = _read_hub(source, split, revision)
        compare = True
    else:
        raise UsageError(_nothing_at(str(source), path))
    is_local = path.exists() or source == "sample"
    if is_local and revision not in (None, commit):
        held = f"commit {commit}" if commit else "no recorded commit"
        raise UsageError(f"revision={revision} was asked for, but {source} has {held}")
    return columns, commit, compare


def _read_file(path: Path, cache: bool | str | Path) -> records.Columns:
    if path.suffix == ".parquet":
        return _read_parquet([path])
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        return _read_jsonl(path, cache)
    raise UsageError(f"{path}: expected a folder or a file named .parquet, .jsonl or .json")


def _read_jsonl(path: Path, cache: bool | str | Path) -> records.Columns:
    """Records of JSON lines, kept as columns: parsing took 25 ms, finding out that it is the same file takes 2."""
    text = path.read_bytes()
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


def _read_parquet_folder(folder: Path, split: str) -> records.Columns:
    return _read_parquet(_choose_split(folder, _parquet_files(folder), split))


def _parquet_files(folder: Path) -> list[Path]:
    """Every Parquet file below but in hidden folders, where clients keep unfinished downloads."""
    found = sorted(folder.rglob("*.parquet"))
    return [
        p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]


def _choose_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    if not files:
        raise UsageError(
            f"{folder} holds no Parquet file; expected e.g. data/{split}-00000-of-00001.parquet"
        )
    words = {
        p: set(re.split(r"[^a-z0-9]+", p.relative_to(folder).as_posix().lower())) for p in files
    }
    wanted = next((names for names in SPLIT_NAMES if split in names), {split})
    chosen = [p for p in files if split.lower() in words[p]] or [
        p for p in files if wanted & words[p]
    ]
    others = sorted(set().union(*SPLIT_NAMES) & set().union(*words.values()))
    if not chosen and others:
        raise UsageError(
            f"{folder} holds no split {split!r}; its files are named after {', '.join(others)}"
        )
    chosen = chosen or files
    for p in chosen:
        shard = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.parquet", p.name)
        if shard:
            expected = {f"{shard[1]}-{i:05}-of-{shard[3]}.parquet" for i in range(int(shard[3]))}
            missing = sorted(expected - {q.name for q in chosen})
            if missing:
                raise DatasetError(
                    f"{folder} lacks {len(missing)} of {len(expected)} shards, first {missing[0]}"
                )
    return chosen


def _read_parquet(files: list[Path]) -> records.Columns:
    return records.concatenate([records.from_arrow(_project(path), str(path)) for path in files])


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


def _read_arrow_folder(folder: Path, split: str) -> records.Columns:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DatasetError(f"{folder}: cannot be read as saved by save_to_disk: {error}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise UsageError(f"{folder} holds no split {split!r}; it holds {', '.join(loaded)}")
        loaded = loaded[split]
    return _from_datasets(loaded, str(folder))


def _from_datasets(loaded: Any, where: str) -> records.Columns:
    # Selecting only drops references: the file stays mapped, the pages of pictures untouched.
    wanted = [name for name in loaded.column_names if name in records.RECORD_FIELDS]
    return records.from_arrow(loaded.select_columns(wanted).with_format("arrow")[:], where)


def _read_hub(name: str, split: str, revision: str | None) -> tuple[records.Columns, str | None]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    at = f" at revision {revision}" if revision else ""
    reason = (
        f"cannot reach the Hub and {name}{at} is not in the local cache; "
        "download it elsewhere and pass dataset.path=/path/to/snapshot"
    )
    try:
        loaded = datasets.load_dataset(
            name, split=split, revision=revision, columns=list(HUB_COLUMNS)
        )
        commit = _commit_of(loaded)
        # Without a network `datasets` ignores the revision and takes what it cached last.
        if revision in (None, commit) or getattr(_cached(name, revision), "name", None) == commit:
            return _from_datasets(loaded, name), commit
    except DatasetError:
        raise
    except DatasetNotFoundError as error:
        reason = f"{name}: {str(error).splitlines()[0]}"
    except Exception as error:  # requests', httpx's or httpx2's, as the Hub client's version has it
        if not _is_about_reaching(error):
            reason = f"{name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    # The Hub client's own cache may hold the files where `datasets` has no table of these columns:
    # after `snapshot_download`, after a load of other columns, for records in the other shape.
    folder = _cached(name, revision)
    if folder is None or not _parquet_files(folder):
        raise DatasetError(reason)
    return _read_parquet_folder(folder, split), folder.name


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


def _snapshot(folder: Path, revision: str | None) -> tuple[Path, str | None]:
    """Step from a repository folder of the Hub's cache into one of its snapshots."""
    snapshots = folder / "snapshots"
    if snapshots.is_dir():
        names = sorted(p.name for p in snapshots.iterdir() if p.is_dir())
        main = folder / "refs" / "main"
        head = main.read_text().strip() if main.is_file() else ""
        if revision in names:
            return snapshots / str(revision), revision
        if head in names:
            return snapshots / head, head
        if len(names) != 1:
            raise UsageError(
                f"{folder} holds {len(names)} snapshots; pass one: {', '.join(names) or 'none'}"
            )
        return snapshots / names[0], names[0]
    return folder, _recorded_commit(folder)


def _recorded_commit(path: Path) -> str | None:
    path = path.absolute()
    return next((p.name for p in (path, *path.parents) if p.parent.name == "snapshots"), None)


def _nothing_at(source: str, path: Path) -> str:
    parent = next(p for p in path.absolute().parents if p.exists())
    wanted = path.absolute().relative_to(parent).parts[0]
    names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    close = [str(parent / name) for name in get_close_matches(wanted, names, n=1)]
    close += get_close_matches(source, ["sample"], n=1)
    hint = f"did you mean {close[0]}?" if close else f"{parent} exists and has no {wanted}"
    return f"no file or folder {source}, and it is no Hub name owner/name; {hint}"
