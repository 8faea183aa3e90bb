"""The step curve: every score at its step, with its band; what cannot be drawn is refused."""

import subprocess
import sys
from dataclasses import replace

import pytest
from sweeps import lines
from test_leaderboard import MODELS, STORE, drawn, failed

import refcocom_gpu as rc
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.leaderboard.rows import make_leaderboard
from refcocom_gpu.utils import optional

RUNS = [
    drawn(
        k, 0.3 + 0.1 * k, f"{name}-{k}", columns={"step": 100 * (9 - k), "lr": 0.1 * k, "tag": "x"}
    )
    for name in "ab"
    for k in range(1, 4)
]
RUNS = [replace(run, model=run.model[0]) for run in RUNS]
BASE = replace(MODELS[0], model="base", columns={})


def board(files):
    return make_leaderboard(files, STORE, replicates=99)


def test_a_line_of_each_model_holds_its_scores_by_step():
    leaderboard = board([*RUNS, failed("c")])
    axes = rc.plot.step_curve(leaderboard)
    assert [line.get_label() for line in axes.lines] == sorted("ab", key=[
        row["model"] for row in leaderboard.ranked
    ].index)  # fmt: skip
    for line, band in zip(axes.lines, axes.collections, strict=True):
        rows = [row for row in leaderboard.ranked if row["model"] == line.get_label()]
        rows.sort(key=lambda row: row["step"])
        assert line.get_xdata().tolist() == [row["step"] for row in rows] == [600, 700, 800]
        assert line.get_ydata().tolist() == [100 * row["miou"] for row in rows]
        (path,) = band.get_paths()
        heights = path.vertices[:, 1]
        assert heights.max() == pytest.approx(max(100 * (r["miou"] + r["miou_se"]) for r in rows))
        assert heights.min() == pytest.approx(min(100 * (r["miou"] - r["miou_se"]) for r in rows))
    assert axes.get_legend() is not None
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "mIoU, %")


def test_a_row_without_a_step_is_a_level():
    axes = rc.plot.step_curve(board([*RUNS, BASE]))
    (level,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert level.get_label() == "base"
    assert len(axes.lines) == 3


def test_other_columns():
    axes = rc.plot.step_curve(board(RUNS[:3]), "lr", line="step")
    assert sorted(line.get_label() for line in axes.lines) == ["600", "700", "800"]
    assert axes.get_xlabel() == "lr"


def test_the_results_of_a_sweep_give_the_curve_of_its_leaderboard(tmp_path):
    manifest = tmp_path / "runs.csv"
    manifest.write_text("path,model,step\nb.jsonl,m,2\na.jsonl,m,1\n")
    for seed, name in enumerate("ba"):
        (tmp_path / f"{name}.jsonl").write_text(lines(seed))
    for best_per in (None, "model"):
        outcome = rc.sweep(
            None,
            STORE,
            tmp_path / str(best_per),
            manifest=manifest,
            replicates=99,
            best_per=best_per,
        )
        results = rc.load_results(tmp_path / str(best_per))
        (line,) = rc.plot.step_curve(results).lines
        # Also the row that best_per left out.
        assert line.get_xdata().tolist() == [1, 2]
    board = rc.load_results(tmp_path / "None")
    every = rc.plot.step_curve([board[k] for k in board]).lines[0]
    assert every.get_ydata().tolist() == line.get_ydata().tolist()
    assert len(rc.plot.step_curve(outcome.leaderboard).lines[0].get_xdata()) == 1


def test_no_global_state(tmp_path):
    folder = rc.score("sample", STORE).save(tmp_path / "run")
    code = (
        "import sys, refcocom_gpu as rc; rc.plot.step_curve; assert 'matplotlib' not in sys.modules\n"
        "result = rc.load_results(sys.argv[1])\n"
        "axes = rc.plot.step_curve({1: result})\n"
        "assert axes is rc.plot.step_curve({2: result}, ax=axes)\n"
        "assert len(axes.lines) == 2 and axes.get_legend() is None\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=120)


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        (RUNS, {"step": "epoch"}, "no column 'epoch'; there is step, lr, tag"),
        (RUNS, {"line": "run"}, "no column 'run'; there is model, step, lr, tag"),
        (RUNS, {"step": "tag"}, "tag is 'x' in a row: a curve needs numbers"),
        (RUNS, {"line": "tag"}, "3 steps of 'x' have several rows, such as step 600: line="),
        ([failed("x")], {}, "no score to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused(files, options, said):
    with pytest.raises(UsageError, match=said):
        rc.plot.step_curve(board(files), **options)


def test_results_of_no_sweep_need_their_steps():
    with pytest.raises(
        UsageError, match=r"sample is not of a sweep .*: pass results by step, \{100: "
    ):
        rc.plot.step_curve([rc.score("sample", STORE)])


def test_a_missing_matplotlib_is_named(monkeypatch):
    leaderboard = board(RUNS)

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", refuse)
    with pytest.raises(UsageError, match=r"need Matplotlib: pip install 'refcocom-gpu\[report\]'"):
        rc.plot.step_curve(leaderboard)
