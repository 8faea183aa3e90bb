"""A result in, its page out: scores with intervals, plots, slices, causes, conventions, and examples to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refcocom_gpu.errors import UsageError
from refcocom_gpu.report import figures
from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.examples import EMBED, Cards, Fact, check_pictures, codes_of, extremes
from refcocom_gpu.report.page import data, markup, percent, render, signed
from refcocom_gpu.report.sketches import LEGEND, sketcher
from refcocom_gpu.report.truth import Truth, truth_of
from refcocom_gpu.scores import boundary, thresholds
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.conventions import FLOAT32, OFFICIAL
from refcocom_gpu.scores.explain import Row, explain
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.arrow import to_numpy

PLOTTED = 12
"""Slices of a grouping that are plotted; the table has all."""


def score_page(
    result: Result,
    page: Path,
    *,
    truth: Truth | None = None,
    images: str | Path | None = None,
    pictures: str = EMBED,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Return the page of a result; pictures that are linked are written beside `page`.

    Args:
        result: Of any convention; the page shows the official scores, and a table of all conventions.
        page: Where the page will stand.
        truth: The dataset or its store; None loads the one that the result names.
        images: A folder that holds the pictures by `file_name`, where the dataset does not hold them.
        pictures: `embed`, `link` or `none`.
        progress: Called with the number of pictures that are drawn since.
    """
    check_pictures(pictures)
    scored_under, result = (
        result.convention,
        result.under(OFFICIAL.name) if result.convention != OFFICIAL.name else result,
    )
    store, problem = truth_of(result, truth)
    canvas = None if store is None else Canvas(store.dataset, images)
    cards = _cards(result, store, problem)
    examples = cards.data(canvas, pictures, page, progress)
    rows = explain(result)
    about = result.info.get("predictions", {})
    values = {
        "kind": "Score",
        "title": f"{about.get('source', 'predictions')}: mIoU {percent(result.miou)} %",
        "heading": str(about.get("model") or about.get("source", "predictions")),
        "about": about_result(result),
        "notes": [
            *(
                [f"Scored under {scored_under}; below are the official scores."]
                if scored_under != OFFICIAL.name
                else []
            ),
            *notes_of(result, canvas, cards, pictures),
        ],
        "sections": _sections(result),
        "picture_source": "'self' file:" if pictures == "link" else "",
        "scores": headline(result),
        "plots": _plots(result),
        "slice_plots": _slice_plots(result),
        "slices": _slices(result),
        "causes": _causes(result),
        "conventions": [_convention(row) for row in rows],
        "reasons": [_reasons(row) for row in rows if row.reasons or row.caveat],
        "examples": data(examples),
        "legend": LEGEND,
    }
    return render("score.html.j2", values)


def about_result(result: Result) -> list[tuple[str, str]]:
    """Return what the scores are scores of, as names and values."""
    info = result.info
    dataset, predictions = info.get("dataset", {}), info.get("predictions", {})
    rows = [
        ("dataset", f"{dataset.get('source', 'unknown')} ({dataset.get('split', '')})"),
        ("examples", f"{result.n_examples:,}"),
        ("missing", f"{result.n_missing:,}"),
        ("predicted empty", f"{result.n_empty:,}"),
        ("convention", result.convention),
        ("file", str(predictions.get("source", "in memory"))),
    ]
    return [(name, value) for name, value in rows if value]


def notes_of(result: Result, canvas: Canvas | None, cards: Cards, pictures: str) -> list[str]:
    """Return what a reader must know before the numbers: what is missing, misread or not shown."""
    notes = []
    if result.n_missing:
        notes.append(
            f"{result.n_missing:,} of {result.n_examples:,} examples have no prediction and count as empty."
        )
    notes += [f"{text}." for text in left_out(result.info.get("predictions", {}))]
    notes += [str(text) for text in result.info.get("warnings", ())]
    if pictures != "none":
        if cards.sketch is None:
            notes.append(f"No example is drawn: {cards.problem}.")
        elif result.masks is None:
            notes.append(
                "Only true masks are drawn, because the predicted ones are not at hand: score with save_masks=true"
            )
        if canvas is not None and canvas.problem and cards.sketch is not None:
            notes.append(f"Masks are drawn on grey: {canvas.problem}")
    return notes


def headline(result: Result) -> list[dict[str, Any]]:
    """Return name, value and interval of each score, in percent; the first is the official one."""
    image = to_numpy(result.per_example.column("image_id"))
    sign = ">" if result.is_strict else "≥"
    intersection, pred, target = (
        to_numpy(result.per_example.column(name))
        for name in ("intersection", "pred_area", "target_area")
    )
    rows: list[tuple[str, float, tuple[Any, ...] | None]] = [
        ("mIoU", result.miou, (result.iou,)),
        ("cIoU", result.ciou, (intersection, pred + target - intersection)),
    ]
    reached = {
        x: result.iou > x if result.is_strict else result.iou >= x for x in PRECISION_THRESHOLDS
    }
    rows += [(f"Pr@{x} ({sign})", result.precision_at[x], (reached[x],)) for x in (0.5, 0.7, 0.9)]
    if result.boundary_scores:
        values = result.boundary_values
        rows += [
            (label, result.boundary_scores[name], (values[name],))
            for name, label in zip(boundary.NAMES, boundary.LABELS, strict=True)
        ]
    if result.box_scores:
        values = result.box_values
        rows += [
            ("box IoU", result.box_iou, (values["box_iou"],)),
            (f"box accuracy@0.5 ({sign})", result.box_accuracy, (values["box_accuracy"],)),
        ]
    rows += [
        ("mIoU per instance", result.miou_per_instance, None),
        ("worst sentence", result.miou_worst_sentence, None),
        ("hard pass rate", result.hard_pass_rate, None),
    ]
    if result.consistency:
        rows += [("pairwise IoU", result.pairwise_iou, None)]
    if result.n_no_target:
        rows += [("N-acc", result.n_acc, None), ("T-acc", result.t_acc, None)]
    counted = result.is_counted
    return [
        {
            "name": name,
            "value": percent(value),
            "range": _range(value, image[counted], parts, counted),
        }
        for name, value, parts in rows
    ]


def _range(value: float, image: Any, parts: tuple[Any, ...] | None, counted: Any) -> str:
    """Return the 95 % interval of a score, from the standard error clustered by image."""
    if parts is None:
        return ""
    try:
        se = un.cluster_se(un.ratio_by_image(image, *(part[counted] for part in parts)))[0]
    except UsageError:
        return ""  # one image, or no denominator: nothing can be said of other images
    reach = un.interval_reach(len(np.unique(image))) * float(se)
    return f"{percent(max(0.0, value - reach))} to {percent(min(1.0, value + reach))}"


def _sections(result: Result) -> list[tuple[str, str]]:
    names = [("scores", "Scores"), ("distribution", "Distribution"), ("slices", "Slices")]
    names += [("causes", "Causes")] if result.cause_summary else []
    return [*names, ("conventions", "Conventions"), ("examples", "Examples")]


def _plots(result: Result) -> list[tuple[Any, str]]:
    iou = result.iou[result.is_counted]
    sign = ">" if result.is_strict else "≥"
    plots = [
        (figures.distribution("iou", iou), "How many examples have which IoU."),
        (
            figures.precision("precision", iou, dict(result.precision_at), sign),
            "The share of examples that a threshold keeps; points are the printed Pr@X.",
        ),
    ]
    if result.boundary_scores:
        values = result.boundary_values["boundary_iou"]
        plots.append(
            (
                figures.distribution("boundary", values, label="boundary IoU"),
                "IoU of the pixels near the contours, which coarse masks lose.",
            )
        )
    if thresholds.has_curve(result.per_example):
        best = result.best_threshold
        plots.append(
            (
                figures.curve("thresholds", result.threshold_curve(), best.threshold),
                f"Scores at every threshold; the best gives {percent(best.miou)} mIoU, {signed(best.gain)} points "
                "more than the one in use. Chosen on the examples it is scored on, it is optimistic.",
            )
        )
    return [(markup(plot), caption) for plot, caption in plots]


def _slice_names(result: Result) -> list[str]:
    return [*dict.fromkeys([*result.sliced, *result.slices()])]


def _slice_plots(result: Result) -> list[tuple[Any, str]]:
    """Plot the groupings with few slices, side by side; the tables have all."""
    plots: list[tuple[Any, str]] = []
    for name in _slice_names(result):
        rows = result.slice_rows(name)
        if not 2 <= len(rows) <= PLOTTED:
            continue
        picture = figures.intervals(
            f"slice-{len(plots)}",
            [(row["slice"], row["miou"], row["se"]) for row in rows],
            reference=result.miou,
            about=f"mIoU by {name}, in percent, with standard errors:",
        )
        plots.append(
            (
                markup(picture),
                f"mIoU by {name} ± 2 standard errors, which slices of few images do not have; dashed: all examples.",
            )
        )
    return plots


def _slices(result: Result) -> list[dict[str, Any]]:
    heads = [("", "text"), ("examples", "number"), ("images", "number")]
    heads += [("missing", "number")] if result.n_missing else []
    heads += [(name, "number") for name in ("mIoU", "± se", "cIoU", "Pr@0.5")]
    tables = []
    for name in _slice_names(result):
        rows = [
            [
                row["slice"],
                (f"{row['n_examples']:,}", row["n_examples"]),
                (f"{row['n_images']:,}", row["n_images"]),
                *([(f"{row['n_missing']:,}", row["n_missing"])] if result.n_missing else []),
                *(percent(row[key]) for key in ("miou", "se", "ciou", "precision_at_0.5")),
            ]
            for row in result.slice_rows(name)
        ]
        tables.append({"name": name, "heads": [(name, "text"), *heads[1:]], "rows": rows})
    return tables


def _causes(result: Result) -> dict[str, Any] | None:
    summary = result.cause_summary
    if not summary:
        return None
    shares = [row for row in summary["shares"] if row["n_examples"]]
    picture = figures.bars(
        "causes",
        [(row["cause"], row["n_examples"]) for row in shares],
        about="Examples by cause:",
    )
    thresholds = [*dict.fromkeys(row["threshold"] for row in summary["moved"])]
    moved: dict[str, list[Any]] = {name: [] for name in thresholds}
    for row in summary["moved"]:
        moved[row["threshold"]].append(row)
    rows = [
        [
            row["cause"],
            percent(row["share"]),
            *(
                " / ".join(
                    f"{100 * (m['shares'][row['cause']] - row['share']):+.1f}" for m in moved[name]
                )
                for name in thresholds
            ),
        ]
        for row in summary["shares"]
    ]
    heads = [("cause", "text"), ("share, %", "number")]
    heads += [
        (f"{name.replace('_', ' ')} {summary['thresholds'][name]}", "number") for name in thresholds
    ]
    return {"plot": markup(picture), "heads": heads, "rows": rows}


def _convention(row: Row) -> list[Any]:
    printed = row.printed
    mark = {"": "", FLOAT32: "~ "}.get(row.caveat, "≈ ")
    return [
        row.convention.name,
        (f"{row.scores.n_examples:,}", row.scores.n_examples),
        *(
            (f"{mark}{percent(printed[name])}", printed[name]) if name in printed else "·"
            for name in ("mIoU", "cIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9")
        ),
    ]


def _reasons(row: Row) -> tuple[str, list[str]]:
    texts = []
    for reason in row.reasons:
        changes = ", ".join(
            f"{name} {100 * change:+.2f}" for name, change in reason.changes.items()
        )
        texts.append(f"{reason.text}; {changes}".replace("-", "−"))
    if row.caveat not in ("", FLOAT32):
        texts.append(
            f"not in these numbers ({row.caveat}): it compares masks at {row.convention.resolution}"
        )
    return row.convention.name, texts


def _cards(result: Result, store: MaskStore | None, problem: str) -> Cards:
    table, iou = result.per_example, result.iou
    counted = np.flatnonzero(result.is_counted)
    facts = [Fact("IoU", iou)]
    choices = {}
    groups = None
    official = result.convention == OFFICIAL.name
    if official and result.boundary_scores:
        facts.append(Fact("boundary IoU", result.boundary_values["boundary_iou"]))
    if official and result.box_scores:
        facts.append(Fact("box IoU", result.box_values["box_iou"]))
    if result.cause_summary:
        names, groups = np.unique(result.causes, return_inverse=True)
        choices["cause"] = names.tolist(), groups
    else:
        choices["status"] = codes_of(table.column("status"))
    choices["category"] = codes_of(table.column("category"))
    orders: list[tuple[str, int | None, bool]] = [
        ("worst first", 0, False), ("best first", 0, True), ("by chance", None, False),
    ]  # fmt: skip
    if len(facts) > 1:
        orders.append((f"lowest {facts[1].label} first", 1, False))
    chosen = extremes(iou[counted], counted, None if groups is None else groups[counted])
    sketch = None if store is None else sketcher([result], store, ("",))
    return Cards(table, facts, choices, orders, sketch=sketch, chosen=chosen, problem=problem)
