"""A checked array in, the runs of its mask out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems
from refcocom_gpu.masks.rle import run_ends
from refcocom_gpu.predictions.arrays import is_float
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import NON_FINITE, logit_runs


def array_runs(
    array: Any, height: int, width: int, options: ReadOptions, where: str, problems: Problems
) -> NDArray[np.int32] | None:
    """Return the runs of a mask, or of logits or probabilities after resizing and thresholding.

    Args:
        array: [H, W] bool or integer, or [h, w] float, array or tensor, as `check_array` lets it pass.
        height: H of the image.
        width: W of the image.
        options: What floats mean.
        where: Place of the array, for a person.
        problems: Collects logits that are not finite.

    Returns:
        [R] int32 run ends as `rle.run_ends` gives them; None after recording a problem.
    """
    if not is_float(array):
        return run_ends(array if isinstance(array, np.ndarray) else array.detach().cpu().numpy())
    ends = logit_runs(array, height, width, options)
    if ends is None:
        problems.add("non-finite", where, NON_FINITE)
    return ends
