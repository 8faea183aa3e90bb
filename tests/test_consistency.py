"""Pairwise IoU of the sentences of one object: from every form of input and on every side as plain loops over masks."""

import copy
import json
import math
from fractions import Fraction
from itertools import combinations

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
from refcocom_gpu.counting import pairs as pairs_module
from refcocom_gpu.counting import stream
from refcocom_gpu.scores.consistency import PAIRS

ASKED = ("iou", "consistency")


# The oracle ---------------------------------------------------------------------------------------


def lists_of(masks, samples):
    """For each example its intersections with the later ones of its sample."""
    return [
        [int((mask & masks[b]).sum()) for b in range(a + 1, len(masks)) if samples[b] == samples[a]]
        for a, mask in enumerate(masks)
    ]


def pairwise(masks, samples):
    """The mean over samples of the mean IoU of their pairs, exact; NaN without pairs."""
    means = []
    for sample in sorted({*samples}):
        own = [mask for mask, of in zip(masks, samples, strict=True) if of == sample]
        ious = [
            Fraction(int((a & b).sum()), int((a | b).sum())) if (a | b).any() else Fraction(1)
            for a, b in combinations(own, 2)
        ]
        means += [sum(ious) / len(ious)] if ious else []
    return float(sum(means) / len(means)) if means else math.nan


def on_device(store):
    """The same store on host memory under another name, which takes the way of a device."""
    moved = copy.copy(store)
    moved.device = "cpu:0"
    return moved


def dataset_of(folder, images):
    """A dataset: a list of images, each a list of (mask, number of sentences)."""
    lines, sample_id = [], 3
    for image_id, objects in enumerate(images):
        samples = []
        for mask, n in objects:
            texts = [f"text {k}" for k in range(n)]
            samples.append({"id": sample_id, "sentences": texts, "mask": coco_encode(mask)})
            sample_id += 2
        lines.append(json.dumps({"image_id": image_id, "samples": samples}))
    path = folder / "objects.jsonl"
    path.write_text("\n".join(lines))
    return rc.load_dataset(path, cache=False)


def strip(first, last):
    mask = np.zeros((4, 10), bool)
    mask[:, first:last] = True
    return mask


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two objects of an image, with three sentences and with one."""
    images = [[(strip(0, 5), 3), (strip(5, 10), 1)]]
    dataset = dataset_of(tmp_path_factory.mktemp("two"), images)
    return rc.MaskStore.build(dataset, cache=False)


# By hand ------------------------------------------------------------------------------------------


def test_three_sentences_have_three_pairs(two):
    masks = [strip(0, 4), strip(0, 2), strip(2, 4), strip(0, 9)]
    result = rc.score([(range(4), masks)], two, metrics=ASKED)
    assert result.per_example[PAIRS].to_pylist() == [[8, 8], [0], [], []]
    # IoUs of 1/2, 1/2 and 0; the object with one sentence has no pair.
    assert result.pairwise_iou == 1 / 3
    assert result.consistency == {
        "pairwise_iou": 1 / 3,
        "n_samples": 1,
        "miou_worst_sentence": result.miou_worst_sentence,
        "hard_pass_rate": result.hard_pass_rate,
    }
    assert result.summary()["consistency"] == result.consistency


def test_one_mask_for_all_sentences_is_consistent_even_if_wrong(two):
    result = rc.score([(range(4), [strip(6, 9)] * 4)], two, metrics=ASKED)
    assert (result.miou, result.pairwise_iou) == (pytest.approx(3 / 5 / 4), 1)


def test_what_is_missing_is_empty_and_two_empty_ones_agree(two):
    result = rc.score([([0], [strip(0, 4)])], two, metrics=ASKED, missing="zero")
    assert result.per_example[PAIRS].to_pylist() == [[0, 0], [0], [], []]
    assert result.pairwise_iou == 1 / 3
    given_ = [strip(0, 4), np.zeros((4, 10), bool), np.zeros((4, 10), bool), strip(5, 10)]
    assert rc.score([(range(4), given_)], two, metrics=ASKED).pairwise_iou == 1 / 3


def test_a_sentence_for_each_object_has_no_pairs(tmp_path, capsys):
    dataset = dataset_of(tmp_path, [[(strip(0, 5), 1), (strip(5, 10), 1)]])
    masks = {(int(key), 0): strip(0, 5) for key in dataset.sample_ids}
    result = rc.score(masks, dataset, metrics=ASKED)
    assert math.isnan(result.pairwise_iou)
    assert (result.consistency["pairwise_iou"], result.consistency["n_samples"]) == (None, 0)
    result.save(tmp_path / "out")
    assert rc.load_results(tmp_path / "out").consistency == result.consistency
    rows = [
        {"sample_id": key, "sentence_idx": sentence, "segmentation": coco_encode(mask)}
        for (key, sentence), mask in masks.items()
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["score", f"{tmp_path / 'p.jsonl'}", f"dataset.path={tmp_path / 'objects.jsonl'}"]
    assert main([*command, "metrics=consistency"]) == 0
    printed = capsys.readouterr().out
    assert "no object has two sentences, so there is no pairwise IoU" in printed
    assert "pairwise IoU  " not in printed


# Any masks ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fit better inverted")
@settings(max_examples=15)
@given(st.data())
def test_any_masks_as_plain_loops_have_them(tmp_path_factory, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    images = []
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 70)))
        objects = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        images.append([(random.random(size) < 0.5, n) for n in objects])
        for mask, _ in images[-1]:
            mask[0, 0] = True
    dataset = dataset_of(tmp_path_factory.mktemp("any"), images)
    store = rc.MaskStore.build(dataset, cache=False)
    samples = store.example_sample.tolist()
    shares = data.draw(st.lists(st.sampled_from([0, 0.3, 0.9, 1]), min_size=1))
    masks = [
        random.random((store.heights[s], store.widths[s])) < shares[k % len(shares)]
        for k, s in enumerate(samples)
    ]
    order = data.draw(st.permutations(range(len(masks))))
    first = data.draw(st.integers(1, len(masks)))
    expected = lists_of(masks, samples)
    forms = [coco_encode, lambda mask: mask, lambda mask: (mask * 2.0 - 1).astype(np.float32)]
    for side in (store, on_device(store)):
        for form in forms:
            batches = [
                (order[k : k + first], [form(masks[n]) for n in order[k : k + first]])
                for k in range(0, len(order), first)
            ]
            result = rc.score(iter(batches), side, metrics=ASKED)
            assert result.per_example[PAIRS].to_pylist() == expected
            assert result.pairwise_iou == pytest.approx(pairwise(masks, samples), abs=1e-12, nan_ok=True)  # fmt: skip


# The built-in sample ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    return sample_case()


def test_the_sample_as_plain_loops_have_it(case, tmp_path):
    samples = case.store.example_sample.tolist()
    result = rc.score([(range(len(samples)), case.masks)], case.store, metrics=ASKED)
    assert result.per_example[PAIRS].to_pylist() == lists_of(case.masks, samples)
    assert result.pairwise_iou == pytest.approx(pairwise(case.masks, samples), abs=1e-12)
    assert 0 < result.pairwise_iou < 1
    result.save(tmp_path)
    again = rc.load_results(tmp_path)
    assert again.per_example.equals(result.per_example)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert again.consistency == result.consistency == summary["consistency"]
    assert summary["metrics"] == [*ASKED]


@pytest.mark.parametrize("at_a_time", [1, 7])
def test_pairs_are_counted_in_parts(case, monkeypatch, at_a_time):
    whole = rc.score("sample-coarse", case.store, metrics=ASKED)
    monkeypatch.setattr(pairs_module, "AT_A_TIME", at_a_time)
    assert rc.score("sample-coarse", case.store, metrics=ASKED).per_example.equals(
        whole.per_example
    )


@pytest.mark.parametrize(
    "options", [{"resize_masks": "nearest"}, {"letterbox": 128}, {"letterbox": "center"}, {"values": "probabilities"}]
)  # fmt: skip
def test_every_way_of_resizing_on_both_sides(case, options):
    rng = np.random.default_rng(3)
    if "resize_masks" in options:
        given_ = [mask[::2, ::2] for mask in case.masks]
    else:
        given_ = [rng.random((64, 64)).astype(np.float16) for _ in case.masks]
        options = {"values": "probabilities", **options}
    results = [
        rc.score([(range(len(given_)), given_)], side, metrics="consistency", **options)
        for side in (case.store, on_device(case.store))
    ]
    assert results[0].per_example.equals(results[1].per_example)
    # The pixels that are paired are those that are counted: a mask has its whole area in common with itself.
    twice = rc.score(
        [(range(len(given_)), [given_[s] for s in case.store.example_sample])],
        case.store,
        metrics="consistency",
        **options,
    )
    assert twice.pairwise_iou == 1
    assert twice.per_example["pred_area"].to_numpy().sum() > 0


def test_what_fits_on_no_device_is_paired_with_what_does(case, monkeypatch):
    real, seen = ops.mask_counts, []

    def scarce(masks, *rest):
        seen.append(len(masks))
        if len(seen) % 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(masks, *rest)

    monkeypatch.setattr(ops, "mask_counts", scarce)
    monkeypatch.setattr(stream, "BUFFER_BYTES", 1)
    batches = [([k], [mask]) for k, mask in enumerate(case.masks)]
    with pytest.warns(RuntimeWarning, match="no memory left"):
        result = rc.score(iter(batches), on_device(case.store), metrics=ASKED)
    host = rc.score(iter(batches), case.store, metrics=ASKED)
    assert result.per_example.equals(host.per_example)


def test_it_goes_with_the_other_metrics(case):
    alone = rc.score("sample-coarse", case.store, metrics=ASKED)
    every = ["consistency", "boxes", "causes"]
    for side in (case.store, on_device(case.store)):
        result = rc.score("sample-coarse", side, metrics=every)
        assert result.per_example[PAIRS].equals(alone.per_example[PAIRS])
        assert result.box_scores
        assert result.cause_summary


def test_the_command_prints_it(capsys):
    command = ["score", "sample-coarse", "dataset=sample"]
    assert main([*command, "metrics=[iou,consistency]"]) == 0
    result = rc.score("sample-coarse", "sample", metrics=ASKED)
    lines = capsys.readouterr().out.splitlines()
    for name, score in (
        ("pairwise IoU", result.pairwise_iou),
        ("worst sentence mIoU", result.miou_worst_sentence),
        ("hard pass@0.5 (≥)", result.hard_pass_rate),
    ):
        assert any(line.split(name)[-1].split() == [f"{100 * score:.2f}", "%"] for line in lines)
    assert main(command) == 0
    assert "pairwise" not in capsys.readouterr().out


def test_what_was_not_counted_says_so(case):
    plain = rc.score("sample", case.store)
    with pytest.raises(rc.UsageError, match=r"metrics=\[iou,consistency\]"):
        _ = plain.pairwise_iou
    assert plain.consistency == {}
    assert "consistency" not in plain.summary()
    counted = rc.score("sample", case.store, metrics=ASKED).under("cris")
    assert counted.consistency == {}
    with pytest.raises(rc.UsageError, match="pairwise IoU"):
        _ = counted.pairwise_iou


def test_a_training_metric_keeps_no_masks(case):
    with pytest.raises(
        rc.UsageError, match=r"RefCOCOMMetric counts iou, .*, not consistency; score"
    ):
        rc.RefCOCOMMetric(case.store, metrics=ASKED)


def test_two_samples_of_equal_masks_are_apart(tmp_path):
    """Both objects have the same mask: only sentences of one sample are paired."""
    dataset = masks_dataset(tmp_path, [[strip(0, 5), strip(0, 5)]])
    masks = [strip(0, 1), strip(0, 1), strip(4, 5), strip(4, 5)]
    result = rc.score([(range(4), masks)], dataset, metrics=ASKED)
    assert result.per_example[PAIRS].to_pylist() == [[4], [], [4], []]
