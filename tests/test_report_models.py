"""The pages of a comparison and of a sweep: their numbers, what they say in words, and that no name can run."""

import html
import json
import re
from functools import cache

import numpy as np
import pytest
from helpers import sample_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import lines, made_runs
from test_leaderboard import drawn, failed

import refcocom_gpu as rc
from refcocom_gpu.errors import ResultsError
from refcocom_gpu.report import figures, model_figures, thumbnails
from refcocom_gpu.report.comparison import comparison_page
from refcocom_gpu.report.page import percent, signed
from refcocom_gpu.report.sweep import sweep_page
from refcocom_gpu.scores.leaderboard.rows import PAIRED, make_leaderboard
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.sweep_leaderboard import PARQUET, load_leaderboard

for package in ("jinja2", "matplotlib", "PIL"):
    pytest.importorskip(package)

CASE = sample_case()
STORE = CASE.store
HOSTILE = "<script>alert(1)</script> $x$ \u202eمدل 🙂 & \"' _\n{{ 7 * 7 }}"


@cache
def compared(a="sample", b="sample-coarse"):
    return rc.compare(*(rc.score(name, STORE, metrics=["iou", "boundary"]) for name in (a, b)))


def text_of(page):
    """What a reader sees or hears, apart from scripts and styles."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def written(write, *given, **options):
    return write(*given, **options).decode()


@pytest.fixture
def masks(monkeypatch):
    """The masks of the sample's predictions, as a result that was scored with them holds them."""
    held = {"sample": CASE.masks}
    monkeypatch.setattr(
        Result, "masks", property(lambda result: held.get(source(result))), raising=False
    )
    monkeypatch.setattr(
        Result, "mask_of", lambda result, index: held[source(result)][index], raising=False
    )
    return held


@pytest.fixture
def words(monkeypatch):
    """Plots as what they say: most tests need no more of them, and a plot takes a quarter of a second."""
    for module in (figures, model_figures):
        monkeypatch.setattr(
            module, "svg", lambda name, label, draw, **size: f"<p>{html.escape(label)}</p>"
        )


def source(result):
    return result.info["predictions"]["source"]


def test_a_comparison_says_what_was_found(tmp_path, masks):
    comparison = compared()
    page = written(comparison_page, comparison, tmp_path / "c.html", truth=STORE, pictures="none")
    text = text_of(page)
    overall = [comparison.miou, comparison.ciou, *comparison.boundaries.values()]
    groups = [row for rows in comparison.breakdowns.values() for row in rows]
    assert len(overall) == 5
    for row in (*overall, *groups):
        for shown in (percent(row.a), percent(row.b), signed(row.difference), signed(row.low)):
            assert shown in text
    assert f"{comparison.won} / {comparison.lost}" in text
    assert all(row.label in text for row in groups)


def test_pictures_of_both_sides(tmp_path, masks):
    page = tmp_path / "c.html"
    text = written(comparison_page, compared(), page, truth=STORE)
    names = set(re.findall(r'"(\d+[ab])":"UklGR', text))
    wins = [row["index"] for row in compared().largest["won"]]
    assert {f"{index}{side}" for index in wins for side in "ab"} <= names
    # A point of the scatter leads to each example that is drawn.
    links = set(re.findall(r'href="#example-(\d+)"', text))
    assert links == {name[:-1] for name in names}
    assert "_blank" not in text
    assert "Of B only true masks are drawn" in text_of(text)
    assert len(text) < 4e6


def test_linked_pictures_stand_beside_the_page(tmp_path, masks, monkeypatch, words):
    monkeypatch.setattr(thumbnails, "encoded", lambda pixels: b"")
    comparison_page(compared(), tmp_path / "c.html", truth=STORE, pictures="link")
    files = {path.stem for path in (tmp_path / "c_pictures").iterdir()}
    assert files == {f"{index}{side}" for index in range(len(STORE)) for side in "ab"}


def test_sides_that_lack_something(tmp_path, masks, words):
    file = tmp_path / "lacking.jsonl"
    file.write_text("\n".join(lines(0).splitlines()[:-5]))
    lacking = rc.score(file, STORE, missing="zero")
    comparison = rc.compare(compared().a, lacking)
    text = text_of(written(comparison_page, comparison, tmp_path / "c.html", truth=STORE))
    assert "B: 5 of 297 examples have no prediction" in text
    assert "B does not hold boundaries" in text


def test_equal_results(tmp_path, masks, words):
    comparison = compared("sample", "sample")
    text = text_of(written(comparison_page, comparison, tmp_path / "c.html", truth=STORE))
    assert f"0 / 0 {comparison.tied}" in " ".join(text.split())


def board_of(files, **options):
    return make_leaderboard(files, STORE, replicates=99, **options)


def models(n, **options):
    steps = [{"step": 100 * (k // 2), "head": "ab"[k % 2], "note": f"note {k}"} for k in range(n)]
    return [
        drawn(k, 0.3 + 0.6 * k / n, f"m{k % 2}-{k}", columns=columns, **options)
        for k, columns in enumerate(steps)
    ]


def test_a_sweep_says_what_was_found(tmp_path):
    board = board_of([*models(20), failed("broken")], best_per=None)
    text = " ".join(text_of(written(sweep_page, board, tmp_path / "s.html")).split())
    for row in board.table.to_pylist():
        assert row["path"] in text
        if row["error"] is None:
            low, high = row["rank_low"], row["rank_high"]
            cells = (
                percent(row["miou"]), percent(row["miou_se"]), str(row["rank"]),
                str(low) if low == high else f"{low}–{high}",
                signed(row["difference"]), signed(row["difference_low"]), signed(row["difference_high"]),
                *(percent(row[name]) for name in ("ciou", "pr50", "pr70", "pr90")),
            )  # fmt: skip
            assert " ".join(cells) in text
        else:
            assert " ".join(row["error"].split()) in text
    assert "mIoU by step" in text
    assert "mIoU by head" in text
    assert "note: 20 values" in text


def test_pairs_are_those_of_the_ranks():
    board = board_of(models(PAIRED + 5))
    rows = board.table.to_pylist()
    better = board.pairs.better
    assert better.shape == (PAIRED, PAIRED)
    # Whoever is surely better than a row stands before it.
    assert [1 + int(n) for n in better.sum(axis=0)] == [r["rank_low"] for r in rows[:PAIRED]]
    assert [not worse for worse in better[0]] == [r["like_best"] for r in rows[:PAIRED]]


@pytest.mark.parametrize("best_per", [None, "head"])
def test_the_folder_of_a_sweep_gives_the_same_page(tmp_path, best_per, words):
    rows = [{"path": path, "head": "ab"[k % 2]} for k, path in enumerate(made_runs(tmp_path, 3))]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    made = rc.sweep(
        None, STORE, tmp_path / "out", manifest=manifest, replicates=99, best_per=best_per
    )
    board = made.leaderboard
    page = tmp_path / "out" / "sweep.html"
    read = load_leaderboard(tmp_path / "out")
    assert sweep_page(read, page) == sweep_page(board, page)
    np.testing.assert_allclose(read.pairs.se, board.pairs.se, rtol=1e-12)
    assert read.pairs.critical == board.pairs.critical


def test_a_leaderboard_of_other_results(tmp_path):
    for name in ("sample", "sample-coarse"):
        rc.sweep([name], STORE, tmp_path / name, replicates=99)
    other = (tmp_path / "sample-coarse" / PARQUET).read_bytes()
    (tmp_path / "sample" / PARQUET).write_bytes(other)
    with pytest.raises(ResultsError, match="not the leaderboard of the results"):
        load_leaderboard(tmp_path / "sample")
    (tmp_path / "sample" / PARQUET).write_bytes(other[:100])
    with pytest.raises(ResultsError, match="cannot be read"):
        load_leaderboard(tmp_path / "sample")
    with pytest.raises(ResultsError, match=r"sweep\.json"):
        load_leaderboard(tmp_path)


def test_best_of_many_is_told(tmp_path, words):
    board = board_of(models(6), best_per="head")
    text = text_of(written(sweep_page, board, tmp_path / "s.html"))
    assert board.about["selection"] in text


def test_boundaries_have_columns(tmp_path, words):
    made = rc.sweep(["sample"], STORE, tmp_path / "out", replicates=99, metrics=["iou", "boundary"])
    row = made.leaderboard.table.to_pylist()[0]
    text = text_of(written(sweep_page, made.leaderboard, tmp_path / "s.html"))
    assert percent(row["boundary_iou"]) in text
    assert "boundary IoU" in text


def test_nothing_scored(tmp_path):
    text = text_of(written(sweep_page, board_of([failed("a"), failed("b")]), tmp_path / "s.html"))
    assert "nothing could be scored" in text
    assert "2 problems (2 missing)" in text


def test_files_beside_the_page_are_linked(tmp_path, words):
    board = board_of(models(2))
    assert 'href="leaderboard' not in written(sweep_page, board, tmp_path / "s.html")
    (tmp_path / "leaderboard.csv").write_text("")
    assert 'href="leaderboard.csv"' in written(sweep_page, board, tmp_path / "s.html")


def test_names_of_others_are_text(tmp_path, masks):
    comparison = compared()
    hostile = rc.compare(comparison.a, comparison.b, names=(HOSTILE, f"_{HOSTILE}"))
    sides = written(comparison_page, hostile, tmp_path / "c.html", truth=STORE)
    files = [
        drawn(
            k,
            0.5,
            HOSTILE + str(k),
            columns={HOSTILE: HOSTILE * k, "_step": k},
            warnings=(HOSTILE,),
        )
        for k in range(3)
    ]
    board = board_of([*files, failed(HOSTILE)])
    for page in (sides, written(sweep_page, board, tmp_path / "s.html")):
        # The script of the page, and that of its examples as JSON.
        assert page.count("<script") == page.count("</script>") == (2 if page is sides else 1)
        assert "alert(1)" in text_of(page)
        assert "{{ 7 * 7 }}" in text_of(page)


def test_hundreds_of_models_fit_on_a_page(tmp_path):
    long = "runs/" + "a-long-folder/" * 6
    files = [
        drawn(
            k, 0.3 + 0.002 * k, f"{long}{k % 150}",
            columns={"step": k, "lr": 1e-5 * 1.1**k, "head": f"h{k % 9}", "note": HOSTILE * (k % 3)},
            warnings=("a warning " * 40,) if k % 3 == 0 else (),
        )
        for k in range(300)
    ]  # fmt: skip
    page = written(sweep_page, board_of([*files, failed("x" * 5000)]), tmp_path / "s.html")
    assert len(page.encode()) < 3e6
    text = text_of(page)
    assert all(file.path in text for file in files)
    assert f"The first {PAIRED} of 300" in text


@given(
    st.integers(1, 12).flatmap(lambda n: st.lists(st.booleans(), min_size=n * n, max_size=n * n))
)
@settings(max_examples=50, deadline=None)
def test_runs_are_the_cells(cells):
    cells = np.array(cells)
    back = np.zeros_like(cells)
    for start, length in model_figures._runs(cells):
        assert not back[max(0, int(start) - 1) : int(start + length) + 1].any()
        back[int(start) : int(start + length)] = True
    assert (back == cells).all()
