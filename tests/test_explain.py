"""`explain`: reasons that add up, published numbers that are found or not, and the command as a person sees it."""

import json
import re
import shlex
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import sample_case
from hypothesis import given
from hypothesis import strategies as st
from test_conventions import TINY, like_refcoco_m, pairs, result_of

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.cli.tables.conventions import explain_table, reported_table
from refcocom_gpu.cli.tables.result import score_table
from refcocom_gpu.scores import under
from refcocom_gpu.scores.conventions import CONVENTIONS
from refcocom_gpu.scores.explain import Row, _row, explain
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.reported import candidates, read_reported, search

ROOT = Path(__file__).parents[1]


def rows_of(result):
    return {row.convention.name: row for row in explain(result)}


@given(st.lists(pairs, min_size=1, max_size=30))
def test_reasons_add_up(counts):
    result = like_refcoco_m(counts)
    for name, row in rows_of(result).items():
        official, other = result, result.under(name)
        total = dict.fromkeys(
            ("mIoU", "cIoU", *(f"Pr@{x}" for x in row.convention.thresholds)), 0.0
        )
        for reason in row.reasons:
            assert reason.changes
            for score, change in reason.changes.items():
                total[score] += change
        assert total["mIoU"] == pytest.approx(other.miou - official.miou, abs=1e-12)
        if row.convention.names[1]:
            assert total["cIoU"] == pytest.approx(other.ciou - official.ciou, abs=1e-12)
        for x, share in other.precision_at.items():
            change = share - official.precision_at[x]
            assert total[f"Pr@{x}"] == pytest.approx(change, abs=1e-12)
        assert row.scores.miou == other.miou


def test_reasons_by_hand():
    rows = rows_of(result_of(TINY))
    texts = {name: [reason.text for reason in row.reasons] for name, row in rows.items()}
    assert texts["official"] == []
    assert texts["lavt"] == ["gives 1 example whose two masks are empty 0, not 1"]
    assert rows["lavt"].reasons[0].changes["mIoU"] == pytest.approx(-1 / 6)
    assert texts["rela"] == ["takes Pr@X over the 4 examples that have a target"]
    assert rows["rela"].reasons[0].changes["Pr@0.8"] == pytest.approx(1 / 4 - 2 / 6)
    assert texts["x_sam"] == [
        "leaves out 1 example without a prediction",
        "scores equal sentences of an instance once: 4 of 6 examples",
    ]
    assert [r.changes["mIoU"] for r in rows["x_sam"].reasons] == pytest.approx(
        [3.2 / 5 - 3.2 / 6, 2.2 / 4 - 3.2 / 5]
    )
    assert texts["cris"] == [
        "scores the first sentence of each instance: 2 of 6 examples",
        "gives 1 example whose two masks are empty 0, not 1",
        "adds 1e-6 to each union",
    ]
    assert texts["mmdet"][:2] == texts["cris"][:2]


def test_strictness_is_a_reason_of_its_own():
    """Two equal counts of 2**-1: without an epsilon, `>` is what tells them apart."""
    strict = replace(CONVENTIONS["official"], strict=True)
    result = result_of([((1, 0), "", 1, 1, 2, "scored")])
    table = result.per_example
    of_table = partial(under.scores, table=table, thresholds=PRECISION_THRESHOLDS)
    (reason,) = _row(strict, table, of_table).reasons
    assert reason.text == "counts Pr@X where IoU > X, not ≥ X"
    assert reason.changes == {"Pr@0.5": -1.0}


@pytest.mark.parametrize(
    ("text", "tolerance", "value", "reach", "percent"),
    [
        ("0.712", None, 0.712, 0.0005, False),
        (".71", None, 0.71, 0.005, False),
        ("71.2", None, 0.712, 0.0005, True),
        ("71", None, 0.71, 0.005, True),
        ("71.20 %", None, 0.712, 0.00005, True),
        ("0.7%", None, 0.007, 0.0005, True),
        ("1", None, 1.0, 0.5, False),
        ("100", None, 1.0, 0.005, True),
        ("71.2", "1.5", 0.712, 0.015, True),
        ("0.712", "0.002", 0.712, 0.002, False),
    ],
)
def test_how_a_number_is_read(text, tolerance, value, reach, percent):
    found = read_reported(text, tolerance)
    assert (found.value, found.percent) == (value, percent)
    assert found.tolerance == pytest.approx(reach)


@pytest.mark.parametrize(
    ("text", "tolerance", "said"),
    [
        ("many", None, "must be a number such as"),
        ("-3", None, "must be a number such as"),
        ("712", None, "neither a fraction"),
        ("71.2", "wide", "tolerance must be a number"),
        ("71.2", "-1", "tolerance must be a number"),
    ],
)
def test_what_is_no_number(text, tolerance, said):
    with pytest.raises(rc.UsageError, match=said):
        read_reported(text, tolerance)


@cache
def scored():
    return rc.score("sample-coarse", sample_case().store)


@pytest.fixture(scope="module")
def coarse():
    return scored()


@given(st.data())
def test_every_printed_score_is_found_again(data):
    """Whatever evaluator printed it, in percent with two decimals or as a fraction with four."""
    coarse = scored()
    name = data.draw(st.sampled_from(sorted(CONVENTIONS)))
    score, value = data.draw(st.sampled_from(sorted(rows_of(coarse)[name].printed.items())))
    text = data.draw(st.sampled_from([f"{100 * value:.2f}%", f"{value:.4f}"]))
    matches = search(coarse, read_reported(text)).matches
    assert any((m.score, m.of) == (score, name) for m in matches)
    assert all(abs(m.value - value) <= 1.1e-4 for m in matches)


def test_mistakes_are_candidates(coarse):
    iou, table = coarse.iou, coarse.per_example
    samples = table["sample_id"].to_numpy()
    best = [iou[samples == s].max() for s in np.unique(samples)]
    images = table["image_id"].to_numpy()
    by_image = [iou[images == i].mean() for i in np.unique(images)]
    first = iou[table["sentence_idx"].to_numpy() == 0]
    expected = {
        "the best sentence of each instance": np.mean(best),
        "the mean of images": np.mean(by_image),
        "the mean of instances": coarse.miou_per_instance,
        "the first sentence of each instance": first.mean(),
    }
    found = {c.of: c.value for c in candidates(coarse, explain(coarse)) if c.score == "mIoU"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12)
    assert "without the missing examples" not in found
    with_missing = result_of(TINY)
    found = {c.of: c.value for c in candidates(with_missing, explain(with_missing))}
    assert "without the missing examples" in found
    strict = {
        c.score: c.value
        for c in candidates(with_missing, explain(with_missing))
        if c.of == "with > instead of ≥"
    }
    assert strict == {"Pr@0.5": 3 / 6, "Pr@0.7": 2 / 6}


def test_none_matches_and_it_is_said(coarse):
    found = search(coarse, read_reported("0.9999"))
    assert found.matches == ()
    assert len(found.nearest) == 3
    text = reported_table(coarse, found)
    assert "No score of any convention, or of a simple mistake, comes within. Nearest:" in text
    assert "Counts cannot show: examples that a distributed sampler repeats" in text
    assert found.summary()["matches"] == []
    assert found.summary()["nearest"][0]["difference"] < 0


def test_a_mean_under_the_name_of_ciou(coarse):
    text = reported_table(coarse, search(coarse, read_reported(f"{100 * coarse.miou:.3f}")))
    assert "If it was published as cIoU or oIoU, it is a mean under a wrong name." in text
    text = reported_table(coarse, search(coarse, read_reported(f"{100 * coarse.ciou:.3f}")))
    assert "If it was published as mIoU or gIoU, it is ΣI / ΣU under a wrong name." in text


def test_tables_fit_a_terminal(coarse):
    tables = [
        explain_table(coarse, explain(coarse)),
        explain_table(result_of(TINY), explain(result_of(TINY))),
        reported_table(coarse, search(coarse, read_reported("54.2"))),
        reported_table(coarse, search(coarse, read_reported("0.5", "0.5"))),
    ]
    assert max(len(line) for table in tables for line in table.splitlines()) <= 100
    for name, convention in CONVENTIONS.items():
        (line,) = (x for x in tables[0].splitlines() if re.match(rf"  {name} +[\d,]+ ", x))
        caveat = convention.caveat()
        assert ("≈" in line) == caveat.startswith("needs")
        assert ("~" in line) == (caveat == "float32 sums")
        assert line.count("·") == 7 - len(rows_of(coarse)[name].printed)


# The command.


@pytest.fixture
def folder(tmp_path, monkeypatch, coarse):
    monkeypatch.chdir(tmp_path)
    coarse.save("run")
    return tmp_path


def test_a_result_and_its_predictions_are_explained_alike(folder, capsys):
    assert main(["explain", "run"]) == 0
    of_counts = capsys.readouterr().out
    assert "needs resized ground truth: score again with convention=lavt" in " ".join(
        of_counts.split()
    )
    rc.score("sample-coarse", sample_case().store, convention="lavt").save("lavt")
    assert main(["explain", "lavt"]) == 0
    saved = capsys.readouterr().out
    assert main(["explain", "sample-coarse", "dataset=sample"]) == 0
    assert capsys.readouterr().out == saved
    assert re.search(r"\n  lavt +297 +54\.27 +58\.22 +69\.70", saved)
    assert re.search(r"\n  rela +297 +≈54\.27 +≈58\.22", saved)
    assert re.search(r"\n  lavt +297 +≈54\.24 +≈60\.00", of_counts)
    assert "scores the first sentence of each instance: 105 of 297 examples" in saved
    assert "(needs logits: score its 104² ones with letterbox=center convention=cris)" in " ".join(
        saved.split()
    )
    assert sorted(path.name for path in folder.iterdir()) == ["lavt", "run"]


def test_json(folder, capsys, coarse):
    assert main(["explain", "run", "reported=54.2", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_name = {row["convention"]: row for row in found["conventions"]}
    assert list(by_name) == list(CONVENTIONS)
    assert by_name["official"]["scores"]["mIoU"] == coarse.miou
    assert by_name["cris"]["n_examples"] == 105
    assert "cIoU" not in by_name["cris"]["scores"]
    assert (by_name["cris"]["approximate"], by_name["official"]["approximate"]) == (True, False)
    assert found["search"]["read_as"] == "percent"
    assert found["search"]["matches"][0]["of"] == "official"
    assert main(["explain", "run", "quiet=true"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "nothing to explain: refcocom explain RESULT"),
        (["nowhere", "dataset=sample"], 2, "no prediction file at nowhere"),
        (["run", "tolerance=1"], 2, "tolerance is that of a published number"),
        (["run", "reported=best"], 2, "reported must be a number such as"),
        (["run", "convention=lisa"], 2, "explain has no key 'convention'"),
        (["half"], 3, "half holds no result: per_example.parquet is missing"),
    ],
)
def test_wrong_calls(folder, capsys, words, code, said):
    Path("half").mkdir()
    Path("half/summary.json").write_text(Path("run/summary.json").read_text("utf-8"), "utf-8")
    assert main(["explain", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_score_under_another_convention(folder, capsys):
    assert main(["score", "sample", "dataset=sample", "convention=cris", "output_dir=cris"]) == 0
    out = capsys.readouterr().out
    assert "sample: 105 of 297 examples; convention cris;" in out
    assert "≈ approximate, needs logits: score its 104² ones with letterbox=center" in out
    assert "Pr@0.5 (>)         ≈" in out
    assert "cIoU" not in out.partition("\n\n")[2]
    summary = json.loads(Path("cris/summary.json").read_text("utf-8"))
    assert (summary["convention"], summary["precision"]) == ("cris", ">")
    assert summary["approximate"].startswith("needs logits")
    assert len(pq.read_table("cris/per_example.parquet")) == 297
    assert main(["score", "sample", "dataset=sample", "convention=cris", "precision=ge"]) == 0
    assert "Pr@0.5 (≥)" in capsys.readouterr().out
    assert main(["explain", "cris"]) == 0
    assert re.search(r"official +297 +86\.26 +84\.58 +94\.61", capsys.readouterr().out)


def test_score_under_all(folder, capsys):
    words = ["score", "sample", "dataset=sample"]
    assert main(words) == 0
    alone, _, _ = capsys.readouterr().out.rpartition("\n\n")
    assert main([*words, "convention=all", "output_dir=all"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(alone)
    assert all(re.search(rf"^  {name} ", out, re.M) for name in CONVENTIONS)
    assert json.loads(Path("all/summary.json").read_text("utf-8"))["convention"] == "official"
    assert main([*words, "convention=all", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["convention"] == "official"
    assert [row["convention"] for row in found["conventions"]] == list(CONVENTIONS)


@pytest.mark.parametrize("verb", ["sweep", "compare"])
def test_other_verbs_take_the_official_convention_only(folder, capsys, verb):
    words = {
        "sweep": ["sample", "output_dir=out"],
        "compare": ["sample", "sample-coarse"],
    }[verb]
    code = {"sweep": 2, "compare": 3}[verb]
    assert main([verb, *words, "dataset=sample", "convention=lisa"]) == code
    assert "lisa" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_lines_of_the_page(folder, capsys):
    page = (ROOT / "docs" / "conventions.md").read_text("utf-8")
    store = sample_case().store
    with rc.PredictionWriter("preds.parquet", store.dataset, model="m") as writer:
        for index in writer.pending():
            writer.write(index, store.mask(index))
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.S)
    lines = [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]
    assert lines
    for words in lines:
        assert words[0] == "refcocom"
        assert main(words[1:]) == 0, words
    capsys.readouterr()


def test_missing_examples_are_said_as_the_convention_treats_them(folder, capsys):
    store = sample_case().store
    some = [(k, store.mask(k)) for k in range(len(store) - 3)]
    rc.score(some, store, missing="zero").save("some")
    assert main(["explain", "some"]) == 0
    out = capsys.readouterr().out
    assert "3 examples have no prediction" in out
    assert "leaves out 3 examples without a prediction; mIoU +1.01" in out
    left_out = rc.score(some, store, missing="zero", convention="x_sam")
    assert left_out.miou == 1.0
    assert "100.00 %   (3 missing, left out)" in score_table(left_out)


def test_what_is_not_a_number_is_null():
    rows = {row["convention"]: row for row in map(Row.summary, explain(NOTHING))}
    json.dumps(list(rows.values()), allow_nan=False)
    assert rows["lavt"]["scores"]["cIoU"] is None
    assert rows["official"]["scores"]["cIoU"] == 1.0
    assert "nan" in explain_table(NOTHING, explain(NOTHING))


NOTHING = result_of([((1, 0), "", 0, 0, 0, "empty")])


def test_a_wrong_path_is_told_before_the_hub_is_asked(folder, capsys, monkeypatch):
    def asked(*_, **__):
        raise AssertionError

    monkeypatch.setattr("refcocom_gpu.cli.verbs.explain.load", asked)
    assert main(["explain", "nothere"]) == 2
    assert "no prediction file at nothere" in capsys.readouterr().err
