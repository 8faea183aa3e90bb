"""Examples by what people call them: the image or the sample, and the sentence where it is unique."""

import numpy as np
import pytest
from helpers import pictured, write_jsonl

import refcocom_gpu as rc


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three images; two samples of the first share a text, one sample of the second has a text twice."""
    records, _ = pictured(3)
    for record in records:
        del record["image"]
        for sample in record["samples"]:
            sample["sentences"] = [f"cow {sample['id']}"]
    first, second, _ = (record["samples"] for record in records)
    first[0]["sentences"] = ["left cow", "caf\u00e9", " spaced "]
    first[1]["sentences"] = ["left cow", "other"]
    second[0]["sentences"] = ["twice", "twice"]
    records[2]["file_name"] = r"train2014\2.png"
    return rc.load_dataset(write_jsonl(tmp_path_factory.mktemp("l") / "d.jsonl", records))


@pytest.mark.parametrize(
    ("sentence", "holder", "key"),
    [
        ("left cow", {"sample_id": 0}, (0, 0)),
        ("left cow", {"sample_id": 1}, (1, 0)),
        ("other", {"image_id": 0}, (1, 1)),
        ("cafe\u0301", {"image_id": 0}, (0, 1)),
        ("spaced", {"file_name": "0.png"}, (0, 2)),
        ("other ", {"file_name": "val2014/0.png"}, (1, 1)),
        ("cow 201", {"file_name": "2.png"}, (201, 0)),
    ],
)
def test_found(dataset, sentence, holder, key):
    assert dataset.key_of(dataset.find(sentence, **holder)) == key


@pytest.mark.parametrize(
    ("sentence", "holder", "message"),
    [
        (
            "left cow",
            {"image_id": 0},
            "names 2 examples .*sample_id 0, sentence_idx 0; sample_id 1",
        ),
        ("twice", {"sample_id": 100}, "names 2 examples .*sentence_idx 0; .*sentence_idx 1"),
        (
            "no such",
            {"sample_id": 1},
            "no sentence of sample_id 1; its sentences are 'left cow', 'other'",
        ),
        ("other", {"sample_id": 0}, "no sentence of sample_id 0"),
        ("cow", {"image_id": 5}, "image_id 5 is not in the dataset"),
    ],
)
def test_ambiguous_and_unknown_are_listed(dataset, sentence, holder, message):
    with pytest.raises(rc.errors.NotFoundError, match=message):
        dataset.find(sentence, **holder)


def test_one_holder_is_named(dataset):
    for holders in ({}, {"sample_id": 0, "image_id": 0}):
        with pytest.raises(rc.UsageError, match="one of sample_id, image_id, file_name"):
            dataset.find("other", **holders)


def test_indices_of_lists(dataset):
    assert dataset.index_of([0, 1, 7], [1, 0, 0]).tolist() == [1, 3, -1]
    assert dataset.index_of(0, 0).tolist() == [0]
    np.testing.assert_array_equal(dataset.index_of(np.array([1]), np.array([1])), [4])
