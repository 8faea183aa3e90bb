"""The row of a counted prediction: five int64 columns, the same on every device.

| column | |
|---|---|
| `INTERSECTION`, `PRED_AREA` | the counts |
| `FAULT` | 0, or what is wrong with the prediction: a key of `FAULTS` |
| `BEYOND_UNIT` | 1 unless it was a float array within 0…1, as probabilities are |
| `CONFLICT` | 0; a state sets 1 where an example was seen twice with different counts |
"""

from __future__ import annotations

from refcocom_gpu.predictions.resize import NON_FINITE as NOT_FINITE

INTERSECTION, PRED_AREA, FAULT, BEYOND_UNIT, CONFLICT = range(5)
N_COUNTS, N_COLUMNS = 2, 5

NON_FINITE, SWAPPED, UNKNOWN = 1, 2, 3
FAULTS = {NON_FINITE: "non-finite", SWAPPED: "wrong size", UNKNOWN: "unknown key"}
"""Name of each fault in an error."""


def explain_fault(fault: int, height: int, width: int) -> str:
    """Return what is wrong with a prediction for an image of `height` × `width` pixels.

    >>> explain_fault(SWAPPED, 480, 640)
    'mask is 640×480 (height×width), the image is 480×640; height and width are swapped'
    """
    if fault == NON_FINITE:
        return NOT_FINITE
    return (
        f"mask is {width}×{height} (height×width), the image is {height}×{width}; "
        "height and width are swapped"
    )
