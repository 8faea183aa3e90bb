"""Contenders in, alternating timings out: medians and quantiles, after a check that all give the same counts."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

OURS = "refcocom_gpu"
PACKAGES = (
    "refcocom-gpu", "numpy", "scipy", "numba", "llvmlite", "torch", "pycocotools", "hotcoco", "rlemasklib",
    "faster-coco-eval", "ultrafast-pycocotools", "vernier", "torchmetrics", "opencv-python-headless",
    "pyarrow", "msgspec",
)  # fmt: skip


@dataclass
class Contender:
    """One way to do the work of a case.

    Attributes:
        name: Shown in the tables.
        run: Does the work; its result is compared with those of the others.
        rows: Rows that one call handles; a slow peer takes the first few of the workload.
        kind: `peer`, `ours` or `limit` (a bound, not something a user would pick).
    """

    name: str
    run: Callable[[], Any]
    rows: int
    kind: str = "peer"


@dataclass
class Case:
    """Contenders for one piece of work.

    Attributes:
        name: Title of its table.
        contenders: In the order they are shown.
        absent: Reason why a peer is missing, by name.
        notes: Facts about the workload.
        unit: Unit of the times.
        compare: Whether results must be equal on the rows that two contenders share.
    """

    name: str
    contenders: list[Contender]
    absent: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    unit: str = "µs/pair"
    compare: bool = True


def run_case(case: Case, rounds: int) -> dict[str, Any]:
    """Warm up, check agreement, then time all contenders in turn, `rounds` times.

    Raises:
        AssertionError: If two contenders disagree: a fast wrong answer does not count.
    """
    results = [c.run() for c in case.contenders]
    if case.compare:
        check_agreement(case, results)
    times: list[list[float]] = [[] for _ in case.contenders]
    for round_ in range(rounds):
        # The order changes each round, so that no contender always follows the one that fills the cache.
        order = np.random.default_rng(round_).permutation(len(case.contenders))
        for k in order.tolist():
            contender = case.contenders[k]
            gc.collect()
            start = time.perf_counter()
            contender.run()
            times[k].append((time.perf_counter() - start) / contender.rows * 1e6)
    ours = next((t for c, t in zip(case.contenders, times, strict=True) if c.kind == "ours"), None)
    rows = [
        {
            "contender": c.name,
            "kind": c.kind,
            "rows": c.rows,
            "median": float(np.median(t)),
            "q10": float(np.quantile(t, 0.1)),
            "q90": float(np.quantile(t, 0.9)),
            "times_ours": None if ours is None else float(np.median(np.array(t) / np.array(ours))),
        }
        for c, t in zip(case.contenders, times, strict=True)
    ]
    return {
        "case": case.name, "unit": case.unit, "rounds": rounds, "results": rows,
        "absent": case.absent, "notes": case.notes,
    }  # fmt: skip


def check_agreement(case: Case, results: list[Any]) -> None:
    """Check that every result that is an array equals ours on the rows that both have.

    Raises:
        AssertionError: If one does not.
    """
    ours = next(
        (r for c, r in zip(case.contenders, results, strict=True) if c.kind == "ours"), None
    )
    for contender, result in zip(case.contenders, results, strict=True):
        if ours is None or not isinstance(result, np.ndarray):
            continue
        n = min(len(ours), len(result))
        mine, theirs = _same_kind(ours[:n], result[:n])
        if not np.array_equal(mine, theirs):
            wrong = int((mine != theirs).sum())
            raise AssertionError(f"{case.name}: {contender.name} disagrees on {wrong} of {n} rows")


def _same_kind(counts: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as counts, or both as IoU if one of them is IoU only."""
    if counts.ndim == other.ndim:
        return counts, other
    return (counts if other.ndim == 2 else as_iou(counts)), other


def as_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[N, 3] intersection, predicted and target area to [N] IoU."""
    return counts[:, 0] / (counts[:, 1] + counts[:, 2] - counts[:, 0])


def machine() -> dict[str, Any]:
    """The machine and the versions that the timings were taken with."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):  # noqa: PTH110
        with open("/proc/cpuinfo") as info:  # noqa: PTH123
            names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "cpu": model, "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(), "system": platform.system(), "versions": versions,
    }  # fmt: skip
