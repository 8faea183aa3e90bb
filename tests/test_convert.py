"""`refcocom convert`: what holds predictions becomes a native file, whole or not at all, with nothing left unsaid."""

import json
import pickle
from inspect import signature
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import sample_case, write_jsonl
from PIL import Image

import refcocom_gpu as rc
from refcocom_gpu.adapters.results import read_results
from refcocom_gpu.adapters.sources import SOURCES, options_of
from refcocom_gpu.cli.config import RawAnswers
from refcocom_gpu.cli.main import main
from refcocom_gpu.masks import rle

CASE = sample_case()
DATASET = CASE.dataset
N = DATASET.n_examples
KEYS = [dict(zip(DATASET.example_key_fields, DATASET.key_of(i), strict=True)) for i in range(N)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "run.jsonl", CASE.rows())
    return tmp_path


def convert(*words, code=0):
    assert main(["convert", *words, *(["dataset=sample"] if code == 0 else [])]) == code


def refused(capsys, *words, code=2):
    convert(*words, "dataset=sample", code=code)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("refcocom: ")
    return err


# Any file to a native one ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
def test_lines_become_a_native_file(folder, name, capsys):
    convert("run.jsonl", name)
    assert capsys.readouterr().out == f"  predictions {N:>10,}\n\nWrote {name}\n"
    CASE.check(name)
    assert sorted(p.name for p in folder.iterdir()) == sorted(["run.jsonl", name])


def test_shards_and_folders_of_pictures_too(folder):
    rows = CASE.rows()
    write_jsonl(folder / "a.jsonl", rows[:100])
    write_jsonl(folder / "b.jsonl", rows[100:])
    convert("a.jsonl", "b.jsonl", "shards.parquet")
    (folder / "masks").mkdir()
    for name, mask in zip(CASE.names(), CASE.masks, strict=True):
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    convert("masks", "pictures.parquet")
    for name in ("shards.parquet", "pictures.parquet"):
        CASE.check(name)


def test_options_are_used_up(folder):
    """Probabilities at another size become masks at the size of the image, and need no option any more."""
    rng = np.random.default_rng(0)
    maps = {name: rng.random((7, 9), np.float32) for name in CASE.names()}
    np.savez(folder / "maps.npz", **maps)
    convert("maps.npz", "out.parquet", "values=probabilities", "letterbox=32")
    options = {"values": "probabilities", "letterbox": 32}
    direct = rc.score("maps.npz", CASE.store, **options).per_example
    assert rc.score("out.parquet", CASE.store).per_example.equals(direct)


def test_the_model_of_a_file_stays_in_its_header(folder):
    header = {"schema": "refcocom-predictions", "version": 1, "model": "mine"}
    write_jsonl(folder / "named.jsonl", [header, *CASE.rows()])
    convert("named.jsonl", "out.parquet")
    metadata = pq.read_schema("out.parquet").metadata
    assert metadata[b"model"] == b"mine"
    assert metadata[b"dataset"] == DATASET.fingerprint.encode()


def test_mistakes_write_nothing(folder, capsys):
    rows = CASE.rows()
    rows[3] = {**rows[3], "segmentation": {"size": [1, 1], "counts": "1"}}
    rows[200] = {**rows[200], "segmentation": {**CASE.rows()[201]["segmentation"], "counts": "0"}}
    write_jsonl(folder / "bad.jsonl", [*rows[:-1], rows[0]])
    said = refused(capsys, "bad.jsonl", "out.parquet", code=3)
    for part in (
        "line 4: wrong size",
        "line 201: malformed mask",
        f"line {N}: duplicate",
        "missing: 1 example has no prediction",
    ):
        assert part in said
    assert not list(folder.glob("*out*"))


def test_missing_predictions_are_left_out_on_request(folder, capsys):
    write_jsonl(folder / "part.jsonl", CASE.rows()[:-2])
    said = refused(capsys, "part.jsonl", "out.parquet", code=3)
    assert "2 missing" in said
    assert "missing=skip" in said
    convert("part.jsonl", "out.parquet", "missing=skip")
    assert "missing            2  left out" in capsys.readouterr().out
    assert rc.score("out.parquet", CASE.store, missing="zero").n_missing == 2
    assert "missing must be error or skip" in refused(
        capsys, "part.jsonl", "b.parquet", "missing=zero"
    )


def test_files_that_are_there_are_kept(folder, capsys):
    convert("run.jsonl", "out.parquet", "quiet=true")
    before = (folder / "out.parquet").read_bytes()
    write_jsonl(folder / "other.jsonl", CASE.rows()[::-1])
    assert "overwrite" in refused(capsys, "other.jsonl", "out.parquet")
    # A failed conversion leaves the file that is there, also with overwrite.
    refused(capsys, "absent.jsonl", "out.parquet", "overwrite=true")
    write_jsonl(folder / "part.jsonl", CASE.rows()[:-2])
    refused(capsys, "part.jsonl", "out.parquet", "overwrite=true", code=3)
    assert (folder / "out.parquet").read_bytes() == before
    convert("other.jsonl", "out.parquet", "overwrite=true", "quiet=true")
    CASE.check("out.parquet")
    assert "is the file that is read" in refused(
        capsys, "out.parquet", "./out.parquet", "overwrite=true"
    )


def test_the_journal_of_a_run_is_not_touched(folder, capsys):
    writer = rc.PredictionWriter("out.parquet", DATASET)
    writer.write(0, CASE.masks[0])
    writer.journal.close()
    journal = folder / "out.parquet.partial"
    before = journal.read_bytes()
    assert "has not ended" in refused(capsys, "run.jsonl", "out.parquet")
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "refcocom convert IN OUT"),
        (["run.jsonl"], "refcocom convert IN OUT"),
        (["run.jsonl", "out.csv"], ".parquet or .jsonl"),
        (["absent.jsonl", "out.parquet"], "no prediction file at absent.jsonl"),
        (["run.jsonl", "out.parquet", "points=yx"], "source="),
        (["run.jsonl", "out.parquet", "source=gpt"], "source must be one of gemini"),
        (["run.jsonl", "out.parquet", "source=svg", "scale=pixels"], "source=svg takes"),
        (["run.jsonl", "out.parquet", "source=svg", "letterbox=9"], "letterbox=9 has no effect"),
        (["run.pkl", "out.parquet", "polygons=pixels"], "polygons=pixels has no effect"),
        (["run.jsonl", "out.parquet", "source=svg", "from_dataset=sample"], "convert the answers first"),
        (["run.jsonl", "out.parquet", "from_split=val"], "from_split"),
    ],
)  # fmt: skip
def test_wrong_requests(folder, capsys, words, part):
    said = refused(capsys, *words)
    assert part in said
    assert said.count("\n") == 1


# Raw answers ----------------------------------------------------------------------------------------


def test_every_option_of_a_source_is_a_key():
    known = {name for source in SOURCES for name in options_of(source)}
    assert {*signature(RawAnswers).parameters} == {"source", *known}


@pytest.fixture
def answers(folder):
    """Answers of point lists for all examples; the third and the fifth cannot be read."""
    rows = []
    for i, key in enumerate(KEYS):
        response = json.dumps([[0, 0], [500 + i, 0], [500, 900]])
        response = {2: "I see nothing.", 4: "[[0, 0], [2000, 0], [9, 9]]"}.get(i, response)
        rows.append({**key, "response": response})
    return write_jsonl(folder / "answers.jsonl", rows)


def test_answers_become_a_native_file(answers, capsys):
    words = ["answers.jsonl", "out.parquet", "source=points", "scale=thousandths"]
    said = refused(capsys, *words, code=3)
    assert "2 unread answer" in said
    assert "answers.jsonl, line 3" in said
    assert not Path("out.parquet").exists()
    convert(*words, "missing=skip")
    out = capsys.readouterr().out
    assert "unreadable         2  left out" in out
    assert "answers.jsonl, line 5: unread answer" in out
    read = rc.adapters.read(answers, DATASET, source="points", scale="thousandths")
    with pytest.warns(UserWarning, match="2 answers could not be read"):
        direct = rc.score(read, CASE.store, missing="zero")
    result = rc.score("out.parquet", CASE.store, missing="zero")
    assert result.per_example.equals(direct.per_example)
    assert (result.n_missing, result.n_empty - direct.n_empty) == (2, 0)
    convert(*words, "missing=skip", "overwrite=true", "json=true")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["n_written"], summary["n_missing"], len(summary["unread"])) == (N - 2, 2, 2)


def test_options_of_an_answer_come_from_the_command(folder):
    box = {"bbox_2d": [0, 0, 14, 28]}
    write_jsonl(folder / "qwen.jsonl", [{**key, "response": [box]} for key in KEYS])
    words = ["source=qwen", "version=2.5", "processed_size=[28,28]", "boxes=fill"]
    convert("qwen.jsonl", "out.parquet", *words)
    height, width = int(DATASET.heights[0]), int(DATASET.widths[0])
    expected = rc.adapters.to_mask(
        [box], height, width, source="qwen", version=2.5, processed_size=[28, 28], boxes="fill"
    )
    first = pq.read_table("out.parquet").to_pylist()[0]["segmentation"]
    np.testing.assert_array_equal(rle.decode(first), expected)


# Pickles of results ---------------------------------------------------------------------------------


def test_results_of_detectron2(folder):
    """One dict per expression, with the instances that were found; the best by its score is taken."""
    entries = [
        {
            **key,
            "image_id": np.int64(5),
            "instances": [
                {"segmentation": rle.encode(~mask), "score": 0.2, "category_id": 0},
                {"segmentation": rle.encode(mask), "score": 0.7, "category_id": 0},
            ],
        }
        for key, mask in zip(KEYS, CASE.masks, strict=True)
    ]
    (folder / "run.pkl").write_bytes(pickle.dumps(entries))
    convert("run.pkl", "out.parquet", "combine=best")
    CASE.check("out.parquet")


def test_results_of_mmdetection(folder):
    """A tuple per expression, (boxes, masks), each a list per class, in the order of the dataset."""
    entries = []
    for mask in CASE.masks:
        half = mask.copy()
        half[::2] = False
        encoded = [rle.encode(part) for part in (half, mask & ~half)]
        boxes = np.zeros((1, 5), np.float32)
        entries.append(
            ([boxes, np.zeros((0, 5), np.float32), boxes], [encoded[:1], [], encoded[1:]])
        )
    (folder / "run.pkl").write_bytes(pickle.dumps(entries))
    convert("run.pkl", "out.parquet", "combine=union", "keys=order")
    CASE.check("out.parquet")


def test_results_of_loops_of_ones_own(folder):
    entries = [
        {**key, "masks": mask[None] if i % 2 else [], "scores": [0.5] if i % 2 else []}
        for i, (key, mask) in enumerate(zip(KEYS, CASE.masks, strict=True))
    ]
    (folder / "run.pkl").write_bytes(pickle.dumps(entries))
    read = read_results(folder / "run.pkl", DATASET)
    assert read.n_none == (N + 1) // 2
    result = rc.score(read, CASE.store)
    np.testing.assert_array_equal(
        result.per_example["pred_area"].to_numpy(),
        [int(mask.sum()) if i % 2 else 0 for i, mask in enumerate(CASE.masks)],
    )


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"image_id": 5, "segmentation": None}, "no sample_id"),
        ({**KEYS[0], "mask": None}, "one of segmentation, masks, instances"),
        ({**KEYS[0], "masks": np.ones((2, 3, 3), bool)}, "combine=union"),
        ({**KEYS[0], "masks": np.ones((3, 3), bool)}, "mask is 3×3"),
        ({**KEYS[0], "masks": ["x"]}, "str"),
        ({**KEYS[0], "sentence": "no such", "segmentation": None}, "wrong sentence"),
        ([KEYS[0]], "no sample_id"),
    ],
)
def test_wrong_results(folder, capsys, entry, part):
    (folder / "run.pkl").write_bytes(pickle.dumps([entry]))
    said = refused(capsys, "run.pkl", "out.parquet", "missing=skip", code=3)
    assert "run.pkl, entry 0" in said
    assert part in said


def test_pickles_are_read_by_the_one_that_executes_nothing(folder, capsys):
    (folder / "run.pkl").write_bytes(pickle.dumps(print))
    assert "builtins.print, which is refused" in refused(capsys, "run.pkl", "o.parquet", code=3)
    (folder / "run.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert "a list" in refused(capsys, "run.pkl", "o.parquet", code=3)
    # Everything else refuses them, and says who reads them.
    assert main(["score", "run.pkl", "dataset=sample"]) == 2
    assert "refcocom convert" in capsys.readouterr().err


# From one dataset to another; what is matched is in test_match.py -----------------------------------


def test_predictions_that_have_no_counterpart_are_counted(folder, capsys):
    records = [json.loads(line) for line in _records(folder / "few.jsonl")]
    n_few = sum(len(s["sentences"]) for r in records for s in r["samples"])
    words = ["from_dataset=sample", "dataset.path=few.jsonl"]
    assert main(["convert", "run.jsonl", "out.parquet", *words]) == 0
    out = capsys.readouterr().out
    assert f"sample ({N} sentences) → few.jsonl ({n_few} sentences)" in out
    assert f"carried     {n_few:>8,}" in out
    assert f"left behind {N - n_few:>8,}" in out
    assert main(["convert", "run.jsonl", "out.parquet", *words, "json=true", "overwrite=true"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["n_left"] == N - n_few
    assert summary["match"]["sentences"] == {"text": n_few}
    # Only a prediction with a counterpart can be missing.
    write_jsonl(folder / "part.jsonl", CASE.rows()[2:-2])
    assert main(["convert", "part.jsonl", "b.parquet", *words]) == 3
    assert "2 missing" in capsys.readouterr().err
    assert main(["convert", "part.jsonl", "b.parquet", *words, "missing=skip"]) == 0
    assert f"carried     {n_few - 2:>8,}" in capsys.readouterr().out


def test_sets_without_a_common_example_are_refused(folder, capsys):
    records = [json.loads(line) for line in _records(folder / "few.jsonl")]
    other = [{**record, "image_id": k + 1, "file_name": ""} for k, record in enumerate(records)]
    write_jsonl(folder / "other.jsonl", other)
    said = refused(capsys, "run.jsonl", "o.parquet", "from_dataset=other.jsonl", code=3)
    assert "no example of sample has a counterpart in other.jsonl" in said


def _records(path):
    from refcocom_gpu.dataset.sample import make_records

    write_jsonl(path, make_records(n_images=3))
    return path.read_text().splitlines()


def test_entries_under_other_names(folder):
    rows = [
        {"ann": row["sample_id"], "sentence_idx": row["sentence_idx"], "masks": mask[None]}
        for row, mask in zip(CASE.rows(), CASE.masks, strict=True)
    ]
    (folder / "run.pkl").write_bytes(pickle.dumps(rows))
    convert("run.pkl", "out.parquet", "fields.sample_id=ann")
    CASE.check("out.parquet")
    with pytest.raises(rc.PredictionError, match=r"id \(fields.sample_id\) not found"):
        read_results(folder / "run.pkl", DATASET, fields={"sample_id": "id"})


def test_what_is_left_out_on_request_is_counted(folder, capsys):
    rows = [
        {**row, "sentence": sentence}
        for row, sentence in zip(CASE.rows(), DATASET.examples["sentence"].to_pylist(), strict=True)
    ]
    rows += [rows[0], {**rows[1], "sample_id": 5}]
    write_jsonl(folder / "more.jsonl", rows)
    options = ["extra=ignore", "repeats=identical"]
    convert("more.jsonl", "out.parquet", *options)
    printed = capsys.readouterr().out
    assert "extra              1" in printed
    assert "repeated           1" in printed
    CASE.check("out.parquet")
    convert("more.jsonl", "two.parquet", *options, "json=true", "quiet=true")
    made = json.loads(capsys.readouterr().out)
    assert (made["n_extra"], made["n_repeated"], made["n_written"]) == (1, 1, N)


def test_nothing_that_can_be_read_is_no_file(folder, capsys):
    rows = [{**key, "response": "I see no mask"} for key in KEYS[:3]]
    write_jsonl(folder / "answers.jsonl", rows)
    words = ["answers.jsonl", "out.parquet", "source=qwen", "missing=skip"]
    assert "no prediction that could be read" in refused(capsys, *words, "version=3", code=3)
    assert "not '9'" in refused(capsys, *words, "version=9")
    assert not list(folder.glob("out*"))
