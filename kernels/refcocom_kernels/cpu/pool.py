"""Rows of work in, split over a thread pool; and the array types the launchers share.

The kernels release the GIL. No result depends on how rows are split.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]
Status = NDArray[np.int8]

MIN_ROWS = 16
"""With fewer rows, handing work to a thread costs more than it saves (about 20 µs each time, measured)."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def available_threads() -> int:
    """Cores this process may use, by its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pool(threads: int) -> ThreadPoolExecutor:
    # Keyed by process: threads do not survive a fork, and a pool inherited from the parent would wait forever.
    key = (os.getpid(), threads)
    if key not in _pools:
        # If two threads get here at once, one pool is discarded; that costs nothing, as a pool starts no thread
        # before its first task.
        _pools.setdefault(key, ThreadPoolExecutor(threads, thread_name_prefix="refcocom"))
    return _pools[key]


def over_rows(
    kernel: Callable[[int, int], Any], n_rows: int, threads: int, *, min_rows: int = MIN_ROWS
) -> None:
    """Call `kernel(first, last)` for ranges that cover `n_rows`, over `threads` threads."""
    threads = threads or available_threads()
    parts = min(4 * threads, n_rows // min_rows)
    if threads == 1 or parts < 2:
        kernel(0, n_rows)
        return
    bounds = [n_rows * k // parts for k in range(parts + 1)]
    for _ in _pool(threads).map(kernel, bounds[:-1], bounds[1:]):
        pass


def offsets_from(lengths: Int64) -> Int64:
    """[B] lengths to [B + 1] offsets."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def most(values: Int64) -> int:
    """The largest value; 0 if there are none."""
    return int(values.max(initial=0))
