"""What is kept of a run says the same when it is read again; nothing of an earlier run stands beside a later one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import write_jsonl
from test_no_target_labels import SAID, is_expected, records, rows_of

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.errors import PredictionError, ResultsError, UsageError


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[rc.Dataset, Path]:
    """A set in which some examples have no target, and predictions that say so."""
    dataset = rc.load_dataset(records(tmp_path))
    return dataset, write_jsonl(tmp_path / "p.jsonl", rows_of(SAID))


def test_saved_masks_keep_the_labels(labelled, tmp_path):
    dataset, path = labelled
    result = rc.score(path, dataset, save_masks=True)
    is_expected(result)
    result.save(tmp_path / "run")
    again = rc.score(tmp_path / "run" / "predictions.parquet", dataset)
    is_expected(again)
    for name in ("rela", "gsva"):
        assert again.under(name).miou == result.under(name).miou
    swept = rc.sweep([path], dataset, tmp_path / "sweep", save_masks=True, replicates=99)
    assert swept.n_failed == 0
    (file,) = (tmp_path / "sweep" / "masks").iterdir()
    is_expected(rc.score(file, dataset))


def test_exports_keep_the_labels(labelled, tmp_path):
    dataset, path = labelled
    folder = rc.export(rc.score(path, dataset, save_masks=True), tmp_path / "coco", truth=dataset)
    is_expected(rc.score(folder / "predictions.json", dataset))


def test_masks_of_predictions_given_again(labelled):
    dataset, path = labelled
    result = rc.score(path, dataset)
    again = result.with_masks(path, store=dataset)
    kept = rc.score(path, dataset, save_masks=True)
    for index in range(len(SAID)):
        assert np.array_equal(again.mask_of(index), kept.mask_of(index))
    boxes = rc.score(
        {0: [0, 0, 1, 1]}, dataset, missing="zero", box_format="xyxy", box_scale="pixels"
    )
    with pytest.raises(UsageError, match="needs masks"):
        boxes.with_masks({0: [0, 0, 1, 1]})


@pytest.mark.parametrize("interpolation", ["nearest", ["bicubic", "bilinear"]])
def test_values_given_again_are_resized_as_they_were(interpolation):
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    rng = np.random.default_rng(0)
    logits = {index: rng.normal(size=(9, 11)) for index in range(len(store))}
    result = rc.score(logits, store, interpolation=interpolation, save_masks=True)
    again = result.with_masks(logits, store=store)
    assert np.array_equal(again.mask_of(3), result.mask_of(3))


def box_rows(**labels):
    dataset = rc.load_dataset("sample")
    rows = []
    for index in range(len(dataset)):
        sample_id, sentence_idx = dataset.key_of(index)
        x, y, w, h = dataset.boxes[dataset.example_sample[index]].tolist()
        row = {"sample_id": sample_id, "sentence_idx": sentence_idx, "box": [x, y, x + w, y + h]}
        rows.append({**row, **{name: values[index] for name, values in labels.items()}})
    return rows


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_rejection_is_no_box(tmp_path, suffix):
    said = [index % 3 == 0 for index in range(297)]
    path = tmp_path / f"b{suffix}"
    rows = box_rows(no_target=said)
    if suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    form = {"box_format": "xyxy", "box_scale": "pixels"}
    result = rc.score(path, "sample", **form)
    assert result.box_iou == pytest.approx(np.mean(np.logical_not(said)), abs=1e-12)
    assert result.n_empty == sum(said)
    wrong = write_jsonl(tmp_path / "w.jsonl", [{**row, "no_target": 0.5} for row in rows])
    with pytest.raises(PredictionError, match="no_target_threshold"):
        rc.score(wrong, "sample", **form)


def test_a_box_result_is_shown():
    form = {"box_format": "xyxy", "box_scale": "pixels"}
    result = rc.score({0: [0, 0, 9, 9]}, "sample", missing="zero", **form)
    assert repr(result).startswith("Result(box_iou=")
    assert "box IoU" in str(result)
    assert "box accuracy" in result._repr_html_()


def test_rows_that_repeat_a_mask_and_say_otherwise_of_it(tmp_path):
    dataset = rc.load_dataset("sample")
    path = tmp_path / "p.parquet"
    rc.convert("sample", path, dataset)
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    twice = write_jsonl(tmp_path / "p.jsonl", [{**row, "g": g} for g in "ab" for row in rows])
    options = {"repeats": "identical", "slices": ["g"]}
    with pytest.raises(PredictionError, match="g is 'b', and 'a' in an earlier row"):
        rc.score(twice, dataset, **options)
    alike = write_jsonl(tmp_path / "q.jsonl", [{**row, "g": "a"} for _ in "ab" for row in rows])
    assert rc.score(alike, dataset, **options).slices("g")["slice"].to_pylist() == ["a"]


def test_nothing_stale_beside_a_new_result(tmp_path):
    words = ["dataset=sample", f"output_dir={tmp_path}/run", "-q"]
    assert main(["score", "sample", *words, "report=true"]) == 0
    assert main(["score", "sample-coarse", *words, "overwrite=true"]) == 0
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "config.yaml",
        "per_example.parquet",
        "summary.json",
    ]
    theirs = tmp_path / "run" / "report.html"
    theirs.write_text("mine")
    assert main(["score", "sample", *words, "overwrite=true"]) == 0
    assert theirs.read_text() == "mine"
    export = [f"output_dir={tmp_path}/coco", "-q"]
    assert (
        main(
            [
                "score",
                "sample",
                "dataset=sample",
                f"output_dir={tmp_path}/kept",
                "save_masks=true",
                "-q",
            ]
        )
        == 0
    )
    assert main(["export", f"{tmp_path}/kept", *export]) == 0
    assert main(["export", "sample", *export, "overwrite=true"]) == 0
    assert [p.name for p in (tmp_path / "coco").iterdir()] == ["instances.json"]


def test_a_folder_of_another_verb_and_the_scored_file_are_left_alone(tmp_path, capsys):
    run = f"output_dir={tmp_path}/run"
    assert main(["score", "sample", "dataset=sample", run, "save_masks=true", "-q"]) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    assert main(["compare", f"{tmp_path}/run", "sample", "dataset=sample", run, "-q"]) == 2
    assert main(["sweep", "sample", "dataset=sample", run, "-q"]) == 2
    assert "holds what refcocom score wrote" in capsys.readouterr().err
    predictions = f"{tmp_path}/run/predictions.parquet"
    assert main(["score", predictions, "dataset=sample", run, "overwrite=true", "-q"]) == 2
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("wrong", [None, 5, {"source": 5}])
@pytest.mark.parametrize("name", ["dataset", "predictions"])
def test_a_summary_that_says_nothing_readable(tmp_path, name, wrong):
    rc.score("sample", "sample").save(tmp_path)
    path = tmp_path / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({**summary, name: wrong}))
    with pytest.raises(ResultsError, match=name):
        rc.load_results(tmp_path)


def test_an_evaluation_is_not_lost_to_an_error():
    dataset = rc.load_dataset("sample")
    metric = rc.integrations.MaskEvaluation(dataset)
    for example in dataset[:-1]:
        metric.add(prediction=example.mask(), reference=example.key)
    with pytest.raises(PredictionError, match="1 missing"):
        metric.compute()
    metric.add(prediction=dataset[-1].mask(), reference=dataset[-1].key)
    assert metric.compute()["miou"] == 1


def test_the_declared_model_is_the_name_of_a_result(tmp_path):
    dataset = rc.load_dataset("sample")
    with rc.PredictionWriter(tmp_path / "p.parquet", dataset, model="mine") as writer:
        for index in writer.pending():
            writer.write(index, dataset[index].mask())
    result = rc.score(tmp_path / "p.parquet", dataset)
    assert result.info["predictions"]["model"] == "mine"
    assert "model='mine'" in repr(result)
    written = rc.publish(result, tmp_path / "out", dataset_id="me/set")
    assert "mine" in written[-1].read_text("utf-8")
