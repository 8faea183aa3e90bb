"""Contenders in, alternating timings out, between CUDA events where there are any."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Contender

WARM_UP = 3


class Clock:
    """Times work on one device.

    Args:
        device: The device that does the work.
        rounds: Timings of each contender.
    """

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.device, self.rounds = device, rounds

    def once(self, work: Callable[[], Any]) -> float:
        """Seconds until the device has finished one call."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        start_event.record()
        work()
        end_event.record()
        end_event.synchronize()
        return start_event.elapsed_time(end_event) / 1e3

    def peak_bytes(self, work: Callable[[], Any]) -> int:
        """Device memory that one call adds at its peak, in bytes; 0 without CUDA."""
        if self.device.type != "cuda":
            return 0
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before

    def case(
        self, name: str, contenders: list[Contender], notes: dict[str, Any], unit: str = "µs/pair"
    ) -> dict[str, Any]:
        """Warm up, then time all contenders in turn; a time in `ms` is of a whole call, other units are per row."""
        for contender in contenders:
            for _ in range(WARM_UP):
                contender.run()
        times: list[list[float]] = [[] for _ in contenders]
        for round_ in range(self.rounds):
            for k in np.random.default_rng(round_).permutation(len(contenders)).tolist():
                seconds = self.once(contenders[k].run)
                times[k].append(
                    seconds * 1e3 if unit == "ms" else seconds / contenders[k].rows * 1e6
                )
        ours = np.array(times[0])
        return {
            "case": name, "unit": unit, "rounds": self.rounds, "absent": {}, "notes": notes,
            "results": [
                {
                    "contender": c.name, "kind": c.kind, "rows": c.rows, "median": float(np.median(t)),
                    "q10": float(np.quantile(t, 0.1)), "q90": float(np.quantile(t, 0.9)),
                    "times_ours": float(np.median(np.array(t) / ours)),
                }
                for c, t in zip(contenders, times, strict=True)
            ],
        }  # fmt: skip
