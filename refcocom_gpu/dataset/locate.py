"""A name or a path in, the place of its files out; only names are read, no contents.

`sources`, which reads the records, and `images`, which reads the pictures, find their files by these rules.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple

from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.utils.files import regular

SPLIT_NAMES = (
    {"train", "training"},
    {"validation", "valid", "val", "dev"},
    {"test", "testing"},
)
"""The words that name a split in a file or folder name; the words of one set are synonyms."""


class Place(NamedTuple):
    """Where a source was found.

    Attributes:
        kind: The kind of source, which decides how it is read.
        path: The file or the folder; of a repository in the Hub's cache, the folder of one snapshot.
            Of no meaning to `sample` and `hub`.
        commit: The commit that the path names, or None.
    """

    kind: Literal["parquet", "arrow", "json", "refer", "sample", "hub"]
    path: Path
    commit: str | None


def locate(source: str | Path, revision: str | None, split_by: str | None = None) -> Place:
    """Find a source without reading it.

    Args:
        source: As for `load_dataset`.
        revision: As for `load_dataset`.
        split_by: Which of the references of a release to take; of no meaning to other sources.

    Raises:
        UsageError: There is no such source, it is a pipe or a device, or a local source does not have this revision.

    Example:
        >>> locate("owner/name", None).kind
        'hub'
    """
    path = regular(Path(source).expanduser())
    if path.is_dir():
        path, commit = _snapshot(path, revision)
        is_arrow = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        if refs := _releases_in(path):
            place = Place("refer", _only_release(refs, split_by), commit)
        else:
            place = Place("arrow" if is_arrow else "parquet", path, commit)
    elif path.is_file():
        if split_by_of(path) is not None:
            _only_release([path], split_by)
        place = Place(_kind_of_file(path), path, _recorded_commit(path))
    elif source == "sample":
        place = Place("sample", path, None)
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        return Place("hub", path, None)
    else:
        raise UsageError(_nothing_at(str(source), path))
    if revision not in (None, place.commit):
        recorded = f"commit {place.commit}" if place.commit else "no recorded commit"
        raise UsageError(f"revision={revision} was asked for, but {source} has {recorded}")
    return place


def split_by_of(path: Path) -> str | None:
    """Return who split the images, which the name of the references of a release says; None for any other name.

    >>> split_by_of(Path("refs(unc).p")), split_by_of(Path("grefs(unc).json")), split_by_of(Path("a.json"))
    ('unc', 'unc', None)
    """
    match = re.fullmatch(r"g?refs\((.*)\)\.(?:p|json)", path.name)
    return match[1] if match else None


def _releases_in(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if split_by_of(entry) is not None)


def _only_release(refs: list[Path], split_by: str | None) -> Path:
    """Return the one file of a release. Each of several splits the images in its own way, and none is the default."""
    fitting = [path for path in refs if split_by in (None, split_by_of(path))]
    if len(fitting) == 1:
        return fitting[0]
    held = f"{refs[0].parent} holds {', '.join(path.name for path in refs)}"
    if not fitting:
        raise UsageError(f"{held}; none is split_by='{split_by}'")
    choices = " or ".join(dict.fromkeys(f"split_by='{split_by_of(path)}'" for path in fitting))
    raise UsageError(f"{held}; pass one of them as the path, or {choices}")


def _kind_of_file(path: Path) -> Literal["parquet", "json", "refer"]:
    if path.suffix == ".p" or split_by_of(path) is not None:
        return "refer"
    if path.suffix == ".parquet":
        return "parquet"
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        return "json"
    raise UsageError(f"{path}: expected a folder or a file named .parquet, .jsonl, .json or .p")


def parquet_files(path: Path, split: str) -> list[Path]:
    """List the Parquet files of a split: the shards below a folder, in their order, or the file itself.

    Raises:
        UsageError: The folder holds no Parquet file, or none of this split.
        DatasetError: A shard is missing.
    """
    return _choose_split(path, files_below(path), split) if path.is_dir() else [path]


def files_below(folder: Path) -> list[Path]:
    """List the Parquet files below a folder, without hidden folders, where clients keep unfinished downloads."""
    return [
        regular(path)
        for path in sorted(folder.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def synonyms_of(split: str) -> set[str]:
    """List the words that mean a split.

    >>> sorted(synonyms_of("test")), synonyms_of("testA")
    (['test', 'testing'], {'testA'})
    """
    return next((words for words in SPLIT_NAMES if split.lower() in words), {split})


def _choose_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    if not files:
        raise UsageError(
            f"{folder} holds no Parquet file; expected e.g. data/{split}-00000-of-00001.parquet"
        )
    words = {
        path: set(re.split(r"[^a-z0-9]+", path.relative_to(folder).as_posix().lower()))
        for path in files
    }
    chosen = [path for path in files if split.lower() in words[path]]
    if not chosen:
        synonyms = synonyms_of(split)
        chosen = [path for path in files if synonyms & words[path]]
    if not chosen:
        others = sorted(set().union(*SPLIT_NAMES) & set().union(*words.values()))
        if others:
            raise UsageError(
                f"{folder} holds no split {split!r}; its files are named after {', '.join(others)}"
            )
        chosen = files
    _refuse_missing_shards(folder, chosen)
    return chosen


def _refuse_missing_shards(folder: Path, files: list[Path]) -> None:
    names = {path.name for path in files}
    for path in files:
        shard = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.parquet", path.name)
        if shard:
            expected = {f"{shard[1]}-{i:05}-of-{shard[3]}.parquet" for i in range(int(shard[3]))}
            missing = sorted(expected - names)
            if missing:
                raise DatasetError(
                    f"{folder} lacks {len(missing)} of {len(expected)} shards, first {missing[0]}"
                )


def _snapshot(folder: Path, revision: str | None) -> tuple[Path, str | None]:
    """Step from a repository folder of the Hub's cache into one of its snapshots; also return its commit."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir():
        return folder, _recorded_commit(folder)
    names = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
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


def _recorded_commit(path: Path) -> str | None:
    """Return the commit that a path inside a snapshot names."""
    path = path.absolute()
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots":
            return folder.name
    return None


def _nothing_at(source: str, path: Path) -> str:
    """Explain that there is no such source, with the nearest name that exists."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    absent = path.absolute().relative_to(parent).parts[0]
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    similar = [str(parent / name) for name in get_close_matches(absent, names, n=1)]
    similar += get_close_matches(source, ["sample"], n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"{parent} exists and has no {absent}"
    return f"there is no file or folder {source}, and it is not a Hub name owner/name; {hint}"
