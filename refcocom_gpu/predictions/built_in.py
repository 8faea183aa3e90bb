"""The name of a built-in set in, a file of its predictions out, which is then read like any other file."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any, Literal

BUILT_IN: dict[str, Literal["good", "coarse"]] = {"sample": "good", "sample-coarse": "coarse"}
"""Name of each built-in set, and the kind of its predictions."""


def is_built_in(predictions: Any) -> bool:
    """Return whether predictions are the name of a built-in set; a file of that name takes precedence."""
    is_name = isinstance(predictions, str) and predictions in BUILT_IN
    return is_name and not Path(predictions).exists()


def built_in_file(name: str) -> Path:
    """Write a built-in set to a temporary file, once per process; the file is deleted when the process ends.

    Args:
        name: A key of `BUILT_IN`.

    Raises:
        UsageError: The folder for temporary files cannot be written, such as a disk that is full.

    >>> built_in_file("sample").name
    'sample.jsonl'
    """
    path = Path(_folder().name) / f"{name}.jsonl"
    if not path.exists():
        import msgspec

        from refcocom_gpu.dataset.sample import make_predictions, make_records
        from refcocom_gpu.utils.files import write_files

        rows = make_predictions(make_records(), BUILT_IN[name])
        text = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        write_files(path.parent, {path.name: text})
    return path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="refcocom-")
