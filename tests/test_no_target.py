"""Expressions without a target: gRefCOCO is read as published, and every count and score is that of plain loops."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.masks import rle

H, W = 40, 60
POLYGONS = {
    500: [[5, 5, 30, 5, 30, 30, 5, 30]],
    501: [[25, 20, 50, 9, 20, 38.5], [40, 20, 55, 20, 55, 30]],
    502: [[1, 1, 4, 1, 4, 4]],
}


def gref(ref_id: int, ann_id: Any, split: str = "val", **more: Any) -> dict[str, Any]:
    return {
        "image_id": 7,
        "ref_id": ref_id,
        "split": split,
        "sentences": [{"tokens": ["it"], "raw": f"It {ref_id}", "sent": f"it {ref_id}", "sent_id": 9 * ref_id}],
        "file_name": f"COCO_train2014_000000000007_{ref_id}.jpg",
        "category_id": [1],
        "ann_id": ann_id,
        "sent_ids": [9 * ref_id],
        "no_target": ann_id == [-1],
        **more,
    }  # fmt: skip


REFS = [
    gref(0, [500]),
    gref(1, [-1], category_id=[-1]),
    gref(2, [500, 501]),
    gref(3, [502, 501, 502]),
    gref(4, [-1], "testA"),
]


def instances() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "height": H, "width": W, "file_name": "COCO_train2014_000000000007.jpg"}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": 1 + k % 2, "segmentation": p, "bbox": [0, 0, 9, 9], "iscrowd": 0}
            for k, p in POLYGONS.items()
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat", "supercategory": "animal"}],
    }  # fmt: skip


def release(folder: Path, refs: Any = REFS, known: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "grefs(unc).json").write_text(json.dumps(refs))
    (folder / "instances.json").write_text(json.dumps(known or instances()))
    return folder


def drawn(*ann_ids: int) -> np.ndarray:
    """The union of what pycocotools draws, a polygon at a time."""
    union = np.zeros((H, W), bool)
    for ann_id in ann_ids:
        for one in coco.frPyObjects(POLYGONS[ann_id], H, W):
            union |= coco.decode(one).astype(bool)
    return union


TRUE = [drawn(500), drawn(), drawn(500, 501), drawn(501, 502)]


@pytest.mark.parametrize("named", ["", "grefs(unc).json"])
def test_a_release(tmp_path: Path, named: str) -> None:
    dataset = rc.load_dataset(release(tmp_path / "g") / named)
    assert dataset.sample_ids.tolist() == [0, 1, 2, 3]
    assert dataset.no_target.tolist() == [False, True, False, False]
    assert dataset.examples["sentence"].to_pylist() == ["it 0", "it 1", "it 2", "it 3"]
    assert dataset.examples["sent_id"].to_pylist() == [0, 9, 18, 27]
    # Of several targets, the category that they share.
    assert dataset.samples["category"].to_pylist() == ["dog", "", "", ""]
    assert dataset.samples["ann_id"].to_pylist() == [500, None, None, None]
    assert dataset.samples["bbox"].to_pylist() == [[0, 0, 9, 9], None, None, None]
    store = rc.MaskStore.build(dataset, cache=False)
    for index, mask in enumerate(TRUE):
        np.testing.assert_array_equal(store.mask(index), mask)
    of_split = rc.load_dataset(tmp_path / "g", split="testA")
    assert (of_split.sample_ids.tolist(), of_split.no_target.tolist()) == ([4], [True])


def test_targets_of_one_category_have_it(tmp_path: Path) -> None:
    dataset = rc.load_dataset(release(tmp_path / "g", [gref(0, [500, 502])]))
    assert dataset.samples["category"].to_pylist() == ["dog"]
    assert dataset.samples["ann_id"].to_pylist() == [None]


def test_the_name_of_the_picture(tmp_path: Path) -> None:
    """It stands in the description of the image; else it is that of the reference, without the number of its own."""
    known = instances()
    del known["images"][0]["file_name"]
    for folder, described in (("a", None), ("b", known)):
        dataset = rc.load_dataset(release(tmp_path / folder, known=described))
        assert dataset.images["file_name"].to_pylist() == ["COCO_train2014_000000000007.jpg"]
    refs = [gref(0, [500], file_name="my_picture_2.jpg")]
    dataset = rc.load_dataset(release(tmp_path / "c", refs, known))
    assert dataset.images["file_name"].to_pylist() == ["my_picture_2.jpg"]


def test_without_the_flag(tmp_path: Path) -> None:
    """Some versions have no `no_target`, and a number for a list of one."""
    named = (500, -1, [500, 501], [501, 502])
    refs = [{**ref, "ann_id": ann_id} for ref, ann_id in zip(REFS, named, strict=False)]
    for ref in refs:
        del ref["no_target"]
    same = rc.load_dataset(release(tmp_path / "a", refs))
    assert same.fingerprint == rc.load_dataset(release(tmp_path / "b")).fingerprint
    assert same.no_target.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (gref(8, [500, -1]), "has no target, but names the annotation 500"),
        (gref(8, [500], no_target=True), "has no target, but names the annotation 500"),
        (gref(8, [-1], no_target=False), "names no annotation"),
        (gref(8, []), "names no annotation"),
        (gref(8, [500, 77]), "has no annotation 77"),
        (gref(8, [500], image_id=8), "has no image 8"),
        (gref(8, [-1], image_id=8), "has no image 8"),
        (gref(8, "all"), "not a list of references"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, ref: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        rc.load_dataset(release(tmp_path / "g", [REFS[0], ref]))


def test_targets_outside_the_picture(tmp_path: Path) -> None:
    """Where no pixel is left, the reference is invalid: it has targets, although its mask is empty."""
    known = instances()
    known["annotations"][0]["segmentation"] = [[90, 90, 99, 90, 99, 99]]
    folder = release(tmp_path / "g", [gref(0, [500]), gref(1, [500, 501])], known)
    with pytest.raises(DatasetError, match=r"1 cover no pixel of their image \(ref_id 0\)"):
        rc.load_dataset(folder)
    with pytest.warns(UserWarning, match="dropped"):
        dataset = rc.load_dataset(folder, invalid_references="drop")
    assert (dataset.sample_ids.tolist(), dataset.no_target.tolist()) == ([1], [False])
    np.testing.assert_array_equal(rc.MaskStore.build(dataset, cache=False).mask(0), drawn(501))


def test_damaged_json(tmp_path: Path) -> None:
    folder = release(tmp_path / "g")
    (folder / "grefs(unc).json").write_text("[{")
    with pytest.raises(DatasetError, match="not JSON"):
        rc.load_dataset(folder)
    (folder / "refs(unc).p").write_bytes(b"")
    with pytest.raises(UsageError, match="pass one of them"):
        rc.load_dataset(folder)


def records(declared: Any, mask: np.ndarray) -> list[dict[str, Any]]:
    """An image with two samples, of which the second has this mask."""
    samples = [
        {"id": 1, "sentences": ["a", "b"], "mask": rle.encode(np.ones((2, 3), bool))},
        {"id": 2, "sentences": ["c"], "mask": rle.encode(mask)},
    ]
    if declared != "absent":
        samples[1]["no_target"] = declared
    return [{"image_id": 3, "file_name": "3.png", "samples": samples}]


def written(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"r.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


EMPTY, FULL = np.zeros((2, 3), bool), np.ones((2, 3), bool)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("declared", [True, False, None, "absent"])
@pytest.mark.parametrize("mask", [EMPTY, FULL], ids=["empty", "full"])
def test_image_records_declare_it(
    tmp_path: Path, kind: str, declared: Any, mask: np.ndarray
) -> None:
    dataset = rc.load_dataset(written(tmp_path, kind, records(declared, mask)))
    is_declared = declared is True
    assert dataset.no_target.tolist() == [False, is_declared]
    for cache in (tmp_path / "cache", tmp_path / "cache", False):  # built, opened, in memory
        if is_declared == (not mask.any()):
            assert rc.MaskStore.build(dataset, cache=cache).areas.tolist() == [6, mask.sum()]
        else:
            reason = "no_target is true, but its mask has pixels" if is_declared else "has no pixel"
            with pytest.raises(DatasetError, match=f"1 masks.*sample 2: .*{reason}"):
                rc.MaskStore.build(dataset, cache=cache)


def test_a_copy_declares_it(tmp_path: Path) -> None:
    """A row per reference, with the mask of no pixel or without one."""
    row = {"ref_id": 5, "image_id": 3, "sentences": ["a"], "height": 2, "width": 3}
    path = tmp_path / "rows.jsonl"
    for more in ({}, {"segmentation": rle.encode(EMPTY)}):
        path.write_text(json.dumps({**row, **more, "no_target": True}))
        store = rc.MaskStore.build(rc.load_dataset(path), cache=False)
        assert (store.areas.tolist(), store.mask(0).shape) == ([0], (2, 3))
    path.write_text(json.dumps(row))
    with pytest.raises(DatasetError, match="missing segmentation"):
        rc.load_dataset(path)
    del row["height"]
    path.write_text(json.dumps({**row, "no_target": True}))
    with pytest.raises(DatasetError, match="height and width of its image are absent"):
        rc.load_dataset(path)


def on_device(store: rc.MaskStore) -> rc.MaskStore:
    """The same store on host memory under another name, which takes the way of a device."""
    moved = copy.copy(store)
    moved.device = "cpu:0"
    return moved


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> rc.MaskStore:
    folder = release(tmp_path_factory.mktemp("grefcoco"), [*REFS[:4], gref(5, [-1])])
    return rc.MaskStore.build(rc.load_dataset(folder), cache=False)


PREDICTED = [
    TRUE[0],
    TRUE[0],
    np.zeros((H, W), bool),
    np.roll(TRUE[3], 3, 1),
    np.zeros((H, W), bool),
]
TRUTH = [*TRUE, np.zeros((H, W), bool)]


def loop(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """gRefCOCO's scores as an evaluator computes them, a pair at a time."""
    ious, sum_i, sum_u, kept, reject_right, n_target = [], 0, 0, 0, 0, 0
    for pred, true in pairs:
        shared, union = int((pred & true).sum()), int((pred | true).sum())
        if true.any():
            n_target += 1
            kept += bool(pred.any())
            ious.append(shared / union)
        else:
            reject_right += not pred.any()
            ious.append(float(not pred.any()))
        sum_i, sum_u = sum_i + shared, sum_u + union
    n_none = len(pairs) - n_target
    return {
        "miou": float(np.mean(ious)),
        "ciou": sum_i / sum_u if sum_u else 1.0,
        "n_no_target": n_none,
        "n_acc": reject_right / n_none if n_none else np.nan,
        "t_acc": kept / n_target if n_target else np.nan,
    }


def scores_of(result: rc.Result) -> dict[str, float]:
    return {
        name: getattr(result, name) for name in ("miou", "ciou", "n_no_target", "n_acc", "t_acc")
    }


@pytest.mark.parametrize("moved", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("form", ["rle", "null", "masks", "logits", "small logits"])
def test_every_form_counts_nothing(
    store: rc.MaskStore, form: str, moved: bool, tmp_path: Path
) -> None:
    masks, options = PREDICTED, {}
    predictions: Any = [([index], mask[None]) for index, mask in enumerate(masks)]
    if form in ("rle", "null"):
        predictions = tmp_path / "p.jsonl"
        rows = [
            {
                "sample_id": int(ref), "sentence_idx": 0,
                "segmentation": None if form == "null" and not mask.any() else rle.encode(mask),
            }
            for ref, mask in zip(store.dataset.sample_ids, masks, strict=True)
        ]  # fmt: skip
        predictions.write_text("\n".join(map(json.dumps, rows)))
    elif "logits" in form:
        options = {"values": "logits"}
        step = 1 if form == "logits" else 4
        logits = [np.where(mask[::step, ::step], 5.0, -5.0).astype(np.float32) for mask in masks]
        predictions = [([index], values[None]) for index, values in enumerate(logits)]
    result = rc.score(
        predictions, on_device(store) if moved else store, metrics=["iou", "boundary"], **options
    )
    table = result.per_example
    assert table["target_area"].to_pylist() == [int(mask.sum()) for mask in TRUTH]
    for index in (1, 4):
        assert (
            table["intersection"][index].as_py()
            == table["boundary_intersection"][index].as_py()
            == 0
        )
        assert table["target_boundary"][index].as_py() == 0
    assert table["pred_area"][4].as_py() == 0
    assert result.boundary_values["boundary_iou"][[1, 4]].tolist() == [0.0, 1.0]
    assert result.boundary_values["boundary_f"][[1, 4]].tolist() == [0.0, 1.0]
    if form != "small logits":
        assert scores_of(result) == pytest.approx(loop(list(zip(masks, TRUTH, strict=True))))
    assert (result.n_acc, result.t_acc) == (1 / 2, 2 / 3)
    # Only examples with a target count for Pr@X where the evaluator says so.
    for name in ("rela", "gsva"):
        there = result.iou[[0, 2, 3]]
        assert result.under(name).n_acc == result.n_acc
        for x, share in result.under(name).precision_at.items():
            assert share == pytest.approx(np.mean(there >= x))
    assert result.precision_at[0.9] == np.mean(result.iou >= 0.9)


def test_the_metric_agrees(store: rc.MaskStore) -> None:
    metric = rc.RefCOCOMMetric(store)
    for index, mask in enumerate(PREDICTED):
        metric.update(mask[None], [index])
    expected = loop(list(zip(PREDICTED, TRUTH, strict=True)))
    found = metric.compute()
    for name in ("miou", "ciou"):
        assert found[f"refcocom/{name}"].item() == pytest.approx(expected[name])
    assert scores_of(metric.result()) == pytest.approx(expected)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(arrays.arrays(bool, (4, 5)), arrays.arrays(bool, (4, 5)), st.booleans(), st.booleans()),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_any_set(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    pairs = [(pred & ~rejected, true & ~without) for pred, true, rejected, without in drawn]
    samples = [
        {"id": k, "sentences": ["x"], "mask": rle.encode(true), "no_target": not true.any()}
        for k, (_, true) in enumerate(pairs)
    ]
    path = tmp_path_factory.mktemp("any") / "r.jsonl"
    path.write_text(json.dumps({"image_id": 1, "samples": samples}))
    truth = rc.MaskStore.build(rc.load_dataset(path, cache=False), cache=False)
    result = rc.score({(k, 0): pred for k, (pred, _) in enumerate(pairs)}, truth)
    assert scores_of(result) == pytest.approx(loop(pairs), nan_ok=True)
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert ("n_acc" in summary) == ("n_no_target" in summary) == (result.n_no_target > 0)


def test_what_is_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = release(tmp_path / "grefcoco")
    rows = [
        {"ref_id": ref, "sentence_idx": 0, "segmentation": rle.encode(mask)}
        for ref, mask in zip(range(4), PREDICTED, strict=False)
    ]
    run = tmp_path / "run.jsonl"
    run.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    assert (
        main(["score", str(run), f"dataset.path={folder}", "keys=refer", f"output_dir={out}"]) == 0
    )
    printed = capsys.readouterr().out
    assert "4 examples, 1 without a target, 1 predicted empty" in printed
    lines = {line.split()[0]: line.split()[1] for line in printed.splitlines() if "-acc" in line}
    assert lines == {"N-acc": "0.00", "T-acc": "66.67"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["n_no_target"], summary["n_acc"], summary["t_acc"]) == (1, 0.0, 2 / 3)
    again = rc.load_results(out)
    assert again.summary()["t_acc"] == 2 / 3
    assert not {"n_acc", "t_acc", "n_no_target"} & again.info.keys()


def test_a_set_of_targets_says_nothing_of_it() -> None:
    result = rc.score("sample", rc.MaskStore.build(rc.load_dataset("sample"), cache=False))
    assert result.n_no_target == 0
    assert np.isnan(result.n_acc)
    assert not {"n_acc", "t_acc", "n_no_target"} & result.summary().keys()
