"""A file or a folder of predictions in, its batches out: the ending or what lies in the folder selects the reader.

What an epoch of a training metric saved, a file per rank, is such a folder: its files are the shards of one set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from refcocom_gpu.errors import ContentError, Problems, UsageError
from refcocom_gpu.predictions.arrow_tables import STATE, saved_files
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.formats import ENDINGS, READERS, ending
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.files import regular

PICKLES = {".pkl", ".pickle", ".joblib"}

JOURNAL = ".partial"
"""The ending of what a writer keeps beside its file until it is done."""

SHOWN = 3
"""Most names of a kind that a message lists."""

Reader = Callable[[Path, Keys, ReadOptions, Problems], Batches]


def reader_of(path: Path) -> Reader:
    """Find the reader of a file or a folder; nothing of a file is read.

    Raises:
        UsageError: There is none, or a folder holds several sets or kinds of files.
    """
    if path.is_dir():
        return _folder_reader(path)
    suffix = ending(path.name)
    if suffix in READERS:
        return _load(*READERS[suffix])
    if suffix in PICKLES:
        from refcocom_gpu.predictions.arrays import PICKLE_HINT

        raise UsageError(f"{path}: {PICKLE_HINT}")
    raise UsageError(
        f"{path}: predictions are a folder of such files or of PNGs, or a file ending in {ENDINGS}; "
        f"not {suffix or 'a file without an ending'}"
    )


def read_shard(
    read: Reader, path: Path, keys: Keys, options: ReadOptions, problems: Problems
) -> Batches:
    """Read one file or folder of a set; what is wrong with it as a whole is recorded under its name.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        yield from read(regular(path), keys, options, problems)
    except ContentError as error:
        problems.add("malformed", str(path), str(error))
    except (
        UnicodeDecodeError
    ) as error:  # of the names of columns, which Arrow decodes when they are asked for
        problems.add("malformed", str(path), f"a name in it is not UTF-8: {error}")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _load(module: str, name: str) -> Reader:
    read: Reader = getattr(import_module(f"refcocom_gpu.predictions.{module}"), name)
    return read


def _folder_reader(folder: Path) -> Reader:
    # Hidden files such as .DS_Store come from the system, not from the user.
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if folder / STATE in entries:
        return _read_saved
    folders = [p.name for p in entries if p.is_dir()]
    if folders and (folder / "dataset_dict.json" in entries or len(folders) == len(entries)):
        raise UsageError(
            f"{folder} holds folders, each a set of its own: {', '.join(folders[:SHOWN])}"
            f"{', …' if len(folders) > SHOWN else ''}; give one of them, or rank them: refcocom sweep '{folder}/*'"
        )
    kinds: dict[Any, list[Path]] = {}
    for entry in entries:
        suffix = ending(entry.name)
        if suffix == ".png" or suffix in READERS:
            kinds.setdefault(READERS.get(suffix), []).append(entry)
    if len(kinds) > 1:
        listed = "; ".join(
            ", ".join(p.name for p in files[:SHOWN]) + (", …" if len(files) > SHOWN else "")
            for files in kinds.values()
        )
        raise UsageError(
            f"{folder} holds several kinds of files: {listed}; a folder that is one set holds one kind, so name "
            "the files instead, or move the others"
        )
    if not kinds or None in kinds:
        return _load("arrays", "read_png_folder")
    ((kind, files),) = kinds.items()
    others = [p for p in entries if p not in files]
    return partial(_read_files, _load(*kind), files, others)


def _read_files(
    read: Reader,
    files: list[Path],
    others: list[Path],
    folder: Path,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> Batches:
    """Read the files of a folder; record the others in it."""
    for entry in others:
        finished = entry.with_name(entry.name.removesuffix(JOURNAL))
        if finished in files:
            continue
        message = f"{folder.name} is a folder of {ending(files[0].name)} files, and this is none"
        if entry.suffix == JOURNAL:
            message = (
                "the file of this journal was never written: its run is not over, or was killed"
            )
        problems.add("unknown file", str(entry), message)
    for file in files:
        yield from read_shard(read, file, keys, options, problems)


def _read_saved(folder: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read what `datasets.Dataset.save_to_disk` wrote."""
    files = saved_files(folder)
    yield from _read_files(_load(*READERS[".arrow"]), files, [], folder, keys, options, problems)
