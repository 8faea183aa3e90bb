"""Masks that are saved are those that were counted, from every form of input and on both sides."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from sweeps import STORE as SWEPT
from sweeps import contents, made_runs
from test_boundary import FORMS, drawn, expected_masks, in_batches, masks_dataset, on_device

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.counting import counter as counter_module
from refcocom_gpu.counting import mask_saver, stream
from refcocom_gpu.masks import rle

SIZES = [(1, 1), (1, 63), (64, 64), (40, 61), (33, 20)]


@pytest.fixture(scope="module")
def truth():
    return [drawn(size, seed)[:3] for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def store(truth, tmp_path_factory):
    dataset = masks_dataset(tmp_path_factory.mktemp("masks"), truth)
    return rc.MaskStore.build(dataset, cache=False)


@pytest.fixture(scope="module")
def masks(store):
    rng = np.random.default_rng(3)
    return [
        np.roll(store.mask(index), index, 1) ^ (rng.random(store.mask(index).shape) < 0.05)
        for index in range(len(store))
    ]


def same_masks(result, expected):
    assert len(result.masks.offsets) == len(expected) + 1
    for index, mask in enumerate(expected):
        np.testing.assert_array_equal(result.mask_of(index), mask, str(index))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:refcocom")
def test_what_was_counted_is_what_is_saved(store, masks, form, monkeypatch, tmp_path):
    make, options = FORMS[form]
    predictions = make(masks)
    expected = expected_masks(predictions, store, options)
    # Full-size masks in parts of one and of several.
    monkeypatch.setattr(counter_module, "PART_BYTES", 10_000)
    monkeypatch.setattr(mask_saver, "TAKEN", 4)
    alone = rc.score(in_batches(predictions), store, **options)
    assert alone.masks is None
    for name, side in (("host", store), ("device", on_device(store))):
        result = rc.score(in_batches(predictions), side, save_masks=True, **options)
        assert result.per_example.equals(alone.per_example)
        same_masks(result, expected)
        result.save(tmp_path / name)
        # The strings are canonical, so both sides write the same bytes.
        first = rc.load_results(tmp_path / "host")
        assert [*map(np.ndarray.tolist, first.masks)] == [*map(np.ndarray.tolist, result.masks)]
        again = rc.score(tmp_path / name / "predictions.parquet", store)
        assert again.per_example.equals(alone.per_example)


def test_beside_other_metrics(store, masks):
    metrics = ["iou", "boundary", "causes", "boxes"]
    plain = rc.score(in_batches(masks), store, metrics=metrics)
    saved = rc.score(in_batches(masks), store, metrics=metrics, save_masks=True)
    assert saved.per_example.equals(plain.per_example)
    same_masks(saved, masks)


def test_masks_and_maps_of_one_set_are_chosen_by_size(store, masks):
    """Integers of the size of their image are masks, others are resized: both are counted, one is taken."""
    size = (64, 64)
    twice = np.ones((2, 2), np.uint8)
    soft = [np.kron(mask, twice[: 2 - k % 2, : 2 - k % 2]) for k, mask in enumerate(masks)]
    result = rc.score(in_batches(soft), store, resize_masks="nearest", save_masks=True)
    same_masks(result, masks)
    assert any(store.mask(k).shape == size for k in range(len(store)))


def test_a_part_that_did_not_fit_is_counted_on_the_host(store, masks, monkeypatch):
    """Counter of the device and of the host share the masks."""
    tried = []

    def scarce(self, stacked, *rest):
        tried.append(len(stacked))
        if stacked.shape[1:] == (64, 64):
            raise torch.OutOfMemoryError("no room")
        return count(self, stacked, *rest)

    count = stream.DeviceCounter.stack
    monkeypatch.setattr(stream.DeviceCounter, "stack", scarce)
    with pytest.warns(RuntimeWarning, match="counted on the CPU"):
        result = rc.score(in_batches(masks), on_device(store), save_masks=True)
    same_masks(result, masks)
    assert len(tried) > len(set(tried))


def test_joined_masks_and_polygons(store, masks, tmp_path):
    """Masks that are joined while they are read, and polygons as pycocotools draws them."""
    rows = [
        {
            "sample_id": int(key[0]),
            "sentence_idx": int(key[1]),
            "segmentation": [rle.encode(mask), rle.encode(np.roll(mask, 1, 0))],
        }
        for key, mask in ((store.dataset.key_of(k), mask) for k, mask in enumerate(masks))
    ]
    joined = tmp_path / "joined.jsonl"
    joined.write_text("\n".join(map(json.dumps, rows)))
    result = rc.score(joined, store, combine="union", save_masks=True)
    same_masks(result, [mask | np.roll(mask, 1, 0) for mask in masks])
    drawn_by = []
    for k, row in enumerate(rows):
        height, width = store.mask(k).shape
        row["segmentation"] = [[0.0, 0.0, width * 0.7, 0.0, width * 0.6, height * 0.9]]
        parts = coco.frPyObjects(row["segmentation"], height, width)
        drawn_by.append(coco.decode(coco.merge(parts)).astype(bool))
    polygons = tmp_path / "polygons.jsonl"
    polygons.write_text("\n".join(map(json.dumps, rows)))
    same_masks(rc.score(polygons, store, polygons="pixels", save_masks=True), drawn_by)


@settings(max_examples=20)
@given(data=st.data())
def test_missing_and_empty_are_told_apart(store, masks, data, tmp_path_factory):
    n = len(store)
    kinds = data.draw(
        st.lists(st.sampled_from(["mask", "empty", "missing"]), min_size=n, max_size=n)
    )
    given_ = {
        k: masks[k] if kind == "mask" else None for k, kind in enumerate(kinds) if kind != "missing"
    }
    result = rc.score(given_, store, missing="zero", save_masks=True)
    folder = tmp_path_factory.mktemp("kinds")
    result.save(folder)
    read = rc.load_results(folder)
    assert pq.read_metadata(folder / "predictions.parquet").num_rows == len(given_)
    for one in (result, read):
        for k, kind in enumerate(kinds):
            assert (one.masks.row(k) == b"") == (kind == "missing")
            np.testing.assert_array_equal(one.mask_of(k), masks[k] & (kind == "mask"))
    again = rc.score(folder / "predictions.parquet", store, missing="zero")
    assert again.per_example.equals(result.per_example)


def test_keys_by_position(tmp_path):
    """Ids repeat from image to image, and the file names examples by position too."""
    lines = []
    for image_id in (4, 9):
        samples = [
            {"id": k, "sentences": ["a", "b"], "mask": rle.encode(mask)}
            for k, mask in enumerate(drawn((20, 30), image_id)[:3])
            if mask.any()
        ]
        lines.append(json.dumps({"image_id": image_id, "samples": samples}))
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    store = rc.MaskStore.build(
        rc.load_dataset(tmp_path / "d.jsonl", key="image_position"), cache=False
    )
    masks = [np.roll(store.mask(k), k, 0) for k in range(len(store))]
    result = rc.score(in_batches(masks), store, save_masks=True)
    result.save(tmp_path / "out")
    again = rc.score(tmp_path / "out" / "predictions.parquet", store)
    assert again.per_example.equals(result.per_example)
    plain = rc.score(tmp_path / "out" / "predictions.parquet", store)
    same_masks(plain.with_masks(tmp_path / "out" / "predictions.parquet"), masks)


# A result and its file ----------------------------------------------------------------------------


def test_what_follows_from_a_result_keeps_its_masks(store, masks):
    result = rc.score(in_batches(masks), store, save_masks=True)
    for one in (result.under("cris"), result.with_slices("size")):
        same_masks(one, masks)


def test_masks_are_read_when_they_are_asked_for(store, masks, tmp_path):
    rc.score(in_batches(masks), store, save_masks=True).save(tmp_path)
    path = tmp_path / "predictions.parquet"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], "is not the file that this result was written with"),
        (None, "the masks of this result are gone"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        result = rc.load_results(tmp_path)
        assert result.n_examples == len(store)
        for ask in (lambda r=result: r.masks, lambda r=result: r.mask_of(0)):
            with pytest.raises(rc.ResultsError, match=message):
                ask()
    assert "predictions_xxh3_128" not in result.info


def test_saving_again(store, masks, tmp_path):
    result = rc.score(in_batches(masks), store, save_masks=True)
    result.save(tmp_path / "a")
    rc.load_results(tmp_path / "a").save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    plain = rc.score(in_batches(masks), store)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "predictions.parquet").write_bytes(b"mine")
    with pytest.raises(rc.UsageError, match=r"already holds a result \(predictions.parquet\)"):
        result.save(mine)
    plain.save(mine)
    assert (mine / "predictions.parquet").read_bytes() == b"mine"
    # Masks of another result do not stay beside a result that has none.
    plain.save(tmp_path / "a", overwrite=True)
    assert sorted(contents(tmp_path / "a")) == ["per_example.parquet", "summary.json"]
    assert rc.load_results(tmp_path / "a").masks is None


def test_a_result_without_masks_says_what_to_do(store, masks):
    with pytest.raises(rc.UsageError, match="save_masks=true"):
        rc.score(in_batches(masks), store).mask_of(0)
    with pytest.raises(IndexError, match="0…"):
        rc.score(in_batches(masks), store, save_masks=True).mask_of(len(store))


# Predictions given again --------------------------------------------------------------------------


def test_predictions_given_again(store, masks, tmp_path):
    plain = rc.score(in_batches(masks), store)
    plain.save(tmp_path)
    for result in (plain, rc.load_results(tmp_path)):
        same_masks(result.with_masks(in_batches(masks)), masks)
        same_masks(result.with_masks(in_batches(masks), store=store), masks)
    assert plain.masks is None


def test_options_of_the_first_reading_hold(store, masks):
    make, options = FORMS["letterboxed"]
    predictions = make(masks)
    result = rc.score(in_batches(predictions), store, **options)
    same_masks(
        result.with_masks(in_batches(predictions)), expected_masks(predictions, store, options)
    )
    with pytest.raises(rc.ResultsError, match="predictions differ"):
        result.with_masks(in_batches(predictions), letterbox=None)


def test_others_are_refused(store, masks, tmp_path):
    result = rc.score(in_batches(masks), store)
    other = [*masks[:-1], masks[-1] ^ True]
    with pytest.raises(
        rc.ResultsError, match=r"1 predictions differ; the first is that of sample_id"
    ):
        result.with_masks(in_batches(other))
    with pytest.raises(rc.ResultsError, match="predictions differ"):
        result.with_masks({0: masks[0]})
    with pytest.raises(rc.ResultsError, match="its hash is"):
        rc.score("sample", "sample").with_masks("sample-coarse")
    with pytest.raises(rc.PredictionError, match="malformed mask"):
        result.with_masks({0: {**rle.encode(masks[0]), "counts": "~"}})


# The command and sweeps ---------------------------------------------------------------------------


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["score", "sample", "dataset=sample", "save_masks=true"]) == 2
    assert "pass output_dir=DIR" in capsys.readouterr().err
    assert main(["score", "sample", "dataset=sample", "save_masks=true", "output_dir=out"]) == 0
    assert "out/predictions.parquet" in capsys.readouterr().out
    again = rc.score("out/predictions.parquet", "sample")
    assert again.per_example.equals(rc.load_results("out").per_example)
    command = ["score", "out/predictions.parquet", "dataset=sample", "save_masks=true"]
    assert main([*command, "output_dir=out", "overwrite=true"]) == 2
    assert "would take its place" in capsys.readouterr().err


def runs_of(root):
    return [str(root / "runs" / "*" / "preds.jsonl")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("swept")
    made_runs(root / "runs", 2)
    rc.sweep(runs_of(root), SWEPT, root / "out", replicates=99, save_masks=True)
    return root


def test_a_sweep_keeps_masks(swept):
    results = rc.load_results(swept / "out")
    assert len(results) == 2
    for number, row in enumerate(results.rows, 1):
        one = rc.load_results(f"{swept / 'out'}:{number}")
        scored = rc.score(row["path"], SWEPT, save_masks=True)
        assert one.masks.data.tolist() == scored.masks.data.tolist()
        assert one.mask_of(1).sum() == one.per_example["pred_area"][1].as_py()
        same = one.with_masks(row["path"])
        assert same.masks.offsets.tolist() == one.masks.offsets.tolist()
        again = rc.score(swept / "out" / row["masks"], SWEPT)
        assert again.per_example.equals(one.per_example)


@pytest.mark.parametrize("damage", ["altered", "deleted"])
def test_a_rerun_mends_masks(swept, tmp_path, damage):
    folder = tmp_path / "out"
    shutil.copytree(swept / "out", folder)

    def rerun(**options):
        return rc.sweep(runs_of(swept), SWEPT, folder, replicates=99, **options)

    whole = contents(folder)
    assert rerun(save_masks=True).n_scored == 0
    assert contents(folder) == whole
    path = sorted((folder / "masks").iterdir())[0]
    name = path.relative_to(folder).as_posix()
    path.unlink() if damage == "deleted" else path.write_bytes(path.read_bytes()[:-1])
    (row,) = (row for row in rc.load_results(folder).rows if row["masks"] == name)
    with pytest.raises(rc.ResultsError, match="masks"):
        _ = rc.load_results(folder)[row["name"]].masks
    outcome = rerun(save_masks=True)
    assert (outcome.n_scored, outcome.repaired) == (1, (name,))
    assert contents(folder) == whole
    # Without the option, masks that are whole stay, and those that are not are deleted.
    assert rerun().n_scored == 0
    assert contents(folder) == whole
    path.unlink() if damage == "deleted" else path.write_bytes(path.read_bytes()[:-1])
    outcome = rerun()
    assert (outcome.n_scored, outcome.repaired) == (0, ())
    assert len([*(folder / "masks").iterdir()]) == 1


def test_masks_of_a_sweep_that_had_none(swept, tmp_path):
    folder = tmp_path / "out"
    options = {"replicates": 99}
    assert rc.sweep(runs_of(swept), SWEPT, folder, **options).n_scored == 2
    assert not (folder / "masks").exists()
    with pytest.raises(rc.UsageError, match="save_masks=true"):
        rc.load_results(f"{folder}:1").mask_of(0)
    assert rc.sweep(runs_of(swept), SWEPT, folder, save_masks=True, **options).n_scored == 2
    assert rc.load_results(f"{folder}:1").masks is not None
    # What the sweep no longer has is deleted.
    first = swept / "runs" / "step-00" / "preds.jsonl"
    rc.sweep([first], SWEPT, folder, **options)
    assert len([*(folder / "masks").iterdir()]) == 1
