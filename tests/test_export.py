"""Exports as their tools read them: COCO by pycocotools and by our reader, FiftyOne by its documented fields."""

import base64
import contextlib
import io
import json
import re
import shlex
import shutil
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import section
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_boundary import drawn
from test_save_masks import in_batches

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.masks import rle
from refcocom_gpu.report.export.fiftyone import packed
from refcocom_gpu.report.export.pictures import picture_names


@pytest.fixture(scope="module")
def store():
    return rc.MaskStore.build(rc.load_dataset("sample"), cache=False)


@pytest.fixture(scope="module")
def result(store):
    """Predictions of which one is empty and one missing."""
    masks = {k: store.mask(k) ^ np.roll(store.mask(k), 3, k % 2) for k in range(len(store))}
    del masks[5]
    masks[6] = None
    return rc.score(masks, store, missing="zero", save_masks=True)


def loaded(folder):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(folder / "instances.json")
        return truth, truth.loadRes(str(folder / "predictions.json"))


# COCO ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coco(result, tmp_path_factory):
    return rc.export(result, tmp_path_factory.mktemp("coco"))


def test_pycocotools_loads_the_truth(coco, store):
    truth, _ = loaded(coco)
    dataset = store.dataset
    assert sorted(truth.getImgIds()) == sorted(dataset.image_ids.tolist())
    assert len(truth.anns) == dataset.n_samples
    for sample, entry in enumerate(truth.dataset["annotations"]):
        first = int(dataset.first_example[sample])
        mask = store.mask(first)
        np.testing.assert_array_equal(truth.annToMask(entry).astype(bool), mask)
        assert entry["area"] == mask.sum()
        assert entry["bbox"] == coco_mask.toBbox(entry["segmentation"]).tolist()
        assert entry["sample_id"] == dataset.key_of(first)[0]
        assert len(entry["sentences"]) == dataset.first_example[sample + 1] - first
        category = truth.loadCats(entry["category_id"])[0]
        assert category["name"] == dataset.fact(first, "category")
        assert category["supercategory"] == dataset.fact(first, "supercategory")
    assert 0 not in truth.anns
    assert 0 not in truth.cats


def test_pycocotools_loads_the_predictions(coco, result):
    _, predictions = loaded(coco)
    rows = [index for index in range(len(result.per_example)) if index != 5]
    assert len(predictions.anns) == len(rows)
    for index, entry in zip(rows, predictions.dataset["annotations"], strict=True):
        mask = predictions.annToMask(entry).astype(bool)
        np.testing.assert_array_equal(mask, result.mask_of(index))
        assert entry["iou"] == result.iou[index]
        assert entry["sentence"] == result.per_example["sentence"][index].as_py()


def test_our_reader_counts_the_same(coco, result, store):
    again = rc.score(coco / "predictions.json", store, missing="zero")
    assert again.per_example.equals(result.per_example)


def test_a_dataset_alone(store, tmp_path):
    for what, name in ((store.dataset, "a"), ("sample", "b"), (store, "c")):
        folder = rc.export(what, tmp_path / name)
        assert [path.name for path in folder.iterdir()] == ["instances.json"]
    assert (tmp_path / "a" / "instances.json").read_bytes() == (
        tmp_path / "c" / "instances.json"
    ).read_bytes()


def test_a_result_in_a_folder(result, coco, tmp_path):
    result.save(tmp_path / "run")
    folder = rc.export(tmp_path / "run", tmp_path / "out")
    theirs, ours = ((f / "instances.json").read_bytes() for f in (coco, folder))
    assert theirs == ours


@settings(max_examples=10)
@given(data=st.data())
def test_any_masks(tmp_path_factory, data):
    """Ids that repeat are keyed by position, and what is exported is what is scored."""
    folder = tmp_path_factory.mktemp("any")
    size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    lines = []
    for image_id in range(2):
        bits = [mask for mask in drawn(size, data.draw(st.integers(0, 50))) if mask.any()]
        samples = [
            {
                "id": k,
                "category": f"c{k % 2}",
                "sentences": ["one", "two"],
                "mask": rle.encode(mask),
            }
            for k, mask in enumerate(bits[:3])
        ]
        lines.append(json.dumps({"image_id": image_id, "samples": samples}))
    if '"samples": []' in lines[0] + lines[1]:
        return
    (folder / "d.jsonl").write_text("\n".join(lines))
    dataset = rc.load_dataset(folder / "d.jsonl", key="image_position")
    store = rc.MaskStore.build(dataset, cache=False)
    masks = [np.roll(store.mask(k), k, 1) for k in range(len(store))]
    result = rc.score(in_batches(masks), store, save_masks=True)
    rc.export(result, folder / "out", truth=store)
    again = rc.score(folder / "out" / "predictions.json", store)
    assert again.per_example.equals(result.per_example)
    truth, predictions = loaded(folder / "out")
    assert len(truth.anns) * 2 == len(predictions.anns) == len(masks)


# FiftyOne -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fiftyone(result, tmp_path_factory):
    return rc.export(result, tmp_path_factory.mktemp("fiftyone"), format="fiftyone")


def pixels(detection, size):
    """The mask as FiftyOne shows it: decoded as it decodes, laid into the box of the image."""
    height, width = size
    mask = np.zeros(size, bool)
    x, y, w, h = detection["bounding_box"]
    x0, y0, w, h = (round(v) for v in (x * width, y * height, w * width, h * height))
    if detection["mask"] is None:
        assert (x0, y0, w, h) == (0, 0, 0, 0)
        return mask
    assert detection["mask"]["$binary"]["subType"] == "00"
    packed = zlib.decompress(base64.b64decode(detection["mask"]["$binary"]["base64"]))
    within = np.load(io.BytesIO(packed), allow_pickle=False)
    assert within.shape == (h, w)
    assert within.dtype == bool
    # The box is tight.
    assert within.any(0)[[0, -1]].all()
    assert within.any(1)[[0, -1]].all()
    mask[y0 : y0 + h, x0 : x0 + w] = within
    return mask


def test_every_detection_has_its_pixels(fiftyone, result, store):
    samples = json.loads((fiftyone / "samples.json").read_text())["samples"]
    dataset, true, predicted = store.dataset, [], []
    assert [s["image_id"] for s in samples] == dataset.image_ids.tolist()
    for sample in samples:
        size = sample["metadata"]["height"], sample["metadata"]["width"]
        for field, seen in (("detections", true), ("predictions", predicted)):
            held = sample[field]
            assert held["_cls"] == "Detections"
            for one in held["detections"]:
                (index,) = dataset.index_of(one["sample_id"], one["sentence_idx"]).tolist()
                seen.append(index)
                mask = store.mask(index) if field == "detections" else result.mask_of(index)
                np.testing.assert_array_equal(pixels(one, size), mask)
                assert one["_cls"] == "Detection"
                assert one["label"] == dataset.fact(index, "sentence")
                assert one["category"] == dataset.fact(index, "category")
                assert one["ref_id"] == one["sample_id"]
                assert dataset.fact(index, "image_id") == sample["image_id"]
                if field == "predictions":
                    assert one["iou"] == result.iou[index]
    assert true == list(range(len(store)))
    assert predicted == [index for index in true if index != 5]


def test_ids_are_object_ids_and_differ(fiftyone):
    samples = json.loads((fiftyone / "samples.json").read_text())["samples"]
    ids = [sample["_id"]["$oid"] for sample in samples]
    for field in ("detections", "predictions"):
        ids += [one["_id"]["$oid"] for s in samples for one in s[field]["detections"]]
    assert len(set(ids)) == len(ids)
    assert all(len(bytes.fromhex(one)) == 12 for one in ids)


def test_every_field_is_declared(fiftyone):
    """A field that the schema does not name is invisible in FiftyOne."""
    document = json.loads((fiftyone / "metadata.json").read_text())
    samples = json.loads((fiftyone / "samples.json").read_text())["samples"]

    def check(declared, values):
        names = {field["db_field"]: field for field in declared}
        assert set(values) - {"_cls", "_rand", "_media_type"} <= set(names)
        for name, value in values.items():
            if isinstance(value, dict) and "_cls" in value:
                assert names[name]["embedded_doc_type"].endswith(value["_cls"])
                check(names[name]["fields"], value)
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                for one in value:
                    check(names[name]["fields"], one)

    assert document["media_type"] == "image"
    assert "version" in document
    for sample in samples:
        check(document["sample_fields"], sample)


def test_pictures_are_beside_it(fiftyone, store):
    samples = json.loads((fiftyone / "samples.json").read_text())["samples"]
    images = Images(store.dataset)
    assert len([*(fiftyone / "data").iterdir()]) == len(samples)
    for row, sample in enumerate(samples):
        with Image.open(fiftyone / sample["filepath"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), np.asarray(images[row]))


def test_pictures_that_are_not_at_hand(tmp_path, recwarn):
    mask = np.eye(4, 6, dtype=bool)
    records = [
        {
            "image_id": k,
            "file_name": name,
            "samples": [{"id": k, "sentences": ["a"], "mask": rle.encode(mask)}],
        }
        for k, name in enumerate(["train/a.png", "val/a.png", "b.png", "c.jpg"])
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, records)))
    dataset = rc.load_dataset(tmp_path / "d.jsonl")
    with pytest.warns(UserWarning, match="4 of 4 pictures are not at hand"):
        folder = rc.export(dataset, tmp_path / "none", "fiftyone")
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    names = [sample["filepath"] for sample in samples]
    assert names == ["data/000000_a.png", "data/000001_a.png", "data/b.png", "data/c.jpg"]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (6, 4), (9, 8, 7)).save(pictures / "b.png")
    # A picture that its viewer turns; the masks describe it turned.
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (4, 6)).save(pictures / "c.jpg", exif=turned)
    with pytest.warns(UserWarning, match="2 of 4 pictures are not at hand"):
        folder = rc.export(dataset, tmp_path / "two", "fiftyone", images=pictures)
    assert (folder / "data" / "b.png").read_bytes() == (pictures / "b.png").read_bytes()
    with Image.open(folder / "data" / "c.jpg") as picture:
        assert picture.size == (6, 4)
        assert not picture.getexif()


def test_names_stay_in_the_folder(tmp_path):
    samples = [{"id": 0, "sentences": ["a"], "mask": {"size": [1, 1], "counts": "01"}}]
    names = ["..", None, "/etc/x.png", "..\\y.png", "A.png", "a.png"]
    lines = [
        json.dumps({"image_id": k, "file_name": name, "samples": [{**samples[0], "id": k}]})
        for k, name in enumerate(names)
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    made = picture_names(rc.load_dataset(tmp_path / "d.jsonl"))
    alike = ["000004_A.png", "000005_a.png"]
    assert made == ["000000_..", "000001_picture.png", "x.png", "y.png", *alike]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_any_mask_is_unpacked_again(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    raw = base64.b64decode(packed(mask)["$binary"]["base64"])
    again = np.load(io.BytesIO(zlib.decompress(raw)), allow_pickle=False)
    np.testing.assert_array_equal(again, mask)


# Requests -----------------------------------------------------------------------------------------


def test_wrong_requests(result, store, tmp_path):
    with pytest.raises(rc.UsageError, match="format must be coco or fiftyone, not 'yolo'"):
        rc.export(result, tmp_path / "out", "yolo")
    with pytest.raises(rc.UsageError, match="save_masks=true"):
        rc.export(rc.score("sample", store), tmp_path / "out")
    with pytest.raises(rc.UsageError, match="already holds"):
        rc.export(store, rc.export(store, tmp_path / "twice"))
    rc.export(store, tmp_path / "twice", overwrite=True)
    with pytest.raises(rc.UsageError, match="sample is none"):
        rc.export("sample", tmp_path / "out", truth="sample")
    mask = {"size": [1, 1], "counts": "01"}
    record = {"image_id": 1, "samples": [{"id": 1, "sentences": ["a"], "mask": mask}]}
    (tmp_path / "d.jsonl").write_text(json.dumps(record))
    with pytest.raises(rc.UsageError, match="their fingerprints differ"):
        rc.export(result, tmp_path / "out", truth=tmp_path / "d.jsonl")
    assert not (tmp_path / "out").exists()


def test_a_result_whose_file_is_gone(result, tmp_path):
    result.save(tmp_path / "run")
    (tmp_path / "run" / "predictions.parquet").unlink()
    with pytest.raises(rc.ResultsError, match="gone"):
        rc.export(tmp_path / "run", tmp_path / "out")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(rc.RefCOCOMError):
        rc.export(tmp_path / "run", tmp_path / "out")


def test_the_command(result, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result.save("run")
    assert main(["export", "run", "output_dir=coco"]) == 0
    assert capsys.readouterr().out.split() == [
        "Wrote", "coco/instances.json", "coco/predictions.json",
    ]  # fmt: skip
    assert rc.score("coco/predictions.json", "sample", missing="zero").miou == result.miou
    command = ["export", "run", "dataset=sample", "format=fiftyone", "output_dir=fo", "json=true"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["written"] == ["fo/samples.json", "fo/metadata.json"]
    assert main(["export", "sample", "output_dir=truth", "quiet=true"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["score", "sample", "dataset=sample", "output_dir=plain", "quiet=true"]) == 0
    for words, message in (
        ([], "nothing to export"),
        (["run"], "pass output_dir=DIR"),
        (["run", "output_dir=coco"], "already holds"),
        (["run", "output_dir=x", "format=yolo"], "coco or fiftyone"),
        (["nowhere", "output_dir=x"], "nowhere"),
        (["sample", "dataset=sample", "output_dir=x"], "sample is none"),
        (["plain", "output_dir=x"], "save_masks=true"),
    ):
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err


def test_the_lines_about_other_tools(result, tmp_path, monkeypatch):
    """What docs/python.md says of other tools is run; those that may be absent are stood in for."""
    codes = re.findall(r"`([^`]+)`", section("docs/python.md", "In other tools"))
    monkeypatch.chdir(tmp_path)
    result.save("run")
    commands = [code for code in codes if code.startswith("refcocom export ")]
    assert len(commands) == 2
    for command in commands:
        assert main([*shlex.split(command)[1:], "quiet=true"]) == 0
    assert Path("coco/predictions.json").is_file()
    assert Path("truth/instances.json").is_file()
    shutil.rmtree("coco")
    tools = {name: mock.Mock() for name in ("wandb", "mlflow")}
    calls = [code for code in codes if code.startswith(("rc.", "wandb.", "mlflow."))]
    assert len(calls) == 3
    for call in calls:
        eval(call, {"rc": rc, "result": result, **tools})
    assert len(tools["wandb"].Table.call_args.kwargs["dataframe"]) == len(result.per_example)
    assert tools["mlflow"].log_metrics.call_args.args[0]["miou"] == result.miou
