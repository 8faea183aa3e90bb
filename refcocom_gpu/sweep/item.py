"""Files and a name in, one set of predictions of a sweep out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refcocom_gpu.predictions.formats import ending
from refcocom_gpu.sweep.contents import is_url


@dataclass(frozen=True)
class Item:
    """One set of predictions.

    Attributes:
        path: As the user gave it; shards are joined by commas.
        files: Its shards: paths that can be opened, or addresses.
        place: The part of its path that differs from the paths of the other items.
        model: The name of the model in the manifest.
        columns: The other columns of the manifest.
    """

    path: str
    files: tuple[str, ...]
    place: str = ""
    model: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def formats(self) -> str:
        """The endings of the files, which select their readers."""
        return ",".join(ending(bare(file)) for file in self.files)


def bare(file: str) -> str:
    """Return an address without its query, which may hold slashes and dots; return a path as it is.

    >>> bare("http://host/p.jsonl?key=a/b.c"), bare("a?b.jsonl")
    ('http://host/p.jsonl', 'a?b.jsonl')
    """
    return re.split(r"[?#]", file)[0] if is_url(file) else file
