"""Items over a Ray cluster. Each node fetches the shared object once, and its arrays are read in place.

Items are Ray tasks, not calls of actors. Ray runs a lost task again on any node with room. An actor of a dead node
instead waits for room of its own, and so do the items sent to it; on a cluster that stays smaller they wait for ever.
An actor would keep the unpacked object from one item to the next, but so does a worker process.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Any, TypeVar

from refcocom_gpu.engines.engine import Lost
from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import first_line

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

RETRIES = 5
"""How often a task runs again after its worker or node died; a file that kills its worker six times is given up."""

AHEAD = 2
"""Items in flight per core of the cluster, so that a node has its next item while the last result travels."""


class RayEngine:
    """See `Engine`.

    Args:
        workers: Tasks at a time; 0 for one per core, or per GPU, of the cluster.
        address: Address of a running cluster; `auto` means the one of this machine. None starts a cluster of `workers`
            cores here, which ends with the sweep. If the process has already called `ray.init`, its cluster is used.
    """

    elsewhere = True

    def __init__(self, workers: int = 0, address: str | None = None) -> None:
        ray = require("ray", "engine=ray needs Ray", "ray")
        self.workers = workers
        self._ray: Any = ray
        self._gpus = 0
        self._started = not ray.is_initialized()
        if self._started:
            # Ray refuses a number of cores for a cluster that is already running.
            cores = {"num_cpus": workers} if workers and address is None else {}
            try:
                with warnings.catch_warnings():
                    # Ray announces its next defaults, none of which matters here.
                    warnings.simplefilter("ignore")
                    ray.init(
                        address=address,
                        include_dashboard=None if address else False,
                        log_to_driver=False,
                        logging_level="ERROR",
                        **cores,
                    )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"engine.address={address or 'null'}: Ray cannot be started or reached: {first_line(error)}"
                ) from None

    def device(self, asked: str) -> str:
        """Return `cuda` where each worker gets a GPU, which Ray chooses, and otherwise `cpu`."""
        n_gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if asked not in {"auto", "cpu", "cuda"}:
            raise UsageError(
                f"device must be auto, cpu or cuda with engine=ray, which gives each worker its GPU, not {asked!r}"
            )
        if asked == "cuda" and not n_gpus:
            raise UsageError(
                "device cuda is not available: no node of the Ray cluster has a GPU; use cpu or auto"
            )
        self._gpus = 0 if asked == "cpu" else n_gpus
        return "cuda" if self._gpus else "cpu"

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R | Lost[I], None, None]:
        """See `Engine.map`; warnings of the workers are issued again here."""
        ray, items = self._ray, iter(items)
        call = ray.remote(
            num_cpus=1,
            num_gpus=1 if self._gpus else 0,
            max_retries=RETRIES,
            # By default Ray ends a process with a GPU after each task, which costs seconds of start for every file.
            max_calls=0,
        )(_call)
        # The reference is in a list, or Ray would unpack the object for every task; `_shared` does so once per process.
        put = [ray.put(shared)]
        pending: dict[Any, I] = {}
        try:
            while True:
                for item in islice(items, max(0, self._in_flight() - len(pending))):
                    pending[call.remote(task, put, item)] = item
                if not pending:
                    return
                done, _ = ray.wait(list(pending), num_returns=1)
                for reference in done:
                    item = pending.pop(reference)
                    try:
                        result, warned = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause if isinstance(error.cause, Exception) else error from None
                    except ray.exceptions.RayError as error:
                        yield Lost(item, first_line(error))
                        continue
                    for message, category in warned:
                        warnings.warn(message, category, stacklevel=2)
                    yield result
        finally:
            for reference in pending:
                ray.cancel(reference)

    def _in_flight(self) -> int:
        """Return how many items to have in flight; the cluster is asked each time, since nodes come and go."""
        if self.workers:
            return self.workers
        n_slots = self._gpus or self._ray.cluster_resources().get("CPU", 1)
        return max(2, AHEAD * int(n_slots))

    def close(self) -> None:
        """See `Engine.close`; a cluster that was not started here goes on."""
        if self._started:
            self._ray.shutdown()


def _call(task: Callable[[Any, Any], R], put: list[Any], item: Any) -> tuple[R, list[Any]]:
    """Run a task in the worker and return its warnings with the result, since nobody reads a worker's log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = task(_shared(put[0]), item)
    return result, [
        (str(w.message), w.category) for w in caught if w.category is not ResourceWarning
    ]


@functools.lru_cache(maxsize=1)
def _shared(reference: Any) -> Any:
    import ray

    return ray.get(reference)
