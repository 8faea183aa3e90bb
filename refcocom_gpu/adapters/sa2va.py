"""The masks that Sa2VA predicts for one expression in, one mask out: their union, as its own evaluation joins them."""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.fields import records
from refcocom_gpu.predictions.combine import combine_masks, plain_mask


def segmentation(masks: Any, *, combine: str | None = "union") -> Any:
    """Return the mask for one expression.

    `predict_forward(…)["prediction_masks"]` is a list with one [1, H, W] mask for each `[SEG]` of the answer (the first
    axis counts frames, one for a picture), empty if the answer holds none. The evaluation joins them by OR, keeps a
    list of RLE objects for each expression, or None, and scores None as an empty mask (bytedance/Sa2VA,
    `projects/sa2va/evaluation/refcoco_eval.py` and `dataset/RES.py`). Earlier evaluations, and forks of them, keep the
    first mask alone (`_ret_mask = pred_mask[0]`); pass `masks[:1]` for their numbers.

    Args:
        masks: A list of RLE objects, or of [1, H, W] arrays or tensors; None or an empty list if nothing was predicted.
        combine: `union` as in its evaluation; `best` is refused, as Sa2VA gives no scores.

    Returns:
        An RLE object, [H, W] bool, or None.

    Raises:
        DataError: It is another output, or the masks have different sizes.
        UsageError: `combine` is another word.

    >>> segmentation([{"size": [1, 3], "counts": [0, 1, 2]}, {"size": [1, 3], "counts": [2, 1]}])
    {'size': [1, 3], 'counts': '0110'}
    >>> segmentation(None) is None
    True
    """
    if masks is None:
        return None
    listed = records(masks, "what Sa2VA predicts for one expression")
    return plain_mask(combine_masks(listed, combine=combine))
