"""JSON lines are parsed once: the columns kept beside the store are those of the file as it stands, or are not used."""

import json

import numpy as np
import pytest

import refcocom_gpu as rc
from refcocom_gpu.dataset import records
from refcocom_gpu.dataset.sample import make_records


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, make_records()[:4])))
    return path


@pytest.fixture
def parsed(monkeypatch):
    """The files that were parsed, in order."""
    seen = []
    parse = records.from_jsonl

    def counted(text, where):
        seen.append(where)
        return parse(text, where)

    monkeypatch.setattr(records, "from_jsonl", counted)
    return seen


def assert_same(found, expected):
    assert found.fingerprint == expected.fingerprint
    for name in ("images", "samples", "examples"):
        assert getattr(found, name).equals(getattr(expected, name))


def test_parsed_once(source, parsed, tmp_path):
    fresh = rc.load_dataset(source, cache=False)
    for _ in range(3):
        assert_same(rc.load_dataset(source, cache=tmp_path / "cache"), fresh)
    assert len(parsed) == 2
    # The same content elsewhere is the same file.
    copy = source.with_name("copy.json")
    copy.write_bytes(source.read_bytes())
    assert_same(rc.load_dataset(copy, cache=tmp_path / "cache"), fresh)
    assert len(parsed) == 2


def test_a_changed_file_is_parsed_anew(source, parsed, tmp_path):
    before = rc.load_dataset(source, cache=tmp_path / "cache")
    source.write_text(source.read_text().replace(before.examples["sentence"][0].as_py(), "other"))
    after = rc.load_dataset(source, cache=tmp_path / "cache")
    assert len(parsed) == 2
    assert after.examples["sentence"][0].as_py() == "other"
    assert after.fingerprint != before.fingerprint


def test_damaged_columns_are_parsed_anew(source, parsed, tmp_path):
    fresh = rc.load_dataset(source, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("columns.safetensors")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert_same(rc.load_dataset(source, cache=tmp_path / "cache"), fresh)
    assert len(parsed) == 2


def test_columns_of_other_code_are_not_used(source, parsed, tmp_path, monkeypatch):
    rc.load_dataset(source, cache=tmp_path / "cache")
    other = tmp_path / "records.py"
    other.write_text("# what the next version says")
    monkeypatch.setattr(records, "__file__", str(other))
    rc.load_dataset(source, cache=tmp_path / "cache")
    assert len(parsed) == 2


def test_a_faulty_file_keeps_nothing(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"image_id": 1}')
    for _ in range(2):
        with pytest.raises(rc.DatasetError, match=r"set\.jsonl:1"):
            rc.load_dataset(path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_store_over_kept_columns_scores_the_same(source, tmp_path):
    cache = tmp_path / "cache"
    results = []
    for _ in range(2):
        store = rc.MaskStore.build(rc.load_dataset(source, cache=cache), cache=cache)
        pairs = [(k, np.ones_like(store.mask(k))) for k in range(len(store))]
        results.append(rc.score(pairs, store))
    assert results[0].per_example.equals(results[1].per_example)
