"""Tight boxes beside IoU from every form of input, and box scores, equal to plain loops over pixels."""

import dataclasses
import json
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_boundary import FORMS, drawn, expected_masks, in_batches, on_device

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.counting import counter as counter_module
from refcocom_gpu.counting.device_measures import DeviceBoxes
from refcocom_gpu.counting.measures import BBOX, PRED_BOX, TARGET_BOX
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.boxes import mask_boxes, run_boxes
from refcocom_gpu.scores import boxes as box_scores

BOXES = ["iou", "boxes"]
SIZES = [(1, 1), (1, 63), (64, 64), (40, 61), (101, 3), (33, 20)]


def tight(mask):
    """The tight box, pixel by pixel."""
    box = None
    for y, row in enumerate(mask.tolist()):
        for x, is_set in enumerate(row):
            if is_set:
                x0, y0, x1, y1 = box or (x, y, x + 1, y + 1)
                box = min(x0, x), min(y0, y), max(x1, x + 1), max(y1, y + 1)
    return list(box or (0, 0, 0, 0))


def exact_iou(a, b):
    """IoU of two boxes x0, y0, x1, y1 in fractions; 1 where neither has an area."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (tuple(map(Fraction, box)) for box in (a, b))

    def area(x0, y0, x1, y1):
        return max(x1 - x0, 0) * max(y1 - y0, 0)

    shared = area(max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1))
    union = area(ax0, ay0, ax1, ay1) + area(bx0, by0, bx1, by1) - shared
    return shared / union if union else Fraction(1)


def dataset_of(folder, truth, box_of=None):
    """A dataset of images with these masks, two expressions each, whose boxes `box_of` states."""
    lines, number = [], 0
    for image_id, masks in enumerate(truth):
        samples = []
        for mask in masks:
            sample = {"id": number, "sentences": ["one", "two"], "mask": rle.encode(mask)}
            if not np.any(mask):
                sample["no_target"] = True
            if box_of is not None:
                sample["bbox"] = box_of(number, mask)
            samples.append(sample)
            number += 1
        lines.append(json.dumps({"image_id": image_id, "samples": samples}))
    path = folder / "boxes.jsonl"
    path.write_text("\n".join(lines))
    return rc.load_dataset(path)


def loose_box(number, mask):
    """A box with fractions around that of the mask."""
    x0, y0, x1, y1 = tight(mask)
    return [x0 - 0.25 * number, y0 + 0.1, x1 - x0 + 0.7, y1 - y0 + 0.3 * number]


@pytest.fixture(scope="module")
def truth():
    return [drawn(size, seed)[seed % 3 :][:5] for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def store(truth, tmp_path_factory):
    dataset = dataset_of(tmp_path_factory.mktemp("boxes"), truth, loose_box)
    return rc.MaskStore.build(dataset, cache=False)


@pytest.fixture(scope="module")
def masks(store):
    """A predicted mask for each example."""
    return [
        drawn(target.shape, 50 + index)[index % 9]
        for index, target in enumerate(map(store.mask, range(len(store))))
    ]


@pytest.fixture(scope="module")
def result(store, masks):
    return rc.score(in_batches(masks), store, metrics="boxes")


def columns(result, names):
    return np.stack([result.per_example[name].to_numpy() for name in names], 1).tolist()


# Counting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:refcocom")
def test_every_form_equals_plain_loops(store, masks, form, monkeypatch):
    make, options = FORMS[form]
    predictions = make(masks)
    expected = [tight(mask) for mask in expected_masks(predictions, store, options)]
    monkeypatch.setattr(counter_module, "PART_BYTES", 10_000)
    alone = rc.score(in_batches(predictions), store, **options)
    for side in (store, on_device(store)):
        result = rc.score(in_batches(predictions), side, metrics=BOXES, **options)
        assert columns(result, PRED_BOX) == expected
        assert result.per_example.select(alone.per_example.column_names).equals(alone.per_example)


def test_all_metrics_together_are_each_alone(store, masks, result):
    for side in (store, on_device(store)):
        together = rc.score(in_batches(masks), side, metrics=["boxes", "boundary"])
        edges = rc.score(in_batches(masks), side, metrics="boundary")
        for one in (result, edges):
            assert together.per_example.select(one.per_example.column_names).equals(one.per_example)
        assert together.box_scores == result.box_scores
        assert together.boundary_scores == edges.boundary_scores


class Sizes:
    """What `DeviceBoxes` needs of a store."""

    def __init__(self, heights, widths):
        self.heights, self.widths = torch.from_numpy(heights), torch.from_numpy(widths)


@st.composite
def some_runs(draw):
    """Masks as their sizes and run lengths, of which any may be 0."""
    listed = []
    for _ in range(draw(st.integers(1, 4))):
        height, width = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
        pixels = height * width
        cuts = sorted(draw(st.lists(st.integers(0, pixels), max_size=8)))
        listed.append((height, width, [*cuts, pixels]))
    return listed


@settings(max_examples=60)
@given(some_runs(), st.randoms(use_true_random=False))
def test_any_runs_and_masks(listed, random):
    heights, widths = (np.array([one[k] for one in listed]) for k in (0, 1))
    ends = np.array([end for *_, one in listed for end in one], np.int32)
    offsets = np.cumsum([0, *(len(one) for *_, one in listed)])
    # Images are at the top left, and what lies beyond them means nothing.
    stack = np.array([random.random() < 0.5 for _ in range(len(listed) * 64)]).reshape(-1, 8, 8)
    for mask, (height, width, one) in zip(stack, listed, strict=True):
        flat = np.zeros(height * width, bool)
        for start, stop in zip(one[0::2], one[1::2], strict=False):
            flat[start:stop] = True
        mask[:height, :width] = flat.reshape(width, height).T
    expected = [
        tight(mask[:height, :width]) for mask, (height, width, _) in zip(stack, listed, strict=True)
    ]
    measure = DeviceBoxes(Sizes(heights, widths), (8, 8))
    sample = torch.arange(len(listed))
    for found in (
        mask_boxes(stack, heights, widths),
        mask_boxes(stack.astype(np.uint8) * 255, heights, widths),
        run_boxes(ends, offsets, heights),
        measure.masks(torch.from_numpy(stack), sample),
        measure.masks(torch.from_numpy(stack.astype(np.uint8) * 255), sample),
        measure.runs(torch.from_numpy(ends), torch.from_numpy(offsets), sample),
    ):
        assert found.tolist() == expected
        assert str(found.dtype).endswith("int64")


def test_nothing_has_no_boxes():
    none = np.zeros(0, np.int64)
    assert mask_boxes(np.zeros((0, 3, 4), bool), none, none).shape == (0, 4)
    assert run_boxes(none.astype(np.int32), np.zeros(1, np.int64), none).shape == (0, 4)


def test_an_example_without_a_prediction_has_an_empty_box(store, masks):
    half = rc.score([([0, 1], masks[:2])], store, metrics=BOXES, missing="zero", box_truth="mask")
    expected = [tight(mask) for mask in masks[:2]] + [[0] * 4] * (len(store) - 2)
    assert columns(half, PRED_BOX) == expected
    empty = np.array([not store.mask(index).any() for index in range(2, len(store))])
    assert {*empty.tolist()} == {True, False}
    assert half.box_values["box_iou"][2:].tolist() == empty.astype(float).tolist()


# Scores -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.floats(-9, 9)] * 4), min_size=2, max_size=6), st.booleans())
def test_the_iou_of_any_boxes(given_boxes, whole):
    boxes = np.array(given_boxes).round() if whole else np.array(given_boxes)
    pred, target = boxes, boxes[::-1]
    found = box_scores.box_iou(pred, target)
    expected = [float(exact_iou(a, b)) for a, b in zip(pred, target, strict=True)]
    if whole:
        # Areas are exact in float64, and one division follows.
        assert found.tolist() == expected
    areas = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1)
    is_clear = (areas > 1e-3) | (areas[::-1] > 1e-3)
    assert found[is_clear] == pytest.approx(np.array(expected)[is_clear], abs=1e-9)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.array_equal(found, box_scores.box_iou(target, pred))
    assert (box_scores.box_iou(pred, pred) == 1).all()


def test_scores_are_those_of_the_definitions(result, store, masks):
    for truth in ("mask", "bbox"):
        ious = []
        for index, mask in enumerate(masks):
            target = store.mask(index)
            x0, y0, x1, y1 = tight(target)
            if truth == "bbox":
                x0, y0, w, h = loose_box(int(store.example_sample[index]), target)
                x1, y1 = x0 + w, y0 + h
            ious.append(float(exact_iou(tight(mask), (x0, y0, x1, y1))))
        one = dataclasses.replace(result, box_truth=truth)
        assert one.box_values["box_iou"].tolist() == pytest.approx(ious, abs=1e-15)
        assert one.box_iou == pytest.approx(sum(ious) / len(ious), abs=1e-12)
        assert one.box_accuracy == sum(iou >= 0.5 for iou in ious) / len(ious)
        assert 0 < one.box_accuracy < 1
        assert one.box_scores["box_truth"] == truth


def test_a_box_of_half_is_right_unless_only_more_is(tmp_path):
    target, half = np.ones((2, 4), bool), np.zeros((2, 4), bool)
    half[:, :2] = True
    data = dataset_of(tmp_path, [[target]])
    predictions = {0: half, 1: target}
    for strict, share in ((None, 1.0), (False, 1.0), (True, 0.5)):
        result = rc.score(predictions, data, metrics=BOXES, precision_strict=strict)
        assert result.box_values["box_iou"].tolist() == [0.5, 1.0]
        assert result.box_accuracy == share


def test_exact_masks_have_exact_boxes(tmp_path, truth):
    def stated(_, mask):
        x0, y0, x1, y1 = tight(mask)
        return [x0, y0, x1 - x0, y1 - y0]

    store = rc.MaskStore.build(dataset_of(tmp_path, truth, stated), cache=False)
    exact = in_batches([store.mask(index) for index in range(len(store))])
    result = rc.score(exact, store, metrics=BOXES)
    assert result.box_scores == {"box_iou": 1.0, "box_accuracy": 1.0, "box_truth": "bbox"}
    assert columns(result, TARGET_BOX) == columns(result, PRED_BOX)


# What boxes are compared with ---------------------------------------------------------------------


def test_the_boxes_of_records_are_the_default_where_all_have_one(result, store, masks):
    assert result.box_scores == dataclasses.replace(result, box_truth="bbox").box_scores
    assert columns(result, BBOX) == [
        loose_box(int(store.example_sample[index]), store.mask(index))
        for index in range(len(store))
    ]
    given = rc.score(in_batches(masks), store, metrics=BOXES, box_truth="mask")
    assert given.per_example.equals(result.per_example)
    assert given.box_iou != result.box_iou


@pytest.mark.parametrize("none_state_one", [True, False])
def test_without_all_boxes_the_masks_are_the_default(tmp_path, truth, none_state_one, masks):
    def all_but_the_first(number, mask):
        return loose_box(number, mask) if number else None

    dataset = dataset_of(tmp_path, truth, None if none_state_one else all_but_the_first)
    assert dataset.boxes is None
    result = rc.score(in_batches(masks), dataset, metrics=BOXES)
    assert result.box_scores["box_truth"] == "mask"
    assert not {*BBOX} & {*result.per_example.column_names}
    with pytest.raises(rc.UsageError, match=r"not all state one; box_truth=mask"):
        rc.score(in_batches(masks), dataset, metrics=BOXES, box_truth="bbox")
    with pytest.raises(rc.UsageError, match=r"not all state one; box_truth=mask"):
        _ = dataclasses.replace(result, box_truth="bbox").box_iou


def test_choices_that_mean_nothing_are_refused(store):
    for score in (partial(rc.score, {}, store), partial(rc.RefCOCOMMetric, store)):
        with pytest.raises(rc.UsageError, match="box_truth must be bbox or mask, not 'box'"):
            score(metrics=BOXES, box_truth="box")
        with pytest.raises(rc.UsageError, match=r"metrics=\[iou,boxes\]"):
            score(box_truth="mask")


# Results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box_truth", [None, "bbox", "mask"])
def test_a_result_is_kept_and_read_back(result, tmp_path, box_truth):
    one = dataclasses.replace(result, box_truth=box_truth)
    one.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    again = rc.load_results(tmp_path)
    assert summary["metrics"] == BOXES
    assert {name: summary[name] for name in one.box_scores} == one.box_scores == again.box_scores
    assert again.per_example.equals(one.per_example)
    assert again.summary() == one.summary()
    other = "mask" if one.box_scores["box_truth"] == "bbox" else "bbox"
    changed = dataclasses.replace(again, box_truth=other)
    assert changed.box_scores == dataclasses.replace(result, box_truth=other).box_scores


def test_other_conventions_have_no_boxes(result):
    lavt = dataclasses.replace(result, box_truth="mask").under("lavt")
    assert lavt.box_scores == {}
    assert "box_iou" not in lavt.summary()
    with pytest.raises(rc.UsageError, match="box scores follows the convention official"):
        _ = lavt.box_accuracy
    assert lavt.under("official").box_scores["box_truth"] == "mask"


def test_what_was_not_counted_says_so(store, masks):
    plain = rc.score(in_batches(masks), store)
    for name in ("box_values", "box_iou", "box_accuracy"):
        with pytest.raises(rc.UsageError, match=r"metrics=\[iou,boxes\]"):
            getattr(plain, name)
    assert plain.box_scores == {}
    assert "box_truth" not in plain.summary()
    assert not {*PRED_BOX, *TARGET_BOX, *BBOX} & {*plain.per_example.column_names}


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("box_truth", [None, "mask"])
def test_the_hook_gives_the_offline_scores(store, masks, box_truth):
    metric = rc.RefCOCOMMetric(store, metrics=BOXES, box_truth=box_truth, precision_strict=True)
    for index, mask in enumerate(masks):
        metric.update(torch.from_numpy(mask)[None], [index])
    offline = rc.score(
        in_batches(masks), store, metrics=BOXES, box_truth=box_truth, precision_strict=True
    )
    computed = metric.compute()
    for name in box_scores.NAMES:
        assert computed[f"refcocom/{name}"].item() == offline.box_scores[name]
        assert metric[name].compute().item() == offline.box_scores[name]
    assert metric.result().per_example.equals(offline.per_example)
    assert metric.result().box_scores == offline.box_scores


def test_boxes_of_a_subset_are_estimated():
    store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    masks = [np.roll(store.mask(index), index % 30, 1) for index in range(len(store))]
    metric = rc.RefCOCOMMetric(store, metrics="boxes", subset=90)
    for index in metric.subset.indices:
        metric.update(torch.from_numpy(masks[index])[None], [int(index)])
    found = {key.partition("/")[2]: value.item() for key, value in metric.compute().items()}
    whole = rc.score(in_batches(masks), store, metrics="boxes")
    for name in box_scores.NAMES:
        assert found[f"{name}_se"] > 0
        assert abs(found[name] - whole.box_scores[name]) < 5 * found[f"{name}_se"]


# The command --------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_them(tmp_path, capsys):
    out = tmp_path / "out"
    command = ["score", "sample", "dataset=sample", f"output_dir={out}", "overwrite=true"]
    for truth, sign, more in (
        ("bbox", "≥", []),
        ("mask", ">", ["box_truth=mask", "precision=gt"]),
    ):
        assert main([*command, "metrics=[iou,boxes]", *more]) == 0
        table = capsys.readouterr().out
        read = rc.load_results(out)
        assert f"(box_truth={truth})" in table
        assert f"  {'box IoU':<20}  {100 * read.box_iou:6.2f} %" in table
        assert f"  {f'box accuracy@0.5 ({sign})':<20}  {100 * read.box_accuracy:6.2f} %" in table
        assert read.box_scores["box_truth"] == truth
    assert main(command) == 0
    assert "box" not in capsys.readouterr().out.replace(str(out), "")
    assert main([*command, "box_truth=mask"]) == 2
    assert "metrics=[iou,boxes]" in capsys.readouterr().err
