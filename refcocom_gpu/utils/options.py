"""Default and meaning of an option in, a dataclass field out: an option is declared once, also for `--help`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def option(
    default: Any,
    meaning: str,
    *,
    path: bool = False,
    listed: bool = False,
    nested: bool = False,
    mapping: bool = False,
    choices: Sequence[str] = (),
) -> Any:
    """Make a field with its meaning.

    Args:
        default: Value of the option if none is given.
        meaning: The text that `--help` prints.
        path: Whether values are file names: `~` is expanded, and the main key of a verb takes lists.
        listed: Whether a list of text is accepted although this is not the main key of a verb.
        nested: Whether a list may hold lists.
        mapping: Whether the value is text by names, each given as `option.NAME=text`.
        choices: The words that the option takes, where it takes no others; shells complete them.
    """
    kinds = {"path": path, "listed": listed, "nested": nested, "mapping": mapping}
    about = {"meaning": meaning, "choices": tuple(choices), **kinds}
    return field(default=default, metadata=about)


def part_of(config: Any, kind: type[T]) -> T:
    """Return the options of one class from a config that inherits them; making the class checks them.

    Args:
        config: An instance of a subclass of `kind`, or anything with its fields as attributes.
        kind: A dataclass.
    """
    return kind(**{entry.name: getattr(config, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]
