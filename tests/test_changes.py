"""A score, an adapter and a proposer name what they read: a file that changes meanwhile is an error that says so."""

import json
import os
from pathlib import Path

import pytest
from helpers import sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu import adapters
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions import shards
from refcocom_gpu.utils.files import hash_files

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset
HALF = len(CASE.masks) // 2


def shards_of(folder: Path) -> list[Path]:
    rows = CASE.rows()
    return [
        write_jsonl(folder / "a.jsonl", rows[:HALF]),
        write_jsonl(folder / "b.jsonl", rows[HALF:]),
    ]


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


def same_size(path: Path) -> bytes:
    """Other content of the same length, as a training run that saves again would leave."""
    return path.read_bytes().replace(b'"counts": "', b'"counts":  "', 1)[:-1]


@pytest.mark.parametrize("change", ["replaced", "appended", "deleted", "touched"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_shard_that_changes_while_it_is_scored(tmp_path, change, which):
    files = shards_of(tmp_path)
    path = files[which]
    done = []

    def progress(n: int) -> None:
        if done:
            return
        done.append(n)
        if change == "replaced":
            replace(path, same_size(path))
        elif change == "appended":
            path.write_bytes(path.read_bytes() + b"\n")
        elif change == "deleted":
            path.unlink()
        else:
            os.utime(path, ns=(1, 1))

    with pytest.raises(rc.DataError, match="changed while it was read") as error:
        rc.score(files, STORE, progress=progress)
    assert str(path) in str(error.value)
    assert not isinstance(error.value, rc.PredictionError)


def test_a_mistake_of_a_file_that_is_being_written_is_not_reported(tmp_path, monkeypatch):
    files = shards_of(tmp_path)
    real = shards.read_shard

    def read(reader, path, *others):
        if path == files[1]:
            replace(path, path.read_bytes()[:-40])
        yield from real(reader, path, *others)

    monkeypatch.setattr("refcocom_gpu.predictions.read.read_shard", read)
    with pytest.raises(rc.DataError, match="changed while it was read"):
        rc.score(files, STORE)
    with pytest.raises(rc.DataError, match="changed while it was read"):
        FileProposer("p", files, DATASET)


def test_the_hash_of_a_score_is_that_of_its_files(tmp_path):
    files = shards_of(tmp_path)
    assert CASE.check(files).info["predictions"]["xxh3_128"] == hash_files(files)


def responses(folder: Path) -> Path:
    rows = [
        {"sample_id": key[0], "sentence_idx": key[1], "response": rle.encode(mask)}
        for key, mask in zip(map(DATASET.key_of, range(len(CASE.masks))), CASE.masks, strict=True)
    ]
    path = folder / "answers.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_answers_carry_the_hash_of_what_was_read(tmp_path):
    path = responses(tmp_path)
    digest = hash_files([path])
    answers = adapters.read(path, DATASET, source="rle")
    path.write_text("later")
    about = CASE.check(answers).info["predictions"]
    assert (about["xxh3_128"], about["files"]) == (digest, [str(path)])


def test_answers_that_change_while_they_are_read(tmp_path, monkeypatch):
    path = responses(tmp_path)
    real = adapters.files.json_object

    def row(text, where, *others):
        if where.endswith("line 3"):
            replace(path, path.read_bytes() + b"\n")
        return real(text, where, *others)

    monkeypatch.setattr(adapters.files, "json_object", row)
    with pytest.raises(rc.DataError, match="changed while it was read"):
        adapters.read(path, DATASET, source="rle")
