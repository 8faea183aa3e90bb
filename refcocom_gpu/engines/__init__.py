"""A task and items in, results out in the order in which they are done: where the work of a sweep runs.

An engine knows nothing of masks. It calls `task(shared, item)` for every item and runs only a few items ahead, so that
neither items nor results pile up. Every engine gives the same results. Start at `engine`, the protocol.
"""

from __future__ import annotations

from refcocom_gpu.engines.engine import Engine as Engine
from refcocom_gpu.errors import UsageError

NAMES = ("serial", "threads", "ray")


def make_engine(name: str, workers: int = 0, address: str | None = None) -> Engine:
    """Return the engine of this name.

    Args:
        name: One of `NAMES`.
        workers: Tasks at a time; 0 for as many as there are cores.
        address: Address of a running Ray cluster.

    Raises:
        UsageError: For an unknown name, a negative number, an address for another engine than Ray, or Ray where it is
            not installed.
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
