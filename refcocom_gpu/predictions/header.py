"""The header of a native file in, its model and checks of its version and dataset out; and a new header."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.compressed import opened
from refcocom_gpu.predictions.formats import READERS, ending
from refcocom_gpu.utils.arrow import open_ipc
from refcocom_gpu.utils.changes import token_of
from refcocom_gpu.utils.files import regular

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

SCHEMA = "refcocom-predictions"
VERSION = 1

NATIVE_BOXES = {"box_format": "xyxy", "box_scale": "pixels"}
"""The form of boxes in files that this package writes."""

WITH_HEADERS = ("parquet", "arrow_tables", "text")
"""Readers of files that may have a header."""

HEADER_BYTES = 2**16
"""A first line longer than this is a prediction, not a header."""


def make_header(model: str | None, dataset: Dataset, *, are_boxes: bool = False) -> dict[str, Any]:
    """Return the header of a new file; one of boxes declares their form, so that no option is needed to read it."""
    header: dict[str, Any] = {"schema": SCHEMA, "version": VERSION}
    if model is not None:
        header["model"] = model
    form = NATIVE_BOXES if are_boxes else {}
    return {**header, "dataset": dataset.fingerprint, **form}


def model_of(path: Path) -> str | None:
    """Return the model that a native file, or the first in a folder, names in its header; None where none is named."""
    models = (_text(_header_of(file), "model") for file in _files_of(path))
    return next((model for model in models if model), None)


def box_form_of(path: Path) -> dict[str, str]:
    """Return the form of boxes that the header of a native file declares, or of the first that a folder holds."""
    file = next((file for file in _files_of(path) if _reader_of(file) in WITH_HEADERS), None)
    header = {} if file is None else _header_of(file)
    return {name: form for name in NATIVE_BOXES if (form := _text(header, name))}


def _files_of(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files of a folder by name."""
    try:
        if regular(path).is_dir():
            yield from (file for file in sorted(path.iterdir()) if file.is_file())
        else:
            yield path
    # The reader of the file finds what is wrong with it and says so.
    except (OSError, ValueError):
        return


def _reader_of(file: Path) -> str:
    return READERS.get(ending(file.name), ("", ""))[0]


def _text(header: Mapping[str, Any], name: str) -> str | None:
    value = header.get(name)
    return value if isinstance(value, str) and value else None


def _header_of(path: Path) -> Mapping[str, Any]:
    """Return the header of a native file; empty where it has none."""
    try:
        return _read_header(path, token_of(path))
    # The reader of the file finds what is wrong with it and says so.
    except OSError:
        return {}


@functools.lru_cache(maxsize=64)
def _read_header(path: Path, token: str) -> Mapping[str, Any]:
    """Read a header, once for all who ask while the file, whose token this is, stays as it is."""
    reader, fields = _reader_of(path), None
    try:
        if reader == "parquet":
            import pyarrow.parquet as pq

            fields = metadata_of(pq.read_schema(regular(path).absolute(), memory_map=True))
        elif reader == "arrow_tables":
            with open_ipc(regular(path)) as table:
                fields = metadata_of(table.schema)
        elif reader == "text":
            with opened(regular(path)) as read:
                line = read(HEADER_BYTES).partition(b"\n")[0]
            fields = msgspec.json.decode(line.decode("utf-8-sig"))
    # As above.
    except (OSError, ValueError, RecursionError):
        return {}
    if isinstance(fields, Mapping) and fields.get("schema") == SCHEMA:
        return fields
    return {}


def metadata_of(schema: pa.Schema) -> dict[str, str]:
    """Return the metadata of a table as text; a native table keeps its header there."""
    return {
        k.decode("utf-8", "replace"): v.decode("utf-8", "replace")
        for k, v in (schema.metadata or {}).items()
    }


def check_header(line: bytes, where: str, dataset: Dataset, problems: Problems) -> bool:
    """Return whether a line is a header; if it is, check its fields."""
    try:
        header = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if not isinstance(header, Mapping) or header.get("schema") != SCHEMA:
        return False
    check_fields(header, where, dataset, problems)
    return True


def check_fields(
    header: Mapping[str, Any], where: str, dataset: Dataset, problems: Problems
) -> None:
    """Refuse a newer version; note when the file was made for other content."""
    version = header.get("version")
    if str(version) != str(VERSION):
        problems.add("header", where, f"version {version!r}; this package reads version {VERSION}")
    made_for = header.get("dataset")
    if made_for is not None and made_for != dataset.fingerprint:
        problems.warnings.append(
            f"{where} was made for dataset {made_for}, this one is {dataset.fingerprint}: "
            "masks, sentences or their order differ"
        )
