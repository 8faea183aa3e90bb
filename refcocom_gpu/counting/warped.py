"""Logits of CRIS in, counts of the masks that it makes of them out: the metric `warped`, in host memory.

Nothing but floats of 104² or 416² cells, with the image in the middle, is counted; the rows of others hold zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.measure import Ints, Measure
from refcocom_gpu.masks.rle import decode_ends
from refcocom_gpu.masks.warp import LOGIT_SIDE, SIDE, warped
from refcocom_gpu.predictions.options import CENTER, VALUES
from refcocom_gpu.predictions.values import is_bool

if TYPE_CHECKING:
    from refcocom_gpu.store.device import HostArrays


class HostWarped(Measure):
    """Counts for the metric `warped`: intersection, predicted area, and whether the prediction was counted.

    Args:
        store: Ground truth.
        threads: Taken as of every measure; NumPy warps on one.
    """

    def __init__(self, store: HostArrays, threads: int) -> None:
        self._store = store

    def masks(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """As `Measure.masks`: none is counted."""
        return np.zeros((len(sample), 3), np.int64)

    def runs(self, ends: NDArray[np.int32], offsets: Ints, sample: Ints) -> Ints:
        """As `Measure.runs`: none is counted."""
        return np.zeros((len(sample), 3), np.int64)

    @staticmethod
    def takes(values: Any, letterbox: int | str | None) -> bool:
        """As `Measure.takes`."""
        sides = tuple(values.shape[1:])
        is_its_size = sides in ((LOGIT_SIDE, LOGIT_SIDE), (SIDE, SIDE))
        return is_its_size and letterbox == CENTER and not is_bool(values)

    def unresized(self, values: NDArray[Any], sample: Ints, threshold: float) -> Ints:
        """As `Measure.unresized`."""
        store, columns = self._store, np.ones((len(values), 3), np.int64)
        shares = values.astype(np.float32)
        if threshold == VALUES["logits"]:
            with np.errstate(over="ignore"):
                shares = (1 / (1 + np.exp(-shares))).astype(np.float32)
        for row, one in enumerate(sample.tolist()):
            height, width = int(store.heights[one]), int(store.widths[one])
            ends = store.ends[store.run_offsets[one] : store.run_offsets[one + 1]]
            mask = warped(shares[row], height, width)
            shared = np.count_nonzero(mask & decode_ends(ends, height, width))
            columns[row, :2] = shared, np.count_nonzero(mask)
        return columns
