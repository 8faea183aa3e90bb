"""`supervision.Detections` of one image in, one mask out; the library itself is not needed."""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.fields import attribute
from refcocom_gpu.errors import DataError
from refcocom_gpu.predictions.combine import combine_masks, plain_mask


def detections(value: Any, *, combine: str | None = None) -> Any:
    """Return the mask of the detections of one image.

    `mask` is [K, H, W] bool at the size of the image, or None; since 0.28 also a `CompactMask`, which holds the runs of
    each box and gives [H, W] bool for each index (its runs are those of a crop, and no COCO RLE). `confidence` is [K]
    or None (roboflow/supervision, `detection/core.py` and `detection/compact_mask.py`). Roboflow's workflows keep masks
    as COCO RLE objects in `data["rle_masks"]`, with `mask` None (docs.roboflow.com, kind
    `rle_instance_segmentation_prediction`); they are read too.

    Args:
        value: The detections that answer one expression, such as `found[found.class_id == 2]`.
        combine: As in `predictions.combine.combine_masks`; the score of a mask is its confidence.

    Returns:
        [H, W] bool, an RLE object, or None where nothing was detected.

    Raises:
        DataError: It is something else, or holds boxes without masks.
        UsageError: There are several detections, and `combine` does not say what becomes of them.

    >>> import numpy as np, types
    >>> found = types.SimpleNamespace(xyxy=np.zeros((1, 4)), mask=np.ones((1, 1, 2), bool), confidence=None, data={})
    >>> detections(found)
    array([[ True,  True]])
    """
    what = "supervision.Detections"
    masks = attribute(value, "mask", what)
    if masks is None:
        masks = getattr(value, "data", {}).get("rle_masks")
    if masks is None:
        if count := len(attribute(value, "xyxy", what)):
            raise DataError(f"these detections are {count} boxes without masks")
        return None
    # A CompactMask has no axes to take apart, but gives its masks one by one.
    listed = [masks[k] for k in range(len(masks))]
    return plain_mask(combine_masks(listed, attribute(value, "confidence", what), combine=combine))
