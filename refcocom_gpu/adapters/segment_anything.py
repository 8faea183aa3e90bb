"""Masks of Segment Anything (SAM, SAM 2) for one image or prompt in, one mask out."""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.fields import field, records
from refcocom_gpu.predictions.combine import combine_masks, plain_mask


def automatic_masks(output: Any, *, combine: str | None = None) -> Any:
    """Return one mask of what the automatic mask generator found.

    `SamAutomaticMaskGenerator.generate(image)` returns a list of records, each with `segmentation` and `predicted_iou`,
    which is the score here. `output_mode` decides the form of `segmentation`: `binary_mask` [H, W] bool,
    `uncompressed_rle` with `counts` as a list of runs down the columns, `coco_rle` with compressed `counts`; the last
    two are COCO RLE objects (facebookresearch/segment-anything, `segment_anything/automatic_mask_generator.py`; SAM 2
    returns the same). The generator knows no expression: the caller chooses the records that answer it.

    Args:
        output: The records, or those of one expression.
        combine: As in `predictions.combine.combine_masks`.

    Returns:
        [H, W] bool, an RLE object, or None where there is no record.

    Raises:
        DataError: It is another output.
        UsageError: There are several records, and `combine` does not say what becomes of them.

    >>> rle = {"size": [1, 2], "counts": [1, 1]}
    >>> automatic_masks([{"segmentation": rle, "predicted_iou": 0.9, "area": 1}])
    {'size': [1, 2], 'counts': [1, 1]}
    """
    what = "a record of the mask generator"
    listed = records(output, "an output of the mask generator")
    masks = [field(record, "segmentation", what) for record in listed]
    scores = [record.get("predicted_iou") for record in listed]
    return plain_mask(combine_masks(masks, scores, combine=combine))


def predictor(masks: Any, scores: Any = None, *, combine: str | None = None) -> Any:
    """Return one mask of what a predictor returns for one prompt.

    `masks, scores, _ = SamPredictor.predict(…)` gives [K, H, W] bool and [K] scores, K = 3 with `multimask_output=True`
    (facebookresearch/segment-anything, `segment_anything/predictor.py`). SAM 2 gives the same as floats of 0 and 1
    (facebookresearch/sam2, `sam2/sam2_image_predictor.py`), and [B, K, H, W] for B prompts at once: pass them one by
    one. Logits (`return_logits=True`) are refused, as they are no masks: pass `masks > 0`. Transformers' `SamModel`:
    `predictor(processor.post_process_masks(…)[0][0], outputs.iou_scores[0, 0])`; its pipeline `mask-generation`:
    `predictor(output["masks"], output["scores"])`.

    Args:
        masks: [K, H, W] bool or of 0 and 1, array or tensor, or a list of K masks.
        scores: [K].
        combine: As in `predictions.combine.combine_masks`. The K masks of one prompt are guesses at one object, nested
            in each other, so `best` is what the authors use.

    Returns:
        [H, W] bool, or None if K = 0.

    Raises:
        DataError: It is another output, or holds logits.
        UsageError: There are several masks, and `combine` does not say what becomes of them.

    >>> import numpy as np
    >>> predictor(np.array([[[0.0, 1.0]], [[1.0, 1.0]]]), [0.7, 0.8], combine="best")
    array([[ True,  True]])
    """
    return plain_mask(combine_masks(masks, scores, combine=combine))
