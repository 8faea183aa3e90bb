"""Arrow files, saved datasets and folders of shards: one set of predictions each, or what is wrong with them."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from helpers import problems_of, table
from prediction_files import (
    CASE,
    COMPRESS,
    FIRST,
    HEADER,
    MASKS,
    MEMBERS,
    STORE,
    N,
    lines,
    only_problem,
    write_ipc,
)
from sweeps import sweep

import refcocom_gpu as rc
from refcocom_gpu.predictions import arrow_tables
from refcocom_gpu.utils.files import hash_file

# Arrow --------------------------------------------------------------------------------------------


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


def test_a_dict_of_datasets_names_its_splits():
    made = datasets.DatasetDict({"val": datasets.Dataset(table(CASE.rows()))})
    with pytest.raises(
        rc.UsageError, match=r"DatasetDict is a dict of splits \('val'\).*\[split\]"
    ):
        rc.score(made, CASE.store)
    CASE.check(made["val"])


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
