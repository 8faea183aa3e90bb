"""What counting asks of each side: kernels and arrays of host memory (`host.py`) or of a device (`device.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import IOU, n_columns
from refcocom_gpu.counting.readings import readings_of
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from torch import Tensor

Ints = NDArray[np.int64]
Vector = Any
"""[K] or [K, …] numbers on the counter's side: an array in host memory, or a tensor on its device."""


class Backend(ABC):
    """The kernels of one side, on predictions of one shape and type.

    Letters: `K` predictions, `h w` their cells, `M` samples of the store, `C` columns of a row.

    Args:
        store: Ground truth.
        options: How predictions are read.
        metrics: What is counted, from `measures.chosen_metrics`.
        saver: A further measure of one column, the last: from `mask_saver`.
    """

    def __init__(
        self,
        store: MaskStore,
        options: ReadOptions,
        metrics: Sequence[str] = (IOU,),
        saver: Measure | None = None,
    ) -> None:
        self.store, self.options = store, options
        self.savers = () if saver is None else (saver,)
        self.metrics, self.readings = tuple(metrics), readings_of(options, metrics)
        self.n_columns = n_columns(metrics) + len(self.savers) + self.readings.n_columns

    @property
    @abstractmethod
    def heights(self) -> Vector:
        """[M] H of each sample."""

    @property
    @abstractmethod
    def widths(self) -> Vector:
        """[M] W of each sample."""

    @property
    @abstractmethod
    def measures(self) -> Sequence[Measure]:
        """Who counts the columns of the metrics besides IoU, in their order; then `savers`."""

    @abstractmethod
    def zeros(self, k: int) -> Vector:
        """Return [K, C] int64 zeros."""

    @abstractmethod
    def joined(self, parts: Sequence[Vector], axis: int) -> Vector:
        """Return vectors joined along an axis."""

    @abstractmethod
    def pixels_of(self, masks: Any) -> Any:
        """Return [K, H, W] masks of any integers, or a list of them, as `Measure.masks` takes them."""

    @abstractmethod
    def place(self, array: NDArray[Any]) -> Vector:
        """Return an array of the host on the counter's side: itself, or a tensor on the device."""

    def readable(self, values: Any) -> Any:
        """Return floats as something that compares and selects on the counter's side."""
        return values

    @abstractmethod
    def from_tensors(self, *tensors: Tensor) -> tuple[Vector, ...]:
        """Return tensors that are on the counter's side as its vectors."""

    @abstractmethod
    def masks(self, masks: Any, sample: Vector) -> tuple[Vector, Vector]:
        """Count masks that have the size of their images.

        Args:
            masks: [K, H, W] bool or integers; what is not 0 is set.
            sample: [K] the sample of each.

        Returns:
            [K, 2] intersection and predicted area, and [K] faults of integers.
        """

    @abstractmethod
    def logits(
        self,
        logits: Any,
        sample: Vector,
        *,
        threshold: float,
        valid: Vector | None,
        known: Ints | None = None,
    ) -> tuple[Vector, Vector]:
        """Resize logits to their images, threshold and count.

        Args:
            logits: [K, h, w] floats.
            sample: [K] the sample of each.
            threshold: The value that a set pixel lies strictly above.
            valid: [K, 2] float64 rows and columns of cells that the image fills; None for all.
            known: `sample` in host memory, if the host has it.

        Returns:
            [K, 2] intersection and predicted area, 0 where a logit is not finite; [K] what the values look like, as
            `refcocom_kernels.codes` says.
        """

    @abstractmethod
    def curve(
        self,
        logits: Any,
        sample: Vector,
        *,
        thresholds: Sequence[float],
        valid: Vector | None,
        known: Ints | None = None,
    ) -> Vector:
        """Resize logits to their images once and count at each threshold, as `logits` does at one.

        Args:
            logits: As of `logits`; those that are not finite count anything.
            sample: As of `logits`.
            thresholds: T numbers, ascending.
            valid: As of `logits`.
            known: As of `logits`.

        Returns:
            [K, T, 2] intersection and predicted area.
        """

    @abstractmethod
    def logit_masks(
        self,
        logits: Any,
        sample: Vector,
        *,
        threshold: float,
        valid: Vector | None,
        known: Ints | None = None,
    ) -> Any:
        """Resize logits to their images and threshold them: the pixels that `logits` counts.

        Args:
            logits: As of `logits`.
            sample: As of `logits`.
            threshold: As of `logits`.
            valid: As of `logits`.
            known: As of `logits`.

        Returns:
            [K, at least the largest H, at least the largest W] as `Measure.masks` takes them.
        """

    def largest(self, known: Ints | None) -> tuple[int, int]:
        """Return at least the largest H and the largest W of the images; asking a device would wait for it."""
        store = self.store
        if known is None or not len(known):
            return int(store.heights.max()), int(store.widths.max())
        return int(store.heights[known].max()), int(store.widths[known].max())
