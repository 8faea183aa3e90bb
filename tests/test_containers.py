"""What predictions come in: text of any form, compressed files, Arrow, archives and folders; and what is refused."""

import json
import re

import pytest
from helpers import problems_of, sample_case, write_jsonl

from refcocom_gpu.predictions import text as text_module

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset
N = len(CASE.masks)
HEADER = {"schema": "refcocom-predictions", "version": 1, "dataset": DATASET.fingerprint}

BOM = b"\xef\xbb\xbf"


def lines(end: str = "\n", rows: list | None = None) -> bytes:
    return "".join(json.dumps(row) + end for row in rows or CASE.rows()).encode()


def array(**how) -> bytes:
    return json.dumps(CASE.rows(), **how).encode()


def only_problem(path, **options):
    """The one thing that is wrong beside that predictions are missing."""
    (problem,) = problems_of(path, STORE, missing="zero", **options).problems
    assert problem.where.startswith(str(path))
    return problem


# Text ---------------------------------------------------------------------------------------------

TEXTS = {
    "lines": lines(),
    "BOM and CRLF": BOM + lines("\r\n", [HEADER, *CASE.rows()]),
    "array": array(),
    "array, indented, with BOM and CRLF": BOM + array(indent=1).replace(b"\n", b"\r\n"),
    "array after blank lines": b" \r\n\n" + array() + b"\n\n",
}


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
@pytest.mark.parametrize("form", TEXTS)
def test_text_is_read_as_what_it_is(tmp_path, suffix, form):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(TEXTS[form])
    CASE.check(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lines().decode().encode("utf-16"), "UTF-16 text, not UTF-8"),
        (lines().decode().encode("utf-16-be"), "UTF-16 text, not UTF-8"),
        (array().decode().encode("utf-16-le"), "UTF-16 text, not UTF-8"),
        (b"\x1f\x8b\x08\x00rest", "compressed with gzip"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\xfd7zXZ\0\0", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd\0", "compressed with zstd"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1", "Parquet"),
        (array() + b"\n" + array(), "begins with [ as a JSON array of results does, but is not one"),
        (array()[:-1], "begins with [ as a JSON array of results does, but is not one"),
    ],
)  # fmt: skip
def test_what_is_no_such_text_is_named(tmp_path, suffix, content, says):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(content)
    problem = only_problem(path)
    assert (problem.kind, problem.where) == ("malformed", str(path))
    assert says in problem.message


def test_an_object_over_several_lines_is_one_mistake(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"annotations": CASE.rows()}, indent=1))
    assert "begins with { as JSON lines do" in only_problem(path).message
    path.write_text("results: none")
    assert "nor JSON lines" in only_problem(path).message


@pytest.mark.parametrize("mark", [b"", BOM])
def test_shards_that_were_joined_are_named(tmp_path, mark):
    shard = mark + lines(rows=[HEADER, *CASE.rows()])
    rest = mark + lines(rows=[HEADER])
    path = tmp_path / "p.jsonl"
    path.write_bytes(shard + rest)
    problem = only_problem(path)
    assert problem.where == f"{path}, line {N + 2}"
    assert problem.kind == ("malformed" if mark else "header")
    says = "byte order mark stands there: files were joined" if mark else "shards were joined"
    assert says in problem.message


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_named(tmp_path, name):
    rows = CASE.rows()
    rows[3]["score"] = float(name)
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    problem = only_problem(path)
    assert problem.where == f"{path}, line 4"
    says = re.compile(f"{name.lstrip('-')} stands there, which JSON does not have.*byte")
    assert says.search(problem.message)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rows))
    assert says.search(only_problem(path).message)


def test_a_row_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "LINE_BYTES", 2**21)
    path = tmp_path / "p.jsonl"
    path.write_bytes(lines() + b'{"sample_id": ' + b"1" * 2**23)
    assert "a row of more than 2 MiB" in only_problem(path).message
