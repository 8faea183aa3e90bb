"""Two versions of a dataset's masks: every number by plain loops over decoded masks, and what is left out is said."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from helpers import coco_decode, real_file, true_masks, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from masks import edge, iou

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.cli.tables.truth_noise import SHOWN_SWAPS, truth_noise_table
from refcocom_gpu.construct.filter import HarmFilter, Words
from refcocom_gpu.construct.judge import judge
from refcocom_gpu.construct.truth_noise import QUANTILES, kendall_tau
from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.errors import DataError, PredictionError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The built-in sample and what `construct` makes of it: other masks, fewer samples, fewer sentences."""
    folder = tmp_path_factory.mktemp("refined")
    made = rc.construct(
        ["sample", "sample-coarse"],
        "sample",
        folder / "sample-m",
        expression_filter=HarmFilter(Words(("red",))),
        pictures="none",
        engine="serial",
    )
    original, refined = rc.load_dataset("sample"), rc.load_dataset(folder / "sample-m")
    assert refined.n_samples < original.n_samples
    # Of some samples that stay, sentences went.
    kept = set(refined.sample_ids.tolist())
    n_of_kept = sum(int(original.sample_ids[s]) in kept for s in original.example_sample.tolist())
    assert refined.n_examples < n_of_kept < original.n_examples
    return original, refined, made.audit, folder / "sample-m"


def by_loops(dataset, truth):
    """Masks in pairs by sample id, which `construct` keeps and the match ignores; sentences in pairs by their text."""
    masks, others = true_masks(dataset), true_masks(truth)
    row_of = {int(sample_id): row for row, sample_id in enumerate(truth.sample_ids)}
    texts = {
        (int(sample), text)
        for sample, text in zip(
            truth.example_sample, truth.examples["sentence"].to_pylist(), strict=True
        )
    }
    samples = {
        row: row_of[int(sample_id)]
        for row, sample_id in enumerate(dataset.sample_ids)
        if int(sample_id) in row_of and iou(masks[row], others[row_of[int(sample_id)]]) >= 0.5
    }
    examples = [
        index
        for index, (sample, text) in enumerate(
            zip(
                dataset.example_sample.tolist(),
                dataset.examples["sentence"].to_pylist(),
                strict=True,
            )
        )
        if sample in samples and (samples[sample], text) in texts
    ]
    return masks, others, samples, examples


def scores_of(pairs):
    """MIoU, cIoU and Pr@X of (prediction, truth) masks."""
    ious = [iou(a, b) for a, b in pairs]
    return {
        "miou": math.fsum(ious) / len(ious),
        "ciou": sum(int((a & b).sum()) for a, b in pairs)
        / sum(int((a | b).sum()) for a, b in pairs),
        "precision_at": {x: sum(i >= x for i in ious) / len(ious) for x in PRECISION_THRESHOLDS},
    }


def found(result):
    return {"miou": result.miou, "ciou": result.ciou, "precision_at": dict(result.precision_at)}


@pytest.mark.parametrize("is_reverse", [False, True])
def test_every_number_is_that_of_plain_loops(pair, is_reverse):
    dataset, truth = pair[1::-1] if is_reverse else pair[:2]
    noise = rc.truth_noise(dataset, truth)
    masks, others, samples, examples = by_loops(dataset, truth)
    assert noise.masks["sample_id"].to_pylist() == dataset.sample_ids[[*samples]].tolist()
    assert noise.masks["truth_sample_id"].to_pylist() == noise.masks["sample_id"].to_pylist()
    assert noise.baseline.per_example["index"].to_pylist() == examples
    expected = {
        "iou": [iou(masks[a], others[b]) for a, b in samples.items()],
        "boundary_iou": [iou(edge(masks[a]), edge(others[b])) for a, b in samples.items()],
    }
    for measure, values in expected.items():
        assert noise.masks[measure].to_pylist() == values
        agreement = noise.agreement(measure)
        assert agreement["mean"] == math.fsum(values) / len(values)
        assert [*agreement["quantiles"].values()] == np.quantile(values, QUANTILES).tolist()
    for name, of in (
        ("area", lambda a, b: a),
        ("truth_area", lambda a, b: b),
        ("intersection", np.logical_and),
    ):
        areas = [int(of(masks[a], others[b]).sum()) for a, b in samples.items()]
        assert noise.masks[name].to_pylist() == areas
    sample = dataset.example_sample
    pairs = [(masks[sample[i]], others[samples[int(sample[i])]]) for i in examples]
    assert found(noise.baseline) == scores_of(pairs)
    edges = dict(zip(samples, expected["boundary_iou"], strict=True))
    of_examples = [edges[int(sample[i])] for i in examples]
    assert noise.baseline.boundary_iou == math.fsum(of_examples) / len(examples)
    summary = noise.summary()
    assert summary["n_masks"] == len(samples)
    assert summary["n_examples_left_out"] == {
        "dataset": dataset.n_examples - len(examples),
        "truth": truth.n_examples - len(examples),
    }
    assert sum(summary["sentences"].values()) == dataset.n_examples
    assert sum(summary["samples"].values()) == dataset.n_samples
    assert f"over {len(examples):,} of {dataset.n_examples:,} examples" in repr(noise)


def test_a_perfect_model_of_either_gets_the_same_on_the_other(pair):
    original, refined, *_ = pair
    there, back = rc.truth_noise(original, refined), rc.truth_noise(refined, original)
    assert found(there.baseline) == found(back.baseline)
    assert there.baseline.boundary_iou == back.baseline.boundary_iou
    assert there.baseline.boundary_f == pytest.approx(back.baseline.boundary_f, abs=1e-12)


def test_it_agrees_with_the_judge(pair):
    """A judge that holds the refined set for the truth finds the same quality of the original masks."""
    original, refined, audit, _ = pair
    kept = audit.instances.filter(audit.instances["kept"])
    judged = judge(type(audit)(kept, audit.expressions, audit.candidates), refined)
    quality = dict(
        zip(judged.table["sample_id"].to_pylist(), judged.quality("original"), strict=True)
    )
    masks = rc.truth_noise(original, refined).masks
    assert masks["iou"].to_pylist() == [quality[s] for s in masks["sample_id"].to_pylist()]


def test_identical_datasets_agree_exactly(pair):
    for dataset in pair[:2]:
        noise = rc.truth_noise(dataset, dataset)
        assert set(noise.masks["iou"].to_pylist()) == {1.0}
        assert set(noise.masks["boundary_iou"].to_pylist()) == {1.0}
        baseline = noise.baseline
        assert {baseline.miou, baseline.ciou, *baseline.precision_at.values()} == {1.0}
        assert set(baseline.boundary_scores.values()) == {1.0}
        assert baseline.n_examples == dataset.n_examples
        assert noise.summary()["n_examples_left_out"] == {"dataset": 0, "truth": 0}


def shifted(mask):
    return np.roll(mask, 2, axis=1)


@pytest.fixture(scope="module")
def runs(pair):
    """Runs for the original, as masks by index: each version drawn perfectly, a third, and one that misses examples."""
    original, refined, *_ = pair
    masks, others, samples, _ = by_loops(original, refined)
    sample = original.example_sample.tolist()
    return {
        "as original": {i: masks[s] for i, s in enumerate(sample)},
        "as refined": {
            i: others[samples[s]] if s in samples else masks[s] for i, s in enumerate(sample)
        },
        "shifted": {i: shifted(masks[s]) for i, s in enumerate(sample)},
        "half": {i: masks[s] for i, s in enumerate(sample) if i % 2},
    }


def test_runs_are_scored_and_ranked_on_both(pair, runs):
    original, refined, *_ = pair
    noise = rc.truth_noise(original, refined, runs, missing="zero")
    masks, others, samples, examples = by_loops(original, refined)
    sample = original.example_sample.tolist()
    nothing = {s: np.zeros_like(mask) for s, mask in enumerate(masks)}
    for run in noise.runs:
        drawn = [runs[run.name].get(i, nothing[sample[i]]) for i in examples]
        on_a = [(p, masks[sample[i]]) for p, i in zip(drawn, examples, strict=True)]
        on_b = [(p, others[samples[sample[i]]]) for p, i in zip(drawn, examples, strict=True)]
        assert found(run.on_dataset) == scores_of(on_a)
        assert found(run.on_truth) == scores_of(on_b)
        n_missing = sum(i not in runs[run.name] for i in examples)
        assert (run.on_dataset.n_missing, run.on_truth.n_missing) == (n_missing, n_missing)
    by_name = {run.name: run for run in noise.runs}
    assert (by_name["as original"].on_dataset.miou, by_name["as refined"].on_truth.miou) == (1, 1)
    assert noise.ranks[:2].tolist() == [[1, 2], [2, 1]]
    assert ("as original", "as refined") in noise.swaps
    for column in (0, 1):
        expected = scipy.stats.rankdata(-noise.mious[:, column], method="min").tolist()
        assert noise.ranks[:, column].tolist() == expected
    assert noise.tau == pytest.approx(scipy.stats.kendalltau(*noise.mious.T).statistic, abs=1e-12)
    # Without ties, each swap takes 2 of the pairs' agreement.
    assert noise.tau == pytest.approx(1 - 2 * len(noise.swaps) / 6, abs=1e-12)
    text = truth_noise_table(noise)
    n_missing = by_name["half"].on_dataset.n_missing
    assert text.count("missing, scored as empty") == 1
    assert f"({n_missing:,} missing, scored as empty)" in text
    assert "as original is better on A, as refined on B" in text
    # The folder of B and the remark on missing examples may be longer.
    lines = [line for line in text.splitlines()[3:] if not line.endswith("scored as empty)")]
    assert max(map(len, lines)) <= 100
    json.dumps(noise.summary(), allow_nan=False)


def test_mistakes_of_a_run_are_told(pair, runs):
    with pytest.raises(PredictionError, match="no prediction for"):
        rc.truth_noise(*pair[:2], {"half": runs["half"]})
    with pytest.raises(UsageError, match="missing must be"):
        rc.truth_noise(*pair[:2], missing="skip")


def test_many_swaps_are_counted_and_some_listed(pair):
    """Runs that move from the one version to the other, sample by sample."""
    original, refined, *_ = pair
    masks, others, samples, _ = by_loops(original, refined)
    sample = original.example_sample.tolist()
    steps = np.linspace(0, len(masks), 6).astype(int).tolist()
    drawn = {
        f"step {step}": {
            i: others[samples[s]] if s in samples and s < step else masks[s]
            for i, s in enumerate(sample)
        }
        for step in steps
    }
    noise = rc.truth_noise(original, refined, drawn)
    assert (noise.tau, len(noise.swaps)) == (-1, 15)
    text = truth_noise_table(noise)
    assert "15 of 15 pairs swap" in text
    assert text.count("is better on A") == SHOWN_SWAPS
    assert "… and 5 more" in text


def test_no_order_to_compare(pair, runs):
    same = {"one": runs["as original"], "two": runs["as original"]}
    noise = rc.truth_noise(*pair[:2], same)
    assert noise.ranks.tolist() == [[1, 1], [1, 1]]
    assert (noise.swaps, noise.summary()["kendall_tau"]) == ([], None)
    assert "all scores are equal" in truth_noise_table(noise)
    assert rc.truth_noise(*pair[:2]).summary()["kendall_tau"] is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_tau_is_that_of_scipy(scores):
    a, b = np.array(scores, np.float64).reshape(-1, 2).T
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert math.isnan(kendall_tau(a, b))
    else:
        assert kendall_tau(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic, abs=1e-12)


def test_datasets_that_have_nothing_in_common(tmp_path):
    others = [
        {**record, "image_id": record["image_id"] + 10**6, "file_name": ""}
        for record in make_records(2)
    ]
    for record in others:
        record["samples"] = [{**s, "image_id": record["image_id"]} for s in record["samples"]]
    path = write_jsonl(tmp_path / "others.jsonl", others)
    with pytest.raises(DataError, match=r"no example of sample has a counterpart in .*others"):
        rc.truth_noise("sample", path)


def test_samples_without_a_sentence_count_as_masks(tmp_path):
    """Their masks are a pair; no example is of them."""
    records = make_records(2)
    bare = [dict(record, samples=[dict(s) for s in record["samples"]]) for record in records]
    bare[0]["samples"][0]["sentences"] = []
    path = write_jsonl(tmp_path / "bare.jsonl", bare)
    full = rc.load_dataset(write_jsonl(tmp_path / "full.jsonl", records), cache=False)
    for dataset, truth in ((path, full), (full, path)):
        noise = rc.truth_noise(dataset, truth)
        assert noise.masks.num_rows == full.n_samples
        lost = len(records[0]["samples"][0]["sentences"])
        assert noise.baseline.n_examples == full.n_examples - lost


def test_real_masks_beside_polygons_of_few_corners(tmp_path):
    """Masks of COCO beside the same simplified, as an annotator in a hurry draws them."""
    import cv2

    path = real_file("refcoco/refcoco_m_like.jsonl")
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record in records:
        for sample in record["samples"]:
            mask = coco_decode(sample["mask"]["size"], sample["mask"]["counts"]).astype(np.uint8)
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            few = [cv2.approxPolyDP(outline, 4, True) for outline in outlines]
            drawn = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(drawn, few, 1)
            sample["mask"] = rle.encode(drawn.astype(bool))
    coarse = rc.load_dataset(write_jsonl(tmp_path / "coarse.jsonl", records), cache=False)
    real = rc.load_dataset(path, cache=False)
    noise = rc.truth_noise(coarse, real)
    masks, others, samples, _ = by_loops(coarse, real)
    expected = {int(coarse.sample_ids[a]): iou(masks[a], others[b]) for a, b in samples.items()}
    measured = dict(zip(*(noise.masks[c].to_pylist() for c in ("sample_id", "iou")), strict=True))
    assert measured.items() <= expected.items()
    assert len(measured) > 0.8 * real.n_samples
    assert 0.7 < noise.agreement()["mean"] < 0.98
    assert noise.agreement("boundary_iou")["mean"] < noise.agreement()["mean"]


# The command.


def test_the_command(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = pair[3]
    assert main(["explain", "dataset=sample", f"truth={folder}"]) == 0
    alone = capsys.readouterr().out
    assert alone == truth_noise_table(rc.truth_noise("sample", folder)) + "\n"
    words = ["explain", "sample", "sample-coarse", "dataset=sample", f"truth={folder}"]
    assert main([*words, "json=true"]) == 0
    runs = {"sample": "sample", "sample-coarse": "sample-coarse"}
    summary = rc.truth_noise("sample", folder, runs).summary()
    assert json.loads(capsys.readouterr().out) == summary
    assert main([*words, "quiet=true"]) == 0
    assert capsys.readouterr().out == ""
    assert [*tmp_path.iterdir()] == []


def test_what_was_scored_is_read_again(pair, tmp_path, monkeypatch, capsys):
    """The folder of a sweep or of a result holds no masks; it names their files."""
    monkeypatch.chdir(tmp_path)
    for name, kind in (("a", "good"), ("b", "coarse")):
        Path(name).mkdir()
        write_jsonl(Path(name) / "preds.jsonl", make_predictions(make_records(), kind, 3))
    assert (
        main(
            ["sweep", "*/preds.jsonl", "dataset=sample", "output_dir=sweep", "engine=serial", "-q"]
        )
        == 0
    )
    assert main(["score", "a/preds.jsonl", "dataset=sample", "output_dir=one", "-q"]) == 0
    assert main(["score", "sample", "dataset=sample", "output_dir=built-in", "-q"]) == 0
    end = ["dataset=sample", f"truth={pair[3]}", "json=true"]
    found = []
    for words in (["sweep"], ["one", "b/preds.jsonl"], ["a/preds.jsonl", "b/preds.jsonl"]):
        assert main(["explain", *words, *end]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] == found[2]
    assert [run["name"] for run in found[0]["runs"]] == ["a", "b"]
    assert main(["explain", "built-in", *end]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["dataset"]["rank"], run["truth"]["rank"]) == (1, 1)
    rc.score(dict(enumerate(map(rc.MaskStore.build(pair[0]).mask, range(297)))), pair[0]).save(
        "memory"
    )
    assert main(["explain", "memory", *end]) == 2
    assert "memory does not name the files of its predictions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["truth=nowhere"], 2, "nowhere"),
        (["truth=sample", "reported=71.2"], 2, "two questions"),
        (["sample", "truth_split=test"], 2, "truth_split is the split of truth"),
        (["nowhere.jsonl", "truth=sample"], 2, "no prediction file at nowhere.jsonl"),
    ],
)
def test_wrong_calls(tmp_path, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "dataset=sample", *words]) == code
    assert said in capsys.readouterr().err
