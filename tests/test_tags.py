"""Files of tags: each example gets the value of its key, whatever names it; each mistake is named with its count."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from helpers import sample_case
from hypothesis import given, settings
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main

STORE = sample_case().store
RESULT = rc.score("sample", STORE)
ROWS = RESULT.per_example.to_pylist()
N = len(ROWS)
SCORE = ["score", "dataset=sample", "predictions=sample"]


def written(path, columns):
    table = pa.table(columns)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def values_of(result, name):
    """The slice of each example, from the rows of the table and nothing else."""
    return result.per_example[f"tag.{name}"].to_pylist()


KEYS = [
    ("sample_id", "sentence_idx"),
    ("sample_id",),
    ("image_id",),
    ("index",),
    ("image_id", "sentence"),
    ("image_id", "sample_id"),
    ("sample_id", "sentence_idx", "sentence"),
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("keys", KEYS, ids="+".join)
def test_every_key(tmp_path, keys, suffix):
    """Half of the keys have a row, in any order; the others have no tag."""
    rng = np.random.default_rng(0)
    distinct = [*dict.fromkeys(tuple(row[key] for key in keys) for row in ROWS)]
    chosen = rng.permutation(len(distinct))[: len(distinct) // 2].tolist()
    colour = {distinct[k]: str(rng.choice(["red", "blue", "grün"])) for k in chosen}
    columns = {key: [k[at] for k in colour] for at, key in enumerate(keys)}
    path = written(tmp_path / f"tags{suffix}", {**columns, "colour": [*colour.values()]})
    result = RESULT.with_slices(tags=path)
    expected = [colour.get(tuple(row[key] for key in keys)) for row in ROWS]
    assert values_of(result, "colour") == expected
    rows = {row["slice"]: row for row in result.slices("colour").to_pylist()}
    assert {*rows} == {"red", "blue", "grün", "(none)"}
    for label, row in rows.items():
        inside = np.array([(value or "(none)") == label for value in expected])
        assert row["n_examples"] == inside.sum()
        assert row["miou"] == pytest.approx(RESULT.iou[inside].mean())
    assert result.sliced == ("colour",)
    assert "colour" in result.slices()
    about = result.info["tags"][0]
    assert (about["file"], about["columns"]) == (str(path), ["colour"])
    assert {*about["keys"]} == {*keys}


@given(
    st.lists(st.sampled_from([None, 1.0, 2.5, float("nan"), 10.0]), min_size=1, max_size=N),
    st.randoms(use_true_random=False),
)
@settings(max_examples=20)
def test_order_and_repeats_change_nothing(tmp_path_factory, values, random):
    folder = tmp_path_factory.mktemp("tags")
    rows = [(k, value) for k, value in enumerate(values)]
    shuffled = rows + rows[: len(rows) // 2]
    random.shuffle(shuffled)
    found = [
        RESULT.with_slices(
            tags=written(
                folder / f"{name}.parquet",
                {
                    "index": [k for k, _ in of],
                    "x": pa.array([value for _, value in of], pa.float64(), from_pandas=False),
                },
            )
        ).slices("x")
        for name, of in (("plain", rows), ("shuffled", shuffled))
    ]
    assert found[0].equals(found[1])
    assert sum(found[0]["n_examples"].to_pylist()) == N
    known = {"1", "2.5", "10"} & {*found[0]["slice"].to_pylist()}
    n_none = sum(value is None or value != value for value in values) + N - len(values)
    in_order = [*sorted(known, key=float), *(["(none)"] if n_none else [])]
    assert found[0]["slice"].to_pylist() == in_order


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([True, False, None], ["false", "true", "(none)"]),
        ([10, 9, -1], ["-1", "9", "10", "(none)"]),
        (["10", "9", "9"], ["(none)", "9", "10"]),
        (["b", "", "(none)"], ["(none)", "b"]),
        ([1.0, float("nan"), 0.1], ["0.1", "1", "(none)"]),
        (pa.array(["u", "v", "u"]).dictionary_encode(), ["(none)", "u", "v"]),
        (pa.array([0, 1, 0], pa.date32()), ["(none)", "1970-01-01", "1970-01-02"]),
        (pa.nulls(3), ["(none)"]),
    ],
)
def test_values_and_their_order(tmp_path, values, labels):
    """Numbers and booleans ascend, text is in the order of how frequent it is; what is no value is `(none)`."""
    path = written(tmp_path / "tags.parquet", {"index": [0, 1, 2], "x": values})
    result = RESULT.with_slices(tags=path)
    assert result.slices("x")["slice"].to_pylist() == labels
    result.save(tmp_path / "out")
    assert rc.load_results(tmp_path / "out").slices("x").equals(result.slices("x"))


def test_further_columns_of_predictions_are_tags(tmp_path):
    """A Parquet file of predictions is its own file of tags; the masks in it are passed over."""
    rows = [{**row, "prompt": k % 3} for k, row in enumerate(sample_case().rows())]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    result = rc.score(path, STORE).with_slices(tags=path)
    assert result.slices("prompt")["n_examples"].to_pylist() == [N / 3] * 3


def test_ids_may_be_text_or_floats(tmp_path):
    ids = [row["sample_id"] for row in ROWS[:9]]
    for kind in (pa.string(), pa.float64()):
        path = written(
            tmp_path / "t.parquet", {"sample_id": pa.array(ids).cast(kind), "x": ["a"] * 9}
        )
        assert values_of(RESULT.with_slices(tags=path), "x").count("a") >= 9


FIRST = ROWS[0]["sample_id"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"sample_id": [FIRST, 5, None], "x": ["a", "b", "c"]},
            r"t\.parquet: 2 of 3 rows are of no example of this dataset; the first is row 2 \(sample_id 5\)$",
        ),
        (
            {"sample_id": [FIRST, FIRST], "sentence_idx": [0, 99], "x": [1, 2]},
            r"1 of 2 rows .* row 2 \(sample_id 20002, sentence_idx 99\)$",
        ),
        (
            {"index": [0, 1, 0, 0, 1], "x": ["a", "b", "a", "c", None]},
            r"2 rows have another value than an earlier row of the same key; the first is row 4 \(index 0\), "
            "which row 1 holds too$",
        ),
        (
            {"index": [0, 0, N], "x": [1, 2, 3]},
            "1 of 3 rows are of no example .*; 1 rows have another value",
        ),
        ({"image_id": [1001], "sentence": ["no such"], "x": [1]}, "1 of 1 rows are of no example"),
        ({"x": [1]}, "names no example: it needs a column index, sample_id, image_id; it has x"),
        ({"sentence": ["a"], "x": [1]}, "names no example"),
        (
            {"image_id": [1001], "sentence_idx": [0], "x": [1]},
            "sentence_idx counts .* add sample_id",
        ),
        ({"sample_id": [FIRST]}, "holds no tag: all its columns, sample_id, name examples"),
        ({"index": [0], "size": [1]}, "size would be confused with what a result has already"),
        ({"index": [0], "status": [1], "all": [1]}, "status, all would be confused"),
        ({"index": [0], "": [1]}, "every column needs a name of its own; there are 'index', ''"),
        ({"index": [0], "x": [[1]]}, "tags are text, numbers or booleans; column x holds list"),
    ],
)
def test_mistakes(tmp_path, columns, said):
    with pytest.raises(rc.TagsError, match=said):
        RESULT.with_slices(tags=written(tmp_path / "t.parquet", columns))


def test_two_columns_of_one_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("index,x,x\n0,1,2\n")
    with pytest.raises(rc.TagsError, match="every column needs a name of its own"):
        RESULT.with_slices(tags=path)


def test_repeated_sample_ids_cannot_name_examples(tmp_path):
    """In a dataset that is keyed by position, an id may belong to several samples."""
    table = RESULT.per_example
    place = table.schema.get_field_index("sample_id")
    odd = replace(RESULT, per_example=table.set_column(place, "sample_id", pa.array([7] * N)))
    path = written(tmp_path / "t.parquet", {"sample_id": [7], "x": ["a"]})
    with pytest.raises(
        rc.TagsError, match="a sample_id names several samples; name examples by index"
    ):
        odd.with_slices(tags=path)
    path = written(tmp_path / "t.parquet", {"index": [3], "sample_id": [7], "x": ["a"]})
    assert values_of(odd.with_slices(tags=path), "x").count("a") == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", b"index,x\n0,1\n", r"ends in \.csv or \.parquet"),
        ("t.csv", None, "cannot be read: No such file"),
        ("t.csv", b"", "cannot be read: Empty CSV"),
        ("t.csv", b"index,x\n0,1,2\n", "cannot be read: CSV parse error"),
        ("t.parquet", b"index,x", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(rc.UsageError, match=said):
        RESULT.with_slices(tags=path)


def test_a_second_file_adds_and_replaces(tmp_path):
    a = written(tmp_path / "a.parquet", {"index": [0], "x": ["a"], "y": ["a"]})
    b = written(tmp_path / "b.parquet", {"index": [1], "x": ["b"]})
    both = RESULT.with_slices(tags=a).with_slices(tags=b)
    assert values_of(both, "x")[:3] == [None, "b", None]
    assert values_of(both, "y")[:3] == ["a", None, None]
    assert [Path(about["file"]).name for about in both.info["tags"]] == ["a.parquet", "b.parquet"]


def test_comparisons_take_tags(tmp_path):
    path = written(tmp_path / "t.parquet", {"index": range(N), "half": [k % 2 for k in range(N)]})
    other = rc.score("sample-coarse", STORE)
    found = rc.compare(RESULT, other, tags=path)
    assert list(found.breakdowns) == ["category", "size", "length", "half"]
    assert {g.label: g.n_examples for g in found.breakdowns["half"]} == {
        "0": (N + 1) // 2,
        "1": N // 2,
    }
    assert found.summary()["tags"][0]["columns"] == ["half"]
    assert "tags" not in rc.compare(RESULT, other).summary()
    # One of the results holds them already; then both do, with other values.
    tagged = RESULT.with_slices(tags=path)
    for pair in ((tagged, other), (other, tagged)):
        assert list(rc.compare(*pair, slices="half").breakdowns)[-1] == "half"
    path = written(tmp_path / "u.parquet", {"index": [0], "half": [5]})
    unlike = other.with_slices(tags=path)
    assert list(rc.compare(tagged, unlike).breakdowns) == ["category", "size", "length"]
    with pytest.raises(rc.ComparisonError, match="hold different tags half; tags=FILE gives both"):
        rc.compare(tagged, unlike, slices="half")
    assert len(rc.compare(tagged, unlike, tags=path).breakdowns["half"]) == 2


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ids = [row["sample_id"] for row in ROWS]
    written(Path("t.csv"), {"sample_id": ids, "round": [i % 3 == 0 for i in ids]})
    assert main([*SCORE, "tags=t.csv", "slices=size", "output_dir=out"]) == 0
    out = capsys.readouterr().out
    assert (
        out.index("  size ") < out.index("  round ") < out.index("  false ") < out.index("  true ")
    )
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    assert list(summary["slices"]) == ["size", "round"]
    assert summary["tags"][0]["file"] == "t.csv"
    assert "tag.round" in pq.read_schema("out/per_example.parquet").names
    assert main(["compare", "out", "sample-coarse", "dataset=sample", "slices=round"]) == 0
    assert "\n  round  examples" in capsys.readouterr().out
    assert main(["compare", "sample", "sample-coarse", "dataset=sample", "tags=t.csv"]) == 0
    assert "\n  round  examples" in capsys.readouterr().out


def test_mistakes_are_found_before_anything_is_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("refcocom_gpu.scorer.score", lambda *_, **__: pytest.fail("scored"))
    path = written(tmp_path / "t.csv", {"sample_id": [5], "x": ["a"]})
    assert main([*SCORE, f"tags={path}"]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "1 of 1 rows are of no example" in err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"sample_id,min\xe9\n20002,a\n", "names of its columns are not UTF-8"),
        (b"sample_id,mine\n20002,caf\xe9\n", "column mine is not UTF-8 text"),
        (None, "is a pipe, not a file"),
    ],
)
def test_files_that_are_no_text(tmp_path, capsys, content, says):
    path = tmp_path / "tags.csv"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert main(["score", "sample", "dataset=sample", f"tags={path}"]) == 2
    assert says in capsys.readouterr().err
