"""Results in, one partitioned Parquet dataset out: a file `per_example/model=NAME/*.parquet` per set of predictions.

DuckDB, Polars and Arrow read the folder as one table with a column `model`. The name of a file is a hash of all that
decides its content, so that a restarted sweep writes only missing files and deletes files that no longer belong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.engines.threads import ThreadsEngine
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.scores.result import per_example
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.task import FileResult
from refcocom_gpu.utils.arrow import from_numpy
from refcocom_gpu.utils.files import replacing
from refcocom_gpu.utils.text import as_text

FOLDER = "per_example"
LAYOUT = 1

CARRIED = (
    "index", "sample_id", "sentence_idx", "image_id", "intersection", "pred_area", "target_area", "status",
)  # fmt: skip
"""Columns of a single result that each file repeats; sentences and categories can be joined by index."""

NAME_BYTES = 255
"""The longest name that common file systems accept."""


def write_per_example(
    folder: Path, store: MaskStore, results: Sequence[FileResult], convention: str
) -> Path:
    """Bring `per_example` below a folder up to date with the results that have counts.

    Args:
        folder: Of the sweep.
        store: Ground truth.
        results: All of the sweep.
        convention: Decides the IoU of two empty masks.

    Returns:
        The folder of the dataset.

    Raises:
        UsageError: When it cannot be written.
    """
    root = folder / FOLDER
    empty = get_convention(convention).empty
    expected: dict[Path, FileResult] = {}
    try:
        root.mkdir(exist_ok=True)
        for result in results:
            if result.counts is not None:
                name = f"{_content_name(store, result, empty)}.parquet"
                expected[root / partition(result.model) / name] = result
        absent = ((path, result) for path, result in expected.items() if not path.exists())
        for _ in ThreadsEngine().map(_write_table, absent, (store, empty)):
            pass
        _delete_others(root, set(expected))
    except OSError as error:
        raise UsageError(f"cannot write to {root}: {error.strerror or error}") from None
    return root


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


def _content_name(store: MaskStore, result: FileResult, empty: float) -> str:
    counts, absent = result.counts, result.absent
    digest = xxhash.xxh3_128(store.dataset.fingerprint.encode())
    for array in (counts, absent):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps([LAYOUT, result.path, result.model, empty]).encode())
    return digest.hexdigest()


def _table(store: MaskStore, result: FileResult, empty: float) -> pa.Table:
    assert result.counts is not None
    absent = np.zeros(0, np.int64) if result.absent is None else result.absent
    table = per_example(store, result.counts, absent).select(CARRIED)
    ious = metrics.iou(
        result.counts[:, 0],
        result.counts[:, 1],
        store.areas[store.example_sample],
        empty=empty,
    )
    name = as_text(result.path).encode()
    # pa.array would import pandas.
    names = pa.StringArray.from_buffers(
        1, pa.py_buffer(np.array([0, len(name)], np.int32)), pa.py_buffer(name)
    )
    path = pa.DictionaryArray.from_arrays(from_numpy(np.zeros(len(table), np.int32)), names)
    table = table.append_column("iou", from_numpy(ious)).append_column("path", path)
    return table.replace_schema_metadata(
        {"schema": "refcocom-sweep-per-example", "version": str(LAYOUT)}
    )


def _write_table(shared: tuple[MaskStore, float], target: tuple[Path, FileResult]) -> None:
    store, empty = shared
    path, result = target
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        pq.write_table(_table(store, result, empty), file, compression="zstd")


def _delete_others(root: Path, expected: set[Path]) -> None:
    for folder in root.glob("model=*"):
        for path in folder.iterdir():
            if path not in expected and path.suffix in (".parquet", ".tmp"):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
