"""Scores from counts, by hand and by property; results written whole, read back to the bit, or refused."""

import json
import math
import os
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import sample_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import refcocom_gpu as rc
from refcocom_gpu.scores import example_table, metrics

counts = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)).map(
    lambda t: (t[0], t[0] + t[1], t[0] + t[2])
)
many = st.lists(counts, min_size=1, max_size=40)


def columns(rows: list) -> tuple[np.ndarray, ...]:
    return tuple(np.array(rows, np.int64).T)


@given(many)
def test_iou_is_the_rounded_fraction(rows):
    found = metrics.iou(*columns(rows))
    for value, (i, p, t) in zip(found, rows, strict=True):
        union = p + t - i
        assert value == (float(Fraction(i, union)) if union else 1.0)
        assert 0 <= value <= 1
        assert (value == 1) == (i == union)
    i, p, t = columns(rows)
    np.testing.assert_array_equal(found, metrics.iou(i, t, p))


@given(many, st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_order(rows, rng):
    shuffled = list(rows)
    rng.shuffle(shuffled)
    a, b = metrics.iou(*columns(rows)), metrics.iou(*columns(shuffled))
    assert metrics.mean(a) == metrics.mean(b)
    assert metrics.ciou(*columns(rows)) == metrics.ciou(*columns(shuffled))
    assert metrics.precision_at(a) == metrics.precision_at(b)


def test_a_plain_mean_would_depend_on_the_order():
    values = [1e16, 1.0, -1e16] + [0.1] * 7
    assert sum(values) != sum(sorted(values))
    assert {metrics.mean(random.Random(k).sample(values, 10)) for k in range(50)} == {
        math.fsum(values) / 10
    }


@pytest.mark.parametrize("scale", [1, 2, 3, 7, 1000, 30_000])
@pytest.mark.parametrize("tenths", [5, 6, 7, 8, 9])
def test_precision_exactly_on_a_threshold(scale, tenths):
    """7 of 10 pixels is 0.7, however many pixels that is: at or above counts it, above does not."""
    on = metrics.iou(*columns([(tenths * scale, tenths * scale, 10 * scale)]))
    x = tenths / 10
    assert metrics.precision_at(on)[x] == 1
    assert metrics.precision_at(on, strict=True)[x] == 0
    below = metrics.iou(*columns([(tenths * scale, tenths * scale, 10 * scale + 1)]))
    above = metrics.iou(*columns([(tenths * scale, tenths * scale, 10 * scale - 1)]))
    assert metrics.precision_at(below)[x] == metrics.precision_at(below, strict=True)[x] == 0
    assert metrics.precision_at(above)[x] == metrics.precision_at(above, strict=True)[x] == 1


def test_values_by_hand():
    rows = [(1, 2, 3), (0, 0, 4), (0, 0, 0), (5, 5, 5)]
    assert metrics.iou(*columns(rows)).tolist() == [0.25, 0, 1, 1]
    assert metrics.iou(*columns(rows), empty=0.0).tolist() == [0.25, 0, 0, 1]
    assert metrics.mean(metrics.iou(*columns(rows))) == 0.5625
    assert metrics.ciou(*columns(rows)) == 6 / 13
    assert metrics.ciou(*columns([(0, 0, 0)])) == 1
    assert metrics.ciou(*columns([(0, 0, 0)]), empty=0.0) == 0
    assert np.isnan(metrics.ciou(*(np.zeros(0, np.int64) for _ in range(3))))
    nothing = np.zeros(0)
    assert math.isnan(metrics.mean(nothing))
    assert all(math.isnan(x) for x in metrics.precision_at(nothing).values())


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["a", "b", "é", ""])), min_size=1))
def test_mean_by_is_the_mean_of_each_group(pairs):
    values, groups = zip(*pairs, strict=True)
    found = metrics.mean_by(np.array(values), groups)
    assert list(found) == sorted(set(groups))
    for group, value in found.items():
        assert value == metrics.mean([v for v, g in pairs if g == group])


wide = (
    st.floats(-1e300, 1e300)
    | st.floats(0, 1)
    | st.sampled_from([1.0, -1.0, 2.0**-53, 2.0**-60, 1e16])
)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=wide))
def test_sums_of_rows_are_rounded_once(values):
    assert metrics.row_sums(values).tolist() == [math.fsum(row) for row in values.tolist()]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(1, 4), st.randoms())
def test_means_of_groups_in_order(values, longest, random):
    groups: list[int] = []
    while len(groups) < len(values):
        groups += [len(groups)] * random.randint(1, longest)
    groups = groups[: len(values)]
    expected = [
        metrics.mean([v for v, g in zip(values, groups, strict=True) if g == group])
        for group in sorted(set(groups))
    ]
    assert metrics.mean_of_each(np.array(values), np.array(groups)).tolist() == expected


# Results ------------------------------------------------------------------------------------------

SCORES = (
    *("miou", "ciou", "precision_at", "miou_by_category", "miou_per_instance"),
    *("n_examples", "n_missing", "n_empty"),
)


@pytest.fixture
def result() -> rc.Result:
    case = sample_case()
    pairs = [(k, mask) for k, mask in enumerate(case.masks) if k % 5]
    return rc.score(pairs, case.store, missing="zero", precision_strict=True)


def test_both_masks_empty_is_one(result):
    place = result.per_example.schema.get_field_index("intersection")
    zeros = [0] * len(result.per_example)
    table = result.per_example
    for name in ("intersection", "pred_area", "target_area"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), [zeros])
    empty = rc.Result(table)
    assert (empty.miou, empty.ciou, empty.miou_per_instance) == (1, 1, 1)


def test_mean_per_instance_by_hand(result):
    by_sample: dict = {}
    for sample, value in zip(result.per_example["sample_id"].to_pylist(), result.iou, strict=True):
        by_sample.setdefault(sample, []).append(value)
    means = [math.fsum(values) / len(values) for values in by_sample.values()]
    assert result.miou_per_instance == math.fsum(means) / len(means)
    assert len(means) < result.n_examples


def test_round_trip_gives_every_score_to_the_bit(result, tmp_path):
    folder = result.save(tmp_path / "lr=0.1" / "résultats")
    assert sorted(p.name for p in folder.iterdir()) == ["per_example.parquet", "summary.json"]
    again = rc.load_results(folder)
    for name in SCORES:
        assert getattr(again, name) == getattr(result, name), name
    assert again.iou.tobytes() == result.iou.tobytes()
    assert again.per_example.equals(result.per_example)
    expected = example_table.SCHEMA.append(pa.field("iou", pa.float64()))
    assert again.per_example.schema.equals(expected, check_metadata=True)
    assert again.per_example["iou"].to_pylist() == result.iou.tolist()
    assert again.summary() == json.loads(json.dumps(result.summary()))
    written = json.loads((folder / "summary.json").read_text())
    assert written["miou"] == result.miou
    assert written["precision_at"]["0.7"] == result.precision_at[0.7]
    assert again.save(tmp_path / "second").is_dir()
    assert json.loads((tmp_path / "second" / "summary.json").read_text()) == written


def test_a_file_without_the_column_of_ious_is_read_as_one_with_it(result, tmp_path):
    """As results were written before the column: the same counts and hashes, one column less."""
    old = rc.Result(result.per_example.drop_columns("iou"), result.info, precision_strict=True)
    folder = old.save(tmp_path / "old")
    assert "iou" not in pq.read_schema(folder / "per_example.parquet").names
    again = rc.load_results(folder)
    assert again.per_example.equals(result.per_example)
    assert again.per_example.schema.equals(result.per_example.schema, check_metadata=True)
    assert again.summary() == result.summary()


def change_summary(folder: Path, **changes) -> None:
    content = json.loads((folder / "summary.json").read_text())
    content.update(changes)
    kept = {key: value for key, value in content.items() if value is not ...}
    (folder / "summary.json").write_text(json.dumps(kept))


DAMAGES = {
    "altered table": lambda f: (f / "per_example.parquet").write_bytes(b"PAR1"),
    "another table": lambda f: pq.write_table(rc.load_results(f).per_example[:5], f / "per_example.parquet"),
    "no table": lambda f: (f / "per_example.parquet").unlink(),
    "no summary": lambda f: (f / "summary.json").unlink(),
    "no folder": lambda f: [p.unlink() for p in f.iterdir()] + [f.rmdir()],
    "a file": lambda f: [p.unlink() for p in f.iterdir()] + [f.rmdir(), f.touch()],
    "not JSON": lambda f: (f / "summary.json").write_text("{"),
    "not text": lambda f: (f / "summary.json").write_bytes(b"\xff\xfe"),
    "a list": lambda f: (f / "summary.json").write_text("[]"),
    "another schema": lambda f: change_summary(f, schema="x"),
    "newer": lambda f: change_summary(f, version=2),
    "no version": lambda f: change_summary(f, version=...),
    "odd version": lambda f: change_summary(f, version="1"),
    "no hash": lambda f: change_summary(f, per_example_xxh3_128=...),
    "no convention": lambda f: change_summary(f, convention=...),
    "unknown convention": lambda f: change_summary(f, convention="later"),
    "no precision": lambda f: change_summary(f, precision=...),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_a_whole_result_is_refused(result, tmp_path, damage):
    folder = result.save(tmp_path / "out")
    DAMAGES[damage](folder)
    with pytest.raises(rc.ResultsError, match="out"):
        rc.load_results(folder)


def test_a_result_is_not_overwritten_unasked(result, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result.save(tmp_path)
    before = (tmp_path / "per_example.parquet").read_bytes()
    with pytest.raises(rc.UsageError, match="already holds a result"):
        result.save(tmp_path)
    perfect = sample_case().store
    other = rc.score([(k, perfect.mask(k)) for k in range(len(perfect))], perfect)
    other.save(tmp_path, overwrite=True)
    assert (tmp_path / "per_example.parquet").read_bytes() != before
    assert rc.load_results(tmp_path).miou == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("over", [False, True])
def test_a_crash_leaves_no_half_result(result, tmp_path, monkeypatch, fails_at, over):
    if over:
        store = sample_case().store
        rc.score([(k, store.mask(k)) for k in range(len(store))], store).save(tmp_path)
    calls = []
    replace = Path.replace

    def crash(self, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path, overwrite=over)
    monkeypatch.undo()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    if over and fails_at == 1:
        assert rc.load_results(tmp_path).miou == 1
    else:
        with pytest.raises(rc.ResultsError):
            rc.load_results(tmp_path)
    result.save(tmp_path, overwrite=True)
    assert rc.load_results(tmp_path).miou == result.miou


def test_a_folder_that_cannot_be_written(result, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(rc.UsageError, match="file"):
            result.save(folder)
    monkeypatch.setattr(
        os, "mkdir", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(rc.UsageError, match="Permission denied"):
        result.save(tmp_path / "new")
