"""Boundary scores in sweeps, leaderboards and comparisons: the numbers of `rc.score`, and none where not asked for."""

import csv
import json
import pickle
import random
import shutil
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from sweeps import STORE, contents, made_runs, sweep
from test_leaderboard import IMAGE, File, drawn, failed, write
from test_sweep_folder import DAMAGES, QUICK, mends_every_file, table_of

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.cli.tables.leaderboard import TABLE_WIDTH, leaderboard_table
from refcocom_gpu.engines.serial import SerialEngine
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.boundary import COLUMNS, LABELS, NAMES
from refcocom_gpu.scores.leaderboard.columns import SCORES
from refcocom_gpu.scores.leaderboard.rows import make_leaderboard
from refcocom_gpu.sweep import task as task_module
from refcocom_gpu.sweep.task import Options

BOTH = ("iou", "boundary")
N_FILES = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three files, and a sweep of them that counted boundaries."""
    root = tmp_path_factory.mktemp("made")
    made_runs(root / "runs", N_FILES)
    rows = [
        {"path": f"runs/step-0{k}/preds.jsonl", "model": "lisa", "step": k} for k in range(N_FILES)
    ]
    (root / "m.csv").write_text(table_of(rows))
    swept(root, root / "out")
    return root


def swept(made, folder, metrics=BOTH, **options):
    return sweep(
        None, folder, manifest=made / "m.csv", ranking=QUICK, options=Options(metrics=metrics), **options
    )  # fmt: skip


def measured(name):
    """The counts of a built-in set, for a leaderboard."""
    table = rc.score(name, STORE, metrics=BOTH).per_example
    counts = np.stack([table[column].to_numpy() for column in ("intersection", "pred_area")], 1)
    return File(name, name, counts=counts, measured={c: table[c].to_numpy() for c in COLUMNS})


@pytest.fixture(scope="module")
def files():
    return [measured("sample-coarse"), measured("sample")]


# Sweeps -------------------------------------------------------------------------------------------


def test_every_number_is_that_of_score(made):
    results = rc.load_results(made / "out")
    board = pq.read_table(made / "out" / "leaderboard.parquet").to_pylist()
    assert [row["miou"] for row in board] == sorted((r["miou"] for r in board), reverse=True)
    for number, row in enumerate(board, 1):
        scored = rc.score(made / row["path"], STORE, metrics=BOTH)
        result = results[number]
        assert result.per_example.equals(scored.per_example)
        assert result.per_example.schema.equals(scored.per_example.schema)
        assert result.boundary_scores == scored.boundary_scores == {n: row[n] for n in NAMES}
        assert result.info["metrics"] == scored.info["metrics"]
        for name, values in scored.boundary_values.items():
            (se,) = un.cluster_se(un.ratio_by_image(IMAGE, values))
            assert row[f"{name}_se"] == se > 0


def test_examples_are_a_table_with_their_columns(made):
    rows = f"read_parquet('{made / 'out'}/per_example/*/*.parquet', hive_partitioning=true)"
    sums = duckdb.sql(
        f"SELECT path, {', '.join(f'sum({c})' for c in COLUMNS)} FROM {rows} GROUP BY 1"
    )
    for path, *found in sums.fetchall():
        table = rc.score(made / path, STORE, metrics=BOTH).per_example
        assert found == [sum(table[column].to_pylist()) for column in COLUMNS]


def test_without_the_option_nothing_is_there(made, tmp_path):
    outcome = swept(made, tmp_path / "out", ("iou",))
    assert all(b"boundary" not in content for content in contents(tmp_path / "out").values())
    names = outcome.leaderboard.table.column_names
    assert names == ["rank", "model", "path", "step", *(name for name, _ in SCORES)]
    # What both hold is the same.
    with_both = pq.read_table(made / "out" / "leaderboard.parquet")
    assert with_both.select(names).equals(outcome.leaderboard.table)
    result = rc.load_results(tmp_path / "out")[1]
    assert "metrics" not in result.info
    assert result.boundary_scores == {}


def test_metrics_decide_what_is_kept(made, tmp_path):
    without = swept(made, tmp_path / "out", ("iou",))
    before = contents(tmp_path / "out")
    assert swept(made, tmp_path / "out").n_scored == without.n_scored == N_FILES
    after = contents(tmp_path / "out")
    assert {**before, **contents(made / "out")}.items() >= after.items() >= contents(made / "out").items()  # fmt: skip
    # Both are kept now, and each gives its own files.
    assert swept(made, tmp_path / "out").n_scored == 0
    assert contents(tmp_path / "out") == after
    assert swept(made, tmp_path / "out", ("iou",)).n_scored == 0
    assert {**contents(made / "out"), **before}.items() >= contents(tmp_path / "out").items()


@pytest.mark.parametrize("damage", ["a bit flipped", "deleted"])
def test_a_rerun_mends_every_file(made, tmp_path, damage):
    folder = tmp_path / "out"
    shutil.copytree(made / "out", folder)
    mends_every_file(folder, lambda: swept(made, folder), DAMAGES[damage])


def test_a_sweep_that_was_interrupted_goes_on(made, tmp_path, monkeypatch):
    counted = []

    def interrupted(predictions, *arguments, **options):
        counted.append(predictions)
        if len(counted) == 2:
            raise KeyboardInterrupt
        return real(predictions, *arguments, **options)

    real = task_module.count
    monkeypatch.setattr(task_module, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(made, tmp_path / "out", engine=SerialEngine())
    assert swept(made, tmp_path / "out").n_scored == N_FILES - 1
    assert contents(tmp_path / "out") == contents(made / "out")


class Elsewhere(SerialEngine):
    """A machine without the folder of the store, which gets pickles."""

    elsewhere = True

    def map(self, task, items, shared):
        shared = pickle.loads(pickle.dumps(shared))
        assert shared[0].folder is None
        # Each worker would draw them again.
        assert shared[0]._boundaries
        for item in items:
            yield pickle.loads(pickle.dumps(task(shared, item)))


def test_another_machine_counts_the_same(made, tmp_path):
    swept(made, tmp_path / "out", engine=Elsewhere())
    assert contents(tmp_path / "out") == contents(made / "out")


def test_python_and_the_command_say_the_same(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(made)
    options = {"manifest": "m.csv", "replicates": 99, "metrics": "boundary"}
    rc.sweep(None, STORE, tmp_path / "python", **options)
    assert contents(tmp_path / "python") == contents(made / "out")
    words = [
        "sweep", "manifest=m.csv", "dataset=sample", "replicates=99", "metrics=[iou,boundary]",
        f"output_dir={tmp_path / 'command'}",
    ]  # fmt: skip
    assert main(words) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert contents(tmp_path / "command") == contents(made / "out")
    assert table[0].endswith("cIoU  Pr@0.5  boundary IoU")
    best = rc.load_results(made / "out")[1]
    assert table[1].endswith(f" {100 * best.boundary_iou:.2f}")
    assert main([*words[:-2], "metrics=[iou,shape]", words[-1]]) == 2
    assert "unknown metric 'shape'" in capsys.readouterr().err


# Leaderboards -------------------------------------------------------------------------------------


def test_every_format_has_them(tmp_path, files):
    results = [*files, drawn(1, 0.6, columns={"boundary_f": 1}), failed("x")]
    written = write(tmp_path / "0", results)
    random.Random(1).shuffle(results)
    assert write(tmp_path / "1", results) == written
    rows = json.loads(written["leaderboard.json"])["rows"]
    assert rows == pq.read_table(tmp_path / "0" / "leaderboard.parquet").to_pylist()
    cells = list(csv.DictReader(written["leaderboard.csv"].decode().splitlines()))
    markdown = written["leaderboard.md"].decode().splitlines()
    assert f"| Pr@0.9 | {' | '.join(LABELS)} | missing |" in markdown[2]
    for k, row in enumerate(rows):
        scores = [row[name] for name in NAMES]
        assert [cells[k][name] for name in NAMES] == ["" if s is None else str(s) for s in scores]
        # One without boundaries, and one that could not be read.
        if row["model"] not in ("sample", "sample-coarse"):
            assert scores == [None] * 3
        else:
            shown = [f"{100 * row[n]:.2f} ± {100 * row[f'{n}_se']:.2f}" for n in NAMES]
            assert f"| {' | '.join(shown)} |" in markdown[4 + k]
    # A column of the manifest with the name of one of ours.
    assert "manifest.boundary_f" in rows[0]
    assert "boundary_iou" in json.loads(written["leaderboard.json"])["uncertainty"]["meaning"]


def test_a_column_of_a_manifest_keeps_its_name_where_nothing_has_it():
    board = make_leaderboard([drawn(1, 0.6, columns={"boundary_iou": 1})], STORE, replicates=99)
    assert board.manifest == ["boundary_iou"]
    assert board.heads == {}
    assert "boundary IoU" not in leaderboard_table(board)


def test_one_image_has_no_standard_errors(tmp_path):
    from refcocom_gpu.dataset.sample import make_records

    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(make_records()[0]))
    store = rc.MaskStore.build(rc.load_dataset(path, cache=False), cache=False)
    masks = [store.mask(k) for k in range(len(store))]
    table = rc.score([(range(len(store)), masks)], store, metrics=BOTH).per_example
    counts = np.stack([table[column].to_numpy() for column in ("intersection", "pred_area")], 1)
    exact = File("a", "a", counts=counts, measured={c: table[c].to_numpy() for c in COLUMNS})
    (row,) = make_leaderboard([exact], store, replicates=99).table.to_pylist()
    assert [row[name] for name in NAMES] == [1, 1, 1]
    assert [row[f"{name}_se"] for name in NAMES] == [None] * 3


@pytest.mark.parametrize(("n_absent", "best_per", "fits"), [(0, None, True), (1, "model", False)])
def test_the_printed_table_keeps_its_width(files, n_absent, best_per, fits):
    absent = np.arange(n_absent)
    results = [replace(f, model="long-" * 9 + str(k), absent=absent) for k, f in enumerate(files)]
    text = leaderboard_table(make_leaderboard(results, STORE, replicates=99, best_per=best_per))
    assert max(map(len, text.splitlines())) <= TABLE_WIDTH
    assert ("boundary IoU" in text.splitlines()[0]) == fits
    assert ("Columns left out here: boundary_iou" in text) != fits


# Comparisons --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    return [rc.score(name, STORE, metrics=BOTH) for name in ("sample", "sample-coarse")]


def test_differences_are_those_of_the_results(pair):
    a, b = pair
    found = rc.compare(a, b)
    assert found.without_boundaries == []
    assert tuple(found.boundaries) == NAMES
    summary = found.summary()
    for name, difference in found.boundaries.items():
        values = np.stack([a.boundary_values[name], b.boundary_values[name]], axis=1)
        intervals = un.pairwise_intervals(un.ratio_by_image(IMAGE, values))
        assert (difference.a, difference.b) == (getattr(a, name), getattr(b, name))
        assert difference.difference == difference.a - difference.b
        assert difference.se == intervals.se[0, 1]
        assert difference.low == pytest.approx(intervals.low[0, 1], abs=1e-11)
        assert difference.high == pytest.approx(intervals.high[0, 1], abs=1e-11)
        assert summary[name]["difference"] == difference.difference
        assert (summary["a"][name], summary["b"][name]) == (difference.a, difference.b)
    for name, difference in rc.compare(b, a).boundaries.items():
        mirrored = found.boundaries[name]
        assert (difference.low, difference.high) == (-mirrored.high, -mirrored.low)
    assert rc.compare(a, a).boundaries["boundary_iou"].difference == 0


def test_boundaries_do_not_change_the_rest(pair):
    plain = [rc.score(name, STORE) for name in ("sample", "sample-coarse")]
    without, with_both = rc.compare(*plain), rc.compare(*pair)
    assert (without.boundaries, without.without_boundaries) == ({}, [])
    for name in ("miou", "ciou", "breakdowns", "won", "lost", "tied", "largest"):
        assert getattr(without, name) == getattr(with_both, name)
    assert "boundar" not in json.dumps(without.summary())


def test_the_command_prints_them_or_says_why_not(tmp_path, capsys, monkeypatch, pair):
    monkeypatch.chdir(tmp_path)
    pair[0].save("a")
    rc.score("sample-coarse", STORE).save("b")
    counted = ["compare", "a", "sample-coarse", "dataset=sample", "metrics=[iou,boundary]"]
    assert main([*counted, "top=0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith(tuple(f"  {label} " for label in LABELS))]
    assert len(rows) == 3
    found = rc.compare(*pair)
    for line, difference in zip(rows, found.boundaries.values(), strict=True):
        assert f"{100 * difference.low:+.2f} … {100 * difference.high:+.2f} *" in line
    assert main([*counted, "json=true"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: printed[name] for name in NAMES} == {n: found.summary()[n] for n in NAMES}
    # One of the two holds none.
    for words, side in ((["a", "b"], "b"), (["b", "a"], "a")):
        assert main(["compare", *words]) == 0
        out = capsys.readouterr().out
        assert f"boundaries were not counted in {side.upper()};" in out
        assert "boundary IoU" not in out
        assert main(["compare", *words, "json=true"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["without_boundaries"] == [side]
        assert NAMES[0] not in printed
    # Both were scored before, without them: the option cannot be met.
    shutil.copytree("b", "c")
    assert main(["compare", "b", "c", "metrics=[iou,boundary]"]) == 0
    out, err = capsys.readouterr()
    assert "boundaries were counted in neither A nor B" in err
    assert "boundar" not in out
    assert main(["compare", "b", "c", "metrics=boundaries"]) == 2
    assert "unknown metric 'boundaries'" in capsys.readouterr().err


def test_rows_of_a_sweep_compare(made):
    results = rc.load_results(made / "out")
    found = rc.compare(f"{made / 'out'}:1", f"{made / 'out'}:2")
    expected = results[1].boundary_iou - results[2].boundary_iou
    assert found.boundaries["boundary_iou"].difference == expected


def test_what_is_not_compared_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "sample", "sample-coarse", "dataset=sample"]
    assert main([*words, "metrics=[iou,boxes]"]) == 2
    assert "counts iou, boundary, not boxes; score does" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
