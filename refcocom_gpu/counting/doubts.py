"""The rows of a whole set in, warnings out: what makes a score look as if the predictions were misread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.rows import INTERSECTION, PRED_AREA, TRAITS
from refcocom_gpu.predictions.padding import LEAST, SWAPPED, padding_doubt

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

INVERTED_IOU = 0.5
"""IoU that an inverted prediction must exceed to count as better. Inverting an empty prediction covers the image, and
few objects cover half of one."""


def doubts(rows: NDArray[np.int64], index: NDArray[np.int64], store: MaskStore) -> list[str]:
    """Look for signs that predictions were misread.

    Args:
        rows: [K, C] counted predictions.
        index: [K] the example of each.
        store: Ground truth.

    Returns:
        A sentence for each sign, which says what to do.
    """
    found = []
    traits = rows[:, TRAITS]
    if swapped := int(np.count_nonzero(traits & SWAPPED)):
        found.append(
            f"{swapped:,} of {len(rows):,} predictions have the size of their image with height and width swapped, and "
            "were resized; transpose them if they are of the image's size"
        )
    if padding := padding_doubt(traits):
        found.append(padding)
    sample = store.example_sample[index]
    better = int(
        np.count_nonzero(_is_better_inverted(rows, store.areas[sample], store.pixels[sample]))
    )
    if len(rows) >= LEAST and 2 * better > len(rows):
        found.append(
            f"{better:,} of {len(rows):,} predictions fit better inverted, with an IoU above {INVERTED_IOU}; "
            "set pixels are those of the object, check that they are not those of the background"
        )
    return found


def _is_better_inverted(
    rows: NDArray[np.int64], target: NDArray[np.int64], pixels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """[K] whether the IoU of the inverted prediction is higher, and above `INVERTED_IOU`."""
    intersection, area = rows[:, INTERSECTION], rows[:, PRED_AREA]
    union = area + target - intersection
    inverted = target - intersection
    inverted_union = pixels - area + intersection
    # Cross-multiplied, so that no union of 0 divides.
    is_better: NDArray[np.bool_] = inverted * union > intersection * inverted_union
    return is_better & (inverted > INVERTED_IOU * inverted_union)
