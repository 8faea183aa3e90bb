"""An output of SAM 3 for one prompt in, one mask out: as Transformers gives it, and as the SAM 3 agent saves it."""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.fields import field, records
from refcocom_gpu.errors import DataError
from refcocom_gpu.predictions.combine import combine_masks, plain_mask


def instances(output: Any, *, combine: str | None = None) -> Any:
    """Return the mask of one output of Transformers or of Meta's image processor.

    Transformers: one entry of what `Sam3Processor.post_process_instance_segmentation(…, target_sizes=[(H, W)])`
    returns: `masks` [K, H, W] of 0 and 1, `boxes` [K, 4] in pixels, `scores` [K] of all instances of the phrase
    (huggingface/transformers, `models/sam3/image_processing_sam3.py`). Without `target_sizes` the masks have the size
    of the model's grid, and are refused when they are scored. Meta's `Sam3Processor.set_text_prompt` returns the same
    names with `masks` [K, 1, H, W] bool (facebookresearch/sam3, `sam3/agent/client_sam3.py` reads them).

    Args:
        output: A dict with `masks` and, for `best`, `scores`.
        combine: As in `predictions.combine.combine_masks`; SAM 3 finds every instance of a phrase, so often several.

    Returns:
        [H, W] bool, or None where nothing was found.

    Raises:
        DataError: It is another output.
        UsageError: There are several masks, and `combine` does not say what becomes of them.

    >>> import numpy as np
    >>> output = {"masks": np.array([[[0, 1]], [[1, 0]]]), "boxes": None, "scores": np.array([0.4, 0.9])}
    >>> instances(output, combine="best")
    array([[ True, False]])
    """
    masks = field(output, "masks", "an output of SAM 3")
    return plain_mask(combine_masks(masks, output.get("scores"), combine=combine))


def agent(output: Any, *, combine: str | None = None) -> Any:
    """Return the mask of one output of the SAM 3 agent, also as its JSON files hold it.

    `pred_masks` are bare `counts` of compressed COCO RLE, whose size stands beside them in `orig_img_h` and
    `orig_img_w`; `pred_boxes` are [x, y, width, height] in 0…1 of the image and are not used; `pred_scores` are
    numbers. Where the agent reports that nothing matches, the lists are empty (facebookresearch/sam3,
    `sam3/agent/client_sam3.py` and `sam3/agent/agent_core.py`).

    Args:
        output: A dict with `pred_masks`, `orig_img_h`, `orig_img_w` and, for `best`, `pred_scores`.
        combine: As in `predictions.combine.combine_masks`.

    Returns:
        An RLE object, or None where nothing was found.

    Raises:
        DataError: It is another output.
        UsageError: There are several masks, and `combine` does not say what becomes of them.

    >>> agent({"orig_img_h": 2, "orig_img_w": 3, "pred_masks": ["123"], "pred_scores": [0.9]})
    {'size': [2, 3], 'counts': '123'}
    """
    what = "an output of the SAM 3 agent"
    size = [field(output, name, what) for name in ("orig_img_h", "orig_img_w")]
    masks = []
    for counts in records(field(output, "pred_masks", what), "pred_masks of the SAM 3 agent"):
        if not isinstance(counts, str | bytes):
            raise DataError(
                f"pred_masks of the SAM 3 agent are strings of counts, not {type(counts).__name__}"
            )
        masks.append({"size": size, "counts": counts})
    return plain_mask(combine_masks(masks, output.get("pred_scores"), combine=combine))
