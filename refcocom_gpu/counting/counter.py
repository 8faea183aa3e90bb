"""Batches and a store in, intersections and areas out: on the host with Numba, on a device with the torch operators.

A counter takes the batches of one run with `add` and gives the counts of all examples with `finish`, so that a device
may still be at work on one batch while the next is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.batches import Batch
from refcocom_gpu.predictions.options import ReadOptions

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


class Counter(Protocol):
    """Counts the batches of one run.

    Attributes:
        only_unit_range: Whether every float array lay in 0…1, as probabilities do; None before one is seen.
    """

    only_unit_range: bool | None

    def add(self, batch: Batch) -> None:
        """Count a batch; what is wrong with it is recorded as problems, now or later."""

    def finish(self) -> NDArray[np.int64]:
        """[N, 2] intersection and predicted area of all examples, 0 for those never added."""


def counter_for(
    store: MaskStore, options: ReadOptions, problems: Problems, threads: int
) -> Counter:
    """The counter for a store's device.

    Args:
        store: Ground truth.
        options: What float arrays mean.
        problems: Collects malformed RLE and non-finite logits.
        threads: CPU threads, 0 for all cores.
    """
    if store.device == "cpu":
        from refcocom_gpu.counting.host import HostCounter

        return HostCounter(store, options, problems, threads)
    from refcocom_gpu.counting.device import DeviceCounter

    return DeviceCounter(store, options, problems, threads)
