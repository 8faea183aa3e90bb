"""Source indices and weights of a bilinear resize: computed once, here, for every backend.

The backends agree to the last bit because they share these numbers and round each product and each sum by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Table(NamedTuple):
    """One axis of a resize; entry i describes target pixel i.

    Attributes:
        low: [N] int32 source cell before the pixel.
        high: [N] int32 source cell after the pixel.
        weight_low: [N] float32.
        weight_high: [N] float32; the two sum to 1.
        first_pixel: [n + 1] int64 first target pixel whose `low` is a source cell or a later one; the last entry is N.
    """

    low: NDArray[np.int32]
    high: NDArray[np.int32]
    weight_low: NDArray[np.float32]
    weight_high: NDArray[np.float32]
    first_pixel: NDArray[np.int64]


@lru_cache(maxsize=512)
def axis_table(valid: float, target: int) -> Table:
    """Table of one axis with half-pixel centres, as `F.interpolate(..., align_corners=False)` defines them.

    Target pixel i lies at `(i + 0.5) · valid / target − 0.5` source cells, clamped to the cells that hold content.
    Positions are float64; weights are rounded to float32 once.

    Args:
        valid: Source cells that hold content, from 0; a fraction where a letterbox ends inside a cell.
        target: Pixels of the result.

    >>> table = axis_table(2, 4)
    >>> table.low.tolist(), table.weight_high.tolist()
    ([0, 0, 0, 1], [0.0, 0.25, 0.75, 0.0])
    """
    if not valid > 0 or target < 1:
        raise ValueError(f"cannot resize {valid} source cells to {target} pixels")
    last = int(np.ceil(valid)) - 1
    position = (np.arange(target, dtype=np.float64) + 0.5) * valid / target - 0.5
    position = np.clip(position, 0, last)
    low = np.floor(position).astype(np.int32)
    weight_high = (position - low).astype(np.float32)
    arrays = (
        low,
        np.minimum(low + 1, last).astype(np.int32),
        np.float32(1) - weight_high,
        weight_high,
        np.searchsorted(low, np.arange(last + 2)).astype(np.int64),
    )
    for array in arrays:
        array.flags.writeable = False
    return Table(*arrays)
