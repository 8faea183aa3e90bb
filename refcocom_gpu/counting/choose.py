"""A store and a device in, the counter for them out. torch is imported only for a device other than the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from refcocom_gpu.counting.batches import BatchCounter, HostBatches
from refcocom_gpu.counting.host import HostCounter
from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import IOU
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.options import ReadOptions

if TYPE_CHECKING:
    import torch

    from refcocom_gpu.counting.counter import Counter
    from refcocom_gpu.store.store import MaskStore


def counter_on(
    store: MaskStore, options: ReadOptions, device: torch.device, metrics: Sequence[str] = (IOU,)
) -> Counter:
    """Make the counter of a device.

    Args:
        store: Ground truth.
        options: How predictions are read.
        device: Where the predictions are.
        metrics: What is counted, from `measures.chosen_metrics`.
    """
    if device.type == "cpu":
        return HostCounter(store, options, metrics)
    from refcocom_gpu.counting.device import DeviceCounter

    return DeviceCounter(store, options, device, metrics)


def batch_counter(
    store: MaskStore,
    options: ReadOptions,
    problems: Problems,
    metrics: Sequence[str] = (IOU,),
    saver: Measure | None = None,
) -> BatchCounter:
    """Make the counter of prediction files for a store's device.

    Args:
        store: Ground truth.
        options: How predictions are read.
        problems: Collects malformed RLE and non-finite logits.
        metrics: What is counted, from `measures.chosen_metrics`.
        saver: As of `Backend`.
    """
    if store.device == "cpu":
        return HostBatches(store, options, problems, metrics, saver)
    from refcocom_gpu.counting.stream import DeviceBatches

    return DeviceBatches(store, options, problems, metrics, saver)
