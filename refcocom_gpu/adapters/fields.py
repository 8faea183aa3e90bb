"""An output of another library in, the part that is asked for out, or an error that says what the output is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refcocom_gpu.errors import DataError


def field(output: Any, name: str, what: str) -> Any:
    """Return one entry of a dict.

    Args:
        output: What should be a dict with this entry.
        name: Of the entry.
        what: Name of the output in an error.

    Raises:
        DataError: It is no dict, or lacks the entry.

    >>> field({"score": 1.0}, "masks", "an output of SAM 3")
    Traceback (most recent call last):
    refcocom_gpu.errors.DataError: an output of SAM 3 has 'masks'; this one has score
    """
    if not isinstance(output, Mapping):
        raise DataError(_other(what, "a dict", output))
    if name not in output:
        held = ", ".join(map(str, output)) or "nothing"
        raise DataError(f"{what} has {name!r}; this one has {held}")
    return output[name]


def attribute(output: Any, name: str, what: str) -> Any:
    """Return one attribute of an object, with the errors of `field`.

    Raises:
        DataError: It lacks the attribute.
    """
    if not hasattr(output, name):
        raise DataError(_other(what, f"an object with {name!r}", output))
    return getattr(output, name)


def records(output: Any, what: str) -> list[Any]:
    """Return a list as one.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(output, list | tuple):
        raise DataError(_other(what, "a list", output))
    return list(output)


def _other(what: str, expected: str, output: Any) -> str:
    is_batch = expected != "a list" and isinstance(output, Sequence) and not isinstance(output, str)
    hint = "; pass its entries one by one, each is the output for one image" if is_batch else ""
    return f"{what} is {expected}, not {type(output).__name__}{hint}"
