"""A task and items in, results out in the order they are done: where the work of a sweep runs.

An engine knows nothing of masks. It calls `task(shared, item)` for every item, a few items ahead of what is done, so
that neither items nor results pile up. Which engine ran a task cannot be told from its result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from refcocom_gpu.errors import UsageError

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 (an item)
R = TypeVar("R")

NAMES = ("serial", "threads", "ray")


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


def make_engine(name: str, workers: int = 0, address: str | None = None) -> Engine:
    """An engine by name.

    Args:
        name: One of `NAMES`.
        workers: Tasks at a time; 0 for as many as there are cores.
        address: Of a running Ray cluster.

    Raises:
        UsageError: For an unknown name, a negative number, an address that means nothing to the engine, or Ray where
            it is not installed.
    """
    if workers < 0:
        raise UsageError(f"engine.workers must be 0 (all cores) or more, not {workers}")
    if address is not None and name != "ray":
        raise UsageError(f"engine.address is for engine=ray, not for engine={name}")
    if name == "serial":
        from refcocom_gpu.engines.serial import SerialEngine

        return SerialEngine()
    if name == "threads":
        from refcocom_gpu.engines.threads import ThreadsEngine

        return ThreadsEngine(workers)
    if name == "ray":
        from refcocom_gpu.engines.ray import RayEngine

        return RayEngine(workers, address)
    raise UsageError(f"engine must be {', '.join(NAMES)}, not {name!r}")
