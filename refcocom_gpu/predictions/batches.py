"""The batches that every reader yields: predictions whose examples are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.masks.rle import Column

Where = Callable[[int], str]
"""Gives the place of a row of a batch in the file, for a person."""


def row_of_batch(row: int) -> str:
    """Name a row of a batch that is in memory: a `Where`."""
    return f"row {row} of the batch"


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
        """Return some of the rows."""
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
        """Return some of the rows."""
        where = self.where
        arrays = [self.arrays[row] for row in rows]
        return ArrayBatch(self.index[rows], arrays, lambda k: where(int(rows[k])))


@dataclass(frozen=True, slots=True)
class BoxBatch:
    """Predictions that are boxes.

    Attributes:
        index: [B] int64 example of each row.
        boxes: [B, 4] float64 x0, y0, x1, y1 in pixels of the image, half-open as in `masks.boxes`; 0, 0, 0, 0 for none.
        where: Place of each row.
    """

    index: NDArray[np.int64]
    boxes: NDArray[np.float64]
    where: Where

    def take(self, rows: NDArray[np.int64]) -> BoxBatch:
        """Return some of the rows."""
        where = self.where
        return BoxBatch(self.index[rows], self.boxes[rows], lambda k: where(int(rows[k])))


Batch = RLEBatch | ArrayBatch
Batches = Iterator[Batch]
