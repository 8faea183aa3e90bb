"""Declare an option once: its default and its meaning stand together in a dataclass field."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(
    default: Any, meaning: str, *, path: bool = False, listed: bool = False, nested: bool = False
) -> Any:
    """A field with its meaning.

    Args:
        default: The default.
        meaning: What `--help` says of it.
        path: Values are file names: `~` is expanded, and the main key takes lists.
        listed: A list is taken, also where it is not the main key; elements are text.
        nested: A list may hold lists.
    """
    metadata = {"meaning": meaning, "path": path, "listed": listed, "nested": nested}
    return field(default=default, metadata=metadata)
