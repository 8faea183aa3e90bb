"""What counts the columns of a metric besides IoU on one side: in host memory or on a device. See `measures`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

Ints = NDArray[np.int64]
Vector = Any
"""Numbers on the side of a counter: an array in host memory, or a tensor on its device."""


class Measure(ABC):
    """Counts the columns `Metric.counted` of one metric, `c` of them, on one side."""

    @abstractmethod
    def masks(self, masks: Any, sample: Vector) -> Vector:
        """Count dense masks.

        Args:
            masks: [K, h, w] bool or bytes; what is not 0 is set. Each image is at the top left, and what lies beyond it
                means nothing.
            sample: [K] the sample of each.

        Returns:
            [K, c] int64.
        """

    @abstractmethod
    def runs(self, ends: Vector, offsets: Vector, sample: Vector) -> Vector:
        """Count masks given as runs.

        Args:
            ends: [R] int32 run ends of valid masks.
            offsets: [K + 1] int64 where those of each begin.
            sample: [K] the sample of each.

        Returns:
            [K, c] int64.
        """

    @staticmethod
    def takes(values: Any, letterbox: int | str | None) -> bool:
        """Return whether it counts predictions as they came, by `unresized`, whatever the size of their images.

        Args:
            values: [K, h, w] bool masks or floats.
            letterbox: Where the images lie in them; see `ReadOptions`.
        """
        return False

    def unresized(self, values: Any, sample: Vector, threshold: float) -> Vector:
        """Count predictions as they came.

        Args:
            values: [K, h, w] bool masks or floats that it `takes`.
            sample: [K] the sample of each.
            threshold: The value that a set pixel of floats lies strictly above; that of logits is 0.

        Returns:
            [K, c] int64.
        """
        raise NotImplementedError


def runs_by_size(
    masks: NDArray[np.uint8], heights: Ints, widths: Ints, rows: Ints, *, threads: int = 0
) -> Iterator[tuple[Ints, NDArray[np.int32], Ints]]:
    """Find the runs of dense masks, those of one size at a time.

    Args:
        masks: [K, h, w] bytes as `Measure.masks` takes them.
        heights: [K] H of each.
        widths: [K] W of each.
        rows: [n] the masks that are wanted.
        threads: 0 for all cores.

    Yields:
        Some of the rows, the run ends of their masks, and where those of each begin.
    """
    sizes = np.stack([heights, widths], 1)
    for height, width in np.unique(sizes[rows], axis=0).tolist():
        some = rows[(sizes[rows] == (height, width)).all(1)]
        images = np.ascontiguousarray(masks[some, :height, :width]).view(np.uint8)
        yield some, *cpu.mask_runs(images, threads=threads)
