"""A run on a larger version of a dataset, scored on this one: what it holds beside is counted, never guessed."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import coco_encode, problems_of, sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main

CASE = sample_case()
N = len(CASE.masks)


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    """What `construct` makes of the sample when it removes sentences: the positions of those behind them move."""
    folder = tmp_path_factory.mktemp("smaller")
    (folder / "words.txt").write_text("left\nred\n")
    words = [f"words={folder / 'words.txt'}", f"output_dir={folder / 'set'}", "quiet=true"]
    assert main(["construct", "[sample,sample-coarse]", "dataset=sample", *words]) == 0
    return rc.MaskStore.build(rc.load_dataset(folder / "set"), cache=False)


def run_rows(*names: str) -> list[dict]:
    """The whole run on the sample, with what its rows say of their examples."""
    dataset, rows = CASE.dataset, []
    for index, mask in enumerate(CASE.masks):
        sample_id, sentence_idx = dataset.key_of(index)
        row = {
            "sample_id": sample_id,
            "sentence_idx": sentence_idx,
            "sentence": dataset.examples["sentence"][index].as_py(),
        }
        rows.append({**{n: row[n] for n in names}, "segmentation": coco_encode(mask)})
    return rows


def write(path, rows):
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def expected_masks(smaller):
    """The prediction for each example of the smaller set, found by its sample and its text, here by plain loops."""
    original = {}
    for row in run_rows("sample_id", "sentence"):
        original.setdefault((row["sample_id"], row["sentence"]), []).append(row["segmentation"])
    dataset = smaller.dataset
    masks = []
    for index in range(dataset.n_examples):
        text = dataset.examples["sentence"][index].as_py()
        (mask,) = original[dataset.key_of(index)[0], text]
        masks.append(mask)
    return masks


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_run_on_the_original_is_matched_by_its_texts(smaller, tmp_path, suffix, capsys):
    dataset = smaller.dataset
    assert dataset.n_samples < CASE.dataset.n_samples
    moved = [dataset.key_of(k) for k in range(dataset.n_examples)]
    assert any(
        dataset.examples["sentence"][k].as_py()
        != CASE.dataset.examples["sentence"][int(CASE.dataset.index_of([a], [b])[0])].as_py()
        for k, (a, b) in enumerate(moved)
    )
    path = write(tmp_path / f"run{suffix}", run_rows("sample_id", "sentence"))
    options = {"keys": "sentence", "extra": "ignore"}
    result = rc.score(path, smaller, **options)
    direct = rc.score(list(enumerate(expected_masks(smaller))), smaller)
    assert result.per_example.equals(direct.per_example)
    n_extra = N - dataset.n_examples
    assert result.info["predictions"]["n_extra"] == n_extra
    assert result.info["options"]["extra"] == "ignore"
    words = [f"dataset.path={dataset.source}", "keys=sentence"]
    assert main(["score", str(path), *words, "extra=ignore"]) == 0
    text = f"{n_extra} predictions of examples that the dataset does not have were left out"
    assert text in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["sweep", str(path), *words, "extra=ignore", f"output_dir={out}"]) == 0
    assert text in (out / "leaderboard.json").read_text()
    error = problems_of(path, smaller, keys="sentence")
    assert error.counts == {"unknown key": n_extra}
    assert "extra=ignore" in str(error)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_positions_that_moved_are_no_match(smaller, tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", run_rows("sample_id", "sentence_idx"))
    error = problems_of(path, smaller, extra="ignore")
    assert "refcocom convert" in str(error)
    assert set(error.counts) == {"no sentence"}
    rows = run_rows("sample_id", "sentence_idx", "sentence")
    error = problems_of(write(tmp_path / f"b{suffix}", rows), smaller, extra="ignore")
    assert {problem.kind for problem in error.problems} >= {"wrong sentence"}
    assert "keys=sentence finds examples by their text" in str(error)
    # One row without its sentence is one that cannot be checked.
    same = [
        row
        for row in rows
        if (index := int(smaller.dataset.index_of([row["sample_id"]], [row["sentence_idx"]])[0]))
        < 0
        or smaller.dataset.examples["sentence"][index].as_py() == row["sentence"]
    ]
    options = {"extra": "ignore", "missing": "zero"}
    path = write(tmp_path / f"c{suffix}", same)
    result = rc.score(path, smaller, **options)
    n_used = smaller.dataset.n_examples - result.n_missing
    assert result.info["predictions"]["n_extra"] == len(same) - n_used
    assert 0 < n_used < len(same)
    used = next(
        k
        for k, row in enumerate(same)
        if smaller.dataset.index_of([row["sample_id"]], [row["sentence_idx"]])[0] >= 0
    )
    same[used] = {**same[used], "sentence": None}
    error = problems_of(write(tmp_path / f"d{suffix}", same), smaller, **options)
    assert error.counts == {"no sentence": 1}


def test_missing_examples_stay_errors(smaller, tmp_path):
    rows = run_rows("sample_id", "sentence")
    kept = [row for row in rows if row["sample_id"] != smaller.dataset.key_of(0)[0]]
    path = write_jsonl(tmp_path / "p.jsonl", kept)
    error = problems_of(path, smaller, keys="sentence", extra="ignore")
    assert set(error.counts) == {"missing"}


def test_rows_that_name_nothing_or_several_are_no_extras(smaller, tmp_path):
    rows = run_rows("sample_id", "sentence")
    del rows[0]["sentence"]
    rows[1]["sample_id"] = 2.5
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    options = {"keys": "sentence", "extra": "ignore", "missing": "zero"}
    assert problems_of(path, smaller, **options).counts == {"unknown key": 2}


def test_what_carries_no_sentence_is_refused(smaller, tmp_path):
    masks = expected_masks(smaller)
    for predictions in (list(enumerate(masks)), dict(enumerate(masks))):
        with pytest.raises(rc.UsageError, match="refcocom convert"):
            rc.score(predictions, smaller, extra="ignore")
    (tmp_path / "masks").mkdir()
    with pytest.raises(rc.UsageError, match="refcocom convert"):
        rc.score(tmp_path / "masks", smaller, extra="ignore")
    with pytest.raises(rc.UsageError, match="keys=order"):
        rc.score("sample", smaller, extra="ignore", keys="order")


def test_a_summary_of_a_whole_run_says_that_nothing_was_left_out(tmp_path):
    rows = run_rows("sample_id", "sentence_idx", "sentence")
    result = CASE.check(write_jsonl(tmp_path / "p.jsonl", rows), extra="ignore")
    assert result.info["predictions"]["n_extra"] == 0
    result.save(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["predictions"]["n_extra"] == summary["predictions"]["n_repeated"] == 0
