"""A dataset as a sequence of its examples: the same numbers as its tables, masks and pictures on request."""

import json
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from helpers import sample_case, true_masks

import refcocom_gpu as rc
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.errors import UsageError

DATASET = rc.load_dataset("sample")
STORE = sample_case().store
N = DATASET.n_examples


def test_lengths_are_numbers_of_examples():
    assert len(DATASET) == len(STORE) == len(list(DATASET)) == N


def test_an_example_says_what_the_tables_say():
    rows = DATASET.described.to_pylist()
    for index, (example, row) in enumerate(zip(DATASET, rows, strict=True)):
        assert example == DATASET[index]
        assert example.index == index
        assert example.key == DATASET.key_of(index) == (row["sample_id"], row["sentence_idx"])
        for name in ("sentence", "image_id", "category", "height", "width"):
            assert getattr(example, name) == row[name]


def test_masks_are_those_of_the_store():
    by_sample = true_masks(DATASET)
    for example in DATASET[:: N // 20]:
        mask = example.mask()
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, STORE.mask(example.index))
        np.testing.assert_array_equal(mask, by_sample[DATASET.example_sample[example.index]])


def test_indices_are_those_of_a_list():
    every = list(DATASET)
    assert DATASET[-1] == every[-1]
    assert DATASET[np.int64(3)] == every[3]
    assert DATASET[-N] == every[0]
    for wanted in (slice(2, 5), slice(None, None, -50), slice(-3, None), slice(N, None)):
        assert DATASET[wanted] == every[wanted]
    for wrong in (N, -N - 1):
        with pytest.raises(IndexError, match=rf"example {wrong} of {N}: indices are 0…{N - 1}"):
            DATASET[wrong]
    with pytest.raises(TypeError):
        DATASET["17"]


def test_an_example_is_frozen_and_pickled_whole():
    example = DATASET[17]
    with pytest.raises(FrozenInstanceError):
        example.sentence = "other"
    again = pickle.loads(pickle.dumps(example))
    assert again == example
    np.testing.assert_array_equal(again.mask(), example.mask())
    assert len({example, again, DATASET[18]}) == 2
    assert "dataset" not in repr(example)


def test_pictures_are_opened_once_and_not_pickled():
    dataset = replace(DATASET)
    before = len(pickle.dumps(dataset))
    picture = dataset[17].image()
    assert picture.size == (dataset[17].width, dataset[17].height)
    assert dataset.pictures is dataset.pictures
    assert len(pickle.dumps(dataset)) == before


def test_a_source_without_pictures_still_has_masks(tmp_path):
    path = tmp_path / "records.jsonl"
    records = [{k: v for k, v in record.items() if k != "image"} for record in make_records()]
    path.write_text("\n".join(map(json.dumps, records)))
    dataset = rc.load_dataset(path, cache=False, key="image_position")
    example = dataset[5]
    assert example.key == dataset.key_of(5)
    assert len(example.key) == 3
    np.testing.assert_array_equal(example.mask(), STORE.mask(5))
    with pytest.raises(UsageError, match="holds no pictures"):
        example.image()


def test_a_dataset_is_no_set_of_predictions():
    with pytest.raises(UsageError, match=r"\(index, masks\) pairs, not Example"):
        rc.score(DATASET, STORE)
