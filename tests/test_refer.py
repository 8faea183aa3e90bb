"""The original sets: a release is read without running what its pickle names, and its copies give the same dataset."""

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.masks import rle

SIZE = (40, 60)
POLYGONS = [[[5, 5, 30, 5, 30, 30, 5, 30]], [[2.5, 3, 50, 9, 20, 38.5], [40, 20, 55, 20, 55, 30]]]


def crowd() -> dict[str, Any]:
    """An uncompressed RLE, as COCO gives crowds."""
    mask = np.zeros(SIZE, bool)
    mask[10:20, 15:45] = True
    return {"size": list(SIZE), "counts": np.diff(rle.run_ends(mask), prepend=0).tolist()}


SEGMENTATIONS = [*POLYGONS, crowd()]


def refs() -> list[dict[str, Any]]:
    """Three references in two images, in the order in which one split names an image twice, apart."""
    made = []
    for k, (image_id, split) in enumerate([(7, "val"), (9, "val"), (7, "val"), (9, "testA")]):
        made.append(
            {
                "ref_id": 100 + k,
                "ann_id": 500 + k % 3,
                "image_id": image_id if k < 3 else 7,
                "category_id": 1,
                "file_name": f"COCO_train2014_{image_id}_{k}.jpg",
                "split": split,
                "sent_ids": [2 * k, 2 * k + 1],
                "sentences": [
                    {
                        "raw": f"Left ONE {k}",
                        "sent": f"left one {k}",
                        "sent_id": 2 * k,
                        "tokens": [],
                    },
                    {"raw": f"thé {k}", "sent": f"thé {k}", "sent_id": 2 * k + 1, "tokens": []},
                ],
            }
        )
    return made


def instances() -> dict[str, Any]:
    images = [
        {"id": i, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i}.jpg", "license": 1}
        for i in (7, 9)
    ]
    annotations = [
        {
            "id": 500 + k,
            "image_id": (7, 9, 7)[k],
            "category_id": 1,
            "segmentation": s,
            "bbox": [5, 5, 25, 25.5],
            "area": 3.0,
            "iscrowd": int(k == 2),
        }
        for k, s in enumerate(SEGMENTATIONS)
    ]
    return {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "dog", "supercategory": "animal"}],
    }


def release(folder: Path, name: str = "refs(unc).p", protocol: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(refs(), protocol))
    (folder / "instances.json").write_text(json.dumps(instances()))
    return folder


def expected_masks() -> list[np.ndarray]:
    """What pycocotools draws, by image in order of appearance: references 0 and 2, then 1."""
    drawn = [coco.decode(coco.merge(coco.frPyObjects(p, *SIZE))) for p in POLYGONS]
    drawn.append(coco.decode(coco.frPyObjects(crowd(), *SIZE)))
    return [drawn[k].astype(bool) for k in (0, 2, 1)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_release(tmp_path: Path, protocol: int) -> None:
    dataset = rc.load_dataset(release(tmp_path / "refcoco", protocol=protocol))
    assert dataset.sample_ids.tolist() == [100, 102, 101]
    assert dataset.image_ids.tolist() == [7, 9]
    assert dataset.examples["sentence"].to_pylist()[:3] == ["left one 0", "thé 0", "left one 2"]
    assert dataset.samples["category"].to_pylist() == ["dog"] * 3
    assert dataset.samples["supercategory"].to_pylist() == ["animal"] * 3
    assert dataset.samples["bbox"].to_pylist() == [[5, 5, 25, 25.5]] * 3
    assert dataset.images["file_name"].to_pylist() == ["7.jpg", "9.jpg"]
    store = rc.MaskStore.build(dataset, cache=False)
    for sample, mask in enumerate(expected_masks()):
        np.testing.assert_array_equal(store.mask(int(dataset.first_example[sample])), mask)


def test_a_run_on_a_release_is_carried_to_a_refined_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other ids, other masks, fewer sentences at other places, and another name of the split; nothing is run again."""
    folder, masks = release(tmp_path / "refcoco"), expected_masks()
    rows = [
        {"sample_id": ref_id, "sentence_idx": k, "segmentation": rle.encode(np.roll(mask, k, 1))}
        for ref_id, mask in zip((100, 102, 101), masks, strict=True)
        for k in range(2)
    ]
    run, refined, out = tmp_path / "run.jsonl", tmp_path / "refined.jsonl", tmp_path / "o.parquet"
    run.write_text("\n".join(map(json.dumps, rows)))
    samples = [
        {"id": 1, "sentences": ["th\u00e9 2", "new"], "mask": rle.encode(masks[1])},
        {"id": 2, "sentences": ["the\u0301 0"], "mask": rle.encode(np.roll(masks[0], 1, 0))},
    ]
    refined.write_text(json.dumps({"image_id": 7, "samples": samples}))
    words = [f"from_dataset={folder}", f"dataset.path={refined}"]
    assert main(["convert", str(run), str(out), *words]) == 0
    printed = capsys.readouterr().out
    assert "carried            2" in printed
    assert "left behind        4" in printed
    assert "absent             1  the other sample lacks the text" in printed
    carried = [
        (r["sample_id"], r["sentence_idx"], r["segmentation"])
        for r in pq.read_table(out).to_pylist()
    ]
    assert sorted(carried) == [(1, 0, rows[3]["segmentation"]), (2, 0, rows[1]["segmentation"])]
    assert main(["convert", str(run), str(out), *words, "from_split=testA", "overwrite=true"]) == 3
    assert "has a counterpart in" in capsys.readouterr().err


def test_splits(tmp_path: Path) -> None:
    folder = release(tmp_path / "refcoco")
    assert rc.load_dataset(folder, split="val").n_samples == 3
    with pytest.raises(UsageError, match="no split 'testB'; it holds testA, val"):
        rc.load_dataset(folder, split="testB")


def test_several_pickles_are_chosen_from(tmp_path: Path) -> None:
    folder = release(release(tmp_path / "refcoco"), "refs(google).p")
    with pytest.raises(UsageError, match=r"refs\(google\)\.p, refs\(unc\)\.p; pass one"):
        rc.load_dataset(folder)
    assert rc.load_dataset(folder / "refs(google).p").n_samples == 3


def test_text_of_python_2(tmp_path: Path) -> None:
    # As Python 2 wrote it: `str` is bytes (opcode U), here in Latin-1 and in UTF-8.
    for text, expected in ((b"caf\xe9", "café"), (b"caf\xc3\xa9", "café")):
        folder = release(tmp_path / "py2")
        pickled = pickle.dumps(refs(), 2)
        ours = pickle.dumps("left one 0", 2)[2:-3]
        assert ours in pickled
        theirs = b"U" + bytes([len(text)]) + text
        (folder / "refs(unc).p").write_bytes(pickled.replace(ours, theirs))
        sentences = rc.load_dataset(folder).examples["sentence"].to_pylist()
        # In Latin-1 the other sentences, which are Unicode, are as they were.
        assert sentences[:2] == [expected, "thé 0"]


class Runs:
    """Asks to run a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, r"posix\.system"), (eval, r"builtins\.eval")]
)
def test_a_pickle_that_runs_code(tmp_path: Path, function: Any, name: str, nested: bool) -> None:
    folder = release(tmp_path / "evil")
    trap = tmp_path / "sprung"
    call = Runs(function, f"touch {trap}" if function is os.system else f"open({str(trap)!r}, 'w')")
    content = refs()
    content[1]["sentences"][0]["tokens"] = [call]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(content if nested else call))
    with pytest.raises(DatasetError, match=f"asks to run {name}"):
        rc.load_dataset(folder)
    assert not trap.exists()


@pytest.mark.parametrize("keep", [0, 1, 10, 200, -1])
def test_a_cut_pickle(tmp_path: Path, keep: int) -> None:
    folder = release(tmp_path / "cut")
    path = folder / "refs(unc).p"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p: not a"):
        rc.load_dataset(folder)


def broken(change: Any) -> Any:
    content = instances()
    change(content)
    return content


BROKEN = {
    "no annotation": (lambda c: c["annotations"].pop(0), "ref_id 100.*no annotation 500"),
    "no image": (lambda c: c["images"].pop(0), "no image 7"),
    "another image": (lambda c: c["annotations"][0].update(image_id=9), "of image 9, not 7"),
    "no polygon": (lambda c: c["annotations"][0].update(segmentation=[]), "without a polygon"),
    "two points": (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "4 numbers"),
    "other size": (lambda c: c["images"][0].update(height=41), "its mask is 40×60, its image 41"),
    "box": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "bbox is"),
    "text": (lambda c: c["annotations"][0].update(segmentation="x"), "mask is a string"),
    "no categories": (lambda c: c.pop("categories"), "not COCO's annotations"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_annotations(tmp_path: Path, what: str) -> None:
    change, message = BROKEN[what]
    folder = release(tmp_path / "broken")
    (folder / "instances.json").write_text(json.dumps(broken(change)))
    with pytest.raises(DatasetError, match=message):
        rc.load_dataset(folder)


# References that cannot be scored -----------------------------------------------------------------

OUTSIDE = {
    "beside": [[70, 5, 90, 5, 90, 30, 70, 30]],
    "above": [[5, -30, 30, -30, 30, -5, 5, -5]],
    "below": [[5, 45, 30, 45, 30, 60, 5, 60]],
    "both outside": [[70, 5, 90, 5, 90, 30], [-20, 5, -2, 5, -2, 30]],
    "far away": [[7e8, 5, 9e8, 5, 9e8, 30, 7e8, 30]],
}
"""Polygons that cover no pixel of an image of 40 × 60."""


def invalid_release(folder: Path, polygons: Any) -> Path:
    """Of three references, 101 lies outside its image and 102 has no sentence."""
    content = instances()
    content["annotations"][1]["segmentation"] = polygons
    spoken = refs()
    spoken[2]["sentences"] = []
    release(folder)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(spoken, 2))
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def invalid_rows(path: Path, polygons: Any) -> Path:
    rows = plain_rows()
    rows[1]["segmentation"] = polygons
    rows[2]["sentences"] = []
    return write_rows(path, rows)


def invalid_source(tmp_path: Path, kind: str, polygons: Any = OUTSIDE["beside"]) -> Path:
    if kind == "release":
        return invalid_release(tmp_path / "invalid", polygons)
    return invalid_rows(tmp_path / kind, polygons)


FOUND = (
    r"2 of 3 references cannot be scored: 1 cover no pixel of their image \(ref_id 101\), "
    r"1 have no sentence \(ref_id 102\)"
)


@pytest.mark.parametrize("where", OUTSIDE)
@pytest.mark.parametrize("kind", ["release", "copy.json", "copy.jsonl"])
def test_references_that_cannot_be_scored_are_refused_unless_asked(
    tmp_path: Path, kind: str, where: str
) -> None:
    source = invalid_source(tmp_path, kind, OUTSIDE[where])
    with pytest.raises(DatasetError, match=rf"{FOUND}; invalid_references='drop'"):
        rc.load_dataset(source)
    with pytest.warns(UserWarning, match=rf"{FOUND}; they are dropped") as warned:
        dataset = rc.load_dataset(source, invalid_references="drop")
    assert [warning.filename for warning in warned] == [__file__]
    assert dataset.sample_ids.tolist() == [100]
    assert (dataset.n_images, dataset.n_samples, dataset.n_examples) == (1, 1, 2)
    assert dataset.n_dropped == 2


def test_a_table_of_references_that_cannot_be_scored(tmp_path: Path) -> None:
    rows = plain_rows()[:2]
    rows[0]["segmentation"] = OUTSIDE["beside"]
    path = write_rows(tmp_path / "m.parquet", rows)
    with pytest.raises(DatasetError, match=r"1 of 2 references cannot .* \(ref_id 100\)"):
        rc.load_dataset(path)
    with pytest.warns(UserWarning, match="they are dropped"):
        assert rc.load_dataset(path, invalid_references="drop").sample_ids.tolist() == [101]


def test_a_polygon_partly_outside_is_clipped(tmp_path: Path) -> None:
    folder = release(tmp_path / "clipped")
    content = instances()
    content["annotations"][1]["segmentation"] = [[40, 5, 90, 5, 90, 30, 40, 30], *OUTSIDE["beside"]]
    (folder / "instances.json").write_text(json.dumps(content))
    dataset = rc.load_dataset(folder)
    mask = rc.MaskStore.build(dataset, cache=False).mask(int(dataset.first_example[2]))
    assert (mask[5:30, 40:].all(), mask.sum()) == (True, 25 * 20)
    assert dataset.n_dropped == 0


def test_what_drop_does_not_excuse(tmp_path: Path) -> None:
    """A malformed instance is an error in any case, and so is a set of which nothing is left."""
    folder = invalid_source(tmp_path, "release")
    path = folder / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"1 malformed instance\(s\)"):
        rc.load_dataset(folder, invalid_references="drop")
    content["annotations"][0]["segmentation"] = OUTSIDE["far away"]
    path.write_text(json.dumps(content))
    with (
        pytest.warns(UserWarning, match="3 of 3 references"),
        pytest.raises(DatasetError, match="no sentence to score"),
    ):
        rc.load_dataset(folder, invalid_references="drop")
    with pytest.raises(UsageError, match="invalid_references must be error or drop, not 'zero'"):
        rc.load_dataset(folder, invalid_references="zero")


def test_the_first_ids_of_many_are_named(tmp_path: Path) -> None:
    rows = [{**plain_rows()[0], "ref_id": k, "sentences": []} for k in range(9)]
    with pytest.raises(DatasetError, match=r"9 have no sentence \(ref_id 0, 1, 2, 3, 4, …\)"):
        rc.load_dataset(write_rows(tmp_path / "m.jsonl", rows))


def test_the_command_drops_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = invalid_source(tmp_path, "release"), tmp_path / "out"
    (tmp_path / "p.jsonl").write_text("")
    words = ["score", str(tmp_path / "p.jsonl"), f"dataset.path={folder}", "missing=zero"]
    assert main([*words, "quiet=true"]) == 3
    assert "dataset.invalid_references=drop" in capsys.readouterr().err
    drop = "dataset.invalid_references=drop"
    assert main([*words, drop, f"output_dir={out}", "quiet=true"]) == 0
    assert "2 of 3 references" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["dataset"]["n_dropped"] == 2


def test_absent_and_cut_instances(tmp_path: Path) -> None:
    folder = release(tmp_path / "cut")
    path = folder / "instances.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=r"instances\.json: not COCO"):
        rc.load_dataset(folder)
    path.unlink()
    with pytest.raises(DatasetError, match=r"instances\.json cannot be read"):
        rc.load_dataset(folder)


def test_pictures_of_a_release_are_files(tmp_path: Path) -> None:
    from PIL import Image

    dataset = rc.load_dataset(release(tmp_path / "refcoco"))
    with pytest.raises(UsageError, match="pass the folder"):
        Images(dataset)
    for name in ("7.jpg", "9.jpg"):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / name)
    assert Images(dataset, tmp_path)[1].size == SIZE[::-1]


# Mirrors ------------------------------------------------------------------------------------------


def plain_rows() -> list[dict[str, Any]]:
    """Everything in its place, RLE compressed where the release has polygons."""
    known = instances()
    rows = []
    for ref in refs():
        annotation = next(a for a in known["annotations"] if a["id"] == ref["ann_id"])
        rows.append(
            {
                **{name: ref[name] for name in ("ref_id", "image_id", "split", "sent_ids")},
                "sentences": [s["sent"] for s in ref["sentences"]],
                "segmentation": annotation["segmentation"],
                "bbox": annotation["bbox"],
                "height": SIZE[0],
                "width": SIZE[1],
                "category": "dog",
                "supercategory": "animal",
                "file_name": f"{ref['image_id']}.jpg",
            }
        )
    return rows


def hub_rows() -> list[dict[str, Any]]:
    """The annotation and the image as JSON text within the row."""
    rows = []
    for row, ref in zip(plain_rows(), refs(), strict=True):
        annotation = {"segmentation": row.pop("segmentation"), "bbox": row.pop("bbox"), "id": 1}
        image = {"height": row.pop("height"), "width": row.pop("width"), "file_name": "x.jpg"}
        sentences = [{**s, "tokens": []} for s in ref["sentences"]]
        row |= {"raw_anns": json.dumps(annotation), "raw_image_info": json.dumps(image)}
        rows.append({**row, "sentences": sentences})
    return rows


def rle_rows() -> list[dict[str, Any]]:
    rows = plain_rows()
    for row in rows:
        mask = coco.frPyObjects(row["segmentation"], *SIZE)
        merged = coco.merge(mask) if isinstance(mask, list) else mask
        row["segmentation"] = {"size": list(SIZE), "counts": merged["counts"].decode()}
        del row["height"], row["width"]
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.parametrize("shape", [plain_rows, hub_rows, rle_rows])
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet"])
def test_mirrors_give_the_release(tmp_path: Path, shape: Any, ending: str) -> None:
    if shape is plain_rows and ending == ".parquet":
        pytest.skip("polygons beside an RLE are no Parquet column")
    expected = rc.load_dataset(release(tmp_path / "refcoco"))
    found = rc.load_dataset(write_rows(tmp_path / f"mirror{ending}", shape()))
    assert found.fingerprint == expected.fingerprint
    assert found.samples["bbox"].to_pylist() == expected.samples["bbox"].to_pylist()


def test_rows_without_a_split_are_all_taken(tmp_path: Path) -> None:
    rows = plain_rows()
    for row in rows:
        del row["split"]
    assert rc.load_dataset(write_rows(tmp_path / "m.jsonl", rows)).n_samples == 4
    with pytest.raises(UsageError, match="no split 'train'"):
        rc.load_dataset(write_rows(tmp_path / "m.json", plain_rows()), split="train")


def test_a_folder_of_mirrors(tmp_path: Path) -> None:
    """Its files are named after splits, its rows by names of their own; a row may hold the picture's file too."""
    rows = rle_rows()[3:]
    for row in rows:
        row |= {"file_name": "COCO_7_3.jpg", "raw_image_info": json.dumps({"file_name": "7.jpg"})}
        row |= {"bbox": [1, 2, 3, 4], "raw_anns": json.dumps({"bbox": [5, 6, 7, 8]})}
        row["image"] = {"bytes": b"x", "path": None}
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    dataset = rc.load_dataset(tmp_path, split="test")
    assert dataset.sample_ids.tolist() == [103]
    assert dataset.samples["bbox"].to_pylist() == [[5, 6, 7, 8]]
    assert dataset.images["file_name"].to_pylist() == ["7.jpg"]
    with pytest.raises(UsageError, match="pass the folder"):
        Images(dataset)
    pq.write_table(pa.table({"samples": [[1]]}), tmp_path / "data" / "test-a.parquet")
    with pytest.raises(DatasetError, match="one or the other"):
        rc.load_dataset(tmp_path, split="test")


def test_a_mask_in_parts(tmp_path: Path) -> None:
    rows = rle_rows()[:1]
    whole = rle.decode(rows[0]["segmentation"])
    left = whole & (np.arange(SIZE[1]) < 20)
    rows[0]["segmentation"] = [rle.encode(left), rle.encode(whole & ~left)]
    store = rc.MaskStore.build(rc.load_dataset(write_rows(tmp_path / "m.json", rows)), cache=False)
    np.testing.assert_array_equal(store.mask(0), whole)


MISTAKES = {
    "no mask": (lambda r: r.pop("segmentation"), "missing segmentation; fields found: ref_id"),
    "no sentences": (lambda r: r.pop("sentences"), "missing sentences"),
    "no size": (lambda r: r.pop("height"), "height and width of its image are absent"),
    "an id": (lambda r: r.update(ref_id="x"), "ref_id is 'x', not a whole number"),
    "a number": (lambda r: r.update(sentences=[3]), "sentence 0 is neither text"),
    "a box": (lambda r: r.update(bbox=[1, 2, 3]), "bbox is"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_of_mirrors_name_their_place(tmp_path: Path, what: str) -> None:
    change, message = MISTAKES[what]
    rows = plain_rows()
    change(rows[1])
    with pytest.raises(DatasetError, match=rf"1 malformed instance\(s\)\n  line 2: .*{message}"):
        rc.load_dataset(write_rows(tmp_path / "m.jsonl", rows))


def test_a_cut_line_and_a_cut_table(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "m.jsonl", plain_rows())
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DatasetError, match="line 4: "):
        rc.load_dataset(path)
    table = write_rows(tmp_path / "m.parquet", rle_rows())
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        rc.load_dataset(table)


def test_labels_and_boxes_of_records(tmp_path: Path) -> None:
    record = {
        "image_id": 1,
        "samples": [{"id": 1, "sentences": ["a"], "mask": {"size": [1, 1], "counts": "01"}}],
    }
    path = tmp_path / "r.jsonl"
    for box, label in ((None, None), ([0, 0, 1, 1.5], "dog")):
        record["samples"][0] |= {"bbox": box, "label": label}
        path.write_text(json.dumps(record))
        samples = rc.load_dataset(path, cache=False).samples
        assert samples["bbox"].to_pylist() == [box]
        assert samples["label"].to_pylist() == [label or ""]
    for box in ([1, 2, 3], []):
        record["samples"][0]["bbox"] = box
        path.write_text(json.dumps(record))
        with pytest.raises(DatasetError, match="sample 1: bbox is"):
            rc.load_dataset(path, cache=False)
        table = tmp_path / "r.parquet"
        pq.write_table(pa.Table.from_pylist([record]), table)
        with pytest.raises(DatasetError, match="sample 1: bbox is"):
            rc.load_dataset(table)


def test_nothing_is_unpickled_but_plain_values() -> None:
    from refcocom_gpu.dataset.records.refer import _Unpickler

    for value in (np.float64(1), {1, 2}, bytearray(b"x")):
        stream = io.BytesIO(pickle.dumps(value, 2))
        with pytest.raises(DatasetError, match="asks to run"):
            _Unpickler(stream).load()


# Ids of the original sets -------------------------------------------------------------------------


def carried(dataset: rc.Dataset) -> list[list[Any]]:
    """What the examples carry of `ref_id`, `ann_id` and `sent_id`."""
    names = ("ref_id", "ann_id", "sent_id")
    return [[dataset.fact(k, name) for name in names] for k in range(dataset.n_examples)]


EXPECTED_IDS = [[100, 500, 0], [100, 500, 1], [102, 502, 4], [102, 502, 5], [101, 501, 2], [101, 501, 3]]  # fmt: skip


def test_a_release_and_its_copies_keep_their_ids(tmp_path: Path) -> None:
    dataset = rc.load_dataset(release(tmp_path / "refcoco"))
    assert dataset.refer_ids == ("sent_id", "ref_id", "ann_id")
    assert carried(dataset) == carried(pickle.loads(pickle.dumps(dataset))) == EXPECTED_IDS
    rows = rle_rows()
    for row, ref in zip(rows, refs(), strict=True):
        row["ann_id"] = ref["ann_id"]
    half = len(rows) // 2
    (tmp_path / "data").mkdir()
    for k, part in enumerate((rows[:half], rows[half:])):
        write_rows(tmp_path / "data" / f"val-{k:05}-of-00002.parquet", part)
    copies = [write_rows(tmp_path / f"m{ending}", rows) for ending in (".json", ".jsonl")]
    for copy in (*copies, tmp_path):
        found = rc.load_dataset(copy, split="val")
        assert carried(found) == EXPECTED_IDS
        assert found.fingerprint == dataset.fingerprint
    # Within the sentences and in the annotation, as JSON text.
    hub = hub_rows()
    for row in hub:
        del row["sent_ids"]
    found = rc.load_dataset(write_rows(tmp_path / "hub.parquet", hub))
    assert carried(found) == [[ref, 1, sent] for ref, _, sent in EXPECTED_IDS]


def test_ids_that_are_absent_or_fit_nothing_are_null_and_change_no_fingerprint(
    tmp_path: Path,
) -> None:
    expected = rc.load_dataset(release(tmp_path / "refcoco"))
    rows = rle_rows()
    for change in ({"sent_ids": [1]}, {"sent_ids": None, "ann_id": "x"}, {"ann_id": 2**70}):
        changed = [{**row, "sent_ids": None, **change} for row in rows]
        found = rc.load_dataset(write_rows(tmp_path / "m.jsonl", changed))
        assert found.refer_ids == ("ref_id",)
        assert found.fingerprint == expected.fingerprint
    assert rc.load_dataset("sample").refer_ids == ()
