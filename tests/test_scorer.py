"""Requests that cannot be met, examples without a prediction, and what counts are and do not depend on."""

import json
import re
import warnings

import numpy as np
import pytest
import torch
from helpers import (
    coco_decode,
    coco_encode,
    problems_of,
    real_file,
    sample_case,
    true_masks,
    write_jsonl,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refcocom_kernels import cpu

import refcocom_gpu as rc
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions import text as text_module

CASE = sample_case()
STORE = CASE.store
N = len(CASE.masks)

# Ground truth -------------------------------------------------------------------------------------


def test_the_store_of_a_dataset_is_built(tmp_path):
    """A dataset, its name or its path will do: in scoring and in the metric."""
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, make_records())))
    expected = rc.score("sample", rc.MaskStore.build(rc.load_dataset("sample"))).miou
    for truth in (rc.load_dataset("sample"), "sample", path, str(path)):
        assert rc.score("sample", truth).miou == expected
        metric = rc.RefCOCOMMetric(truth)
        metric.update(np.stack([metric.store.mask(0)]), [0])
        assert metric.count(np.stack([metric.store.mask(0)]), [0]).tolist()[0][0] == 0


@pytest.mark.parametrize("truth", [None, 5, [], {"mask": 1}, np.zeros((3, 3))])
def test_ground_truth_of_another_type_is_named(truth):
    message = f"not {type(truth).__name__}"
    with pytest.raises(rc.UsageError, match=message):
        rc.score("sample", truth)
    with pytest.raises(rc.UsageError, match=message):
        rc.RefCOCOMMetric(truth)


# Requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "predictions",
    [
        *(
            "nowhere.jsonl",
            "no*.jsonl",
            "~nobody_at_all/x.jsonl",
            "x.csv",
            "noending",
            b"bytes",
            "",
        ),
        *(5, None, [1], [(0,)], [({}, 1)], [(0, 3)], [([0, 1], np.zeros((1, 3, 3)))]),
        *([(0.5, np.zeros((3, 3)))], [(True, np.zeros((3, 3)))], [("0", np.zeros((3, 3)))]),
        *([([[0]], [np.zeros((3, 3))])], [([[0], [1, 2]], [])], [(2**70, np.zeros((3, 3)))]),
        [(0, torch.zeros(()))],
    ],
    ids=repr,
)
def test_wrong_requests_are_usage_errors(tmp_path, monkeypatch, predictions):
    monkeypatch.chdir(tmp_path)
    for name in ("x.csv", "noending"):
        (tmp_path / name).touch()
    if predictions == "":
        predictions = "x.csv/below"
    with pytest.raises(rc.UsageError):
        rc.score(predictions, STORE)


@pytest.mark.parametrize(
    "options",
    [
        *({"missing": "skip"}, {"convention": "x"}, {"values": "x"}, {"resize": "sam"}),
        *({"letterbox": 0}, {"polygons": "x"}, {"batch_size": 0}, {"resize": "x"}),
    ],
)
def test_wrong_options_are_usage_errors(options):
    with pytest.raises(rc.UsageError):
        rc.score("sample", STORE, **options)


@pytest.mark.parametrize("opener", ["hash_files", "read"])
def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path, monkeypatch, opener):
    from refcocom_gpu.predictions import read

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    path = write_jsonl(tmp_path / "p.jsonl", CASE.rows())
    monkeypatch.setattr(
        *((read, "hash_files") if opener == "hash_files" else (text_module, "read_text")),
        refuse,
    )
    with pytest.raises(rc.UsageError, match=re.escape(f"{path} cannot be read: Permission denied")):
        rc.score(path, STORE)


def test_mistakes_in_memory_are_named_once(tmp_path):
    masks = [coco_encode(mask) for mask in CASE.masks]
    good = [(k, masks[k]) for k in range(2, N - 3)]
    error = problems_of(
        [
            *good,
            ([0, -1, N, 2], [masks[0], masks[1], masks[1], masks[2]]),
            ([1, N - 1], [{"size": [1, 1], "counts": "~"}, {"counts": "1"}]),
            ([N - 2, N - 3], [np.full((2, 2), np.nan), np.zeros((1, 1), bool)]),
        ],
        STORE,
    )
    assert error.counts == {
        "unknown key": 2, "duplicate": 1, "wrong size": 2, "malformed mask": 1, "non-finite": 1,
    }  # fmt: skip
    at = {(p.kind, p.where) for p in error.problems}
    b = len(good)
    assert at == {
        ("unknown key", f"batch {b}, row 1"), ("unknown key", f"batch {b}, row 2"),
        ("duplicate", f"batch {b}, row 3"), ("wrong size", f"batch {b + 1}, row 0"),
        ("malformed mask", f"batch {b + 1}, row 1"), ("non-finite", f"batch {b + 2}, row 0"),
        ("wrong size", f"batch {b + 2}, row 1"),
    }  # fmt: skip


@pytest.mark.parametrize("source", ["jsonl", "memory", "nothing"])
def test_missing_examples(tmp_path, source):
    some = range(0, N, 3) if source != "nothing" else range(0)
    rows = [CASE.rows()[k] for k in some]

    def predictions():
        if source == "jsonl":
            return write_jsonl(tmp_path / "p.jsonl", rows)
        return ((k, CASE.masks[k]) for k in some)

    error = problems_of(predictions(), STORE)
    assert error.counts == {"missing": N - len(some)}
    result = rc.score(predictions(), STORE, missing="zero")
    assert result.n_examples == N
    assert result.n_missing == N - len(some)
    expected = np.zeros_like(CASE.expected)
    expected[list(some)] = CASE.expected[list(some)]
    table = result.per_example
    np.testing.assert_array_equal(table["intersection"], expected[:, 0])
    np.testing.assert_array_equal(table["pred_area"], expected[:, 1])
    missing = np.array(table["status"].to_pylist()) == "missing"
    np.testing.assert_array_equal(np.flatnonzero(~missing), list(some))


def test_probabilities_taken_for_logits_are_noticed():
    pairs = [(k, mask * 0.9 + 0.05) for k, mask in enumerate(CASE.masks)]
    CASE.check(pairs, values="probabilities")
    with pytest.raises(rc.PredictionError, match="undeclared values"):
        rc.score(pairs, STORE)
    assert rc.score(pairs, STORE, values="logits").n_empty == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CASE.check([(k, 2.0 * mask - 1) for k, mask in enumerate(CASE.masks)])


# Counts -------------------------------------------------------------------------------------------


def test_counts_equal_pycocotools_on_val2014():
    dataset = rc.load_dataset(real_file("val2014/refcoco_m_like.jsonl"))
    store = rc.MaskStore.build(dataset, cache=False)
    results = json.loads(
        real_file("val2014/instances_val2014_fakesegm100_results.json").read_text()
    )
    assert (dataset.n_samples, len(results)) == (839, 734)
    by_image: dict = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result["segmentation"])
    truth = np.array(true_masks(dataset), object)
    pairs = 0
    for image, predictions in by_image.items():
        samples = np.flatnonzero(dataset.image_ids[dataset.sample_image] == image)
        strings = rle.column([p["counts"].encode() for p in predictions for _ in samples])
        sample = np.tile(samples, len(predictions))
        counts, status, _ = cpu.rle_counts(
            strings.data, strings.offsets, sample, store.ends, store.run_offsets, store.pixels
        )
        assert not status.any()
        masks = [coco_decode(p["size"], p["counts"]) for p in predictions]
        expected = [(int((m & truth[s]).sum()), int(m.sum())) for m in masks for s in samples]
        np.testing.assert_array_equal(counts, np.array(expected).reshape(-1, 2))
        pairs += len(expected)
    assert pairs > 5000


shapes = st.one_of(
    st.just((1, 1)),
    st.tuples(st.integers(1, 70), st.just(1)),
    st.tuples(st.just(1), st.integers(1, 70)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)


def mask_lists(shape):
    one = st.one_of(
        hnp.arrays(np.bool_, shape),
        st.just(np.zeros(shape, bool)),
        st.just(np.ones(shape, bool)),
    )
    return st.lists(st.tuples(one, one), min_size=1, max_size=40)


def counts_of(pairs: list, threads: int) -> np.ndarray:
    """[B, 2] through the RLE path, prediction b against target b."""
    predictions, targets = zip(*pairs, strict=True)
    strings = rle.column([rle.encode(p)["counts"].encode() for p in predictions])
    ends = [rle.run_ends(t) for t in targets]
    offsets = cpu.offsets_from(np.array([len(e) for e in ends]))
    pixels = np.array([t.size for t in targets])
    counts, status, _ = cpu.rle_counts(
        strings.data, strings.offsets, np.arange(len(pairs)), np.concatenate(ends), offsets, pixels, threads=threads
    )  # fmt: skip
    assert not status.any()
    return counts


@settings(max_examples=60)
@given(shapes.flatmap(mask_lists), st.sampled_from([1, 2, 8]), st.randoms(use_true_random=False))
def test_counts_are_what_sets_are(pairs, threads, random):
    counts = counts_of(pairs, threads)
    expected = [(int((p & t).sum()), int(p.sum())) for p, t in pairs]
    np.testing.assert_array_equal(counts, expected)
    swapped = counts_of([(t, p) for p, t in pairs], threads)
    np.testing.assert_array_equal(counts[:, 0], swapped[:, 0])
    assert (counts[:, 0] <= np.minimum(counts[:, 1], swapped[:, 1])).all()
    order = list(range(len(pairs)))
    random.shuffle(order)
    np.testing.assert_array_equal(counts_of([pairs[k] for k in order], 1), counts[order])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 2**32))
def test_runs_of_nothing_are_legal(runs, seed):
    pixels = sum(runs) or 1
    runs = runs if sum(runs) else [0, 0, 1]
    value = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    target = np.random.default_rng(seed).random(pixels) < 0.5
    ends = rle.run_ends(target[:, None])
    strings = rle.column([rle.check_counts(runs)])
    counts, status, _ = cpu.rle_counts(
        strings.data, strings.offsets, np.zeros(1, np.int64), ends, np.array([0, len(ends)]), np.array([pixels])
    )  # fmt: skip
    assert status.tolist() == [0]
    assert counts.tolist() == [[int((value & target).sum()), int(value.sum())]]


def test_names_that_libraries_misread(tmp_path, monkeypatch):
    """A relative name with a colon is a path, and a list without files is a mistake, not a set of missing examples."""
    monkeypatch.chdir(tmp_path)
    store = sample_case().store
    result = rc.score("sample", store)
    result.save("a:b")
    assert rc.load_results("a:b").miou == result.miou
    with pytest.raises(rc.UsageError, match="no prediction file"):
        rc.score([], store)
    with pytest.raises(rc.UsageError, match="no prediction file"):
        rc.score("x" * 5000, store)
