"""The row of a counted prediction: int64 columns, the same on every device.

| column | |
|---|---|
| `INTERSECTION`, `PRED_AREA` | the counts |
| `FAULT` | 0, or what is wrong with the prediction: see `predictions.values` |
| `TRAITS` | what it tells about its set: evidence of `predictions.values`, bits of `predictions.padding` |
| `CONFLICT` | 0; a state sets bits where an example was seen twice with different counts |
| from `N_COLUMNS` on | a block of counts for each metric besides IoU that was asked for: see `measures` |

`C` is the number of columns: five for IoU alone.
"""

from __future__ import annotations

from typing import Any

from refcocom_gpu.predictions.labels import NO_TARGET

INTERSECTION, PRED_AREA, FAULT, TRAITS, CONFLICT = range(5)
N_COUNTS, N_COLUMNS = 2, 5

OTHER_RANK, SAME_RANK = 1, 2
"""Bits of a conflict: between ranks, whose arithmetic may differ, and within one, whose state was not reset."""


def reject(rows: Any, labels: Any) -> None:
    """Make the counts of rejected predictions those of an empty mask, in place; faults and traits stay.

    Args:
        rows: [K, C] int64 array or tensor.
        labels: [K] int64 codes of `predictions.labels`, of the same kind.
    """
    kept = (labels != NO_TARGET)[:, None]
    rows[:, :N_COUNTS] *= kept
    rows[:, N_COLUMNS:] *= kept
