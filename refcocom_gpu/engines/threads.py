"""Items over the standard library's thread pool: the kernels, Arrow and the hashes release the GIL."""

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
"""Items handed out per worker: one at work, one waiting, so that none idles while the caller keeps a result."""


class ThreadsEngine:
    """See `Engine`; `workers` threads, 0 for one per core."""

    elsewhere = False

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or available_threads()

    def device(self, asked: str) -> str:
        """As `resolve_device`; the threads share one GPU."""
        return resolve_device(asked)

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R, None, None]:
        """As `Engine.map`.

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
            # Also when the caller stops early: nothing that has not begun is begun.
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Nothing outlives `map`."""
