"""A leaderboard in, its page out: all models in one table, ranks, what scores depend on, and who is surely better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.report import model_figures
from refcocom_gpu.report.model_figures import BANDS, Line, Ranked
from refcocom_gpu.report.page import markup, percent, render, signed
from refcocom_gpu.scores.leaderboard import FILES
from refcocom_gpu.scores.leaderboard.formats import is_text, shown
from refcocom_gpu.scores.leaderboard.rows import PAIRED, Leaderboard
from refcocom_gpu.scores.sweep_folder import names_of_rows
from refcocom_gpu.utils.text import first_line

COLUMNS, VALUES = 8, 16
"""Columns of the manifest that are plotted, and values of a column of text up to which it is."""

LINES = 40
"""Models in a plot of lines."""

MESSAGE = 2_000
"""Characters of an error or a warning; `leaderboard.json` holds them whole."""

Row = dict[str, Any]


def sweep_page(board: Leaderboard, page: Path) -> bytes:
    """Return the page of a sweep.

    Args:
        board: From `rc.sweep`, or from the folder of a sweep by `load_leaderboard`.
        page: Where the page will stand; files of the leaderboard that stand beside it are linked.

    Raises:
        UsageError: A package is not installed.
    """
    rows = board.table.to_pylist()
    ranked = [row for row in rows if row["error"] is None]
    failed = [row for row in rows if row["error"] is not None]
    names = names_of_rows(
        [{**row, "columns": {name: row[name] for name in board.manifest}} for row in ranked]
    )
    plots, unplotted = _manifest_plots(board, ranked)
    sections = [("models", "Models")]
    sections += [("ranks", "Ranks")] if ranked else []
    sections += [("settings", "Settings")] if plots or unplotted else []
    sections += [("failed", "Not scored")] if failed else []
    warned = [row for row in ranked if row["warnings"]]
    sections += [("warnings", "Warnings")] if warned else []
    values = {
        "kind": "Sweep",
        "title": _title(names, ranked),
        "heading": f"{len(rows):,} prediction files",
        "about": _about(board),
        "notes": _notes(board, len(failed), len(warned)),
        "sections": sections,
        "picture_source": "",
        "level": f"{100 * board.about['uncertainty']['level']:g}",
        "boxes": _boxes(names, ranked, len(failed)),
        "heads": _heads(board),
        "rows": [_cells(row, board) for row in ranked],
        "files": [name for name in FILES if (page.parent / name).is_file()],
        "rankings": [*_ranking(names, ranked), *_pairs(names, board)],
        "plots": plots,
        "unplotted": unplotted,
        "failed": [_message(row, row["error"]) for row in failed],
        "warned": [_message(row, row["warnings"]) for row in warned],
    }
    return render("sweep.html.j2", values)


def _title(names: Sequence[str], ranked: Sequence[Row]) -> str:
    if not ranked:
        return "A sweep in which nothing could be scored"
    return f"{len(ranked):,} models, the best {names[0]}: mIoU {percent(ranked[0]['miou'])} %"


def _about(board: Leaderboard) -> list[tuple[str, str]]:
    about = board.about
    dataset = about["dataset"]
    return [
        ("dataset", f"{dataset['source']} ({dataset.get('split', '')})"),
        ("examples", f"{dataset['n_examples']:,}"),
        ("images", f"{dataset['n_images']:,}"),
        ("convention", about["convention"]),
        ("Pr@X", f"IoU {_sign(board)} X"),
    ]


def _sign(board: Leaderboard) -> str:
    sign: str = board.about["precision"].replace(">=", "≥")
    return sign


def _notes(board: Leaderboard, failed: int, warned: int) -> list[str]:
    """Return what a reader must know before the numbers."""
    notes = [board.about["selection"]] if board.about["selection"] else []
    if failed:
        notes.append(f"Files that could not be scored: {failed:,}. Their errors stand below.")
    if warned:
        notes.append(
            f"Files that were scored but are perhaps misread: {warned:,}. See the warnings."
        )
    return notes


def _boxes(names: Sequence[str], ranked: Sequence[Row], failed: int) -> list[tuple[str, str, str]]:
    """Return name, value and remark of what stands at the head of the page."""
    if not ranked:
        return [("not scored", f"{failed:,}", "")]
    best = ranked[0]
    se = "" if best["miou_se"] is None else f"± {percent(best['miou_se'])} · "
    alike = sum(bool(row["like_best"]) for row in ranked)
    boxes = [("best mIoU", percent(best["miou"]), f"{se}{names[0]}")]
    if best["miou_se"] is not None:
        boxes.append(("like the best", f"{alike:,}", f"of {len(ranked):,} models"))
    boxes.append(("ranked", f"{len(ranked):,}", ""))
    return [*boxes, ("not scored", f"{failed:,}", "")]


def _heads(board: Leaderboard) -> list[tuple[str, str]]:
    """Return the heads of the table and whether a column holds numbers."""
    manifest = [(name, "text" if is_text(board, name) else "number") for name in board.manifest]
    labels = board.heads.values()
    selected = ["best of"] if board.about["best_per"] else []
    numbers = (
        "mIoU", "± se", "rank", "ranks", "− best", "from", "to", "cIoU", "Pr@0.5", "Pr@0.7", "Pr@0.9", *labels,
        "missing", "empty", *selected,
    )  # fmt: skip
    return [
        ("model", "text"),
        *manifest,
        *((name, "number") for name in numbers),
        ("like best", "text"),
        ("file", "text"),
    ]


def _cells(row: Row, board: Leaderboard) -> list[Any]:
    """Return the cells of `_heads`, scores in percent and differences in points."""
    names = board.heads
    count = [row["best_of"] or 1] if board.about["best_per"] else []
    return [
        row["model"],
        *(
            (shown(row[name]), "" if row[name] is None else row[name] + 0)
            if not is_text(board, name)
            else shown(row[name])
            for name in board.manifest
        ),
        (percent(row["miou"]), row["miou"]),
        percent(row["miou_se"]),
        row["rank"],
        (_ranked("", row).rank or "–", row["rank_low"] or row["rank"]),
        (signed(row["difference"]), row["difference"]),
        signed(row["difference_low"]),
        signed(row["difference_high"]),
        *(percent(row[name]) for name in ("ciou", "pr50", "pr70", "pr90", *names)),
        f"{row['n_missing']:,}",
        f"{row['n_empty']:,}",
        *count,
        "✓" if row["like_best"] else "",
        row["path"],
    ]


def _ranked(name: str, row: Row) -> Ranked:
    ranks = None if row["rank_low"] is None else (row["rank_low"], row["rank_high"])
    return Ranked(name, row["miou"], row["miou_se"], ranks, bool(row["like_best"]))


def _ranking(names: Sequence[str], ranked: Sequence[Row]) -> list[tuple[Any, str]]:
    if not ranked:
        return []
    rows = [_ranked(name, row) for name, row in zip(names, ranked, strict=True)][:PAIRED]
    caption = "mIoU ± 2 standard errors, in colour what is like the best; on the right the ranks that each may have."
    return [
        (markup(model_figures.ranking("ranking", rows)), caption + _part(len(rows), len(ranked)))
    ]


def _pairs(names: Sequence[str], board: Leaderboard) -> list[tuple[Any, str]]:
    pairs = board.pairs
    if pairs is None or len(pairs.estimate) < 2:
        return []
    n = len(pairs.estimate)
    picture = model_figures.matrix("pairs", names[:n], pairs.better)
    caption = "Is the model of a row surely better (blue) or surely worse (orange) than that of a column, or neither?"
    return [(markup(picture), caption + _part(n, len(names)))]


def _part(n: int, of: int) -> str:
    return "" if n == of else f" The first {n} of {of:,}."


def _manifest_plots(
    board: Leaderboard, ranked: Sequence[Row]
) -> tuple[list[tuple[Any, str]], list[str]]:
    """Return plots of mIoU by columns of the manifest, and the columns that are not plotted with the reason."""
    plots: list[tuple[Any, str]] = []
    unplotted = []
    for name in board.manifest:
        rows = [row for row in ranked if row[name] is not None]
        different = dict.fromkeys(row[name] for row in rows)
        kind = board.table.schema.field(name).type
        is_number = not (pa.types.is_string(kind) or pa.types.is_boolean(kind))
        if len(different) < 2:
            unplotted.append(f"{name}: fewer than two values")
        elif not is_number and len(different) > VALUES:
            unplotted.append(f"{name}: {len(different):,} values")
        elif len(plots) == COLUMNS:
            unplotted.append(f"{name}: {COLUMNS} others are")
        else:
            place = f"by-{len(plots)}"
            as_lines = is_number and (len(different) > VALUES or not _repeats(name, rows))
            plots.append((_curves if as_lines else _dots)(place, name, rows))
    return plots, unplotted


def _repeats(name: str, rows: Sequence[Row]) -> bool:
    """Return whether a model has several files of one value, so that no line leads from one value to the next."""
    return len({(row["model"], row[name]) for row in rows}) < len(rows)


def _curves(place: str, name: str, rows: Sequence[Row]) -> tuple[Any, str]:
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    lines = []
    for model, of_model in by_model.items():
        of_model.sort(key=lambda row: row[name])
        columns = (
            np.array([row[key] for row in of_model], np.float64)
            for key in (name, "miou", "miou_se")
        )
        lines.append(Line(model, *columns))
    picture = model_figures.curves(place, lines[:LINES], label=name)
    bands = f", of the best {BANDS} models" if len(lines) > BANDS else ""
    part = "" if len(lines) <= LINES else f" The best {LINES} of {len(lines):,} models."
    return markup(picture), f"mIoU by {name}; bands: ± 2 standard errors{bands}.{part}"


def _dots(place: str, name: str, rows: Sequence[Row]) -> tuple[Any, str]:
    groups: dict[str, list[float]] = {}
    if not isinstance(rows[0][name], str):
        rows = sorted(rows, key=lambda row: float(row[name]))
    for row in rows:
        groups.setdefault(shown(row[name]), []).append(row["miou"])
    picture = model_figures.dots(
        place, {text: np.array(scores) for text, scores in groups.items()}, label=name
    )
    return markup(picture), f"mIoU by {name}: a point for each file, a line for their mean."


def _message(row: Row, text: str) -> dict[str, str]:
    """Return a file and what is said of it: a line, and the rest if there is more."""
    head = first_line(ValueError(text))
    whole = (
        text
        if len(text) <= MESSAGE
        else f"{text[:MESSAGE]} … and {len(text) - MESSAGE:,} characters more"
    )
    return {
        "model": row["model"],
        "path": row["path"],
        "head": head[:MESSAGE],
        "whole": whole if whole.strip() != head else "",
    }
