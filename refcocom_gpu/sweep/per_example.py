"""Results in, one partitioned Parquet dataset out: a file `per_example/model=NAME/*.parquet` per set of predictions.

DuckDB, Polars and Arrow read the folder as one table with a column `model`; the other columns of a manifest follow the
counts. The name of a file is a hash of all that decides its content, and the ledger keeps a hash of what was written.
So a restarted sweep writes files that are missing or damaged, and deletes files that no longer belong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import xxhash

from refcocom_gpu.engines.threads import ThreadsEngine
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.scores.example_table import IOU, per_example
from refcocom_gpu.scores.leaderboard.rows import manifest_columns
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.scores.sweep_folder import CARRIED, PER_EXAMPLE, Product
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.ledger import Ledger
from refcocom_gpu.sweep.task import FileResult
from refcocom_gpu.utils.arrow import from_numpy
from refcocom_gpu.utils.files import parquet_bytes, replacing
from refcocom_gpu.utils.text import as_text

LAYOUT = 1

NAME_BYTES = 255
"""The longest name that common file systems accept."""


class _Target(NamedTuple):
    """A file to be written: its path below the folder of the sweep, the result, and its columns of the manifest."""

    file: str
    result: FileResult
    columns: Mapping[str, pa.Array]


def write_per_example(
    ledger: Ledger,
    store: MaskStore,
    results: Sequence[FileResult],
    convention: str,
    *,
    verify: bool = False,
) -> list[Product | None]:
    """Bring `per_example` below the folder of a sweep up to date with the results that have counts.

    A file is left as it is if the ledger knows its hash, and its size and times of change are those at which the hash
    was compared with the content. If they are others, the content is hashed and compared again.

    Args:
        ledger: Of the sweep.
        store: Ground truth.
        results: All of the sweep.
        convention: Decides the IoU of two empty masks.
        verify: Compare the content of every file.

    Returns:
        For each result its file; None where it has no counts.

    Raises:
        UsageError: When the folder cannot be written.
    """
    root = ledger.folder / PER_EXAMPLE
    empty = get_convention(convention).empty
    targets = dict(_targets(store, results, empty))
    expected = {target.file: target for target in targets.values()}
    digests = {file: ledger.kept_digest(file, verify=verify) for file in expected}
    absent = (target for file, target in expected.items() if digests[file] is None)
    try:
        root.mkdir(exist_ok=True)
        for file, digest in ThreadsEngine().map(_write, absent, (ledger.folder, store)):
            digests[file] = digest
            # Without a token: the next sweep compares the content, when another change would show in the times.
            ledger.note([(file, "", digest)])
        _delete_others(root, {ledger.folder / file for file in expected})
    except OSError as error:
        raise UsageError(f"cannot write to {root}: {error.strerror or error}") from None
    below = f"{PER_EXAMPLE}/"
    ledger.forget([f for f in ledger.known if f.startswith(below) and f not in expected])
    return [
        Product(targets[k].file, str(digests[targets[k].file])) if k in targets else None
        for k in range(len(results))
    ]


def _targets(
    store: MaskStore, results: Sequence[FileResult], empty: float
) -> Iterator[tuple[int, _Target]]:
    manifest = manifest_columns(results)
    # Readers of the folder expect one schema.
    labelled = any(PRED_NO_TARGET in result.measured for result in results)
    unlabelled = {PRED_NO_TARGET: np.zeros(len(store), np.uint8)} if labelled else {}
    for k, result in enumerate(results):
        if result.counts is not None:
            if labelled:
                result = replace(result, measured={**unlabelled, **result.measured})
            columns = {name: column.slice(k, 1) for name, column in manifest.items()}
            name = _content_name(store, result, columns, empty)
            file = f"{PER_EXAMPLE}/{partition(result.model)}/{name}.parquet"
            yield k, _Target(file, result, columns)


def partition(model: str) -> str:
    """Return the folder of a model; its name is escaped as Hive does, so that readers can restore it.

    A name that is too long for a folder is cut and ends with a hash.

    >>> partition("LISA 7B/é=1")
    'model=LISA%207B%2F%C3%A9%3D1'
    """
    text = as_text(model)
    escaped = f"model={quote(text, safe='')}"
    if len(escaped) > NAME_BYTES:
        end = f"~{xxhash.xxh3_64_hexdigest(text.encode())}"
        # Cut by whole characters, because a reader refuses half of one.
        while len(escaped) + len(end) > NAME_BYTES:
            text = text[:-1]
            escaped = f"model={quote(text, safe='')}"
        escaped += end
    return escaped


def _content_name(
    store: MaskStore, result: FileResult, columns: Mapping[str, pa.Array], empty: float
) -> str:
    counts, absent = result.counts, result.absent
    digest = xxhash.xxh3_128(store.dataset.fingerprint.encode())
    for array in (counts, absent):
        digest.update(np.ascontiguousarray(array).data)
    manifest = [[name, str(column.type), column[0].as_py()] for name, column in columns.items()]
    digest.update(json.dumps([LAYOUT, result.path, result.model, manifest, empty]).encode())
    for name, array in result.measured.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _table(store: MaskStore, target: _Target) -> pa.Table:
    result = target.result
    assert result.counts is not None
    absent = np.zeros(0, np.int64) if result.absent is None else result.absent
    table = per_example(store, result.counts, absent, result.measured)
    table = table.select([*CARRIED, *result.measured, IOU])
    constants = {"path": pa.array([as_text(result.path)], pa.string()), **target.columns}
    every = from_numpy(np.zeros(len(table), np.int32))
    for name, column in constants.items():
        is_text = pa.types.is_string(column.type)
        column = column.dictionary_encode() if is_text else column
        table = table.append_column(name, column.take(every))
    return table.replace_schema_metadata(
        {"schema": "refcocom-sweep-per-example", "version": str(LAYOUT)}
    )


def _write(shared: tuple[Path, MaskStore], target: _Target) -> tuple[str, str]:
    folder, store = shared
    path = folder / target.file
    content = parquet_bytes(_table(store, target))
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return target.file, xxhash.xxh3_128_hexdigest(content)


def _delete_others(root: Path, expected: set[Path]) -> None:
    for folder in root.glob("model=*"):
        for path in folder.iterdir():
            if path not in expected and path.suffix in (".parquet", ".tmp"):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
