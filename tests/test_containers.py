"""What predictions come in: text of any form, compressed files, Arrow, archives and folders; and what is refused."""

import base64
import bz2
import copy
import gzip
import io
import json
import lzma
import re
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from helpers import problems_of, sample_case, table, write_jsonl
from PIL import Image
from sweeps import sweep

import refcocom_gpu as rc
from refcocom_gpu.predictions import arrow_tables, compressed, limits
from refcocom_gpu.predictions import text as text_module
from refcocom_gpu.utils.files import hash_file

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

COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


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


# Arrow --------------------------------------------------------------------------------------------


def write_ipc(path, given: pa.Table, *, stream: bool, rows: int = 50, **options):
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(path, given.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(given, max_chunksize=rows)
    return path


@pytest.mark.parametrize("rows", [7, 10_000])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_arrow_files(tmp_path, monkeypatch, rows, stream, compression):
    monkeypatch.setattr(arrow_tables, "BATCH_ROWS", 20)
    given = table(CASE.rows()).append_column("score", pa.array(np.ones(N)))
    path = tmp_path / "p.arrow"
    CASE.check(write_ipc(path, given, stream=stream, rows=rows, compression=compression))
    listed = table(CASE.rows(listed=True), counts=pa.list_(pa.int32()))
    CASE.check(write_ipc(path, listed, stream=stream, rows=rows), threads=1)


def test_feather(tmp_path):
    path = tmp_path / "p.feather"
    pa.feather.write_feather(table(CASE.rows()), path)
    CASE.check(path)


def test_the_header_of_an_arrow_file_is_checked_and_names_the_model(tmp_path):
    head = {key: str(value) for key, value in HEADER.items()} | {"model": "the model"}
    good = table(CASE.rows()).replace_schema_metadata(head)
    newer = table(CASE.rows()).replace_schema_metadata({**head, "version": "2"})
    paths = [tmp_path / "a.arrow", tmp_path / "b.feather"]
    write_ipc(paths[0], good, stream=True)
    write_ipc(paths[1], newer, stream=False)
    first, second = sweep([str(path) for path in paths], tmp_path / "out").results
    assert (first.model, first.error) == ("the model", None)
    assert (first.counts == CASE.expected).all()
    assert "this package reads version 1" in second.error


def test_mistakes_of_an_arrow_file_have_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_tables, "BATCH_ROWS", 20)
    rows = CASE.rows()
    rows[33]["sample_id"] = 10**9
    path = write_ipc(tmp_path / "p.arrow", table(rows), stream=True)
    problem = only_problem(path)
    assert (problem.kind, problem.where) == ("unknown key", f"{path}, row 33")
    path = write_ipc(tmp_path / "p.arrow", table(rows).drop(["segmentation"]), stream=True)
    assert only_problem(path).kind == "no column"


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_arrow_file_is_an_error(tmp_path, stream):
    path = write_ipc(tmp_path / "p.arrow", table(CASE.rows()), stream=stream)
    whole = path.read_bytes()
    found = 0
    for at in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:at] + b"\xff\x7f" * 4 + whole[at + 8 :])
        # Arrow has no checksums, so other counts may come of it, but no crash.
        try:
            CASE.check(path)
        except (rc.PredictionError, AssertionError):
            found += 1
    assert found > 0
    for content in (b"", b"FEA1" + whole, b"ARROW1", whole[: len(whole) // 2], b"nothing"):
        path.write_bytes(content)
        assert problems_of(path, STORE).counts["malformed"] == 1


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_a_damaged_name_of_a_column_is_an_error(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    write_rank(path, slice(0, None))
    path.write_bytes(path.read_bytes().replace(b"sentence_idx", b"sentence_i\xbex"))
    assert "malformed" in problems_of(path, STORE).counts


def test_a_dataset_of_hugging_face(tmp_path):
    dataset = datasets.Dataset(table(CASE.rows()))
    order = np.random.default_rng(0).permutation(N)
    for given in (dataset, dataset.select(order), dataset.with_format("numpy")):
        CASE.check(given)
    dataset.select(order).save_to_disk(tmp_path / "saved", num_shards=3)
    result = CASE.check(tmp_path / "saved")
    assert result.info["predictions"]["xxh3_128"] == hash_file(tmp_path / "saved")
    (swept,) = sweep([str(tmp_path / "saved")], tmp_path / "out").results
    assert (swept.counts == CASE.expected).all()
    problem = problems_of(dataset.select(range(1, N)), STORE).problems[0]
    assert problem.kind == "missing"
    lacking = problems_of(dataset.remove_columns("segmentation"), STORE, missing="zero")
    assert lacking.problems[0].kind == "no column"


def test_a_saved_dataset_that_is_not_whole(tmp_path):
    folder = tmp_path / "saved"
    datasets.Dataset(table(CASE.rows())).save_to_disk(folder, num_shards=2)
    (folder / "data-00001-of-00002.arrow").rename(tmp_path / "elsewhere.arrow")
    error = problems_of(folder, STORE)
    assert "which is no file of the folder" in error.problems[0].message
    state = {"_data_files": [{"filename": "../elsewhere.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    assert "'../elsewhere.arrow'" in only_problem(folder).message
    (folder / "state.json").write_text("[]")
    assert "not that of a saved dataset" in only_problem(folder).message
    datasets.DatasetDict({"a": datasets.Dataset(table(CASE.rows()))}).save_to_disk(tmp_path / "d")
    with pytest.raises(rc.UsageError, match="each a set of its own: a; give one of them"):
        rc.score(tmp_path / "d", STORE)


# Archives -----------------------------------------------------------------------------------------


def png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


MASKS = dict(zip(CASE.names(), CASE.masks, strict=True))
MEMBERS = {f"masks/{name}.png": png(mask) for name, mask in MASKS.items()}
FIRST = next(iter(MEMBERS))

ARCHIVES = [".zip", ".tar", ".tgz", *(f".tar{codec}" for codec in COMPRESS)]


def write_archive(path, members):
    """An archive of files by name, in which a folder stands too."""
    members = list(members.items() if isinstance(members, dict) else members)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("masks")
            for name, content in members:
                archive.writestr(name, content)
        return path
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        folder = tarfile.TarInfo("masks")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    compress = COMPRESS.get(".gz" if path.suffix == ".tgz" else path.suffix, bytes)
    path.write_bytes(compress(file.getvalue()))
    return path


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_archives_of_masks(tmp_path, suffix):
    members = {
        **{f"./{name}": content for name, content in list(MEMBERS.items())[::2]},
        **{f"{name}.npy": npy(mask) for name, mask in list(MASKS.items())[1::2]},
        "__MACOSX/masks/._1_0.png": b"of the system",
        "masks/.DS_Store": b"of the system",
    }
    path = write_archive(tmp_path / f"p{suffix}", members)
    result = CASE.check(path, batch_size=7)
    assert result.info["predictions"]["xxh3_128"] == hash_file(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_logits_in_an_archive(tmp_path, suffix):
    members = {f"{name}.npy": npy(2.0 * mask - 1) for name, mask in MASKS.items()}
    CASE.check(write_archive(tmp_path / f"p{suffix}", members))


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_every_mistake_of_an_archive(tmp_path, suffix):
    members = [
        *list(MEMBERS.items())[1:],
        ("../1_0.png", b""),
        ("/masks/1_0.png", b""),
        ("a\\..\\1_0.png", b""),
        ("C:\\1_0.png", b""),
        ("masks/notes.txt", b""),
        ("other/" + list(MEMBERS)[1], MEMBERS[FIRST]),
        ("masks/cat.png", MEMBERS[FIRST]),
        (f"{CASE.names()[0]}.npy", npy(np.array([{"an": "object"}]))),
    ]
    path = write_archive(tmp_path / f"p{suffix}", members)
    error = problems_of(path, STORE)
    assert error.counts == {
        "unsafe name": 4, "unknown file": 1, "duplicate": 1, "bad key": 1, "malformed mask": 1,
    }  # fmt: skip
    assert f"{path}, member ../1_0.png" in {p.where for p in error.problems}
    assert any("pickles" in p.message for p in error.problems)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(np.zeros((2000, 2000), bool)), id="png"),
        pytest.param(npy(np.zeros((2000, 2000), bool)), id="npy"),
        pytest.param(npy(np.zeros((2000, 2000), bool))[:200], id="cut"),
        pytest.param(b"\x93NUMPY\x03\0" + npy(np.zeros(1))[8:], id="version"),
    ],
)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_member_that_declares_too_much(tmp_path, monkeypatch, suffix, content):
    monkeypatch.setattr(limits, "LEAST_PIXELS", 1)
    ending = ".png" if content.startswith(b"\x89PNG") else ".npy"
    name = CASE.names()[0] + ending
    members = {name: content, **dict(list(MEMBERS.items())[1:])}
    path = write_archive(tmp_path / f"p{suffix}", members)
    problem = only_problem(path)
    assert (problem.kind, problem.where) == ("malformed mask", f"{path}, member {name}")
    says = "version" if content[6:7] == b"\x03" else "2000×2000 pixels, more than"
    assert says in problem.message


def peak_of(path) -> tuple[int, rc.PredictionError]:
    tracemalloc.start()
    try:
        error = problems_of(path, STORE)
        return tracemalloc.get_traced_memory()[1], error
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.zst"])
def test_a_bomb_is_refused_within_bounded_memory(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(limits, "LEAST_PIXELS", 1)
    monkeypatch.setattr(limits, "STACKED", 1)
    name = f"{CASE.names()[0]}.npy"
    path = write_archive(tmp_path / f"p{suffix}", {name: bytes(2**26)})
    peak, error = peak_of(path)
    assert peak < 2**24
    assert any("declares 67,108,864 bytes" in p.message for p in error.problems)


def test_a_zip_member_holds_more_than_it_declares(tmp_path):
    name = f"{CASE.names()[0]}.npy"
    path = write_archive(tmp_path / "p.zip", {name: bytes(2**26)})
    declared = path.read_bytes().replace(struct.pack("<L", 2**26), struct.pack("<L", 200))
    path.write_bytes(declared)
    peak, error = peak_of(path)
    assert peak < 2**24
    assert error.counts["malformed mask"] == 1


def test_headers_of_a_tar_without_end(tmp_path):
    """A header that holds further fields is read whole by the parser, whatever it declares."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**26
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(2**26)))
    peak, error = peak_of(path)
    assert peak < 2**24
    assert any("headers of a member are longer" in p.message for p in error.problems)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_too_many_members(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(limits, "OTHER_MEMBERS", -3 * N - 1)
    path = write_archive(tmp_path / f"p{suffix}", MEMBERS)
    assert f"more than {N - 1} members" in only_problem(path).message


def test_members_that_are_no_plain_files(tmp_path):
    path = write_archive(tmp_path / "p.tar", dict(list(MEMBERS.items())[2:]))
    with tarfile.open(path, "a") as archive:
        for name, kind in ((FIRST, tarfile.SYMTYPE), (list(MEMBERS)[1], tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert problems_of(path, STORE).counts == {"unknown file": 2, "missing": 2}
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(FIRST, MEMBERS[FIRST])
    assert "another method than deflate" in only_problem(path).message


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_damaged_archives_and_other_files_are_named(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    whole = write_archive(path, MEMBERS).read_bytes()
    for content in (b"", b"nothing" * 100, whole[: len(whole) // 2 | 99]):
        path.write_bytes(content)
        error = problems_of(path, STORE)
        assert error.counts["malformed"] + error.counts["malformed mask"] == 1
    # In the middle of a mask, whose own checksum shows it.
    path.write_bytes(whole[:700] + b"\x99" * 9 + whole[709:])
    problems_of(path, STORE)


# Folders ------------------------------------------------------------------------------------------


def write_rank(path, part):
    """A shard of the sample, in the format of its ending."""
    rows = CASE.rows()[part]
    if path.suffix == ".npz":
        np.savez(path, **dict(list(MASKS.items())[part]))
    elif path.suffix == ".parquet":
        pq.write_table(table(rows), path)
    elif path.suffix == ".arrow":
        write_ipc(path, table(rows), stream=False)
    else:
        content = json.dumps(rows).encode() if ".json." in path.name else lines(rows=rows)
        path.write_bytes(COMPRESS.get(path.suffix, bytes)(content))
    return path


@pytest.mark.parametrize(
    "endings",
    [(".parquet",) * 2, (".jsonl",) * 2, (".npz",) * 2, (".arrow",) * 2, (".jsonl", ".json.gz")],
)
def test_a_folder_of_files_is_one_set(tmp_path, endings):
    for epoch in (0, 1):
        folder = tmp_path / f"epoch-{epoch}"
        folder.mkdir()
        write_rank(folder / f"rank-0{endings[0]}", slice(0, 50))
        write_rank(folder / f"rank-1{endings[1]}", slice(50, None))
        (folder / ".DS_Store").write_bytes(b"of the system")
        # A metric keeps its journal until the epoch ends.
        (folder / f"rank-0{endings[0]}.partial").write_text("")
        result = CASE.check(folder)
        assert result.info["predictions"]["files"] == [str(folder)]
        assert result.info["predictions"]["xxh3_128"] == hash_file(folder)
    results = sweep([str(tmp_path / "epoch-*")], tmp_path / "out").results
    assert [(result.model, result.error) for result in results] == [
        ("epoch-0", None),
        ("epoch-1", None),
    ]
    for result in results:
        assert (result.counts == CASE.expected).all()


def test_the_model_of_a_folder_is_in_the_header_of_a_file(tmp_path):
    folder = tmp_path / "epoch"
    folder.mkdir()
    (folder / "rank-0.jsonl").write_bytes(lines(rows=[{**HEADER, "model": "m"}, *CASE.rows()]))
    (result,) = sweep([str(folder)], tmp_path / "out").results
    assert (result.model, result.error) == ("m", None)


def test_folders_that_are_not_one_set(tmp_path):
    folder = tmp_path / "epoch-0"
    folder.mkdir()
    write_rank(folder / "rank-0.parquet", slice(0, None))
    for name in ("notes.txt", "rank-1.parquet.partial"):
        (folder / name).write_text("")
    (folder / "more").mkdir()
    error = problems_of(folder, STORE)
    assert error.counts == {"unknown file": 3}
    assert "its run is not over" in error.problems[2].message
    assert "a folder of .parquet files, and this is none" in error.problems[1].message
    (folder / "rank-1.jsonl").write_bytes(lines())
    (folder / "1_0.png").write_bytes(MEMBERS[FIRST])
    for name in ("a.npz", "b.npz", "c.npz", "d.npz"):
        (folder / name).write_bytes(b"")
    listed = (
        "several kinds of files: 1_0.png; a.npz, b.npz, c.npz, …; rank-0.parquet; rank-1.jsonl;"
    )
    with pytest.raises(rc.UsageError, match=listed):
        rc.score(folder, STORE)
    with pytest.raises(rc.UsageError, match="each a set of its own: epoch-0; give one of them"):
        rc.score(tmp_path, STORE)


def test_a_damaged_file_of_a_folder_is_named(tmp_path):
    folder = tmp_path / "epoch-0"
    folder.mkdir()
    write_rank(folder / "rank-0.jsonl", slice(0, None))
    (folder / "rank-1.jsonl").write_bytes(b"PAR1")
    assert only_problem(folder).where == str(folder / "rank-1.jsonl")


# Causes -------------------------------------------------------------------------------------------


def folder_of(tmp_path, picture: Image.Image, **save):
    """A folder of masks of which the one of `VARIED` is this picture."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, mask in MASKS.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    picture.save(folder / f"{CASE.names()[VARIED]}.png", **save)
    return folder


VARIED = next(k for k, mask in enumerate(CASE.masks) if mask.any() and not mask.all())
GREY = CASE.masks[VARIED].astype(np.uint8) * 255
FULL = np.full_like(GREY, 255)


@pytest.mark.parametrize(
    "channels", [[GREY] * 3, [GREY, GREY, GREY, FULL], [GREY, FULL]], ids=["RGB", "RGBA", "LA"]
)
def test_pictures_whose_channels_agree_are_grey(tmp_path, channels):
    picture = Image.fromarray(np.stack(channels, axis=-1))
    CASE.check(folder_of(tmp_path, picture))
    CASE.check({k: picture if k == VARIED else mask for k, mask in enumerate(CASE.masks)})


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        ([GREY, GREY, FULL], "this image is RGB and its colours differ"),
        ([GREY, FULL, GREY, FULL], "this image is RGBA and its colours differ"),
        ([FULL, FULL, FULL, GREY], "RGBA and its alpha channel varies"),
        ([GREY, GREY], "LA and its alpha channel varies"),
        ([GREY, GREY, GREY, FULL // 2], "RGBA and its alpha channel is 127 throughout"),
    ],
)
def test_pictures_whose_channels_differ_are_refused(tmp_path, channels, says):
    picture = Image.fromarray(np.stack(channels, axis=-1))
    problem = only_problem(folder_of(tmp_path, picture))
    assert problem.kind == "malformed mask"
    assert says in problem.message


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_that_exif_data_turn_is_refused(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = folder_of(tmp_path, Image.fromarray(CASE.masks[VARIED]), exif=exif)
    if orientation == 1:
        CASE.check(folder)
    else:
        assert f"its EXIF orientation is {orientation}" in only_problem(folder).message


def test_exif_data_that_are_damaged_are_refused(tmp_path):
    folder = folder_of(tmp_path, Image.fromarray(CASE.masks[VARIED]), exif=b"Exif\0\0rubbish")
    assert "its EXIF data cannot be read" in only_problem(folder).message


def test_colours_of_16_bits_are_refused(tmp_path):
    """Pillow would cut them to 8, and a mask of 0 and 1 to nothing."""
    h, w = GREY.shape
    pixels = np.repeat((CASE.masks[VARIED] * 1).astype(">u2")[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">LLBBBBB", w, h, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    folder = folder_of(tmp_path, Image.fromarray(GREY))
    (folder / f"{CASE.names()[VARIED]}.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    assert "RGB of 16 bits; save one channel" in only_problem(folder).message


def test_the_cause_of_malformed_counts_is_named(tmp_path):
    rows = CASE.rows()
    slashed = next(k for k in range(N) if "\\" in (rows[k]["segmentation"] or {}).get("counts", ""))
    first, second = [k for k in range(N) if rows[k]["segmentation"] and k != slashed][:2]

    def counts(k):
        return rows[k]["segmentation"]["counts"]

    rows[first]["segmentation"]["counts"] = str(counts(first).encode())
    rows[second]["segmentation"]["counts"] = base64.b64encode(
        b"\xfb\xef" + counts(second).encode()
    ).decode()
    rows[slashed]["segmentation"]["counts"] = counts(slashed).replace("\\", "\\\\")
    expected = {
        first: "it is the text of Python bytes",
        second: "it looks like base64",
        slashed: "its backslashes are doubled",
    }
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    on_torch = copy.copy(STORE)
    # Any name but `cpu` takes the way of a device; torch reads this one as the CPU.
    on_torch.device = "cpu:0"
    for store in (STORE, on_torch):
        error = problems_of(path, store)
        assert error.counts == {"malformed mask": 3}
        said = {p.where: p.message for p in error.problems}
        for k, says in expected.items():
            assert says in said[f"{path}, line {k + 1}"]


def test_json_text_in_a_column_is_named(tmp_path):
    given = table(CASE.rows()).drop(["segmentation"])
    text = pa.array([json.dumps(row["segmentation"]) for row in CASE.rows()])
    pq.write_table(given.append_column("segmentation", text), tmp_path / "p.parquet")
    problem = only_problem(tmp_path / "p.parquet")
    assert "segmentation is string" in problem.message
    assert "json.loads" in problem.message


def test_a_last_axis_of_one_is_named(tmp_path):
    np.savez(tmp_path / "p.npz", **{**MASKS, CASE.names()[0]: CASE.masks[0][..., None]})
    assert "drop its last axis: mask[..., 0]" in only_problem(tmp_path / "p.npz").message


def test_what_torch_refuses_is_named_without_its_advice(tmp_path):
    path = tmp_path / "p.pt"
    masks = {name: torch.from_numpy(mask) for name, mask in MASKS.items()}
    torch.save(masks, path, _use_new_zipfile_serialization=False)
    said = [only_problem(path).message]
    torch.save(MASKS, path)
    said.append(only_problem(path).message)
    torch.save({"1_0": object()}, path)
    said.append(only_problem(path).message)
    for message, says in zip(said, ("before version 1.6", "NumPy arrays", "object"), strict=True):
        assert says in message
        assert "\x1b" not in message
        assert "weights_only" not in message
        assert "mmap" not in message
