"""Masks at 480² as LAVT and ReLA compare them: the counts of Pillow's resize of every form, and what uses them."""

import copy
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import coco_encode, few_real_case, sample_case, true_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_conventions import result_of, squashed

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.masks.rle import run_ends
from refcocom_gpu.masks.squash import COLUMNS, RESIZED, SIDE, squash, taken
from refcocom_gpu.scores import under
from refcocom_gpu.scores.conventions import CONVENTIONS, METRICS
from refcocom_gpu.utils.arrow import from_numpy


def test_the_pixels_that_pillow_takes():
    """At every size, because the rounding of each decides: 640 and 600, where centres lie on edges, among them."""
    for size in range(1, 1300):
        row = Image.fromarray(np.arange(size, dtype=np.int32)[None])
        resized = np.asarray(row.resize((SIDE, 1), Image.Resampling.NEAREST))[0]
        assert taken(size).tolist() == resized.tolist(), size
    column = Image.fromarray(np.arange(640, dtype=np.int32)[:, None])
    resized = np.asarray(column.resize((1, SIDE), Image.Resampling.NEAREST))[:, 0]
    assert taken(640).tolist() == resized.tolist()


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), max_size=2),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_areas_are_those_of_pillow(sizes, share):
    rng = np.random.default_rng(0)
    masks = [rng.random(size) < share for size in sizes]
    ends = [run_ends(mask) for mask in masks]
    heights, widths = np.array(sizes, np.int64).reshape(-1, 2).T
    offsets = np.cumsum([0, *map(len, ends)])
    joined = np.concatenate([np.zeros(0, np.int32), *ends])
    found = squash(joined, offsets, heights, widths)
    assert found.areas.tolist() == [int(squashed(mask).sum()) for mask in masks]
    assert (found.ends[offsets[1:] - 1] == SIDE**2).all()
    assert (
        np.diff(found.ends)[np.setdiff1d(np.arange(len(joined) - 1), offsets[1:] - 1)] >= 0
    ).all()


def counted(result):
    return np.stack([result.per_example[name].to_numpy() for name in COLUMNS], 1).tolist()


def expected(case, predictions=None):
    """Counts of masks that Pillow resized, and of predictions that need not be."""
    truth = [squashed(mask) for mask in true_masks(case.dataset)]
    rows = []
    for k, sample in enumerate(case.dataset.example_sample.tolist()):
        pred = squashed(case.masks[k]) if predictions is None else predictions[k]
        rows.append([int((pred & truth[sample]).sum()), int(pred.sum()), int(truth[sample].sum())])
    return rows


FORMS = {
    "masks": (lambda m: m, {}),
    "bytes": (lambda m: m.astype(np.uint8) * 255, {}),
    "RLE": (coco_encode, {}),
    "logits": (lambda m: m * np.float32(2) - 1, {"values": "logits"}),
    "tensors": (lambda m: torch.from_numpy(m), {}),
}


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_counts_of_pillow(form, device):
    case = few_real_case()
    assert len(case.masks) > 20
    store = copy.copy(case.store)
    store.device = device
    make, options = FORMS[form]
    predictions = [(k, make(mask)) for k, mask in enumerate(case.masks)]
    result = rc.score(predictions, store, convention="lavt", **options)
    assert counted(result) == expected(case)
    assert set(result.per_example[RESIZED].to_pylist()) == {1}
    case.compare(result)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda m: m * np.float32(2) - 1, {"values": "logits"}),
        (lambda m: torch.from_numpy(m).bfloat16() * 0.6, {"values": "probabilities"}),
        (lambda m: m, {"resize_masks": "nearest"}),
    ],
)
def test_predictions_of_480_are_counted_as_they_are(make, options, device):
    case = few_real_case()
    store = copy.copy(case.store)
    store.device = device
    rng = np.random.default_rng(0)
    own = [squashed(mask) ^ (rng.random((SIDE, SIDE)) < 0.2) for mask in case.masks]
    predictions = [(k, make(mask)) for k, mask in enumerate(own)]
    result = rc.score(predictions, store, convention="lavt", **options)
    assert counted(result) == expected(case, own)
    assert set(result.per_example[RESIZED].to_pylist()) == {0}
    assert under.resized(CONVENTIONS["lavt"], result.per_example) == ""
    assert "resized" not in result.summary()


def test_letterboxed_predictions_of_480_are_not_taken_for_the_square():
    case = few_real_case()
    values = [np.full((SIDE, SIDE), 1, np.float32) for _ in case.masks]
    options = {"letterbox": SIDE, "values": "logits", "metrics": "squashed"}
    result = rc.score(list(enumerate(values)), case.store, **options)
    assert set(result.per_example[RESIZED].to_pylist()) == {1}


def test_absent_predictions_are_empty():
    case = sample_case()
    result = rc.score([(0, case.masks[0])], case.store, missing="zero", convention="lavt")
    assert result.per_example[RESIZED].to_pylist()[1:] == [0] * (len(case.masks) - 1)
    assert counted(result)[1:] == [[0, 0, row[2]] for row in expected(case)][1:]


# Who uses the counts.


def test_without_them_the_caveat_says_what_to_do(tmp_path):
    case = sample_case()
    plain = rc.score("sample-coarse", case.store)
    for name in ("lavt", "rela"):
        said = f"needs resized ground truth: score again with convention={name}"
        assert plain.under(name).summary()["approximate"] == said
        assert plain.under(name).miou == plain.miou
        again = rc.score("sample-coarse", case.store, convention=name)
        assert again.miou != plain.miou
        assert again.under("official").summary()["miou"] == plain.miou
        loaded = rc.load_results(again.save(tmp_path / name))
        assert loaded.summary() == {**again.summary(), **loaded.info}
        assert loaded.info["metrics"] == ["iou", "squashed"]
        assert set(plain.per_example.column_names) < set(loaded.per_example.column_names)
    lavt = rc.score("sample-coarse", case.store, convention="lavt")
    assert "approximate" not in lavt.summary()
    assert lavt.summary()["resized"].startswith("the true masks are exactly its own; 297 of 297")
    rela = lavt.under("rela").summary()
    assert rela["approximate"] == "needs polygons of the ground truth"
    assert rela["resized"].startswith("297 of 297 predictions were squashed to 480² by nearest")


def test_metrics_of_the_official_convention_stay_refused():
    case = sample_case()
    with pytest.raises(rc.UsageError, match="metrics=iou,boundary follows the convention official"):
        rc.score("sample", case.store, convention="lavt", metrics="boundary")
    both = rc.score("sample", case.store, convention="lavt", metrics="squashed")
    assert both.miou == rc.score("sample", case.store, metrics="squashed").under("lavt").miou


def test_masks_that_vanish_are_judged_by_their_label():
    """A target or a prediction of one pixel may lie between the pixels that are taken; it is no empty mask for that."""
    rows = [
        ((1, 0), "a", 1, 1, 1, "scored"),  # a target and a prediction, both gone
        ((2, 0), "b", 0, 0, 0, "empty"),  # no target, rejected
        ((3, 0), "c", 0, 1, 0, "scored"),  # no target, missed by a pixel that is gone
        ((4, 0), "d", 4, 5, 4, "scored"),
    ]
    table = result_of(rows).per_example
    for name, column in zip(
        (*COLUMNS, RESIZED), ([0, 0, 0, 4], [0, 0, 0, 4], [0, 0, 0, 4], [1] * 4), strict=True
    ):
        table = table.append_column(name, from_numpy(np.array(column)))
    assert under.ious_of(CONVENTIONS["rela"], table).tolist() == [0, 1, 0, 1]
    assert under.ious_of(CONVENTIONS["lavt"], table).tolist() == [0, 0, 0, 1]
    found = under.scores(CONVENTIONS["rela"], table)
    assert (found.miou, found.ciou) == (0.5, 1.0)
    assert found.precision_at == {0.7: 1 / 2, 0.8: 1 / 2, 0.9: 1 / 2}  # of the two targets


def test_conventions_name_metrics_that_are_counted():
    assert METRICS == ("squashed", "warped")
    for c in CONVENTIONS.values():
        table = rc.score("sample", sample_case().store, convention=c.name).per_example
        assert under.is_counted(c, table) == (c.metric == "squashed")


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["score", "sample-coarse", "dataset=sample"]
    assert main([*words, "convention=lavt", "output_dir=run"]) == 0
    out = capsys.readouterr().out
    assert "≈" not in out
    assert "the true masks are exactly its own; 297 of 297 predictions" in " ".join(out.split())
    assert set(COLUMNS) < set(pq.read_table("run/per_example.parquet").column_names)
    assert main([*words, "convention=rela"]) == 0
    assert "≈ approximate, needs polygons of the ground truth" in capsys.readouterr().out
    assert main([*words, "convention=all", "json=true"]) == 0
    rows = {r["convention"]: r for r in json.loads(capsys.readouterr().out)["conventions"]}
    assert not rows["lavt"]["approximate"]
    assert rows["lavt"]["resized"].startswith("the true masks")
    assert rows["rela"]["caveat"] == "needs polygons of the ground truth"
    assert rows["official"]["resized"] is None
    (change,) = (r["changes"] for r in rows["lavt"]["reasons"] if "480²" in r["text"])
    assert change["mIoU"] == pytest.approx(
        rows["lavt"]["scores"]["mIoU"] - rows["official"]["scores"]["mIoU"]
    )
