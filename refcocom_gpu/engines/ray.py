"""Items over a Ray cluster: the shared object is put once, each node fetches it once, its arrays are seen in place.

Tasks, not actors. Ray runs a lost task again on whatever node has room, whereas an actor of a dead node waits for room
of its own, with the items sent to it, and on a cluster that stays smaller it waits for ever. A worker process keeps
what it unpacked from one task to the next, which is what an actor would be for.
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

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

RETRIES = 5
"""Times a task is run again after its worker or node died; a file that kills its worker six times is given up."""

AHEAD = 2
"""Items in flight per core of the cluster, so that a node has the next one while the last result travels."""


class RayEngine:
    """See `Engine`.

    Args:
        workers: Tasks at a time; 0 for one per core, or per GPU, of the cluster.
        address: Of a running cluster, `auto` for the one of this machine; None starts one here, of `workers` cores,
            that ends with the sweep. Where the process has called `ray.init` itself, that cluster is used.
    """

    elsewhere = True

    def __init__(self, workers: int = 0, address: str | None = None) -> None:
        ray = require("ray", "engine=ray needs Ray", "ray")
        self.workers = workers
        self._ray: Any = ray
        self._gpus = 0
        self._started = not ray.is_initialized()
        if self._started:
            # A remote cluster has its own number of cores, which must not be given.
            cores = {"num_cpus": workers} if workers and address is None else {}
            try:
                with warnings.catch_warnings():
                    # Announcements of Ray's next defaults, none of which is used here.
                    warnings.simplefilter("ignore")
                    ray.init(
                        address=address,
                        include_dashboard=None if address else False,
                        log_to_driver=False,
                        logging_level="ERROR",
                        **cores,
                    )
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise UsageError(
                    f"engine.address={address or 'null'}: Ray cannot be started or reached: {reason}"
                ) from None

    def device(self, asked: str) -> str:
        """`cuda` where workers get a GPU each, else `cpu`; Ray chooses which GPU."""
        there = int(self._ray.cluster_resources().get("GPU", 0))
        if asked not in {"auto", "cpu", "cuda"}:
            raise UsageError(
                f"device must be auto, cpu or cuda with engine=ray, which gives each worker its GPU, not {asked!r}"
            )
        if asked == "cuda" and not there:
            raise UsageError(
                "device cuda is not there: no node of the Ray cluster has a GPU; use cpu or auto"
            )
        self._gpus = 0 if asked == "cpu" else there
        return "cuda" if self._gpus else "cpu"

    def map(
        self, task: Callable[[S, I], R], items: Iterable[I], shared: S
    ) -> Generator[R | Lost[I], None, None]:
        """As `Engine.map`; warnings of the workers are given here once more."""
        ray, items = self._ray, iter(items)
        call = ray.remote(
            num_cpus=1,
            num_gpus=1 if self._gpus else 0,
            max_retries=RETRIES,
            # Ray's default ends a process that holds a GPU after each task: seconds of start for every file.
            max_calls=0,
        )(_call)
        # In a list, or Ray would unpack it for every task; `_shared` does so once per process.
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
                        result, said = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause if isinstance(error.cause, Exception) else error from None
                    except ray.exceptions.RayError as error:
                        yield Lost(item, (str(error).splitlines() or [type(error).__name__])[0])
                        continue
                    for message, category in said:
                        warnings.warn(message, category, stacklevel=2)
                    yield result
        finally:
            for reference in pending:
                ray.cancel(reference)

    def _in_flight(self) -> int:
        """Asked anew each time, for nodes come and go."""
        if self.workers:
            return self.workers
        there = self._gpus or self._ray.cluster_resources().get("CPU", 1)
        return max(2, AHEAD * int(there))

    def close(self) -> None:
        """As `Engine.close`: a cluster that was not started here goes on."""
        if self._started:
            self._ray.shutdown()


def _call(task: Callable[[Any, Any], R], put: list[Any], item: Any) -> tuple[R, list[Any]]:
    """In the worker. Its warnings travel with the result, since nobody reads a worker's log."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        result = task(_shared(put[0]), item)
    return result, [(str(w.message), w.category) for w in said if w.category is not ResourceWarning]


@functools.lru_cache(maxsize=1)
def _shared(reference: Any) -> Any:
    import ray

    return ray.get(reference)
