"""What every reader yields: a batch of predictions whose examples are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.masks.rle import Column

Where = Callable[[int], str]
"""Row of a batch to its place in the file, for a person."""


@dataclass(frozen=True, slots=True)
class RLEBatch:
    """Predictions as RLE strings.

    Attributes:
        index: [B] int64 example of each row.
        strings: B compressed strings, not yet validated.
        where: Place of each row.
    """

    index: NDArray[np.int64]
    strings: Column
    where: Where

    def take(self, rows: NDArray[np.int64]) -> RLEBatch:
        """Some of the rows."""
        where = self.where
        return RLEBatch(self.index[rows], self.strings.take(rows), lambda k: where(int(rows[k])))


@dataclass(frozen=True, slots=True)
class ArrayBatch:
    """Predictions as arrays.

    Attributes:
        index: [B] int64 example of each row.
        arrays: B arrays or tensors, [H, W] bool or integer (masks) or [h, w] float (logits or probabilities).
        where: Place of each row.
    """

    index: NDArray[np.int64]
    arrays: list[Any]
    where: Where

    def take(self, rows: NDArray[np.int64]) -> ArrayBatch:
        """Some of the rows."""
        where = self.where
        arrays = [self.arrays[row] for row in rows]
        return ArrayBatch(self.index[rows], arrays, lambda k: where(int(rows[k])))


Batch = RLEBatch | ArrayBatch
Batches = Iterator[Batch]
