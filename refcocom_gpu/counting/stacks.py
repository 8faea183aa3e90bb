"""Stacks of a training loop and the indices of their examples in, a row of counts for each prediction out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refcocom_gpu.counting.counter import Counter
from refcocom_gpu.counting.device import DeviceCounter, take
from refcocom_gpu.counting.rows import FAULT
from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.batches import row_of_batch
from refcocom_gpu.predictions.keys import NO_ROW
from refcocom_gpu.predictions.values import FAULTS, UNKNOWN, explain_fault, fault_name

Ints = NDArray[np.int64]
Index = Tensor | Ints
"""[B] indices: a tensor if they came on a device, else an array in host memory."""


class Stack(NamedTuple):
    """Predictions of one shape and type.

    Attributes:
        values: [K, h, w] of one type, without a graph; None for K masks that are empty on purpose.
        rows: Their rows in the batch; None if they are the whole batch, in order.
    """

    values: Tensor | None
    rows: list[int] | None


@dataclass(frozen=True, eq=False, slots=True)
class CountedBatch:
    """A batch after counting.

    Attributes:
        index: [B] the example of each row; N where an index on a device names no example.
        rows: [B, C] int64 as `counting.rows` describes them, on the counter's device.
    """

    index: Index
    rows: Tensor

    def table(self) -> Tensor:
        """Return [B, 1 + C] int64: the index, then the row."""
        index = self.index
        if isinstance(index, np.ndarray):
            # A copy, because the caller's array may be read-only.
            index = torch.from_numpy(index.copy())
        return torch.cat([index[:, None], self.rows], 1)


def count_stacks(counter: Counter, stacks: Sequence[Stack], index: Index) -> CountedBatch:
    """Count a batch; faults raise at once in host memory, on a device they are marked in the rows.

    Args:
        counter: From `choose.counter_on`; predictions are on its device.
        stacks: The predictions of the batch.
        index: [B] on the device or the host.

    Returns:
        The rows in the order of the batch.

    Raises:
        PredictionError: For an index in host memory that names no example. If the predictions are in host memory
            too, also for one that breaks the rules of `predictions.values`.
        UsageError: When predictions are in host memory and indices are not.
    """
    if isinstance(index, np.ndarray):
        refuse_unknown(index, len(counter.store))
    if isinstance(counter, DeviceCounter):
        return _on_device(counter, stacks, index)
    if not isinstance(index, np.ndarray):
        raise UsageError(f"index is on {index.device}, predictions are on the CPU")
    rows = counter.zeros(len(index))
    sample = counter.store.example_sample[index]
    for values, where in stacks:
        if values is None:
            continue
        # Nearly always one stack is the whole batch, and its rows need no selection.
        if where is None:
            rows = counter.stack(values, sample, sample)
        else:
            rows[where] = counter.stack(values, sample[where], sample[where])
    if np.count_nonzero(rows[:, FAULT]):
        _raise_faults(counter, rows[:, FAULT], sample, stacks)
    return CountedBatch(index, torch.from_numpy(rows))


def _on_device(counter: DeviceCounter, stacks: Sequence[Stack], index: Index) -> CountedBatch:
    store, n = counter.store, len(counter.store)
    known = None
    if isinstance(index, np.ndarray):
        known = store.example_sample[index]
        index = counter.place(index)
    # The host must not look at such indices; row N of a state takes those that name no example.
    unknown = (index < 0) | (index >= n)
    sample = counter.truth.example_sample[index.clamp(0, n - 1)]
    index = index.masked_fill(unknown, n)
    if len(stacks) == 1 and stacks[0].rows is None:
        assert stacks[0].values is not None
        rows = counter.stack(stacks[0].values, sample, known)
    else:
        parts, order = [counter.zeros(0)], []
        for values, where in stacks:
            assert where is not None
            known_part = None if known is None else known[where]
            if values is None:
                parts.append(counter.zeros(len(where)))
            else:
                parts.append(counter.stack(values, take(sample, where), known_part))
            order += where
        rows = torch.cat(parts)
        if order:
            # Back in the order of the batch, because the first prediction for an example counts.
            rows = take(rows, np.argsort(order).tolist())
    rows[:, FAULT].masked_fill_(unknown, UNKNOWN)
    return CountedBatch(index, rows)


def refuse_unknown(index: Ints, n: int) -> None:
    """Check indices in host memory.

    Args:
        index: [B].
        n: N examples.

    Raises:
        PredictionError: When an index is not in 0…N−1.
    """
    # As an unsigned number, a negative one is larger than every index.
    unsigned = index.view(np.uint64)
    if unsigned.max(initial=0) < n:
        return
    problems = Problems()
    for row in np.flatnonzero(unsigned >= n).tolist():
        problems.add(
            FAULTS[UNKNOWN], row_of_batch(row), f"index {index[row]} {NO_ROW.format(n - 1)}"
        )
    problems.raise_if_any()


def _raise_faults(counter: Counter, faults: Ints, sample: Ints, stacks: Sequence[Stack]) -> None:
    store, problems = counter.store, Problems()
    values_of: dict[int, Tensor] = {}
    for values, where in stacks:
        if values is not None:
            rows = range(len(faults)) if where is None else where
            values_of.update(zip(rows, values, strict=True))
    for row in np.flatnonzero(faults).tolist():
        fault, size = int(faults[row]), (store.heights[sample[row]], store.widths[sample[row]])
        values = values_of[row]
        held = values if values.is_floating_point() else values.numpy()
        reason = explain_fault(fault, int(size[0]), int(size[1]), counter.options, held)
        problems.add(fault_name(fault), row_of_batch(row), reason)
    problems.raise_if_any()
