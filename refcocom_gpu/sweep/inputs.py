"""Paths, globs, addresses or a manifest in; the sets of predictions of a sweep out, each with a name for its model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.built_in import built_in_file, is_built_in
from refcocom_gpu.predictions.formats import READERS, ending
from refcocom_gpu.predictions.read import expand_paths
from refcocom_gpu.sweep.contents import expand_url, is_url
from refcocom_gpu.sweep.item import Item, bare

Entry = str | Path | Sequence[str | Path]
"""A path, glob or address; or a list of these, which are the shards of one set."""


def read_inputs(
    predictions: Entry | Iterable[Entry] | None, manifest: str | Path | None = None
) -> list[Item]:
    """List the sets of predictions of a sweep.

    Args:
        predictions: Paths, globs and addresses. Each match is a set of its own; a list within the list is one set.
        manifest: A CSV, JSONL or Parquet file with the columns `path` and, optionally, `model`. Its other columns are
            kept with the results. Paths are relative to its folder.

    Raises:
        UsageError: When no predictions are given, a path in `predictions` is absent, or the manifest cannot be used.
            An absent file that a manifest names becomes the error of its item.
    """
    if (predictions is None) == (manifest is None):
        raise UsageError(
            "a sweep needs predictions: refcocom sweep PREDS… output_dir=DIR, or manifest=FILE"
            if predictions is None
            else "predictions are named twice: by predictions=… and by manifest=…"
        )
    if predictions is not None:
        items = _items(predictions)
    else:
        from refcocom_gpu.sweep.manifest import read_manifest

        items = read_manifest(str(manifest))
    if not items:
        raise UsageError("no prediction file was given")
    places = distinguish([item.path for item in items])
    return [replace(item, place=place) for item, place in zip(items, places, strict=True)]


def _items(predictions: Entry | Iterable[Entry]) -> list[Item]:
    entries = [predictions] if isinstance(predictions, str | Path) else list(predictions)
    items = []
    for entry in entries:
        if isinstance(entry, str | Path):
            items += [Item(name, (_file(name),)) for name in _matches(entry)]
        else:
            names = [name for shard in entry for name in _matches(shard)]
            items.append(Item(", ".join(names), tuple(map(_file, names))))
    # A file that two globs match is listed once.
    return list({item.files: item for item in items}.values())


def _file(name: str) -> str:
    """Return the file of a name: a temporary one for a built-in set, else the name itself."""
    return str(built_in_file(name)) if is_built_in(name) else name


def _matches(entry: str | Path) -> list[str]:
    name = os.fspath(entry)
    if is_built_in(name):
        return [name]
    if is_url(name):
        return expand_url(name)
    paths = expand_paths(entry)
    for path in paths:
        if path.suffix.lower() == ".csv":
            raise UsageError(f"{path}: a table of prediction files is named by manifest={path}")
    return [str(path) for path in paths]


def distinguish(paths: Sequence[str]) -> list[str]:
    """Shorten paths to what differs: drop the folders that all begin with and the names that all end with.

    >>> distinguish(["runs/a/preds.parquet", "runs/b/1/preds.parquet"])
    ['a', 'b/1']
    >>> distinguish(["out/step-1.jsonl", "out/step-2.jsonl.gz"]), distinguish(["out/preds.jsonl"])
    (['step-1', 'step-2'], ['preds'])
    """
    parts = [[p for p in re.split(r"[/\\]+", bare(path)) if p] or [path] for path in paths]
    # Every path keeps at least one part.
    spare = min(map(len, parts)) - 1
    first = _common_length(parts, spare)
    parts = [p[first:] for p in parts]
    last = _common_length([p[::-1] for p in parts], spare - first) if len(set(paths)) > 1 else 0
    names = ["/".join(p[: len(p) - last]) for p in parts]
    if last:
        return names
    stems = [_stem(name) for name in names]
    return stems if len(set(stems)) == len(set(names)) else names


def _common_length(parts: Sequence[Sequence[str]], most: int) -> int:
    """Return with how many equal parts all paths begin, at most `most`."""
    n = 0
    while n < most and len({p[n] for p in parts}) == 1:
        n += 1
    return n


def _stem(name: str) -> str:
    suffix = ending(name)
    return name[: -len(suffix)] or name if suffix in READERS else name
