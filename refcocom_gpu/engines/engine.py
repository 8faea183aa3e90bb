"""The protocol of every engine, and the result that stands for an item whose worker died."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 (an item)
R = TypeVar("R")


@dataclass(frozen=True)
class Lost(Generic[I]):
    """An item whose worker died each time it was tried.

    Attributes:
        item: The item as given.
        reason: Why the worker died, as far as is known.
    """

    item: I
    reason: str


class Engine(Protocol):
    """Where tasks run.

    Attributes:
        elsewhere: Whether tasks run in other processes, perhaps on other machines.
    """

    elsewhere: bool

    def device(self, asked: str) -> str:
        """Return the device on which workers count, given the one the user asked for.

        Raises:
            UsageError: When no worker has this device.
        """

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R | Lost[I], None, None]:
        """Call `task(shared, item)` for every item.

        Args:
            task: A function of a module, so that another process can import it.
            items: Taken one by one, as workers become free.
            shared: Passed to every call; another process receives it once.

        Yields:
            What the calls return, in the order in which they are done.
        """

    def close(self) -> None:
        """Stop what was started for the tasks."""
