"""What every engine does: the protocol, and what stands for an item whose worker died."""

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
        item: As it was given.
        reason: What is known of the deaths.
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
        """What `device=` means to the workers.

        Raises:
            UsageError: When no worker has it.
        """

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R | Lost[I], None, None]:
        """Call `task(shared, item)` for every item.

        Args:
            task: A function of a module, so that another process can import it.
            items: Taken one by one, only as workers get free.
            shared: Given to every call; another process gets it once.

        Yields:
            What the calls return, in the order they are done.
        """

    def close(self) -> None:
        """End what was started for the tasks."""
