"""How rows name examples: by ids of any type, by image and sentence, by their order; in every table."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from helpers import coco_encode, pictured, problems_of, sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main

CASE = sample_case()
DATASET = CASE.dataset
N = len(CASE.masks)


def described(index: int) -> dict:
    """All that may be known of an example."""
    row = {
        name: DATASET.described[name][index].as_py()
        for name in ("sample_id", "sentence_idx", "image_id", "sentence")
    }
    image = int(DATASET.sample_image[DATASET.example_sample[index]])
    return {**row, "file_name": DATASET.images["file_name"][image].as_py()}


def unique() -> list[int]:
    """Examples whose sentence is the only one of its kind in their image."""
    texts = [(row["image_id"], row["sentence"]) for row in map(described, range(N))]
    return [k for k, text in enumerate(texts) if texts.count(text) == 1]


def rows_of(names, indices=range(N)):
    return [
        {**{name: described(k)[name] for name in names}, "segmentation": coco_encode(CASE.masks[k])}
        for k in indices
    ]


def write(path, rows):
    """A table of any format."""
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path)
    return path


TABLES = [".jsonl", ".json", ".parquet", ".feather"]


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("holder", ["sample_id", "image_id", "file_name"])
def test_by_sentence(tmp_path, suffix, holder):
    indices = unique()
    path = write(tmp_path / f"p{suffix}", rows_of([holder, "sentence"], indices))
    result = rc.score(path, CASE.store, keys="sentence", missing="zero")
    counts = np.stack([result.per_example[n].to_numpy() for n in ("intersection", "pred_area")], 1)
    np.testing.assert_array_equal(counts[indices], CASE.expected[indices])
    assert result.n_missing == N - len(indices)


def shared_text(tmp_path):
    """A set whose two samples of one image share a text."""
    records, _ = pictured(2)
    for record in records:
        del record["image"]
        for sample in record["samples"]:
            sample["sentences"] = [f"cow {sample['id']}"]
    records[0]["samples"][1]["sentences"] = ["cow 0"]
    return rc.MaskStore.build(
        rc.load_dataset(write_jsonl(tmp_path / "d.jsonl", records)), cache=False
    )


@pytest.mark.parametrize("suffix", TABLES)
def test_a_shared_text_is_listed_and_never_guessed(tmp_path, suffix):
    store = shared_text(tmp_path)
    rows = [
        {"image_id": 0, "sentence": "cow 0", "segmentation": coco_encode(store.mask(0))},
        {"image_id": 0, "sentence": "cow 2", "segmentation": coco_encode(store.mask(2))},
    ]
    path = write(tmp_path / f"p{suffix}", rows)
    error = problems_of(path, store, keys="sentence", missing="zero")
    assert error.counts == {"unknown key": 1}
    assert "names 2 examples of image_id 0: sample_id 0, sentence_idx 0; sample_id 1" in str(error)


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("names", [[], ["sentence"], ["image_id", "sample_id"]])
def test_by_order(tmp_path, suffix, names):
    rows = rows_of(names)
    CASE.check(write(tmp_path / f"p{suffix}", rows), keys="order")
    short = problems_of(
        write(tmp_path / f"s{suffix}", rows[:-1]), CASE.store, keys="order", missing="zero"
    )
    assert f"there are {N - 1}" in str(short)
    long = problems_of(write(tmp_path / f"l{suffix}", [*rows, rows[0]]), CASE.store, keys="order")
    assert f"this is row {N + 1}" in str(long)
    if names:
        turned = problems_of(write(tmp_path / f"t{suffix}", rows[::-1]), CASE.store, keys="order")
        assert "wrong sentence" in turned.counts or "in another order than the dataset" in str(
            turned
        )


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("kind", [str, float])
def test_ids_that_became_text_or_floats(tmp_path, suffix, kind):
    rows = [
        {**row, "sample_id": kind(row["sample_id"])}
        for row in rows_of(["sample_id", "sentence_idx"])
    ]
    CASE.check(write(tmp_path / f"p{suffix}", rows))


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("wrong", ["12.5", "1e3", "", 20002.5, float(2**53) * 2])
def test_ids_that_are_no_whole_numbers(tmp_path, suffix, wrong):
    rows = rows_of(["sample_id", "sentence_idx"])
    rows[:] = [{**row, "sample_id": type(wrong)(row["sample_id"])} for row in rows]
    rows[7]["sample_id"] = wrong
    error = problems_of(write(tmp_path / f"p{suffix}", rows), CASE.store, missing="zero")
    assert error.counts == {"bad key": 1}
    assert repr(wrong) in str(error)


def test_large_ids_are_exact(tmp_path):
    records, _ = pictured(1)
    del records[0]["image"]
    for k, sample in enumerate(records[0]["samples"]):
        sample["id"] = 2**53 + 1 + k
        sample["sentences"] = ["one"]
    store = rc.MaskStore.build(
        rc.load_dataset(write_jsonl(tmp_path / "d.jsonl", records)), cache=False
    )
    rows = [
        {"sample_id": 2**53 + 1 + k, "sentence_idx": 0, "segmentation": coco_encode(store.mask(k))}
        for k in range(3)
    ]
    for suffix in TABLES:
        assert rc.score(write(tmp_path / f"p{suffix}", rows), store).miou == 1
        floats = [{**row, "sample_id": float(row["sample_id"])} for row in rows]
        error = problems_of(write(tmp_path / f"f{suffix}", floats), store, missing="zero")
        assert error.counts == {"bad key": 3}


@pytest.mark.parametrize("suffix", TABLES)
def test_what_would_work_is_said(tmp_path, suffix):
    path = write(tmp_path / f"p{suffix}", rows_of(["image_id", "sentence"]))
    assert "keys=sentence" in str(problems_of(path, CASE.store, missing="zero"))
    path = write(tmp_path / f"o{suffix}", rows_of([]))
    assert "keys=order" in str(problems_of(path, CASE.store, missing="zero"))


def test_a_key_that_stands_twice_is_found_in_every_form(tmp_path):
    """Such rows have fewer quotes than those with ids, which must not hide a repeated key."""
    rows = [json.dumps(row) for row in rows_of([])]
    rows[3] = rows[3][:-1] + ', "segmentation": null}'
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    error = problems_of(tmp_path / "p.jsonl", CASE.store, keys="order")
    assert error.counts["duplicate"] == 1


def test_arrays_and_other_datasets_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", **dict(zip(CASE.names(), CASE.masks, strict=True)))
    with pytest.raises(rc.UsageError, match="keys=order is for tables"):
        rc.score(tmp_path / "p.npz", CASE.store, keys="order")
    with pytest.raises(rc.UsageError, match=r"needs a dataset with key=.image_position"):
        rc.score("sample", CASE.store, keys="position")


def test_the_command(tmp_path, capsys):
    path = write(tmp_path / "p.jsonl", rows_of(["sentence"]))
    assert main(["score", str(path), "dataset=sample", "keys=order"]) == 0
    assert main(["score", str(path), "dataset=sample", "keys=ordered"]) == 2
    assert "keys must be sample or position or sentence or order" in capsys.readouterr().err
