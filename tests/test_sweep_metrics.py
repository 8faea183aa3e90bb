"""Causes, boxes and consistency in sweeps and leaderboards: the numbers of `rc.score`, and null where not counted."""

import csv
import json
import math
import shutil
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from sweeps import STORE, contents, made_runs, sweep
from test_boundary_sweep import Elsewhere
from test_consistency import dataset_of, strip
from test_leaderboard import File, drawn
from test_sweep_folder import DAMAGES, QUICK, mends_every_file, table_of

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.cli.tables.leaderboard import TABLE_WIDTH, leaderboard_table
from refcocom_gpu.scores.leaderboard.columns import CAUSES
from refcocom_gpu.scores.leaderboard.rows import make_leaderboard
from refcocom_gpu.sweep.task import Options

ALL = ("iou", "boundary", "causes", "boxes", "consistency")
N_FILES = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three files, and a sweep of them that counted everything."""
    root = tmp_path_factory.mktemp("made")
    made_runs(root / "runs", N_FILES)
    rows = [{"path": f"runs/step-0{k}/preds.jsonl", "model": f"m{k}"} for k in range(N_FILES)]
    (root / "m.csv").write_text(table_of(rows))
    swept(root, root / "out")
    return root


def swept(made, folder, metrics=ALL, **options):
    return sweep(
        None, folder, manifest=made / "m.csv", ranking=QUICK, options=Options(metrics=metrics), **options
    )  # fmt: skip


def test_every_number_is_that_of_score(made):
    results = rc.load_results(made / "out")
    board = pq.read_table(made / "out" / "leaderboard.parquet").to_pylist()
    for number, row in enumerate(board, 1):
        scored = rc.score(made / row["path"], STORE, metrics=ALL)
        result = results[number]
        assert result.per_example.equals(scored.per_example)
        assert result.per_example.schema.equals(scored.per_example.schema)
        assert result.info["metrics"] == scored.info["metrics"] == [*ALL]
        assert row["box_iou"] == scored.box_iou == result.box_iou
        assert row["box_accuracy"] == scored.box_accuracy
        assert row["pairwise_iou"] == scored.pairwise_iou == result.pairwise_iou
        assert row["hard_pass_rate"] == scored.hard_pass_rate
        assert row["boundary_iou"] == scored.boundary_iou
        shares = {CAUSES[of["cause"]]: of["share"] for of in scored.cause_summary["shares"]}
        # Every example has a target, so the causes of those without have no number.
        assert {name: row[name] for name in CAUSES.values()} == {
            **shares,
            "cause_right_rejection": None,
            "cause_false_alarm": None,
        }
        assert sum(shares.values()) == pytest.approx(1)


def test_one_table_for_other_readers(made):
    rows = f"read_parquet('{made / 'out'}/per_example/*/*.parquet', hive_partitioning=true)"
    query = f"SELECT path, sum(list_sum(pair_intersection)), sum(other_area), max(pred_x1) FROM {rows} GROUP BY 1"
    for path, *found in duckdb.sql(query).fetchall():
        table = rc.score(made / path, STORE, metrics=ALL).per_example
        assert found == [
            sum(map(sum, table["pair_intersection"].to_pylist())),
            sum(table["other_area"].to_pylist()),
            max(table["pred_x1"].to_pylist()),
        ]


def test_a_row_with_fewer_metrics_has_nulls(made):
    def file(name, metrics):
        counted = rc.scorer.count(
            name, STORE, rc.predictions.options.ReadOptions(), metrics=metrics
        )
        return File(name, name, counts=counted.counts, measured=counted.measured)

    results = [file("sample", ["causes"]), file("sample-coarse", ["boxes", "consistency"])]
    results.append(drawn(1, 0.3, columns={"pairwise_iou": 3}))
    board = make_leaderboard(results, STORE, replicates=99)
    rows = {row["model"]: row for row in board.table.to_pylist()}
    causes_of = [rows["sample"][name] for name in CAUSES.values()]
    assert any(causes_of)
    for name in ("box_iou", "box_accuracy", "pairwise_iou"):
        assert rows["sample"][name] is rows["m1"][name] is None
        assert rows["sample-coarse"][name] > 0
    assert {rows["sample-coarse"][name] for name in CAUSES.values()} == {None}
    # A column of the manifest with the name of one of ours.
    assert (board.manifest, rows["m1"]["manifest.pairwise_iou"]) == (["manifest.pairwise_iou"], 3)


@pytest.mark.parametrize("long", [False, True])
def test_the_printed_table_keeps_its_width(made, long):
    results = [
        replace(result, model=("long-" * 9 if long else "") + result.model)
        for result in swept(made, made / "out").results
    ]
    text = leaderboard_table(make_leaderboard(results, STORE, replicates=99))
    assert max(map(len, text.splitlines())) <= TABLE_WIDTH
    left_out = "Columns left out here: " in text
    assert left_out == long
    assert ("pairwise IoU" in text.splitlines()[0]) != long


def test_every_format_has_them(made):
    rows = json.loads((made / "out" / "leaderboard.json").read_text())["rows"]
    cells = list(csv.DictReader((made / "out" / "leaderboard.csv").read_text().splitlines()))
    names = ["box_iou", "box_accuracy", "pairwise_iou", "hard_pass_rate", "cause_wrong_instance"]
    assert [[cell[name] for name in names] for cell in cells] == [
        [str(row[name]) for name in names] for row in rows
    ]
    markdown = (made / "out" / "leaderboard.md").read_text().splitlines()
    assert "| box IoU | box accuracy@0.5 | pairwise IoU | missing |" in markdown[2]
    shown = [f"{100 * rows[0][name]:.2f}" for name in names[:3]]
    assert f"| {' | '.join(shown)} |" in markdown[4]


def test_another_machine_counts_the_same(made, tmp_path):
    swept(made, tmp_path / "out", engine=Elsewhere())
    assert contents(tmp_path / "out") == contents(made / "out")


def test_a_rerun_counts_nothing_and_mends_every_file(made, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(made / "out", folder)
    assert swept(made, folder).n_scored == 0
    assert contents(folder) == contents(made / "out")
    mends_every_file(folder, lambda: swept(made, folder), DAMAGES["deleted"])


def test_the_command_says_the_same(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(made)
    words = [
        "sweep", "manifest=m.csv", "dataset=sample", "replicates=99", "metrics=[causes,boxes,consistency]",
        f"output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    assert main(words) == 0
    assert contents(tmp_path / "out") == contents(made / "out")
    best = rc.load_results(made / "out")[1]
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert table[0].endswith("boundary IoU  box IoU  pairwise IoU")
    assert table[1].endswith(f"{100 * best.box_iou:.2f}  {100 * best.pairwise_iou:>12.2f}")


def test_a_sentence_for_each_object_has_no_pairwise_iou(tmp_path):
    dataset = dataset_of(tmp_path, [[(strip(0, 5), 1)], [(strip(5, 10), 1)]])
    path = tmp_path / "p.npz"
    np.savez(path, **{f"{key}_0": strip(0, 5) for key in dataset.sample_ids})
    outcome = rc.sweep([path], dataset, tmp_path / "out", metrics="consistency", replicates=99)
    (row,) = outcome.leaderboard.table.to_pylist()
    assert row["error"] is None
    assert (row["pairwise_iou"], row["hard_pass_rate"]) == (None, 0.5)
    result = rc.load_results(tmp_path / "out")[1]
    assert math.isnan(result.pairwise_iou)
    assert result.per_example.equals(rc.score(path, dataset, metrics="consistency").per_example)
