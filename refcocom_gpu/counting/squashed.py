"""Masks or runs in, counts of the masks squashed to 480² out: the metric `squashed`, in host memory.

Predictions of 480² are counted as they are: there the model made them. Others are squashed as the true masks are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.measure import Ints, Measure, runs_by_size
from refcocom_gpu.masks.rle import decode_ends
from refcocom_gpu.masks.squash import SIDE, squashed_ends, taken
from refcocom_gpu.predictions.values import is_bool

if TYPE_CHECKING:
    from refcocom_gpu.store.device import HostArrays


class HostSquashed(Measure):
    """Counts for the metric `squashed`: intersection, predicted area, and whether the prediction was resized.

    Args:
        store: Ground truth.
        threads: 0 for all cores.
    """

    def __init__(self, store: HostArrays, threads: int) -> None:
        self._store, self._threads = store, threads

    def masks(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """As `Measure.masks`."""
        heights, widths = self._store.heights[sample], self._store.widths[sample]
        columns = np.zeros((len(masks), 3), np.int64)
        everything = np.arange(len(masks))
        for rows, ends, offsets in runs_by_size(
            masks, heights, widths, everything, threads=self._threads
        ):
            columns[rows] = self.runs(ends, offsets, sample[rows])
        return columns

    def runs(self, ends: NDArray[np.int32], offsets: Ints, sample: Ints) -> Ints:
        """As `Measure.runs`."""
        store, threads = self._store, self._threads
        heights, widths = store.heights[sample], store.widths[sample]
        counts, *_ = cpu.rle_counts(
            *cpu.rle_write(squashed_ends(ends, offsets, heights, widths), offsets, threads=threads),
            sample,
            store.squashed.ends,
            store.run_offsets,
            np.full(len(store.heights), SIDE**2),
            threads=threads,
        )
        return np.column_stack([counts, (heights != SIDE) | (widths != SIDE)])

    @staticmethod
    def takes(values: Any, letterbox: int | str | None) -> bool:
        """As `Measure.takes`."""
        return tuple(values.shape[1:]) == (SIDE, SIDE) and letterbox is None

    def unresized(self, values: NDArray[Any], sample: Ints, threshold: float) -> Ints:
        """As `Measure.unresized`."""
        masks = values if is_bool(values) else values > threshold
        columns = np.zeros((len(masks), 3), np.int64)
        for one in np.unique(sample).tolist():
            true = self._true_mask(one)
            for row in np.flatnonzero(sample == one):
                columns[row, 0] = np.count_nonzero(masks[row] & true)
                columns[row, 1] = np.count_nonzero(masks[row])
        return columns

    def _true_mask(self, sample: int) -> NDArray[np.bool_]:
        """Return [480, 480] the squashed true mask of a sample."""
        store = self._store
        height, width = int(store.heights[sample]), int(store.widths[sample])
        ends = store.ends[store.run_offsets[sample] : store.run_offsets[sample + 1]]
        return decode_ends(ends, height, width)[np.ix_(taken(height), taken(width))]
