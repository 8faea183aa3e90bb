"""Outputs of other libraries become masks that `score` and `PredictionWriter` take; several become one as asked.

The outputs are made here in the form that each library documents; where the library is installed, it makes them itself.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import coco_encode, sample_case
from hypothesis import given
from hypothesis import strategies as st
from pages import section
from PIL import Image

import refcocom_gpu as rc
from refcocom_gpu import adapters
from refcocom_gpu.adapters import (
    pickles,
    sa2va,
    sam3,
    segment_anything,
    supervision,
    transformers,
    ultralytics,
)
from refcocom_gpu.adapters.sources import SOURCES
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.combine import COMBINES, combine_masks, plain_mask

A = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
B = np.array([[0, 1, 1, 0], [0, 0, 0, 1]], bool)
C = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], bool)
NONE = np.zeros_like(A)


def pixels(result: Any) -> np.ndarray:
    """Any result of an adapter as pixels."""
    if result is None:
        return NONE
    return rle.decode(result) if isinstance(result, dict) else result


def picture(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def detections(masks: Any, confidence: Any = None, **data: Any) -> SimpleNamespace:
    n = 0 if masks is None else len(masks)
    return SimpleNamespace(xyxy=np.zeros((n, 4)), mask=masks, confidence=confidence, data=data)


def letterboxed(mask: np.ndarray, rows: int = 13) -> np.ndarray:
    """A mask twice as large, with odd padding above and below."""
    twice = mask.repeat(2, 0).repeat(2, 1)
    return np.pad(twice, ((rows // 2, rows - rows // 2), (0, 0))).astype(np.uint8)


def yolo(
    masks: list[np.ndarray], scores: list[float], shape: tuple[int, int], **other: Any
) -> SimpleNamespace:
    data = torch.from_numpy(np.stack([letterboxed(m) for m in masks]))
    boxes = SimpleNamespace(conf=torch.tensor(scores))
    return SimpleNamespace(orig_shape=shape, boxes=boxes, masks=SimpleNamespace(data=data, **other))


# Several masks, one prediction ----------------------------------------------------------------------

FORMS = {
    "list of arrays": list,
    "[K, H, W]": np.stack,
    "[K, 1, H, W]": lambda masks: np.stack(masks)[:, None],
    "tensor": lambda masks: torch.from_numpy(np.stack(masks)).long(),
    "bfloat16": lambda masks: torch.from_numpy(np.stack(masks)).bfloat16(),
    "RLE": lambda masks: [coco_encode(mask) for mask in masks],
    "pictures": lambda masks: [picture(mask) for mask in masks],
    "RLE, arrays": lambda masks: [coco_encode(masks[0]), *masks[1:]],
}


@given(
    seed=st.integers(0, 99),
    form=st.sampled_from(sorted(FORMS)),
    scores=st.lists(st.sampled_from([-1.5, 0.25, 0.5, 1.0]), min_size=2, max_size=5),
)
def test_the_union_is_the_or_and_the_best_is_the_first_of_the_highest(seed, form, scores) -> None:
    masks = list(np.random.default_rng(seed).random((len(scores), 3, 5)) < 0.3)
    given_masks = FORMS[form](masks)
    union = pixels(plain_mask(combine_masks(given_masks, combine="union")))
    np.testing.assert_array_equal(union, np.logical_or.reduce(masks))
    best = scores.index(max(scores))
    pairs = [*zip(given_masks, scores, strict=True)]
    for found in (
        combine_masks(given_masks, torch.tensor(scores), combine="best"),
        combine_masks(pairs, combine="best"),
    ):
        np.testing.assert_array_equal(pixels(plain_mask(found)), masks[best])


@pytest.mark.parametrize("form", sorted(FORMS))
def test_several_masks_need_combine_and_one_does_not(form: str) -> None:
    with pytest.raises(
        rc.UsageError, match=r"2 masks for one expression; pass combine=union .*combine=best"
    ):
        combine_masks(FORMS[form]([A, B]))
    np.testing.assert_array_equal(pixels(plain_mask(combine_masks(FORMS[form]([A])))), A)
    for combine in COMBINES:
        np.testing.assert_array_equal(
            pixels(plain_mask(combine_masks(FORMS[form]([B]), combine=combine))), B
        )


def test_one_mask_alone_is_unchanged_and_none_is_empty() -> None:
    logits = np.full((3, 4), -2.0)
    assert combine_masks(logits) is logits
    assert combine_masks([logits, logits + 1], [2, 1], combine="best") is logits
    segmentation = coco_encode(A)
    assert combine_masks(segmentation) is segmentation
    for nothing in ([], np.zeros((0, 2, 4)), torch.zeros(0, 1, 2, 4), None, [None]):
        assert combine_masks(nothing) is None
    assert combine_masks([None, None], combine="union") is None
    assert combine_masks([None, coco_encode(B)], combine="union") == coco_encode(B)
    assert combine_masks([(A, 0.1), (None, 0.9)], combine="best") is None


def test_what_is_not_an_rle_alone_becomes_pixels() -> None:
    assert combine_masks([coco_encode(A), coco_encode(B)], combine="union") == coco_encode(A | B)
    assert combine_masks([coco_encode(A), B], combine="union").dtype == bool


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ([A, B], {"combine": "both"}, "combine must be union or best, not 'both'"),
        ([A, B], {"combine": "best"}, "2 of 2 have none; pass the scores, or combine=union"),
        ([(A, 1.0), (B, None)], {"combine": "best"}, "1 of 2 have none"),
        ([A, B], {"scores": [1.0]}, "2 masks came with 1 scores"),
        ([(A, 1.0), (B, 2.0)], {"scores": [1, 2]}, "scores of their own"),
        ([A, B], {"scores": [1.0, float("nan")], "combine": "best"}, "a score is NaN"),
        ([A, B], {"scores": "no"}, "scores are K numbers"),
        ([A, B], {"scores": 0.5}, "scores are K numbers"),
        ([A, B[:, :3]], {"combine": "union"}, "different sizes: 2×3, 2×4"),
        ([A, coco_encode(B[:1])], {"combine": "union"}, "different sizes: 1×4, 2×4"),
        ([A, {"size": [2, 4], "counts": "9"}], {"combine": "union"}, "not valid RLE"),
        ([A, 7.5 * B], {"combine": "union"}, "0 and 1 alone, this one 0 to 7.5; pass mask > 0"),
        ([A, 3 * A + 7 * C], {"combine": "union"}, "3, 7; pass .*label=K"),
        ([A, -1 * B], {"combine": "union"}, "negative values"),
        ([A, A[0]], {"combine": "union"}, r"\[H, W\], not of shape \[4\]"),
        (np.zeros((2, 3, 4, 5)), {}, r"\[K, H, W\], not of shape \[2, 3, 4, 5\]"),
        (7, {}, "a list or an array, not int"),
        ("masks", {}, "a list or an array, not str"),
        (["one", "two"], {"combine": "union"}, "not str"),
    ],
)  # fmt: skip
def test_what_cannot_become_one_is_refused(masks: Any, options: Any, message: str) -> None:
    with pytest.raises((rc.UsageError, rc.DataError), match=message):
        combine_masks(masks, **options)


# Every adapter, scored and written ------------------------------------------------------------------


def halves(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of a mask, whose union it is."""
    left = mask.copy()
    left[:, mask.shape[1] // 2 :] = False
    return left, mask & ~left


def segments(mask: np.ndarray) -> Any:
    ids = torch.where(torch.from_numpy(mask), 1.0, 0.0)
    ids[torch.from_numpy(~mask)] = -1
    return transformers.instance_segmentation(
        {"segmentation": ids, "segments_info": [{"id": 1, "label_id": 5, "score": 0.5}]}
    )


ADAPTERS = {
    "instance_segmentation": segments,
    "semantic_segmentation": lambda m: transformers.semantic_segmentation(
        torch.from_numpy(np.where(m, 7, 3)), 7
    ),
    "pipeline": lambda m: transformers.pipeline(
        [
            {"score": None, "label": "cow", "mask": picture(m)},
            {"score": None, "label": "sky", "mask": picture(~m)},
        ],
        label="cow",
    ),
    "automatic_masks": lambda m: segment_anything.automatic_masks(
        [
            {"segmentation": coco_encode(~m), "predicted_iou": 0.8},
            {"segmentation": coco_encode(m), "predicted_iou": 0.9},
        ],
        combine="best",
    ),
    "predictor": lambda m: segment_anything.predictor(
        np.stack([~m, m, m]).astype(np.float32), np.array([0.1, 0.9, 0.9]), combine="best"
    ),
    "sam3": lambda m: sam3.instances(
        {"masks": torch.from_numpy(np.stack(halves(m))).long(), "scores": torch.ones(2)}, combine="union"
    ),
    "agent": lambda m: sam3.agent(
        {
            "orig_img_h": m.shape[0],
            "orig_img_w": m.shape[1],
            "pred_boxes": [[0.1, 0.2, 0.3, 0.4]] * 2,
            "pred_scores": [0.5, 0.25],
            "pred_masks": [coco_encode(m)["counts"], coco_encode(~m)["counts"]],
        },
        combine="best",
    ),
    "sa2va": lambda m: sa2va.segmentation([half[None] for half in halves(m)]),
    "sa2va saved": lambda m: sa2va.segmentation([coco_encode(m)]),
    "supervision": lambda m: supervision.detections(detections(m[None], np.ones(1))),
    "ultralytics": lambda m: ultralytics.results(
        yolo([~m, m], [0.3, 0.4], m.shape), combine="best"
    ),
    "a pickle": lambda m: pickles.load(pickle.dumps([[{"segmentation": coco_encode(m)}], m]))[1],
    "combine_masks": lambda m: adapters.combine_masks([*halves(m)], combine="union"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_what_an_adapter_returns_is_scored_and_written(name: str, tmp_path: Path) -> None:
    case = sample_case()
    chosen = [*range(0, len(case.masks), 40)]
    results = [(k, ADAPTERS[name](case.masks[k])) for k in chosen]
    scored = rc.score(results, case.store, missing="zero").per_example
    with rc.PredictionWriter(tmp_path / "preds.jsonl", case.dataset) as writer:
        for k, result in results:
            writer.write(k, result)
    written = rc.score(writer.path, case.store, missing="zero").per_example
    for table in (scored, written):
        found = [table[column].to_numpy()[chosen] for column in ("intersection", "pred_area")]
        np.testing.assert_array_equal(np.stack(found, 1), case.expected[chosen])


def test_nothing_found_is_an_empty_mask() -> None:
    empty: list[Any] = [
        transformers.instance_segmentation({"segmentation": None, "segments_info": []}),
        transformers.instance_segmentation({"segmentation": torch.zeros(2, 4) - 1, "segments_info": []}),
        transformers.pipeline([]),
        segment_anything.automatic_masks([]),
        sam3.instances({"masks": torch.zeros(0, 2, 4), "boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}),
        sam3.agent({"orig_img_h": 2, "orig_img_w": 4, "pred_masks": [], "pred_boxes": [], "pred_scores": []}),
        sa2va.segmentation([]),
        sa2va.segmentation(None),
        supervision.detections(detections(None)),
        supervision.detections(detections(np.zeros((0, 2, 4), bool), np.zeros(0))),
        ultralytics.results(SimpleNamespace(orig_shape=(2, 4), masks=None, boxes=[])),
        ultralytics.polygons(SimpleNamespace(orig_shape=(2, 4), masks=None, boxes=None)),
    ]  # fmt: skip
    assert empty == [None] * len(empty)


# Transformers -----------------------------------------------------------------------------------------


def test_ids_of_segments_are_read_with_either_background() -> None:
    entries = [{"id": 1, "label_id": 9, "score": 0.6}, {"id": 2, "label_id": 4, "score": 0.6}]
    for background in (0, -1):
        ids = np.where(B, 2, np.where(A, 1, background))
        output = {"segmentation": torch.from_numpy(ids).float(), "segments_info": entries}
        read = transformers.instance_segmentation
        np.testing.assert_array_equal(read(output, combine="union"), A | B)
        np.testing.assert_array_equal(read(output, combine="best"), A & ~B)
        np.testing.assert_array_equal(read(output, label=4), B)
        assert read(output, label=5) is None
        with pytest.raises(rc.UsageError, match="combine=union"):
            read(output)


def test_an_id_that_was_fused_is_one_mask_with_the_higher_score() -> None:
    entries = [
        {"id": 1, "label_id": 9, "was_fused": True, "score": 0.3},
        {"id": 2, "label_id": 4, "was_fused": False, "score": 0.6},
        {"id": 1, "label_id": 9, "was_fused": True, "score": 0.9},
    ]
    output = {"segmentation": np.where(A, 1, 2 * C), "segments_info": entries}
    np.testing.assert_array_equal(transformers.instance_segmentation(output, combine="best"), A)
    np.testing.assert_array_equal(transformers.instance_segmentation(output, label=9), A)


def test_binary_maps_keep_what_overlaps() -> None:
    entries = [{"id": 0, "label_id": 9, "score": 0.6}, {"id": 1, "label_id": 4, "score": 0.7}]
    output = {"segmentation": torch.from_numpy(np.stack([A, B])).float(), "segments_info": entries}
    np.testing.assert_array_equal(transformers.instance_segmentation(output, label=9), A)
    output["segments_info"] = entries[:1]
    with pytest.raises(rc.DataError, match=r"K = 1 segments, not of shape \[2, 2, 4\]"):
        transformers.instance_segmentation(output)


def test_runs_that_are_no_coco_rle_are_refused() -> None:
    output = {"segmentation": [[1, 3], [4, 5]], "segments_info": [{"id": 0}]}
    with pytest.raises(rc.DataError, match=r"return_coco_annotation=True .* no COCO RLE"):
        transformers.instance_segmentation(output)


def test_a_map_of_labels_names_the_way_out() -> None:
    labels = np.where(A, 3, 7 * C)
    np.testing.assert_array_equal(transformers.semantic_segmentation(labels, label=3), A)
    assert not transformers.semantic_segmentation(labels, label=300).any()
    with pytest.raises(rc.UsageError, match="label=K, one of 0, 3, 7"):
        transformers.semantic_segmentation(labels)
    with pytest.raises(rc.DataError, match=r"one .* map of labels, not list"):
        transformers.semantic_segmentation([labels], label=3)
    with pytest.raises(rc.DataError, match="integers, not float64"):
        transformers.semantic_segmentation(labels * 1.0, label=3)


def test_pictures_of_the_pipeline_are_read_by_their_mode() -> None:
    entries = [
        {"score": 0.7, "label": "cow", "mask": picture(A)},
        {"score": 0.7, "label": "cow", "mask": picture(B).convert("1")},
    ]
    with pytest.raises(rc.UsageError, match=r"combine=union .* combine=best"):
        transformers.pipeline(entries)
    np.testing.assert_array_equal(transformers.pipeline(entries, combine="union"), A | B)
    np.testing.assert_array_equal(transformers.pipeline(entries, combine="best"), A)
    assert transformers.pipeline(entries, label="sky") is None
    grey = [{"label": "cow", "mask": picture(A).convert("RGB")}]
    np.testing.assert_array_equal(transformers.pipeline(grey), A)
    grey[0]["mask"].putpixel((0, 0), (9, 0, 0))
    with pytest.raises(rc.UsageError, match=r"RGB.*colours differ"):
        transformers.pipeline(grey)
    with pytest.raises(rc.DataError, match="is a dict, not list; pass its entries one by one"):
        transformers.pipeline([entries])


@pytest.mark.slow
def test_what_transformers_itself_returns() -> None:
    """Two instances that overlap, through the real post-processing and the real pipeline."""
    processing = pytest.importorskip(
        "transformers.models.mask2former.image_processing_pil_mask2former"
    )
    pipelines = pytest.importorskip("transformers.pipelines.image_segmentation")
    processor = processing.Mask2FormerImageProcessorPil()
    first, second = np.zeros((2, 12, 16), bool)
    first[2:8, 3:9], second[5:11, 7:15] = True, True
    masks = torch.from_numpy(np.stack([first, second]))[None].float()
    logits = torch.nn.functional.interpolate(masks, (384, 384)) * 20 - 10
    classes = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 8.0, 0.0]]])
    outputs = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=logits)
    sized: dict[str, Any] = {"target_sizes": [(12, 16)]}
    read = transformers.instance_segmentation
    (found,) = processor.post_process_instance_segmentation(outputs, **sized)
    np.testing.assert_array_equal(read(found, label=1), second)
    np.testing.assert_array_equal(read(found, combine="union"), first | second)
    (found,) = processor.post_process_instance_segmentation(
        outputs, return_binary_maps=True, **sized
    )
    np.testing.assert_array_equal(read(found, combine="best"), first)
    (found,) = processor.post_process_instance_segmentation(
        outputs, return_coco_annotation=True, **sized
    )
    with pytest.raises(rc.DataError, match="return_binary_maps"):
        read(found)
    (found,) = processor.post_process_panoptic_segmentation(outputs, **sized)
    assert read(found, label=0).any()
    (found,) = processor.post_process_semantic_segmentation(outputs, **sized)
    # Where both are sure, the first label is taken.
    alone = second & ~first
    np.testing.assert_array_equal(transformers.semantic_segmentation(found, label=1), alone)

    class Outputs(dict):
        __getattr__ = dict.__getitem__

    model = SimpleNamespace(config=SimpleNamespace(id2label={0: "cat", 1: "dog"}))
    entries = pipelines.ImageSegmentationPipeline.postprocess(
        SimpleNamespace(image_processor=processor, model=model),
        Outputs(vars(outputs), target_size=[(12, 16)]),
        subtask="instance",
    )
    np.testing.assert_array_equal(transformers.pipeline(entries, label="dog"), second)


# Segment Anything, SAM 3, Sa2VA --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_every_output_mode_of_the_mask_generator(form: str) -> None:
    def segmentation(mask: np.ndarray) -> Any:
        if form == "binary_mask":
            return mask
        if form == "coco_rle":
            return coco_encode(mask)
        return {"size": [2, 4], "counts": np.diff(rle.run_ends(mask), prepend=0).tolist()}

    output = [
        {"segmentation": segmentation(mask), "predicted_iou": score, "area": int(mask.sum())}
        for mask, score in ((A, 0.9), (B, 0.95))
    ]
    np.testing.assert_array_equal(
        pixels(segment_anything.automatic_masks(output, combine="best")), B
    )
    np.testing.assert_array_equal(
        pixels(segment_anything.automatic_masks(output, combine="union")), A | B
    )
    with pytest.raises(rc.UsageError, match="combine="):
        segment_anything.automatic_masks(output)
    with pytest.raises(rc.DataError, match="'segmentation'; this one has area"):
        segment_anything.automatic_masks([{"area": 3}])


def test_logits_of_a_predictor_are_refused() -> None:
    logits = np.where(A, 4.5, -3.0)[None]
    with pytest.raises(rc.DataError, match=r"-3 to 4.5; pass mask > 0 if they are logits"):
        segment_anything.predictor(logits, [0.9])
    np.testing.assert_array_equal(segment_anything.predictor(logits > 0, [0.9]), A)
    with pytest.raises(rc.DataError, match=r"not of shape \[2, 3, 2, 4\]"):
        segment_anything.predictor(np.zeros((2, 3, 2, 4)), np.zeros((2, 3)))


def test_sam_3_of_transformers_and_of_meta() -> None:
    masks = torch.from_numpy(np.stack([A, B, C]))
    scores = torch.tensor([0.5, 0.75, 0.75]).bfloat16()
    for shaped in (masks.long(), masks[:, None]):
        output = {"masks": shaped, "boxes": torch.zeros(3, 4), "scores": scores}
        np.testing.assert_array_equal(sam3.instances(output, combine="best"), B)
        np.testing.assert_array_equal(sam3.instances(output, combine="union"), A | B | C)
    with pytest.raises(rc.DataError, match="not list; pass its entries one by one"):
        sam3.instances([output])
    with pytest.raises(rc.DataError, match="has 'masks'; this one has pred_masks"):
        sam3.instances({"pred_masks": masks})


def test_the_size_of_the_agents_masks_stands_beside_them() -> None:
    output = {"orig_img_h": 2, "orig_img_w": 4, "pred_masks": [coco_encode(B)["counts"]]}
    assert sam3.agent(output) == coco_encode(B)
    output["pred_masks"] = [coco_encode(A)["counts"], coco_encode(C)["counts"]]
    assert sam3.agent(output, combine="union") == coco_encode(A | C)
    with pytest.raises(rc.UsageError, match="2 of 2 have none"):
        sam3.agent(output, combine="best")
    with pytest.raises(rc.DataError, match="'orig_img_h'; this one has pred_masks"):
        sam3.agent({"pred_masks": []})
    with pytest.raises(rc.DataError, match="strings of counts, not dict"):
        sam3.agent({**output, "pred_masks": [coco_encode(A)]})
    output.update(orig_img_h=3, pred_masks=output["pred_masks"][:1])
    with pytest.raises(rc.PredictionError, match="wrong size: mask is 3×4"):
        rc.score([(0, sam3.agent(output))], sample_case().store, missing="zero")


def test_masks_of_sa2va_are_joined_by_or() -> None:
    saved = [coco_encode(A), coco_encode(B)]
    assert sa2va.segmentation(saved) == coco_encode(A | B)
    np.testing.assert_array_equal(sa2va.segmentation([A[None], B[None]]), A | B)
    with pytest.raises(rc.UsageError, match=r"combine=union .*combine=best"):
        sa2va.segmentation(saved, combine=None)
    with pytest.raises(rc.UsageError, match="2 of 2 have none"):
        sa2va.segmentation(saved, combine="best")
    with pytest.raises(rc.DataError, match=r"not of shape \[2, 2, 4\]"):
        sa2va.segmentation([np.stack([A, B])])  # two frames of a video
    with pytest.raises(rc.DataError, match="is a list, not dict"):
        sa2va.segmentation({"prediction_masks": saved})


# supervision and Ultralytics ------------------------------------------------------------------------


def test_detections_without_masks_are_refused() -> None:
    found = detections(None)
    found.xyxy = np.zeros((3, 4))
    with pytest.raises(rc.DataError, match="3 boxes without masks"):
        supervision.detections(found)
    found.data["rle_masks"] = np.array([coco_encode(A), coco_encode(B), coco_encode(C)], object)
    assert supervision.detections(found, combine="union") == coco_encode(A | B | C)
    with pytest.raises(rc.DataError, match="an object with 'mask', not dict"):
        supervision.detections({})


@pytest.mark.filterwarnings("ignore")
def test_the_real_detections() -> None:
    sv = pytest.importorskip("supervision")
    boxes = np.array([[0, 0, 4, 2], [0, 0, 4, 2]], float)
    found = sv.Detections(boxes, mask=np.stack([A, B]), confidence=np.array([0.5, 0.9]))
    np.testing.assert_array_equal(supervision.detections(found, combine="best"), B)
    np.testing.assert_array_equal(supervision.detections(found[found.confidence < 0.7]), A)
    assert supervision.detections(sv.Detections.empty()) is None
    if hasattr(sv, "CompactMask"):
        found.mask = sv.CompactMask.from_dense(found.mask, boxes, (2, 4))
        np.testing.assert_array_equal(supervision.detections(found, combine="union"), A | B)


def test_letterboxed_masks_are_cropped_and_resized() -> None:
    mask = sample_case().masks[0]
    for cells in (letterboxed(mask), letterboxed(mask).transpose()):
        shape = mask.shape if cells.shape[1] == 2 * mask.shape[1] else mask.shape[::-1]
        for data in (cells[None], cells[None].astype(np.float32), torch.from_numpy(cells)[None]):
            found = SimpleNamespace(orig_shape=shape, boxes=None, masks=SimpleNamespace(data=data))
            result = pixels(ultralytics.results(found))
            np.testing.assert_array_equal(result, mask if shape == mask.shape else mask.T)


@pytest.mark.parametrize("shape", [(48, 64), (37, 91), (200, 101), (333, 500)])
def test_masks_are_resized_as_the_library_does(shape: tuple[int, int]) -> None:
    """Bilinearly, and set above 0.5; a value that lies on it may fall either way."""
    (height, width), side = shape, 96
    gain = min(side / height, side / width)
    rows, columns = round(height * gain), round(width * gain)
    top, left = round((side - rows) / 2 - 0.1), round((side - columns) / 2 - 0.1)
    y, x = np.mgrid[:side, :side]
    cells = (np.hypot(y - 50, x - 44) < 23) & ((y + x) % 17 > 2)
    found = SimpleNamespace(orig_shape=shape, boxes=None, masks=SimpleNamespace(data=cells[None]))
    inner = torch.from_numpy(cells[top : top + rows, left : left + columns]).float()
    expected = torch.nn.functional.interpolate(inner[None, None], shape, mode="bilinear")[
        0, 0
    ].numpy()
    clear = abs(expected - 0.5) > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(
        pixels(ultralytics.results(found))[clear], (expected > 0.5)[clear]
    )


def test_masks_at_the_size_of_the_image_stay() -> None:
    found = SimpleNamespace(
        orig_shape=(2, 4),
        boxes=SimpleNamespace(conf=np.array([0.2, 0.8])),
        masks=SimpleNamespace(data=np.stack([A, B]).astype(np.uint8)),
    )
    np.testing.assert_array_equal(ultralytics.results(found, combine="best"), B)
    with pytest.raises(rc.UsageError, match="combine="):
        ultralytics.results(found)
    found.masks = None
    found.boxes = [1, 2]
    with pytest.raises(rc.DataError, match="2 boxes without masks; take a model that segments"):
        ultralytics.results(found)
    with pytest.raises(rc.DataError, match="'orig_shape', not list; pass its entries one by one"):
        ultralytics.results([found])


def test_polygons_are_drawn_in_pixels_and_scored() -> None:
    case = sample_case()
    height, width = case.masks[0].shape
    square = np.array([[2, 3], [12, 3], [12, 9], [2, 9]], np.float32)
    expected = np.zeros((height, width), bool)
    expected[3:9, 2:12] = True
    masks = SimpleNamespace(xy=[square, np.zeros((0, 2), np.float32), square[:2]])
    boxes = SimpleNamespace(conf=np.array([0.9, 0.8, 0.7]))
    found = SimpleNamespace(orig_shape=(height, width), boxes=boxes, masks=masks)
    for combine in COMBINES:
        result = ultralytics.polygons(found, combine=combine)
        np.testing.assert_array_equal(rle.decode(result), expected)
    table = rc.score([(0, result)], case.store, missing="zero").per_example
    assert table["pred_area"][0].as_py() == 60
    masks.xy = [square.ravel()]
    boxes.conf = boxes.conf[:1]
    with pytest.raises(rc.DataError, match=r"\[P, 2\], not \[8\]"):
        ultralytics.polygons(found)


# The package ----------------------------------------------------------------------------------------


def test_adapters_are_light_and_need_no_library() -> None:
    code = (
        "import sys, refcocom_gpu as rc\n"
        "assert not any(name.startswith('refcocom_gpu.adapters') for name in sys.modules)\n"
        "[getattr(rc.adapters, name) for name in rc.adapters.__all__]\n"
        "print(*{'torch', 'numba', 'transformers', 'supervision', 'ultralytics', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    with pytest.raises(AttributeError, match="'nothing'"):
        rc.adapters.nothing  # noqa: B018
    assert set(rc.adapters.__all__) <= set(dir(rc.adapters))


def test_the_page_names_every_function() -> None:
    table = section("docs/adapters.md", "Outputs of other libraries")
    rows = re.findall(r"^\| (`.*?`) \|", table, re.M)
    named = set(re.findall(r"`(\w+\.\w+)`", " ".join(rows)))
    modules = {
        name: getattr(adapters, name)
        for name in adapters._MODULES
        # Those of raw answers are named as `source=` in a table of their own.
        if name not in {adapter.module for adapter in SOURCES.values()}
    }
    functions = {
        f"{name}.{function}"
        for name, module in modules.items()
        for function, value in vars(module).items()
        if callable(value) and not function.startswith("_") and not isinstance(value, type)
        if value.__module__ == module.__name__
    }
    assert functions <= named
    assert "adapters.combine_masks" in table
