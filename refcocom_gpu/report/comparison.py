"""A comparison in, its page out: how two results differ, overall, within groups, and example by example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refcocom_gpu.report import figures, model_figures
from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.examples import (
    EMBED,
    NONE,
    Cards,
    Fact,
    check_pictures,
    codes_of,
    extremes,
)
from refcocom_gpu.report.page import data, markup, percent, render, signed
from refcocom_gpu.report.sketches import LEGEND, sketcher
from refcocom_gpu.report.truth import Truth, truth_of
from refcocom_gpu.scores import boundary
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.breakdown import Difference
from refcocom_gpu.scores.comparison import ResultComparison
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore

PLOTTED = 24
"""Groups of a breakdown that are plotted; the table has all."""

DRAWN = 30
"""Examples that A wins most, as many that B wins most, and others by chance: two pictures each, as many bytes in all as
on the page of one result."""

SIDES = ("A", "B")

GROUP_HEADS = (
    ("examples", "number"), ("images", "number"), ("A", "number"), ("B", "number"), ("A − B", "number"),
    ("± se", "number"), ("from", "number"), ("to", "number"),
)  # fmt: skip


def comparison_page(
    comparison: ResultComparison,
    page: Path,
    *,
    truth: Truth | None = None,
    images: str | Path | None = None,
    pictures: str = EMBED,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Return the page of a comparison; pictures that are linked are written beside `page`.

    Args:
        comparison: From `compare`.
        page: Where the page will stand.
        truth: The dataset or its store; None loads the one that the results name.
        images: A folder that holds the pictures by `file_name`, where the dataset does not hold them.
        pictures: `embed`, `link` or `none`.
        progress: Called with the number of pictures that are drawn since.

    Raises:
        UsageError: `pictures` is another word, the dataset is not that of the results, or a package is not installed.
    """
    check_pictures(pictures)
    store, problem = truth_of(comparison.a, truth)
    canvas = None if store is None else Canvas(store.dataset, images)
    cards = _cards(comparison, store, problem)
    drawn = cards.data(canvas, pictures, page, progress)
    names = comparison.names
    values = {
        "kind": "Comparison",
        "title": f"{names[0]} against {names[1]}: {signed(comparison.miou.difference)} points of mIoU",
        "heading": f"{names[0]} against {names[1]}",
        "about": _about(comparison),
        "notes": _notes(comparison, canvas, cards, pictures),
        "sections": [
            ("scores", "Scores"),
            ("distribution", "Distribution"),
            ("groups", "Groups"),
            ("examples", "Examples"),
        ],
        "picture_source": "'self' file:" if pictures == "link" else "",
        "level": f"{100 * comparison.level:g}",
        "boxes": [_box(label, row) for label, row in _scores(comparison)],
        "scores": [[label, *_cells(row)[2:]] for label, row in _scores(comparison)],
        "score_heads": [("score", "text"), *GROUP_HEADS[2:]],
        "won": comparison.won,
        "lost": comparison.lost,
        "tied": comparison.tied,
        "plots": _plots(comparison, cards, {*drawn["pictures"].get("files", {})}),
        "group_plots": _group_plots(comparison),
        "groups": [
            {
                "name": name,
                "heads": [(name, "text"), *GROUP_HEADS],
                "rows": [[row.label, *_cells(row)] for row in rows],
            }
            for name, rows in comparison.breakdowns.items()
        ],
        "examples": data(drawn),
        "legend": LEGEND,
    }
    return render("comparison.html.j2", values)


def _sides(comparison: ResultComparison) -> list[tuple[str, str, Result]]:
    return [*zip(SIDES, comparison.names, (comparison.a, comparison.b), strict=True)]


def _about(comparison: ResultComparison) -> list[tuple[str, str]]:
    dataset = comparison.a.info.get("dataset", {})
    rows = [
        *((side, name) for side, name, _ in _sides(comparison)),
        ("dataset", f"{dataset.get('source', 'unknown')} ({dataset.get('split', '')})"),
        ("examples", f"{comparison.a.n_examples:,}"),
        ("convention", comparison.a.convention),
    ]
    for side, _, result in _sides(comparison):
        rows += [
            (f"missing in {side}", f"{result.n_missing:,}"),
            (f"empty in {side}", f"{result.n_empty:,}"),
        ]
    return rows


def _notes(
    comparison: ResultComparison, canvas: Canvas | None, cards: Cards, pictures: str
) -> list[str]:
    """Return what a reader must know before the numbers: what is missing, misread or not shown."""
    notes = []
    for side, _, result in _sides(comparison):
        if result.n_missing:
            notes.append(
                f"{side}: {result.n_missing:,} of {result.n_examples:,} examples have no prediction and count as empty."
            )
        notes += [f"{side}: {text}." for text in left_out(result.info.get("predictions") or {})]
        notes += [f"{side}: {text}" for text in result.info.get("warnings", ())]
    notes += [
        f"No boundary scores: {side.upper()} does not hold boundaries, the other does."
        for side in comparison.without_boundaries
    ]
    if pictures == NONE:
        return notes
    if cards.sketch is None:
        return [*notes, f"No example is drawn: {cards.problem}."]
    notes += [
        f"Of {side} only true masks are drawn, because the predicted ones are not at hand: score with save_masks=true"
        for side, _, result in _sides(comparison)
        if result.masks is None
    ]
    if canvas is not None and canvas.problem:
        notes.append(f"Masks are drawn on grey: {canvas.problem}")
    return notes


def _scores(comparison: ResultComparison) -> list[tuple[str, Difference]]:
    labels = dict(zip(boundary.NAMES, boundary.LABELS, strict=True))
    return [
        ("mIoU", comparison.miou),
        ("cIoU", comparison.ciou),
        *((labels[name], row) for name, row in comparison.boundaries.items()),
    ]


def _box(label: str, row: Difference) -> dict[str, str]:
    """Return a difference as it stands at the head of the page."""
    return {
        "name": label,
        "value": signed(row.difference),
        "range": "" if row.low is None else f"{signed(row.low)} to {signed(row.high)}",
        "of": f"A {percent(row.a)}, B {percent(row.b)}",
    }


def _cells(row: Difference) -> list[Any]:
    """Return the cells of `GROUP_HEADS`, in percent."""
    return [
        (f"{row.n_examples:,}", row.n_examples),
        (f"{row.n_images:,}", row.n_images),
        percent(row.a),
        percent(row.b),
        (signed(row.difference), row.difference),
        percent(row.se),
        signed(row.low),
        signed(row.high),
    ]


def _plots(comparison: ResultComparison, cards: Cards, files: set[str]) -> list[tuple[Any, str]]:
    index = comparison.per_example.column("index").to_pylist()
    links = [f"#example-{k}" if f"{k}{cards.suffixes[0]}" in files else "" for k in index]
    a, b = (
        figures.label_of(f"IoU of {side}, {name}", most=44) for side, name, _ in _sides(comparison)
    )
    iou = comparison.a.iou, comparison.b.iou
    about = (
        f"IoU of A against IoU of B, a point for each of {len(index):,} examples: {comparison.won:,} lie below the "
        f"diagonal, where A is better, {comparison.lost:,} above it, {comparison.tied:,} on it."
    )
    said = "Below the diagonal A is better."
    if any(links):
        said += " An orange point leads to its example."
    return [
        (
            markup(model_figures.differences("differences", comparison.difference)),
            f"Differences of single examples; the {comparison.tied:,} equal ones are left out.",
        ),
        (markup(figures.scatter("pairs", *iou, links, labels=(a, b), about=about)), said),
    ]


def _group_plots(comparison: ResultComparison) -> list[tuple[Any, str]]:
    plots: list[tuple[Any, str]] = []
    for name, rows in comparison.breakdowns.items():
        shown = rows[:PLOTTED]
        if len(shown) < 2:
            continue
        picture = model_figures.forest(
            f"group-{len(plots)}",
            shown,
            about=f"Difference in mIoU by {name}, A minus B, in points, with joint intervals:",
        )
        part = "" if len(shown) == len(rows) else f"the first {len(shown)} of {len(rows):,}; "
        plots.append((markup(picture), f"By {name}: {part}hollow without an interval."))
    return plots


def _cards(comparison: ResultComparison, store: MaskStore | None, problem: str) -> Cards:
    difference = comparison.difference
    suffixes = ("a", "b")
    index = np.arange(len(difference))
    results = comparison.a, comparison.b
    return Cards(
        comparison.per_example,
        [
            Fact("IoU A", comparison.a.iou),
            Fact("IoU B", comparison.b.iou),
            Fact("A − B", difference, signed=True),
        ],
        {
            "better": (
                ("A", "B", "neither"),
                np.select([difference > 0, difference < 0], [0, 1], 2),
            ),
            "category": codes_of(comparison.per_example.column("category")),
        },
        [
            ("A wins most first", 2, True),
            ("B wins most first", 2, False),
            ("by chance", None, False),
        ],
        labels=[_label(side, name) for side, name, _ in _sides(comparison)],
        sketch=None if store is None else sketcher(results, store, suffixes),
        chosen=extremes(difference, index, most=DRAWN),
        problem=problem,
        suffixes=suffixes,
    )


def _label(side: str, name: str, most: int = 40) -> str:
    """Return the name of a side, short enough to stand on a picture."""
    return f"{side}: {name if len(name) <= most else f'…{name[1 - most :]}'}"
