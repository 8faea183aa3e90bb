"""What a person sees of a dataset, a store, a result, a comparison and a leaderboard: one line, a few, or a table."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from helpers import sample_case
from hypothesis import given
from hypothesis import strategies as st
from test_conventions import TINY, result_of
from test_leaderboard import MODELS, STORE, drawn, failed

import refcocom_gpu as rc
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.example_table import with_iou
from refcocom_gpu.scores.leaderboard.latex import escaped
from refcocom_gpu.scores.leaderboard.rows import make_leaderboard
from refcocom_gpu.utils import optional
from refcocom_gpu.utils.html import table_html

EVIL = "<script>alert('&amp; \"x\"')</script>"


class Cells(HTMLParser):
    """The tags of a page and the texts between them, as a browser sees them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = set(), [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open.append(tag)
        self.texts.append("")
        assert [name for name, _ in attributes] in ([], ["style"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[-1] += data


def model(result, name):
    """The same result under another name."""
    return replace(result, info={**result.info, "predictions": {"source": name}})


@pytest.fixture(scope="module")
def pair():
    case = sample_case()
    some = [(k, mask) for k, mask in enumerate(case.masks) if k % 5]
    return rc.score("sample", case.store), rc.score(some, case.store, missing="zero")


@pytest.fixture(scope="module")
def board():
    files = [*MODELS[:3], drawn(9, 0.4, name=EVIL), failed("broken & <b>")]
    return make_leaderboard(files, STORE, replicates=99, options={"combine": "union"})


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


@given(texts, st.lists(st.tuples(texts, texts), max_size=3), st.lists(texts, max_size=2))
def test_every_text_is_shown_as_it_is(title, rows, notes):
    page = Cells(table_html(title, rows, notes=notes))
    assert page.tags <= {"div", "table", "caption", "tbody", "tr", "td"}
    cells = [cell for row in rows for cell in row]
    assert [text for text in page.texts if text] == [t for t in (title, *cells, *notes) if t]


def test_a_table_fits_a_dark_page():
    page = table_html("title", [("a", "1")], head=("x", "y"), notes=["n"])
    assert "currentColor" in page
    assert not re.search(r"#[0-9a-f]{3}|rgb|background: (?!none)|color: (?!inherit)", page)


@pytest.mark.parametrize("kind", ["result", "comparison", "leaderboard", "dataset", "store"])
def test_a_name_is_never_markup(kind, pair, board):
    named = [model(result, EVIL) for result in pair]
    dataset = replace(STORE.dataset, source=EVIL)
    shown = {
        "result": named[0],
        "comparison": rc.compare(*named, replicates=99, names=(EVIL, "b")),
        "leaderboard": board,
        "dataset": dataset,
        "store": rc.MaskStore.build(dataset, cache=False),
    }[kind]
    page = Cells(shown._repr_html_())
    assert "script" not in page.tags
    assert any(EVIL in text for text in page.texts)
    assert len(repr(shown).splitlines()) == 1


def test_a_line_of_a_result(pair):
    first, second = pair
    assert repr(first) == (
        f"Result(miou={first.miou:.4f}, ciou={first.ciou:.4f}, n_examples={first.n_examples}, missing=0, "
        "model='sample')"
    )
    assert f"missing={second.n_missing}," in repr(second)
    assert repr(first.under("cris")).endswith("model='sample', convention='cris')")
    assert len(repr(model(first, "a\nb")).splitlines()) == 1


def test_a_few_lines_of_a_result(pair):
    complete, partial = map(str, pair)
    assert f"{100 * pair[0].miou:.2f}" in complete
    assert "none missing" in complete
    assert f"{pair[1].n_missing} missing, scored as empty" in partial
    assert all(len(text.splitlines()) == 2 for text in (complete, partial))
    lisa = str(pair[1].under("cris"))
    assert f"{pair[1].under('cris').n_examples:,} of {pair[1].n_examples:,} examples" in lisa


def test_the_error_of_a_result_is_that_of_a_leaderboard():
    (row,) = make_leaderboard([MODELS[0]], STORE, replicates=99).ranked
    counts = {"intersection": MODELS[0].counts[:, 0], "pred_area": MODELS[0].counts[:, 1]}
    table = rc.score("sample", STORE).per_example
    for name, column in counts.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    assert f"mIoU {100 * row['miou']:.2f} ± {100 * row['miou_se']:.2f}" in str(rc.Result(table))


def test_few_images_have_no_error():
    result = result_of(TINY)
    assert "±" not in str(result)
    assert "±" not in result._repr_html_()


def test_a_comparison_is_shown_with_its_interval(pair):
    comparison = rc.compare(*pair, replicates=99)
    miou = comparison.miou
    interval = f"{100 * miou.low:+.2f} … {100 * miou.high:+.2f}"
    assert interval in str(comparison)
    page = Cells(comparison._repr_html_())
    assert interval in page.texts
    assert any(f"{pair[1].n_missing} missing" in text for text in page.texts)
    assert f"low={miou.low:+.4f}, high={miou.high:+.4f}" in repr(comparison)
    alike = rc.compare(result_of(TINY), result_of(TINY), replicates=99)
    assert "low" not in repr(replace(alike, miou=replace(alike.miou, low=None, high=None)))


def test_a_leaderboard_is_shown_with_what_failed(board):
    best = board.ranked[0]["model"]
    assert (
        repr(board)
        == f"Leaderboard(rows=4, best={best!r}, miou={board.ranked[0]['miou']:.4f}, failed=1)"
    )
    assert "1 could not be scored" in str(board)
    page = Cells(board._repr_html_())
    assert any("broken & <b>" in text for text in page.texts)
    nothing = make_leaderboard([failed("x")], STORE)
    assert repr(nothing) == "Leaderboard(rows=0, failed=1)"
    assert "0 ranked" in str(nothing)
    assert "Not scored: x" in nothing._repr_html_()


def test_a_sweep_is_one_line(tmp_path):
    outcome = rc.sweep(["sample"], "sample", tmp_path, replicates=99)
    assert repr(outcome).startswith(
        "Outcome(sets=1, n_scored=1, leaderboard=Leaderboard(rows=1, best='sample'"
    )
    results = rc.load_results(tmp_path)
    assert repr(results) == f"SweepResults({str(tmp_path)!r}, rows=1)"
    assert results[1].per_example.equals(rc.score("sample", "sample").per_example)


# ---------------------------------------------------------------------------------- worst, best, frames

counts = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


@given(st.lists(counts, min_size=1, max_size=12), st.integers(0, 14))
def test_worst_and_best_are_sorted_and_whole(rows, n):
    statuses = ("scored" if i + p else "empty" for i, p, _ in rows)
    result = result_of(
        [
            ((k, 0), f"s{k}", i, i + p, i + t, status)
            for k, ((i, p, t), status) in enumerate(zip(rows, statuses, strict=True))
        ]
    )
    every = list(enumerate(result.iou.tolist()))
    worst = sorted(every, key=lambda pair: (pair[1], pair[0]))[:n]
    best = sorted(every, key=lambda pair: (-pair[1], pair[0]))[:n]
    for table, expected in ((result.worst(n), worst), (result.best(n), best)):
        assert (
            list(zip(table["index"].to_pylist(), table["iou"].to_pylist(), strict=True)) == expected
        )
        assert table["sentence"].to_pylist() == [f"s{k}" for k, _ in expected]


def test_worst_leaves_out_what_the_convention_leaves_out():
    result = result_of(TINY).under("cris")
    assert (
        sorted(result.worst(99)["index"].to_pylist()) == np.flatnonzero(result.is_counted).tolist()
    )
    assert len(result.worst(99)) < len(TINY)
    assert result.worst(1)["iou"][0].as_py() == result.iou[result.is_counted].min()
    with pytest.raises(UsageError, match="0 or more, not -1"):
        result.worst(-1)


def test_the_column_of_ious_is_official_under_any_convention(pair):
    lavt = pair[1].under("lavt")
    assert lavt.per_example["iou"].to_pylist() == pair[1].iou.tolist()
    without = pair[1].per_example.drop_columns("iou")
    assert with_iou(without).equals(pair[1].per_example)


def test_frames_hold_the_table(pair, board):
    comparison = rc.compare(*pair, replicates=99)
    for shown, table in (
        (pair[0], pair[0].per_example),
        (comparison, comparison.per_example),
        (board, board.table),
    ):
        assert shown.to_polars().to_arrow().num_columns == table.num_columns
        assert shown.to_polars().rows() == [tuple(row.values()) for row in table.to_pylist()]
        frame = shown.to_pandas()
        assert list(frame.columns) == table.column_names
        assert len(frame) == len(table)
    assert pair[0].to_pandas()["iou"].mean() == pytest.approx(pair[0].miou)


def test_a_missing_library_is_named(pair, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", refuse)
    for method, name in ((pair[0].to_pandas, "pandas"), (pair[0].to_polars, "Polars")):
        with pytest.raises(
            UsageError, match=rf"needs {name}: pip install 'refcocom-gpu\[frames\]'"
        ):
            method()


# ---------------------------------------------------------------------------------- LaTeX


def rows_of(text):
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    return [line.removesuffix(r" \\").split(" & ") for line in body.strip().splitlines()]


def test_latex_holds_the_numbers_of_the_table(board):
    text = board.to_latex()
    head = text.partition("\\toprule\n")[2].partition(" \\\\")[0].split(" & ")
    rows = rows_of(text)
    assert len(rows) == len(board.ranked) == 4
    for row, cells in zip(board.ranked, rows, strict=True):
        found = dict(zip(head, cells, strict=True))
        assert found["mIoU"] == rf"${100 * row['miou']:.2f} \pm {100 * row['miou_se']:.2f}$"
        for name, column in (
            ("cIoU", "ciou"),
            ("Pr@0.7", "pr70"),
            ("hard pass", "hard_pass_rate"),
            ("small", "miou_small"),
        ):
            assert found[name] == f"{100 * row[column]:.2f}"
        assert found["N"] == str(len(STORE))
        assert "missing" not in found
        assert "boundary IoU" not in found
    deltas = [cells[head.index(r"$\Delta$ [interval]")] for cells in rows]
    assert deltas[0] == ""
    last = board.ranked[-1]
    ends = f"{100 * last['difference_low']:+.2f}, {100 * last['difference_high']:+.2f}"
    assert deltas[-1] == rf"${100 * last['difference']:+.2f}\,[{ends}]$"
    caption = re.search(r"\\caption\{(.*)\}", text)[1]
    for part in (
        f"{len(STORE)} expressions",
        "none missing",
        "convention official",
        "combined by union",
        "1 files",
    ):
        assert part in caption


def test_latex_says_what_is_missing():
    board = make_leaderboard(
        [replace(MODELS[0], absent=np.array([1, 2])), MODELS[1]], STORE, replicates=99
    )
    text = board.to_latex()
    assert "missing expressions count as empty" in text
    assert text.partition("\\toprule\n")[2].partition(" \\\\")[0].endswith("& missing")
    assert [cells[-1] for cells in rows_of(text)] in (["", "2"], ["2", ""])
    empty = make_leaderboard([failed("x")], STORE).to_latex()
    assert rows_of(empty) == []


@given(st.text(max_size=20))
def test_no_text_is_a_command(text):
    """What is left of escaped text without the commands that escape is neither special nor the beginning of one."""
    plain = escaped(text)
    assert not plain.startswith(("[", "*"))
    plain = re.sub(r"\\text\w+\{\}|\\dots\{\}|\$-\$|\$\\(pm|geq)\$|\$\^2\$|\\[&%$#_{}]", "", plain)
    assert not re.search(r"[&%$#_<>|~^\"\\]", re.sub(r"\{[][*]\}", "", plain))


def test_names_are_escaped_in_a_row():
    name = "[50%] a_b & \\input{x}"
    files = [
        replace(MODELS[0], model=name, columns={"path_to": "~/#1"}),
        replace(MODELS[1], model=""),
    ]
    rows = rows_of(make_leaderboard(files, STORE, replicates=99).to_latex())
    by_name = {row[0]: row for row in rows}
    found = by_name.pop(escaped(name).strip())
    assert r"\textasciitilde{}/\#1" in found
    assert len(by_name) == 1


def test_the_columns_of_a_leaderboard_are_those_of_results(tmp_path):
    outcome = rc.sweep(["sample", "sample-coarse"], "sample", tmp_path, replicates=99)
    for number, row in enumerate(outcome.leaderboard.ranked, 1):
        result = rc.load_results(tmp_path)[number]
        assert row["miou_per_instance"] == result.miou_per_instance
        assert row["hard_pass_rate"] == result.hard_pass_rate
        sizes = [row[f"miou_{size}"] for size in ("small", "medium", "large")]
        assert sizes == result.slices("size")["miou"].to_pylist()
    assert json.loads((tmp_path / "leaderboard.json").read_text())["options"]["missing"] == "error"
