"""Options that are declared once: a dataclass field that carries its default and what `--help` says of it."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def option(
    default: Any, meaning: str, *, path: bool = False, listed: bool = False, nested: bool = False
) -> Any:
    """Make a field with its meaning.

    Args:
        default: Of the option.
        meaning: What `--help` says of it.
        path: Values are file names: `~` is expanded, and the main key of a verb takes lists.
        listed: A list is taken, also where it is not the main key; elements are text.
        nested: A list may hold lists.
    """
    kinds = {"path": path, "listed": listed, "nested": nested}
    return field(default=default, metadata={"meaning": meaning, **kinds})


def part_of(config: Any, kind: type[T]) -> T:
    """Take the options of one class out of a config that inherits them; the class checks them as it is made.

    Args:
        config: An instance of a subclass of `kind`, or anything with its fields as attributes.
        kind: A dataclass.
    """
    return kind(**{entry.name: getattr(config, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]
