"""A name or a path in, where its files are out: nothing but names is read.

What reads the records (`sources`) and what reads the pictures (`images`) find them by these rules.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple

from refcocom_gpu.errors import DatasetError, UsageError

SPLIT_NAMES = (
    {"train", "training"},
    {"validation", "valid", "val", "dev"},
    {"test", "testing"},
)
"""Words that name a split in a file or folder, those of one set being synonyms."""


class Place(NamedTuple):
    """Where a source was found.

    Attributes:
        kind: What reads it.
        path: The file, or the folder, inside a snapshot where there are several; nothing to
            `sample` and `hub`.
        commit: The commit the path records, or None.
    """

    kind: Literal["parquet", "arrow", "json", "refer", "sample", "hub"]
    path: Path
    commit: str | None


def locate(source: str | Path, revision: str | None) -> Place:
    """Find a source, without reading it.

    Args:
        source: As for `load_dataset`.
        revision: As for `load_dataset`.

    Raises:
        UsageError: There is no such source or, of what is local, no such revision.

    Example:
        >>> locate("owner/name", None).kind
        'hub'
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path, commit = _snapshot(path, revision)
        is_arrow = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        if refs := sorted(path.glob("refs(*).p")):
            place = Place("refer", _only(refs), commit)
        else:
            place = Place("arrow" if is_arrow else "parquet", path, commit)
    elif path.is_file():
        place = Place(_kind_of_file(path), path, _recorded_commit(path))
    elif source == "sample":
        place = Place("sample", path, None)
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        return Place("hub", path, None)
    else:
        raise UsageError(_nothing_at(str(source), path))
    if revision not in (None, place.commit):
        held = f"commit {place.commit}" if place.commit else "no recorded commit"
        raise UsageError(f"revision={revision} was asked for, but {source} has {held}")
    return place


def _only(refs: list[Path]) -> Path:
    """The one pickle of a REFER release: each is another split of the same images, and none is the usual one."""
    if len(refs) > 1:
        raise UsageError(
            f"{refs[0].parent} holds {', '.join(path.name for path in refs)}; pass one of them as the path"
        )
    return refs[0]


def _kind_of_file(path: Path) -> Literal["parquet", "json", "refer"]:
    if path.suffix == ".p":
        return "refer"
    if path.suffix == ".parquet":
        return "parquet"
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        return "json"
    raise UsageError(f"{path}: expected a folder or a file named .parquet, .jsonl, .json or .p")


def parquet_files(path: Path, split: str) -> list[Path]:
    """The Parquet files of a split: the shards below a folder in their order, or the file itself.

    Raises:
        UsageError: The folder holds none, or none of this split.
        DatasetError: A shard is missing.
    """
    return _choose_split(path, files_below(path), split) if path.is_dir() else [path]


def files_below(folder: Path) -> list[Path]:
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
