"""Text of predictions: read as what it is, also compressed; what it is not is named."""

import gzip
import json
import lzma
import re

import pytest
from helpers import problems_of, write_jsonl
from prediction_files import (
    BOM,
    CASE,
    COMPRESS,
    HEADER,
    STORE,
    TEXTS,
    N,
    array,
    lines,
    only_problem,
)
from sweeps import sweep

import refcocom_gpu as rc
from refcocom_gpu.predictions import compressed
from refcocom_gpu.predictions import text as text_module
from refcocom_gpu.utils.files import hash_file

# Text ---------------------------------------------------------------------------------------------


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
        (b"BZh91AY", "compressed with bz2"),
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


# Compressed text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 300, 2**20])
@pytest.mark.parametrize("form", TEXTS)
def test_an_array_is_streamed_as_well_as_lines(tmp_path, monkeypatch, block, form):
    monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(TEXTS[form]))
    CASE.check(path)


@pytest.mark.parametrize("codec", COMPRESS)
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".JSON"])
def test_compressed_text(tmp_path, codec, suffix):
    path = tmp_path / f"p.v2{suffix}{codec}"
    path.write_bytes(COMPRESS[codec](array() if suffix.lower() == ".json" else lines()))
    result = CASE.check(path)
    # The summary names the bytes of the file, not those of the text.
    assert result.info["predictions"]["xxh3_128"] == hash_file(path)


def test_strings_and_brackets_of_a_streamed_array(tmp_path, monkeypatch):
    """What stands in strings is no bracket, whatever block it begins in."""
    rows = [{**row, "note": '}]"\\', "more": [[{"a": []}], {}]} for row in CASE.rows()]
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    for block in (1, 77):
        monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
        CASE.check(path)


@pytest.mark.parametrize("block", [1, 2**20])
@pytest.mark.parametrize(
    "broken",
    [
        array()[:-1],
        array()[:-1] + b",]",
        array()[:-1] + b"}",
        array() + b" 1",
        array().replace(b"}, {", b"} {", 1),
        array().replace(b"}, {", b"},, {", 1),
        array().replace(b"null", b"NaN", 1),
        b"[,]",
        b"[}",
    ],
)
def test_a_streamed_array_that_is_none(tmp_path, monkeypatch, block, broken):
    monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(broken))
    problem = only_problem(path)
    assert (problem.kind, problem.where) == ("malformed", str(path))
    assert "begins with [ as a JSON array of results does, but is not one" in problem.message


def test_entries_of_a_streamed_array_have_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 100)
    rows = CASE.rows()
    rows[41]["sample_id"] = "a"
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert only_problem(path).where == f"{path}, entry 42"


@pytest.mark.parametrize("codec", COMPRESS)
def test_damaged_and_other_compressed_files_are_named(tmp_path, codec):
    path = tmp_path / f"p.jsonl{codec}"
    whole = COMPRESS[codec](lines())
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be decompressed" in only_problem(path).message
    path.write_bytes(whole[:20] + b"\x99" * 9 + whole[29:])
    assert "cannot be decompressed" in only_problem(path).message
    for content in (lines(), b""):
        path.write_bytes(content)
        assert "whatever its name says" in only_problem(path).message


@pytest.mark.parametrize("codec", COMPRESS)
@pytest.mark.parametrize(
    ("start", "content"),
    [(lines(), b"\n"), (lines(), b"0"), (b"", b"["), (b"[", b"{},"), (b"[", b"0,"), (b'["', b"a")],
)
def test_a_bomb_ends_in_an_error(tmp_path, monkeypatch, codec, start, content):
    monkeypatch.setattr(compressed, "MOST_BYTES", 2**17)
    monkeypatch.setattr(compressed, "MOST_TIMES", 2)
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 2**16)
    path = tmp_path / f"p.jsonl{codec}"
    path.write_bytes(COMPRESS[codec](start + content * (2**19 // len(content))))
    error = problems_of(path, STORE, missing="zero")
    assert error.counts["malformed"] == 1
    # Of the many entries without a key, the first are kept, and this comes after them.
    if error.counts.total() == 1:
        assert "decompresses to more than" in error.problems[0].message


def test_other_formats_are_not_compressed(tmp_path):
    for name in ("p.csv.gz", "p.parquet.gz", "p.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"a,b"))
        with pytest.raises(rc.UsageError, match=r"predictions are .*\.jsonl.*\.gz.* not \."):
            rc.score(tmp_path / name, STORE)


def test_a_sweep_of_compressed_text(tmp_path):
    head = {**HEADER, "model": "the model"}
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(BOM + lines(rows=[head, *CASE.rows()])))
    (tmp_path / "b.json.xz").write_bytes(lzma.compress(array()))
    results = sweep([str(tmp_path / "*")], tmp_path / "out").results
    assert [result.error for result in results] == [None, None]
    assert [result.model for result in results] == ["the model", "b"]
    for result in results:
        assert (result.counts == CASE.expected).all()
