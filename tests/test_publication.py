"""What may be published of results: the numbers are those of the results, and what they lack is said."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import yaml
from helpers import sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.scores.boxes import STATED_COLUMNS
from refcocom_gpu.scores.leaderboard.rows import make_leaderboard
from refcocom_gpu.scores.publication import CARD, FOLDER, LATEX, MARKDOWN
from refcocom_gpu.scores.publish import eval_results
from refcocom_gpu.scores.scored_result import ScoredResult

CASE = sample_case()
EVERY = ("iou", "boundary", "causes", "boxes", "consistency")
FINE = rc.score("sample", CASE.store, metrics=EVERY)
COARSE = rc.score("sample-coarse", CASE.store)
ID = "me/copy"


def with_dataset(result, **about):
    return replace(result, info={**result.info, "dataset": {**result.info["dataset"], **about}})


def publish(results, folder, **options):
    """Publish what is complete; return the text of each file by its name."""
    written = rc.publish(results, folder, **{"dataset_id": ID, **options})
    assert all(path.is_file() for path in written)
    return {path.name: path.read_text("utf-8") for path in written}


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])["model-index"]


def test_a_table_of_a_result_makes_the_row_that_its_store_makes():
    """The leaderboard of a result's own table is that of the ground truth, in every column."""
    from refcocom_gpu.scores.leaderboard.examples import Examples

    files = [ScoredResult.of(FINE), ScoredResult.of(COARSE)]
    about = FINE.info["dataset"]
    own = make_leaderboard(files, Examples.of_table(FINE.per_example, about), replicates=99)
    true = make_leaderboard(files, CASE.store, replicates=99)
    assert own.table.equals(true.table)
    assert own.about == true.about
    row = own.ranked[0]
    assert row["miou"] == FINE.miou
    assert (row["box_iou"], row["boundary_f"]) == (FINE.box_iou, FINE.boundary_f)
    assert row["pairwise_iou"] == FINE.pairwise_iou
    shares = [cause["share"] for cause in FINE.cause_summary["shares"]]
    names = [c["cause"].replace(" ", "_").replace("-", "_") for c in FINE.cause_summary["shares"]]
    assert [row[f"cause_{name}"] for name in names] == shares
    tight = replace(FINE, box_truth="mask")
    (row,) = make_leaderboard([ScoredResult.of(tight)], CASE.store, replicates=99).ranked
    assert row["box_iou"] == tight.box_iou
    assert {*STATED_COLUMNS}.isdisjoint(ScoredResult.of(tight).measured)
    assert {*STATED_COLUMNS} <= {*ScoredResult.of(FINE).measured}


def test_one_result(tmp_path):
    files = publish(FINE, tmp_path / "out", names=["mine"])
    assert [*files] == ["copy.yaml", LATEX, MARKDOWN, CARD]
    assert yaml.safe_load(files["copy.yaml"]) == eval_results(FINE, dataset_id=ID)
    (model,) = metadata(files[CARD])
    (of_set,) = model["results"]
    assert (model["name"], of_set["dataset"]["type"]) == ("mine", ID)
    assert [metric["value"] for metric in of_set["metrics"]] == [
        entry["value"] for entry in eval_results(FINE, dataset_id=ID)
    ]
    for text in (files[CARD], files[MARKDOWN], files[LATEX]):
        for part in (f"{100 * FINE.miou:.2f}", f"{100 * FINE.ciou:.2f}", "convention official"):
            assert part in text
        assert FINE.info["dataset"]["fingerprint"] in text
        assert "Split validation" in text
        assert "297" in text
        assert "interval of a score, clustered by image" in text
        assert "incomplete" not in text.lower()
    low, high = map(
        float, re.search(r"\| mIoU \| [\d.]+ \| ([\d.]+) to ([\d.]+)", files[CARD]).groups()
    )
    se = float(re.search(r"± ([\d.]+)", files[MARKDOWN])[1])
    assert (low + high) / 2 == pytest.approx(100 * FINE.miou, abs=0.02)
    assert (high - low) / 2 == pytest.approx(2.03 * se, abs=0.03)
    hub = pytest.importorskip("huggingface_hub")
    assert hub.ModelCard(files[CARD]).data.eval_results[0].metric_value == round(100 * FINE.miou, 4)


def test_several_results_have_joint_intervals(tmp_path):
    COARSE.save(tmp_path / "coarse")
    files = publish([FINE, tmp_path / "coarse"], tmp_path / "out", names=["a", "b_c"])
    difference = f"{100 * (COARSE.miou - FINE.miou):+.2f}"
    assert re.search(
        rf"\| b_c \|.*\| {re.escape(difference)} \\\[-[\d.]+, -[\d.]+] \|", files[MARKDOWN]
    )
    assert difference in files[LATEX]
    assert r"b\_c &" in files[LATEX]
    assert r"\toprule" in files[LATEX]
    assert metadata(files[CARD])[0]["name"] == "a"
    assert "b_c" not in files["copy.yaml"]


def test_rows_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rc.sweep(["sample", "sample-coarse"], "sample", tmp_path / "sweep", replicates=99)
    whole = publish(rc.load_results(tmp_path / "sweep"), "whole")
    rows = publish(["sweep:1", "sweep:2"], "rows")
    assert whole == rows == publish("sweep", "again")


def test_what_is_missing_is_said_and_not_for_the_hub(tmp_path):
    rows = CASE.rows()[2:]
    path = write_jsonl(tmp_path / "p.jsonl", [*rows, rows[0]])
    result = rc.score(path, CASE.store, missing="zero", repeats="identical")
    result = with_dataset(result, source="me/set", revision="0123456789" * 4)
    with pytest.warns(UserWarning, match="no metadata for the Hub was written: 2 of 297 examples"):
        files = publish(result, tmp_path / "out", dataset_id=None)
    assert [*files] == [LATEX, MARKDOWN, CARD]
    assert "**Incomplete: 2 missing, scored as empty.**" in files[CARD]
    assert "model-index" not in files[CARD]
    for text in files.values():
        assert (
            "p: incomplete, 2 missing, scored as empty; 1 prediction that repeats"
            in text.replace("that repeat the", "that repeats the")
        )
        assert str(tmp_path) not in text
    with pytest.raises(rc.UsageError, match="must cover all of them"):
        publish(result, tmp_path / "asked")
    assert not (tmp_path / "asked").exists()


def test_a_file_for_the_hub_of_another_result_does_not_stay(tmp_path):
    publish(FINE, tmp_path, dataset_id="me/sample")
    with pytest.raises(rc.UsageError, match=r"sample\.yaml already exists.*it would stay"):
        publish(FINE, tmp_path, dataset_id=None, overwrite=True)


def test_nothing_is_replaced_without_being_asked(tmp_path):
    first = publish(FINE, tmp_path)
    with pytest.raises(rc.UsageError, match=r"already holds a result \(model_card\.md"):
        publish(COARSE, tmp_path)
    (tmp_path / "other.txt").write_text("kept")
    assert publish(COARSE, tmp_path, overwrite=True) != first
    assert publish(FINE, tmp_path, overwrite=True) == first
    names = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert names == {CARD, LATEX, MARKDOWN, f"{FOLDER}/copy.yaml", "other.txt"}


def boxes():
    index = np.arange(len(CASE.masks))
    given = [(index, np.tile([1.0, 2.0, 30.0, 40.0], (len(index), 1)))]
    return rc.score(given, CASE.store, box_format="xyxy", box_scale="pixels")


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        (
            lambda: [FINE, with_dataset(COARSE, fingerprint="f" * 32)],
            rc.ComparisonError,
            "different datasets",
        ),
        (lambda: [FINE, COARSE.under("cris")], rc.ComparisonError, "different conventions"),
        (
            lambda: COARSE.under("cris"),
            rc.UsageError,
            "a publication follows the convention official",
        ),
        (
            lambda: [FINE, replace(COARSE, precision_strict=True)],
            rc.ComparisonError,
            r"Pr@X of sample",
        ),
        (boxes, rc.UsageError, "predictions are boxes"),
        (lambda: [FINE, FINE], rc.UsageError, r"2 results have the name 'sample'; name each"),
        (list, rc.UsageError, "no result to publish"),
        (lambda: "nowhere", rc.ResultsError, "nowhere"),
    ],
)
def test_what_cannot_stand_in_one_table(tmp_path, results, error, message):
    with pytest.raises(error, match=message):
        rc.publish(results(), tmp_path / "out", dataset_id=ID)
    assert not (tmp_path / "out").exists()


def test_names_are_one_for_each(tmp_path):
    with pytest.raises(rc.UsageError, match="there are 1 results, and 2 names"):
        rc.publish(FINE, tmp_path, names=["a", "b"])


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FINE.save("fine")
    COARSE.save("coarse")
    words = ["publish", "fine", "coarse", "output_dir=out", "names=[a b,c]", f"dataset_id={ID}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*words, "json=true"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "written": [f"out/{FOLDER}/copy.yaml", f"out/{LATEX}", f"out/{MARKDOWN}", f"out/{CARD}"]
    }
    assert "| a b |" in (tmp_path / "out" / MARKDOWN).read_text("utf-8")
    assert main(words) == 2
    assert "pass overwrite=true" in capsys.readouterr().err
    assert main([*words, "overwrite=true", "quiet=true"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["publish", "fine"]) == 2
    assert main(["publish", "output_dir=out"]) == 2
    assert main(["publish", "nowhere", "output_dir=new"]) == 3
    capsys.readouterr()
    assert main(["publish", "fine", "output_dir=without"]) == 0
    assert "warning: no metadata for the Hub was written" in capsys.readouterr().err


def test_an_older_publication_is_not_uploaded_with_a_new_one(tmp_path):
    publish(FINE, tmp_path, dataset_id="me/older")
    with pytest.raises(rc.UsageError, match=r"older\.yaml of another publication"):
        publish(FINE, tmp_path, overwrite=True)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["older.yaml"]
