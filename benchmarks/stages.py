"""Words of `refcocom score` in; where a warm command spends its time, seconds by stage as a line of JSON, out.

A stage is without those inside it. What the command imports where it first needs it is imported here beforehand, apart,
and its kernels are read by a call of one mask.
"""

import time

BEGUN = time.time()

import contextlib  # noqa: E402
import functools  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from importlib import import_module  # noqa: E402
from typing import Any  # noqa: E402

spent: dict[str, float] = {}
inner = [0.0]
"""Seconds of the stages inside each stage that is under way."""

IMPORTS = {
    "import of NumPy": ("numpy",),
    "import of pyarrow": ("pyarrow", "pyarrow.parquet", "pyarrow.compute"),
    "import of Numba": ("numba",),
    "our own modules": ("cli.overrides", "cli.verbs.score", "cli.tables.result", "scorer"),
}
WATCHED = (
    ("cli.overrides", "parse", "configuration"),
    ("cli.verbs.score", "load", "dataset and store"),
    ("store.store:MaskStore", "build", "dataset and store"),
    ("scorer", "score", "scores"),
    ("scorer", "count", "predictions"),
    ("counting.batches:HostBatches", "add", "counting, but for what is done beside reading"),
    ("counting.batches:HostBatches", "finish", "counting, but for what is done beside reading"),
    ("cli.verbs.score", "run", "table and all else"),
)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time of the block to a stage, and take it from the stage around it."""
    inner.append(0.0)
    start = time.perf_counter()
    try:
        yield
    finally:
        taken = time.perf_counter() - start
        spent[name] = spent.get(name, 0.0) + taken - inner.pop()
        inner[-1] += taken


def watch(where: str, name: str, stage_name: str) -> None:
    """Let every call of a function be time of a stage."""
    module, _, owner = where.partition(":")
    home: Any = import_module(f"refcocom_gpu.{module}")
    home = getattr(home, owner) if owner else home
    function = getattr(home, name)

    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        with stage(stage_name):
            return function(*arguments, **options)

    setattr(home, name, timed)


def main() -> None:
    """Run the command and print its stages."""
    with stage("our own modules"):
        from refcocom_gpu.cli.main import COLLECT_AFTER, command
    gc.set_threshold(COLLECT_AFTER)
    for name, modules in IMPORTS.items():
        with stage(name):
            for module in modules:
                import_module(f"refcocom_gpu.{module}" if name == "our own modules" else module)
    with stage("kernels from the cache"):
        import numpy as np
        from refcocom_kernels import cpu

        zero, one, nine = np.array([0]), np.array([0, 1]), np.array([9])
        cpu.rle_counts(
            np.frombuffer(b"9", np.uint8), one, zero, nine.astype(np.int32), one, nine, threads=1
        )
    for watched in WATCHED:
        watch(*watched)
    if command():
        sys.exit("the command failed")
    print(json.dumps({"begun": BEGUN, "ended": time.time(), "stages": spent}))


if __name__ == "__main__":
    main()
