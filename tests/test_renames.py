"""Files that call our fields otherwise, `fields.OURS=THEIRS`: read as if they were renamed, in every table."""

import json

import numpy as np
import pytest
from helpers import problems_of, sample_case, write_jsonl
from refer_sets import TABLES, facts, instances, refer_case, write_table

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.predictions import records, rows
from refcocom_gpu.predictions.renames import FIELDS, Renames

FIELDS_GIVEN = {
    "sample_id": "ann",
    "sentence_idx": "nr",
    "segmentation": "mask",
    "sentence": "text",
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refer")
    return refer_case(folder, instances([["left one", "the left"], ["dog", "a dog"], ["cat"]]))


def renamed(case, fields, names=("sample_id", "sentence_idx", "sentence"), **beside):
    return [
        {**{fields.get(name, name): value for name, value in row.items()}, **beside}
        for row in facts(case, names)
    ]


@pytest.mark.parametrize("suffix", TABLES)
def test_every_table(case, tmp_path, suffix):
    table = write_table(tmp_path / f"p{suffix}", renamed(case, FIELDS_GIVEN))
    result = case.check(table, fields=FIELDS_GIVEN)
    assert result.info["options"]["fields"] == FIELDS_GIVEN
    wrong = renamed(case, FIELDS_GIVEN)
    wrong[1]["text"] = "another"
    table = write_table(tmp_path / f"w{suffix}", wrong)
    assert problems_of(table, case.store, fields=FIELDS_GIVEN).counts["wrong sentence"] == 1


@pytest.mark.parametrize("suffix", TABLES)
def test_the_renamed_column_wins(case, tmp_path, suffix):
    """Also where its own name is one of ours, or two names are exchanged."""
    table = write_table(
        tmp_path / f"b{suffix}", renamed(case, {"sample_id": "ann"}, sample_id=1, sentence=None)
    )
    case.check(table, fields={"sample_id": "ann"})
    fields = {"sample_id": "image_id"}
    case.check(write_table(tmp_path / f"p{suffix}", renamed(case, fields)), fields=fields)
    swapped = {"sample_id": "sentence_idx", "sentence_idx": "sample_id"}
    case.check(write_table(tmp_path / f"s{suffix}", renamed(case, swapped)), fields=swapped)


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize(
    "ours", ["sample_id", "segmentation", "sentence", "file_name", "score", "ref_id"]
)
def test_a_renamed_column_that_is_not_there(case, tmp_path, suffix, ours):
    table = write_table(tmp_path / f"p{suffix}", renamed(case, {}))
    error = problems_of(table, case.store, fields={ours: "other"}, missing="zero")
    assert "no column" in error.counts
    assert f"other (fields.{ours}) not found" in "\n".join(map(str, error.problems))


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("refer", ["sent_id"]),
        ("refer", ["ann_id", "sentence_idx"]),
        ("sentence", ["file_name", "sentence"]),
        ("sentence", ["image_id", "sentence"]),
        ("order", ["image_id", "sentence_idx"]),
    ],
)
def test_every_form(case, tmp_path, suffix, keys, names):
    fields = {name: f"their {name}" for name in (*names, "segmentation")}
    table = write_table(tmp_path / f"p{suffix}", renamed(case, fields, names))
    case.check(table, keys=keys, fields=fields)


def test_responses(case, tmp_path):
    fields = {"sample_id": "id", "response": "output"}
    lines = [
        {"id": row["sample_id"], "sentence_idx": row["sentence_idx"], "output": row["segmentation"]}
        for row in facts(case, ["sample_id", "sentence_idx"])
    ]
    path = write_jsonl(tmp_path / "r.jsonl", lines)
    case.check(rc.adapters.read(path, case.dataset, source="rle", fields=fields))

    def error(**fields):
        with pytest.raises(rc.PredictionError) as caught:
            rc.adapters.read(path, case.dataset, source="rle", fields=fields)
        return str(caught.value)

    assert "no text (fields.response); the row has id, sentence_idx, output" in error(
        response="text", sample_id="id"
    )
    assert "try fields={'sample_id': 'id'}" in error(response="output")
    assert "words (fields.sentence) not found" in error(
        response="output", sample_id="id", sentence="words"
    )
    with pytest.raises(rc.UsageError, match=r"did you mean fields\.response"):
        rc.adapters.read(path, case.dataset, source="rle", fields={"responses": "x"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampl_id": "x"}, "no field 'sampl_id'; did you mean fields.sample_id"),
        ({"zzz": "x"}, "ours are sample_id, sentence_idx"),
        ({"sample_id": "x", "ref_id": "x"}, "name one column"),
        ({"sample_id": "segmentation"}, "leaves no column of masks"),
        ({"sample_id": ""}, "the name of a column"),
        ({"sample_id": 3}, "the name of a column"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, message):
    with pytest.raises(rc.UsageError, match=message):
        rc.score("sample", sample_case().store, fields=fields)


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        (None, None),
        (None, {}),
        (None, FIELDS_GIVEN),
        (None, {"sample_id": "image_id"}),
        ("refer", None),
        ("refer", {"ref_id": "sample_id", "segmentation": "mask"}),
    ],
)
def test_rows_are_decoded_at_once(case, tmp_path, monkeypatch, keys, fields):
    """The fast path: none is read alone, and without renames the type of rows is the usual one."""
    names = ["ref_id" if keys else "sample_id", "sentence_idx"]
    names += ["sentence"] if "sentence" in (fields or {}) else []
    path = write_jsonl(tmp_path / "p.jsonl", renamed(case, fields or {}, names))

    def fail(*_):
        raise AssertionError("read row by row")

    monkeypatch.setattr(rows._Rows, "_row_by_row", fail)
    case.check(path, fields=fields, keys=keys)
    is_usual = records.row_type(Renames(fields), ()) is records.Row
    assert is_usual == (not fields)


def test_a_repeated_key_is_found_under_any_name(case, tmp_path):
    lines = [json.dumps(row) for row in renamed(case, FIELDS_GIVEN)]
    lines[2] = lines[2].replace('"ann": ', '"ann": 3, "ann": ')
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    error = problems_of(tmp_path / "p.jsonl", case.store, fields=FIELDS_GIVEN, missing="zero")
    assert error.counts == {"duplicate": 1}


def test_the_command(tmp_path, capsys):
    sample = sample_case()
    their = [
        {"ann id": row.pop("sample_id"), "é=(x": row.pop("segmentation"), **row}
        for row in sample.rows()
    ]
    path = write_jsonl(tmp_path / "p.jsonl", their)
    command = ["score", str(path), "dataset=sample"]
    words = ["fields.sample_id=ann id", "fields.segmentation=é=(x"]
    assert main([*command, *words, f"output_dir={tmp_path / 'out'}"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["options"]["fields"] == {"sample_id": "ann id", "segmentation": "é=(x"}
    loaded = rc.load_results(tmp_path / "out").per_example
    counts = np.stack([loaded[n].to_numpy() for n in ("intersection", "pred_area")], 1)
    np.testing.assert_array_equal(counts, sample.expected)
    assert main(["compare", str(path), str(path), "dataset=sample", *words]) == 0
    assert main(["sweep", str(path), "dataset=sample", f"output_dir={tmp_path / 's'}", *words]) == 0
    capsys.readouterr()
    for wrong, message in (
        ("fields.sampleid=x", "did you mean fields.sample_id"),
        ("fields.sample_id=", "given no value"),
        ("fields={sample_id:x}", "one word for each, such as fields.NAME=…"),
        ("fields=null", "one word for each"),
        ("field.sample_id=x", "has no key 'field.sample_id'"),
    ):
        assert main([*command, wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_row_under_our_names():
    assert set(FIELDS) >= {
        "sample_id",
        "sentence_idx",
        "segmentation",
        "response",
        "score",
        "sent_id",
    }
    renames = Renames({"sample_id": "sentence_idx", "sentence_idx": "sample_id", "score": "p"})
    row = {"sample_id": 1, "sentence_idx": 2, "p": 3, "score": 4, "mine": 5}
    assert renames.row(row) == {"sentence_idx": 1, "sample_id": 2, "score": 3, "mine": 5}
    assert Renames().row(row) is row
