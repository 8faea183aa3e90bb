"""The named conventions of evaluators, as data: how counts become scores."""

from __future__ import annotations

from dataclasses import dataclass

from refcocom_gpu.errors import UsageError


@dataclass(frozen=True, slots=True)
class Convention:
    """How counts become scores.

    Attributes:
        name: The name that users type.
        empty: IoU of an example whose two masks are both empty.
        about: A description of one line, for people.
    """

    name: str
    empty: float
    about: str


CONVENTIONS = {
    c.name: c
    for c in [
        Convention(
            name="official",
            empty=1.0,
            about="RefCOCO-M's dataset card: mean IoU over all (image, sentence) pairs, original resolution",
        ),
    ]
}


def get_convention(name: str) -> Convention:
    """Return the convention of this name.

    Raises:
        UsageError: For an unknown name; the message lists the known ones.

    >>> get_convention("official").empty
    1.0
    """
    if name not in CONVENTIONS:
        raise UsageError(f"unknown convention {name!r}; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
