"""A table of prediction files in, items out, each with its model and the other columns of its row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from refcocom_gpu.errors import UsageError
from refcocom_gpu.sweep.contents import at_hand, is_url
from refcocom_gpu.sweep.item import Item
from refcocom_gpu.utils.files import VERIFIED, regular
from refcocom_gpu.utils.text import first_line

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")


def read_manifest(manifest: str) -> list[Item]:
    """Return the items of a manifest, in its order.

    Args:
        manifest: A path or an address ending in one of `SUFFIXES`. A `path` that is a list names the shards of one set.

    Raises:
        UsageError: When it cannot be read, has no column `path`, or a row names no file.
    """
    suffix = Path(manifest).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{manifest}: a manifest ends in {', '.join(SUFFIXES)}")
    try:
        with at_hand(manifest) as path:
            rows = _rows(regular(path), suffix)
    except (pa.ArrowException, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{manifest} cannot be read: {first_line(error)}") from None
    except OSError as error:
        raise UsageError(f"{manifest} cannot be read: {error.strerror or error}") from None
    return [_item(row, number, manifest) for number, row in enumerate(rows, 1)]


def _rows(path: Path, suffix: str) -> list[dict[str, Any]]:
    if suffix == ".parquet":
        with pq.ParquetFile(path.absolute(), **VERIFIED) as file:
            return file.read().to_pylist()  # type: ignore[no-any-return]
    if suffix == ".csv":
        # These columns are text: a model called 007 is not the number 7.
        convert = pa.csv.ConvertOptions(
            column_types={"path": pa.string(), "model": pa.string()}, strings_can_be_null=True
        )
        with path.open("rb") as file:
            return pa.csv.read_csv(file, convert_options=convert).to_pylist()  # type: ignore[no-any-return]
    lines = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines if line.strip()]


def _item(row: dict[str, Any], number: int, manifest: str) -> Item:
    if "path" not in row:
        columns = ", ".join(row) or "nothing"
        raise UsageError(f"{manifest}, row {number}: no column path; the row has {columns}")
    paths = row["path"] if isinstance(row["path"], list) else [row["path"]]
    if not paths or not all(isinstance(name, str) and name for name in paths):
        raise UsageError(f"{manifest}, row {number}: path is {row['path']!r:.60}, not a file name")
    model = row.get("model")
    others = {name: value for name, value in row.items() if name not in ("path", "model")}
    return Item(
        path=", ".join(paths),
        files=tuple(_beside(manifest, name) for name in paths),
        model=None if model is None or model == "" else str(model),
        columns=others,
    )


def _beside(manifest: str, name: str) -> str:
    """Return a name relative to the folder of the manifest."""
    if is_url(name):
        return name
    if is_url(manifest):
        return f"{manifest.rpartition('/')[0]}/{name}"
    # Path.expanduser raises for an unknown user.
    return os.path.join(os.path.dirname(manifest), os.path.expanduser(name))  # noqa: PTH111, PTH118, PTH120
