"""Slices by cause, and by columns that the predictions themselves carry."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from helpers import sample_case

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.scores import causes
from refcocom_gpu.scores.metrics import mean
from refcocom_gpu.scores.slices.groupings import by_value

CASE = sample_case()
STORE = CASE.store
N = len(STORE)
PROMPTS = ["plain", "", "long\nand two lines", "é"]


def own(k):
    """What a file says of a prediction: a text, a float, a whole number where there is one, a bool."""
    return {
        "prompt": PROMPTS[k % 4],
        "confidence": [0.123456, 0.5, 2 / 3, 3.0][k % 4],
        **({"step": k % 3} if k % 5 else {}),
        "sure": k % 2 == 0,
    }


@pytest.fixture(scope="module")
def rows():
    return [{**row, **own(k)} for k, row in enumerate(CASE.rows())]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def compressed(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def array(path, rows):
    path.write_text(json.dumps(rows))
    return path


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist([{"step": None, **row} for row in rows]), path, row_group_size=50)  # fmt: skip
    return path


def feather(path, rows):
    pa.feather.write_feather(pa.Table.from_pylist([{"step": None, **row} for row in rows]), path)
    return path


def shards(path, rows):
    path.mkdir()
    for k in range(3):
        jsonl(path / f"{k}.jsonl", rows[k::3])
    return path


WRITERS = {
    "p.jsonl": jsonl,
    "p.jsonl.gz": compressed,
    "p.json": array,
    "p.parquet": parquet,
    "p.feather": feather,
    "folder": shards,
}


def tag(result, name):
    return result.per_example[f"tag.{name}"].to_pylist()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_table_gives_the_same_slices(tmp_path, rows, name, shuffled):
    order = np.random.default_rng(1).permutation(N) if shuffled else range(N)
    path = WRITERS[name](tmp_path / name, [rows[k] for k in order])
    names = ["prompt", "confidence", "step", "sure"]
    result = rc.score(path, STORE, slices=["size", *names])
    plain = rc.score(path, STORE)
    assert result.per_example.select(plain.per_example.column_names).equals(plain.per_example)
    assert {n: tag(result, n) for n in names} == {
        n: [own(k).get(n) for k in range(N)] for n in names
    }
    labels = {n: result.slices(n)["slice"].to_pylist() for n in names}
    # At most four digits, whole numbers whole, and no value is a slice of its own.
    assert labels["confidence"] == ["0.1235", "0.5", "0.6667", "3"]
    assert labels["step"] == ["0", "1", "2", "(none)"]
    assert sorted(labels["sure"]) == ["false", "true"]
    assert sorted(labels["prompt"]) == ["(none)", "long\nand two lines", "plain", "é"]
    row = result.slice_rows("prompt")[labels["prompt"].index("plain")]
    of_plain = [k for k in range(N) if k % 4 == 0]
    assert (row["n_examples"], row["miou"]) == (len(of_plain), mean(result.iou[of_plain]))
    assert result.sliced == ("size", *names)
    assert result.info["tags"] == [{"predictions": str(path), "columns": names}]
    result.save(tmp_path / "out")
    again = rc.load_results(tmp_path / "out")
    assert again.per_example.equals(result.per_example)
    assert again.slice_rows("confidence") == result.slice_rows("confidence")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["slices"]["step"] == again.slice_rows("step")


def test_a_dataset_in_memory_has_columns(rows):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"step": None, **row} for row in rows])
    result = rc.score(table, STORE, slices="prompt")
    assert tag(result, "prompt") == [own(k)["prompt"] for k in range(N)]


@pytest.mark.parametrize("writer", ["p.jsonl", "p.parquet"])
def test_rows_of_other_names_and_keys(tmp_path, rows, writer):
    renamed = [{"ann_id" if k == "sample_id" else k: v for k, v in row.items()} for row in rows]
    path = WRITERS[writer](tmp_path / writer, renamed)
    result = rc.score(path, STORE, fields={"sample_id": "ann_id"}, slices=["prompt"])
    assert tag(result, "prompt") == [own(k)["prompt"] for k in range(N)]
    # A column that is read as another field is none of the file's own.
    with pytest.raises(rc.UsageError, match="unknown slices 'ann_id'"):
        rc.score(path, STORE, fields={"sample_id": "ann_id"}, slices=["ann_id"])
    ordered = WRITERS[writer](tmp_path / f"in-order-{writer}", rows)
    result = rc.score(ordered, STORE, keys="order", slices=["prompt"])
    assert tag(result, "prompt") == [own(k)["prompt"] for k in range(N)]


def test_what_is_missing_has_no_value(tmp_path, rows):
    path = jsonl(tmp_path / "p.jsonl", rows[:10])
    result = rc.score(path, STORE, missing="zero", slices=["sure"])
    assert tag(result, "sure") == [own(k)["sure"] if k < 10 else None for k in range(N)]
    by_label = {row["slice"]: row["n_examples"] for row in result.slice_rows("sure")}
    assert by_label == {"true": 5, "false": 5, "(none)": N - 10}


def test_an_unknown_name_lists_what_there_is(tmp_path, rows):
    path = jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(rc.UsageError) as caught:
        rc.score(path, STORE, slices=["promt"])
    message = str(caught.value)
    assert "unknown slices 'promt'; did you mean prompt? there are category, " in message
    assert "complexity, prompt, confidence, sure, step and all" in message
    assert "cause needs causes, which were not counted: score with metrics=[iou,causes]" in message
    # Keys and masks are no slices, and pairs in memory have no columns.
    for given, name in ((path, "segmentation"), (path, "sample_id"), ([(range(N), CASE.masks)], "prompt")):  # fmt: skip
        with pytest.raises(rc.UsageError, match=f"unknown slices '{name}'"):
            rc.score(given, STORE, slices=[name])


def test_what_is_wrong_with_the_rows_comes_first(tmp_path, rows):
    path = jsonl(tmp_path / "p.jsonl", [*rows[1:], {"sample_id": -5}])
    with pytest.raises(rc.PredictionError, match="2 problems"):
        rc.score(path, STORE, slices=["nothing"])


def test_a_value_that_is_no_tag_is_refused(tmp_path, rows):
    for writer in ("p.jsonl", "p.parquet"):
        path = WRITERS[writer](tmp_path / writer, [{**row, "box": [1, 2]} for row in rows])
        with pytest.raises(rc.TagsError, match=r"column box holds \[1, 2\]"):
            rc.score(path, STORE, slices=["box"])


def test_where_no_slice_asks_nothing_is_read(tmp_path, rows, monkeypatch):
    from refcocom_gpu.predictions.own_columns import OwnColumns
    from refcocom_gpu.predictions.rows import _Rows

    def never(*_):
        raise AssertionError

    path = jsonl(tmp_path / "p.jsonl", CASE.rows())
    for kind, name in ((OwnColumns, "see"), (OwnColumns, "keep"), (_Rows, "_row_by_row")):
        monkeypatch.setattr(kind, name, never)
    assert rc.score(path, STORE, slices=["size", "all"]).n_examples == N


def test_the_command_takes_groupings_tags_and_columns(tmp_path, rows, capsys):
    path = jsonl(tmp_path / "p.jsonl", rows)
    tags = tmp_path / "t.csv"
    tags.write_text("\n".join(["index,mine", *(f"{k},{k % 2}" for k in range(N))]))
    command = ["score", str(path), "dataset=sample", f"output_dir={tmp_path / 'out'}"]
    asked = "slices=[length,prompt,mine,cause]"
    assert main([*command, asked, f"tags={tags}", "metrics=[iou,causes]"]) == 0
    printed = capsys.readouterr().out
    assert "  plain " in printed
    assert "  wrong instance " in printed
    assert {*rc.load_results(tmp_path / "out").sliced} == {"prompt", "length", "mine", "cause"}
    assert main([*command, "slices=[prompt,tag.x]", "overwrite=true"]) == 2
    error = capsys.readouterr().err
    assert "unknown slices 'tag.x'" in error
    assert "prompt, confidence, sure, step and all" in error
    assert main([*command, "slices=cause", "overwrite=true"]) == 2
    assert "slices by cause need causes" in capsys.readouterr().err


def test_numbers_as_slices_are_called():
    values = [1e300, 3.0, 0.123456, 0.123449, 0.1234501, None, float(2**53), -4.0]
    slicing = by_value(pa.chunked_array([values]))
    assert slicing.labels == ["-4", "0.1234", "0.1235", "3", "9.007e+15", "1e+300", "(none)"]
    named = [slicing.labels[code] for code in slicing.code]
    assert named == ["1e+300", "3", "0.1235", "0.1234", "0.1235", "(none)", "9.007e+15", "-4"]


# Causes -------------------------------------------------------------------------------------------


def test_causes_are_slices():
    result = rc.score("sample-coarse", STORE, metrics="causes", slices="all")
    assert "cause" in result.slices()
    assert "cause" in result.sliced
    rows = {row["slice"]: row for row in result.slice_rows("cause")}
    shares = {row["cause"]: row["n_examples"] for row in result.cause_summary["shares"]}
    assert {name: row["n_examples"] for name, row in rows.items()} == {
        name: n for name, n in shares.items() if n
    }
    assert list(rows) == [cause for cause in causes.CAUSES if cause in rows]
    for name, row in rows.items():
        assert row["miou"] == mean(result.iou[result.causes == name])


def test_causes_that_were_not_counted_are_none():
    plain = rc.score("sample", STORE)
    assert "cause" not in plain.slices()
    for ask in (lambda: plain.slices("cause"), lambda: rc.score("sample", STORE, slices=["cause"])):
        with pytest.raises(rc.UsageError, match=r"slices by cause need causes, .*\[iou,causes\]"):
            ask()
    assert "cause" not in rc.score("sample", STORE, slices="all").sliced


def test_two_results_have_no_causes_in_common():
    a, b = (rc.score(name, STORE, metrics="causes") for name in ("sample", "sample-coarse"))
    assert "cause" not in rc.compare(a, b, slices="all", replicates=99).breakdowns
    with pytest.raises(rc.UsageError, match="each has causes of its own"):
        rc.compare(a, b, slices="cause", replicates=99)


def test_another_convention_has_no_slices():
    with pytest.raises(rc.UsageError, match="slices"):
        rc.score("sample", STORE, convention="cris", slices="size")


def test_masks_are_read_alike_with_columns(tmp_path, rows):
    """Runs as lists and explicit empties, row by row."""
    listed = [{**row, **own(k)} for k, row in enumerate(CASE.rows(listed=True))]
    path = jsonl(tmp_path / "p.jsonl", listed)
    CASE.check(path, slices=["prompt"])
