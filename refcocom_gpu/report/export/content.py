"""A store and perhaps a result in, what every export needs of them out: true and predicted masks, boxes, names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.masks import rle
from refcocom_gpu.masks.boxes import run_boxes
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions of a result.

    Attributes:
        strings: N compressed strings, empty without a prediction.
        boxes: [N, 4] their tight boxes; see `masks.boxes`.
        given: [N] whether there is a prediction.
        iou: [N].
        labels: Whether each says that its expression has no target: N bools or None.
    """

    strings: rle.Column
    boxes: Ints
    given: NDArray[np.bool_]
    iou: NDArray[np.float64]
    labels: list[bool | None]


@dataclass(frozen=True, eq=False)
class Content:
    """What is exported.

    Attributes:
        store: Ground truth.
        predicted: None for a dataset alone.
        info: What the export is one of, for the file.
    """

    store: MaskStore
    predicted: Predicted | None
    info: dict[str, str]

    @classmethod
    def of(cls, store: MaskStore, result: Result | None) -> Content:
        """Gather what is exported."""
        dataset = store.dataset
        info = {
            "description": dataset.source,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
        }
        if result is None or result.masks is None:
            return cls(store, None, info)
        strings = result.masks
        given = np.diff(strings.offsets) > 0
        rows = np.flatnonzero(given)
        sample = store.example_sample[rows]
        runs = rle.parse(strings.take(rows), store.pixels[sample])
        boxes = np.zeros((len(store), 4), np.int64)
        boxes[rows] = run_boxes(runs.ends, runs.offsets, store.heights[sample])
        info["predictions"] = str(result.info.get("predictions", {}).get("source", "memory"))
        table = result.per_example
        labels: list[bool | None] = [None] * len(store)
        if PRED_NO_TARGET in table.column_names:
            labels = table.column(PRED_NO_TARGET).to_pylist()
        return cls(store, Predicted(strings, boxes, given, result.iou, labels), info)

    @cached_property
    def true_strings(self) -> rle.Column:
        """M compressed strings of the true masks, in canonical form."""
        return rle.Column(*cpu.rle_write(self.store.ends, self.store.run_offsets))


def corner_box(box: Ints) -> list[int]:
    """Return a tight box as COCO writes it: x, y, width and height.

    >>> corner_box(np.array([1, 1, 3, 2]))
    [1, 1, 2, 1]
    """
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
