"""Why a prediction failed, from every form of input, equal to plain loops over masks; and sentences of one sample."""

import copy
import json
from fractions import Fraction

import edges
import numpy as np
import pytest
import torch
from helpers import coco_encode, sample_case
from hypothesis import given, settings
from hypothesis import strategies as st
from refcocom_kernels import ops
from test_store import masks_dataset

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.counting.device_measures import DeviceCauses
from refcocom_gpu.counting.measures import HostCauses
from refcocom_gpu.scores import causes

COUNTED = ["other_intersection", "other_area"]


# The oracle ---------------------------------------------------------------------------------------


def ratio(part, whole):
    return Fraction(int(part), int(whole)) if whole else Fraction(1)


def iou(a, b):
    return ratio((a & b).sum(), (a | b).sum())


def others_of(image, own):
    """The other masks of an image that show another object than the one at `own`."""
    return [
        mask
        for place, mask in enumerate(image)
        if place != own
        and (not (mask | image[own]).any() or iou(mask, image[own]) < Fraction(1, 2))
    ]


def other_row(pred, image, own):
    """The two columns of an example: the first other mask with the highest IoU, if that is above 0."""
    best, row = Fraction(0), [0, 0]
    for mask in others_of(image, own):
        if (pred & mask).any() and iou(pred, mask) > best:
            best, row = iou(pred, mask), [int((pred & mask).sum()), int(mask.sum())]
    return row


def cause_of(pred, image, own):
    """The cause of an example that has a prediction, in the words of the documentation."""
    target, shared = image[own], (pred & image[own]).sum()
    if not target.any():
        return "false alarm" if pred.any() else "right rejection"
    if not pred.any():
        return "empty"
    half, much, edge = Fraction(1, 2), Fraction(8, 10), Fraction(6, 10)
    fits = [mask for mask in others_of(image, own) if mask.any() and iou(pred, mask) >= half]
    if iou(pred, target) < half and fits:
        return "wrong instance"
    counts = edges.row(pred, target)[:3]
    if iou(pred, target) >= much and ratio(counts[0], counts[1] + counts[2] - counts[0]) >= edge:
        return "right"
    if iou(pred, target) >= half:
        return "coarse"
    if ratio(shared, pred.sum()) >= much:
        return "part"
    if ratio(shared, target.sum()) >= much:
        return "over-extended"
    return "mixed" if shared else "off target"


def box(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def on_device(store):
    """The same store on host memory under another name, which takes the way of a device."""
    moved = copy.copy(store)
    moved.device = "cpu:0"
    return moved


def columns_of(result):
    return np.stack([result.per_example[name].to_numpy() for name in COUNTED], 1).tolist()


# Constructed predictions --------------------------------------------------------------------------

SIZE = (40, 60)
SCENE = [box(SIZE, 5, 5, 25, 25), box(SIZE, 5, 30, 25, 50), box(SIZE, 5, 5, 25, 23), np.zeros(SIZE, bool)]  # fmt: skip
"""An object, another one, the first again but for two columns, and none."""

MADE = {
    "empty": (0, np.zeros(SIZE, bool)),
    "wrong instance": (0, box(SIZE, 5, 32, 25, 50)),
    "right": (0, box(SIZE, 5, 5, 25, 25)),
    "coarse": (0, box(SIZE, 5, 5, 25, 17)),
    "part": (0, box(SIZE, 5, 5, 12, 25)),
    "over-extended": (0, box(SIZE, 0, 0, 40, 60)),
    "mixed": (0, box(SIZE, 15, 15, 35, 35)),
    "off target": (0, box(SIZE, 30, 0, 40, 60)),
    "right rejection": (3, np.zeros(SIZE, bool)),
    "false alarm": (3, box(SIZE, 30, 0, 40, 60)),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two examples for each mask of `SCENE`."""
    return rc.MaskStore.build(masks_dataset(tmp_path_factory.mktemp("scene"), [SCENE]), cache=False)


@pytest.mark.parametrize("cause", MADE)
def test_each_cause_is_reproduced(scene, cause):
    own, pred = MADE[cause]
    result = rc.score([([2 * own], [pred])], scene, metrics="causes", missing="zero")
    assert result.causes[2 * own] == cause == cause_of(pred, SCENE, own)
    assert set(np.delete(result.causes, 2 * own)) == {"missing"}


def test_every_cause_is_made_here():
    assert sorted([*MADE, "missing"]) == sorted(causes.CAUSES)


def test_a_second_mask_of_the_object_is_no_other_instance(scene):
    """The third mask is the first object: an IoU of 0.9."""
    assert scene.others.tolist() == [[1, 3, -1], [0, 2, 3], [1, 3, -1], [0, 1, 2]]
    exact = [SCENE[index // 2] for index in range(8)]
    result = rc.score([(range(8), exact)], scene, metrics="causes")
    assert set(result.causes[:6]) == {"right"}
    assert columns_of(result) == [other_row(SCENE[k // 2], SCENE, k // 2) for k in range(8)]


def test_the_kernel_of_a_gpu_counts_the_same(scene, monkeypatch):
    """Interpreted on host memory; masks of a larger stack, of which only the image counts."""
    from refcocom_kernels.cuda import logits as cuda

    owners, preds = zip(*MADE.values(), strict=True)
    stack = np.ones((len(preds), SIZE[0] + 3, SIZE[1] + 5), bool)
    stack[:, : SIZE[0], : SIZE[1]] = preds
    sample = np.array(owners)
    expected = [other_row(pred, SCENE, own) for own, pred in MADE.values()]
    assert HostCauses(scene, 0).masks(stack.view(np.uint8), sample).tolist() == expected
    monkeypatch.setattr(ops, "logit_counts", cuda.logit_counts)
    measure = DeviceCauses(on_device(scene).tensors(), (SIZE[0] + 3, SIZE[1] + 5))
    found = measure.masks(torch.from_numpy(stack), torch.from_numpy(sample))
    assert found.tolist() == expected


# Any masks ----------------------------------------------------------------------------------------

spans = st.tuples(*[st.integers(0, 14)] * 4)


def boxes_of(size, span):
    (top, bottom), (left, right) = sorted(span[:2]), sorted(span[2:])
    return box(size, top, left, bottom, right)


@settings(max_examples=25)
@given(st.data())
def test_any_masks_as_plain_loops_have_them(tmp_path_factory, data):
    images = []
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 14)))
        drawn = data.draw(st.lists(spans, min_size=1, max_size=4))
        images.append([boxes_of(size, span) for span in drawn])
    owners = [(image, own) for image in images for own in range(len(image)) for _ in range(2)]
    preds = []
    for image, own in owners:
        base = image[data.draw(st.integers(0, len(image) - 1))]
        # Unlike any box: what one box and a true mask differ in.
        preds.append(base ^ boxes_of(image[own].shape, data.draw(spans)))
    store = rc.MaskStore.build(masks_dataset(tmp_path_factory.mktemp("any"), images), cache=False)
    order = data.draw(st.permutations(range(len(preds))))
    as_rle = [(order, [coco_encode(preds[k]) for k in order])]
    as_masks = [([k], [preds[k]]) for k in reversed(order)]
    expected = [other_row(pred, *owner) for pred, owner in zip(preds, owners, strict=True)]
    named = [cause_of(pred, *owner) for pred, owner in zip(preds, owners, strict=True)]
    results = [
        rc.score(iter(given_), side, metrics="causes")
        for side in (store, on_device(store))
        for given_ in (as_rle, as_masks)
    ]
    for result in results:
        assert columns_of(result) == expected
        assert result.causes.tolist() == named


def test_logits_count_as_their_masks_do():
    case = sample_case()
    index = range(len(case.masks))
    expected = rc.score([(index, case.masks)], case.store, metrics="causes")
    logits = [(mask * 2.0 - 1).astype(np.float16) for mask in case.masks]
    for side in (case.store, on_device(case.store)):
        for first in (7, 300):
            batches = [(index[k : k + first], logits[k : k + first]) for k in index[::first]]
            result = rc.score(iter(batches), side, metrics="causes")
            assert columns_of(result) == columns_of(expected)
    assert np.count_nonzero(columns_of(expected)) > 0


# Results ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    return rc.score("sample-coarse", sample_case().store, metrics="causes")


def test_shares_are_of_all_examples(result, tmp_path):
    shares = result.cause_summary["shares"]
    assert sum(row["n_examples"] for row in shares) == result.n_examples == len(result.causes)
    assert sum(row["share"] for row in shares) == pytest.approx(1)
    for row in shares:
        assert row["n_examples"] == np.count_nonzero(result.causes == row["cause"])
    assert not {row["cause"] for row in shares} & {*causes.NO_TARGET}
    result.save(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["causes"] == result.cause_summary
    again = rc.load_results(tmp_path)
    assert again.causes.tolist() == result.causes.tolist()
    assert again.info["metrics"] == ["iou", "boundary", "causes"]


def test_examples_without_a_target_have_their_rows(scene):
    blank = [(range(8), [np.zeros(SIZE, bool)] * 8)]
    shares = rc.score(blank, scene, metrics="causes").cause_summary["shares"]
    assert {row["cause"]: row["n_examples"] for row in shares if row["n_examples"]} == {
        "right rejection": 2,
        "empty": 6,
    }


def test_each_threshold_moves_what_it_decides(result):
    columns, missing = causes.cause_columns(result.per_example)
    rows = result.cause_summary["moved"]
    assert [(row["threshold"], row["value"]) for row in rows] == [
        ("found", 0.4), ("found", 0.6), ("other", 0.4), ("other", 0.6), ("right", 0.7), ("right", 0.9),
        ("boundary", 0.5), ("boundary", 0.7), ("part", 0.7), ("part", 0.9), ("over_extended", 0.7),
        ("over_extended", 0.9),
    ]  # fmt: skip
    for row in rows:
        assert sum(row["shares"].values()) == pytest.approx(1)
    places = causes.cause_places(columns, missing, causes.Thresholds(found=0.4))
    found = np.count_nonzero(np.isin(places, [causes.CAUSES.index(c) for c in ("right", "coarse")]))
    assert found == np.count_nonzero(result.iou >= 0.4)
    shares = rows[0]["shares"]
    assert shares["right"] + shares["coarse"] == pytest.approx(found / result.n_examples)


def test_what_was_not_counted_says_so():
    plain = rc.score("sample", sample_case().store, metrics="boundary")
    with pytest.raises(rc.UsageError, match=r"metrics=\[iou,causes\]"):
        _ = plain.causes
    assert plain.cause_summary == {}
    assert "causes" not in plain.summary()


def test_another_convention_has_no_causes(result):
    assert result.under("cris").cause_summary == {}
    with pytest.raises(rc.UsageError, match="causes"):
        _ = result.under("cris").causes


def test_the_training_metric_has_them():
    case = sample_case()
    metric = rc.RefCOCOMMetric(case.store, metrics="causes")
    for index, mask in enumerate(case.masks):
        metric.update(mask, index)
    metric.compute()
    offline = rc.score([(range(len(case.masks)), case.masks)], case.store, metrics="causes")
    assert metric.result().causes.tolist() == offline.causes.tolist()


def test_the_command_prints_them(tmp_path, capsys):
    out = tmp_path / "out"
    command = ["score", "sample-coarse", "dataset=sample", f"output_dir={out}"]
    assert main([*command, "metrics=[iou,causes]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    read = rc.load_results(out)
    for row in read.cause_summary["shares"]:
        text = f"  {row['cause']:<16}{row['n_examples']:>9,}{100 * row['share']:>9.2f}"
        assert text in lines
    assert max(map(len, lines[2:-4])) <= 98
    moved = next(line for line in lines if line.startswith("  wrong instance  ") and " / " in line)
    assert "+" in moved
    assert main([*command, "overwrite=true"]) == 0
    assert "wrong instance" not in capsys.readouterr().out


# Sentences of one sample --------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_the_worst_sentence_of_each_sample(strict):
    case = sample_case()
    predictions = [(range(len(case.masks)), case.masks)]
    scored = rc.score(predictions, case.store, precision_strict=strict)
    by_sample = {}
    for sample, value in zip(case.store.example_sample.tolist(), scored.iou.tolist(), strict=True):
        by_sample.setdefault(sample, []).append(value)
    assert any(len(values) > 1 for values in by_sample.values())
    worst = [min(values) for values in by_sample.values()]
    assert scored.miou_worst_sentence == pytest.approx(np.mean(worst), abs=1e-12)
    passed = [all(v > 0.5 if strict else v >= 0.5 for v in vs) for vs in by_sample.values()]
    assert scored.hard_pass_rate == np.mean(passed)
    assert 0 < scored.hard_pass_rate < 1
    assert scored.summary()["hard_pass_rate"] == scored.hard_pass_rate
    assert scored.miou_worst_sentence <= scored.miou_per_instance


def test_an_iou_of_half_passes_unless_strict(scene):
    half = [mask & box(SIZE, 0, 0, 15, 60) for mask in SCENE for _ in range(2)]
    predictions = [(range(8), half)]
    assert rc.score(iter(predictions), scene).hard_pass_rate == 1
    strict = rc.score(iter(predictions), scene, precision_strict=True)
    # The sample without a target has an IoU of 1.
    assert strict.hard_pass_rate == 1 / 4
