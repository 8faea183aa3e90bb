"""One item after the other in the calling thread: what the other engines must equal, and the one to debug with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from refcocom_gpu.utils.devices import resolve_device

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


class SerialEngine:
    """See `Engine`."""

    elsewhere = False

    def device(self, asked: str) -> str:
        """See `resolve_device`."""
        return resolve_device(asked)

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R, None, None]:
        """See `Engine.map`; results come in the order of the items.

        >>> list(SerialEngine().map(pow, [1, 2, 3], 2))
        [2, 4, 8]
        """
        return (task(shared, item) for item in items)

    def close(self) -> None:
        """Do nothing, since nothing outlives `map`."""
