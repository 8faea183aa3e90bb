"""Items over the standard library's thread pool; the kernels, Arrow and the hashes release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from refcocom_kernels.cpu import available_threads

from refcocom_gpu.utils.devices import resolve_device

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

AHEAD = 2
"""Items per worker: one at work and one waiting, so that no worker idles while the caller handles a result."""


class ThreadsEngine:
    """See `Engine`; runs `workers` threads, 0 meaning one per core."""

    elsewhere = False

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or available_threads()

    def device(self, asked: str) -> str:
        """See `resolve_device`; the threads share one GPU."""
        return resolve_device(asked)

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R, None, None]:
        """See `Engine.map`.

        >>> sorted(ThreadsEngine(2).map(pow, [1, 2, 3], 2))
        [2, 4, 8]
        """
        items = iter(items)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="refcocom-sweep")
        pending: set[Future[R]] = set()
        try:
            while True:
                free = AHEAD * self.workers - len(pending)
                pending |= {pool.submit(task, shared, item) for item in islice(items, free)}
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            # Also when the caller stops early: items that have not begun are dropped.
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Do nothing, since nothing outlives `map`."""
