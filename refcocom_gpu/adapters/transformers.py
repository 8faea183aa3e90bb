"""What image processors and the image-segmentation pipeline of Transformers return for one image in, one mask out."""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_gpu.adapters.fields import field, records
from refcocom_gpu.errors import DataError, UsageError
from refcocom_gpu.predictions.combine import combine_masks, plain_mask
from refcocom_gpu.predictions.normalise import as_numpy

SHOWN = 8
"""Most labels that a message lists."""


def instance_segmentation(
    output: Any, *, label: int | None = None, combine: str | None = None
) -> Any:
    """Return the mask of one entry of `post_process_instance_segmentation` or `post_process_panoptic_segmentation`.

    `segmentation` is [H, W] with the `id` of a segment in each pixel, and `segments_info` a list of {id, label_id,
    score}. The background is −1 with ids from 0 (Mask2Former, MaskFormer, EoMT), or 0 with ids from 1 (DETR, and
    panoptic outputs); neither matters here, because a pixel counts only if its id stands in `segments_info`.
    `segmentation` may be float32, or None where nothing was found. Where instances overlap, the map holds the last one;
    with `return_binary_maps=True`, `segmentation` is [K, H, W] in the order of `segments_info`, and all is kept. With
    `return_coco_annotation=True` it is lists of runs that are no COCO RLE, whatever the name: along the rows, as pairs
    of start and length, for the background too, and without a size. They are refused (huggingface/transformers 5.24,
    `models/mask2former/image_processing_mask2former.py`: `convert_segmentation_to_rle`, `compute_segments`). A panoptic
    output may list an id twice where it fused segments; they are one mask with the higher score.

    Args:
        output: One entry of the list; with `target_sizes=[(H, W)]` it has the size of the image.
        label: Only segments of this `label_id`; None for all.
        combine: As in `predictions.combine.combine_masks`.

    Returns:
        [H, W] bool, or None where there is no such segment.

    Raises:
        DataError: It is another output.
        UsageError: There are several segments, and `combine` does not say what becomes of them.

    >>> segments = [{"id": 0, "label_id": 17, "score": 0.8}, {"id": 1, "label_id": 2, "score": 0.9}]
    >>> output = {"segmentation": np.array([[-1, 0, 1]]), "segments_info": segments}
    >>> instance_segmentation(output, combine="best")
    array([[False, False,  True]])
    >>> instance_segmentation(output, label=17)
    array([[False,  True, False]])
    """
    what = "an output of post_process_instance_segmentation"
    ids, segments = field(output, "segmentation", what), field(output, "segments_info", what)
    if isinstance(ids, list):
        raise DataError(
            "return_coco_annotation=True gives runs along the rows without a size, which are no COCO RLE; "
            "leave it out, or pass return_binary_maps=True"
        )
    segments = records(segments, "segments_info")
    if ids is None or not segments:
        return None
    array = as_numpy(ids)
    if array.ndim not in (2, 3) or (array.ndim == 3 and len(array) != len(segments)):
        raise DataError(
            f"segmentation is [H, W], or [K, H, W] with K = {len(segments)} segments, not of shape {list(array.shape)}"
        )
    masks: dict[Any, Any] = {}
    scores: dict[Any, Any] = {}
    for k, segment in enumerate(segments):
        if label is not None and field(segment, "label_id", "a segment") != label:
            continue
        name = k if array.ndim == 3 else field(segment, "id", "a segment")
        masks[name] = array[k] if array.ndim == 3 else array == name
        given = [score for score in (scores.get(name), segment.get("score")) if score is not None]
        scores[name] = max(given, default=None)
    return plain_mask(combine_masks([*masks.values()], [*scores.values()], combine=combine))


def semantic_segmentation(output: Any, label: int | None = None) -> Any:
    """Return the mask of one label in one entry of `post_process_semantic_segmentation`.

    The output is [H, W] with a label in each pixel (SegFormer and others, a list with one entry per image). SAM 3's is
    1 where the phrase is: pass `label=1`. Numbers of instances, such as PNGs that hold 0, 3 and 7, are read the same
    way.

    Args:
        output: [H, W] integers, array or tensor; with `target_sizes=[(H, W)]` at the size of the image.
        label: The value of a set pixel.

    Returns:
        [H, W] bool; nothing is set where the label does not occur.

    Raises:
        DataError: It is another output.
        UsageError: No label is given; the message lists those that occur.

    >>> semantic_segmentation(np.array([[0, 3, 7]]), label=3)
    array([[False,  True, False]])
    >>> semantic_segmentation(np.array([[0, 3, 7]]))
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: a map of labels is no mask; pass label=K, one of 0, 3, 7
    """
    what = "an output of post_process_semantic_segmentation"
    if isinstance(output, list | tuple | dict):
        raise DataError(f"{what} is one [H, W] map of labels, not {type(output).__name__}")
    array = as_numpy(output)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise DataError(
            f"{what} is [H, W] integers, not {array.dtype} of shape {list(array.shape)}"
        )
    if label is None:
        held = np.unique(array).tolist()
        shown = ", ".join(map(str, held[:SHOWN])) + (", …" if len(held) > SHOWN else "")
        raise UsageError(f"a map of labels is no mask; pass label=K, one of {shown}")
    return array == label


def pipeline(output: Any, *, label: str | None = None, combine: str | None = None) -> Any:
    """Return the mask of what the pipeline `image-segmentation` returns for one image.

    It is a list of {score, label, mask}: `mask` a PIL picture of mode L at the size of the image, 0 and 255; `label` a
    text; `score` a number, None for semantic models (huggingface/transformers 5.24, `pipelines/image_segmentation.py`).
    A mask is read by its mode, as PNG files are.

    Args:
        output: The list for one image; a list of images gives a list of such lists.
        label: Only entries of this label; None for all.
        combine: As in `predictions.combine.combine_masks`.

    Returns:
        [H, W] bool, or None where there is no such entry.

    Raises:
        DataError: It is another output.
        UsageError: There are several entries, and `combine` does not say what becomes of them; or a mask is no picture.

    >>> from PIL import Image
    >>> mask = Image.fromarray(np.array([[0, 255]], np.uint8))
    >>> pipeline([{"score": 0.9, "label": "cat", "mask": mask}])
    array([[False,  True]])
    """
    what = "an entry of the image-segmentation pipeline"
    entries = records(output, "an output of the image-segmentation pipeline")
    if label is not None:
        entries = [entry for entry in entries if field(entry, "label", what) == label]
    masks = [field(entry, "mask", what) for entry in entries]
    return plain_mask(combine_masks(masks, [e.get("score") for e in entries], combine=combine))
