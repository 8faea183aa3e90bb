"""One set of predictions of a sweep: where its files are, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refcocom_gpu.sweep.contents import is_url


@dataclass(frozen=True)
class Item:
    """One set of predictions.

    Attributes:
        path: As the user named it; shards are joined by commas.
        files: Where its shards are: paths as they can be opened, or addresses.
        place: The part of its path that differs from the others'.
        model: What the manifest calls it.
        columns: The manifest's other columns.
    """

    path: str
    files: tuple[str, ...]
    place: str = ""
    model: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def formats(self) -> str:
        """The endings of the files, which decide how they are read."""
        return ",".join(ending(file) for file in self.files)


def ending(file: str) -> str:
    """Return the ending of a path or address, in lower case.

    >>> ending("s3://bucket/a.PARQUET"), ending("http://host/p.jsonl?key=a/b.c")
    ('.parquet', '.jsonl')
    """
    return Path(bare(file)).suffix.lower()


def bare(file: str) -> str:
    """Return an address without its query, which may hold slashes and dots; a path as it is."""
    return re.split(r"[?#]", file)[0] if is_url(file) else file
