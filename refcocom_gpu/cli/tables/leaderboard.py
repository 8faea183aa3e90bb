"""A leaderboard in, its first rows as a table for a terminal out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.scores.leaderboard.rows import Leaderboard

TOP_ROWS = 10
"""Rows of a leaderboard that are printed."""

TABLE_WIDTH = 100
"""Characters of a line of a leaderboard on a terminal; columns of a manifest that do not fit are left out."""

CELL = 28
"""Characters of a cell of a leaderboard; of a longer name the end is kept, where checkpoints differ."""

SHOWN = ("boundary_iou", "box_iou", "pairwise_iou", "n_acc", "t_acc")
"""The columns of metrics besides IoU that are printed where they were counted."""


def leaderboard_table(board: Leaderboard) -> str:
    """Return the first rows of a leaderboard in percent, no wider than `TABLE_WIDTH`; empty if nothing was scored."""
    from refcocom_gpu.scores.leaderboard.formats import is_text, percent, shown
    from refcocom_gpu.scores.uncertainty import interval_reach

    n_images = board.about["dataset"]["n_images"]
    ranked = [row for row in board.table.to_pylist() if row["error"] is None]
    rows = ranked[:TOP_ROWS]
    if not rows:
        return ""

    def interval(row: dict[str, Any]) -> str:
        if row["miou_se"] is None:
            return ""
        reach = interval_reach(n_images) * row["miou_se"]
        return f"{percent(max(row['miou'] - reach, 0))} … {percent(min(row['miou'] + reach, 1))}"

    # Each column: its head, its cells, and whether it is aligned to the left.
    names = [
        ("rank", [("✓ " if row["like_best"] else "") + str(row["rank"]) for row in rows], False),
        ("model", [_end(row["model"]) for row in rows], True),
    ]
    scores = [
        ("mIoU", [percent(row["miou"]) for row in rows], False),
        ("95 % interval", [interval(row) for row in rows], False),
        *(
            (head, [percent(row[name]) for row in rows], False)
            for head, name in (("cIoU", "ciou"), ("Pr@0.5", "pr50"))
        ),
    ]
    optional = [
        (head, [f"{row[name] or 0:,}" for row in rows], False)
        for head, name in (("missing", "n_missing"), ("best of", "best_of"))
        if any(row[name] for row in rows)
    ]
    left_out = []
    for name in (name for name in SHOWN if name in board.heads):
        cells = ["" if (score := row[name]) is None else percent(score) for row in rows]
        column = (board.heads[name], cells, False)
        if _width([*names, *scores, column, *optional]) <= TABLE_WIDTH:
            scores.append(column)
        else:
            left_out.append(name)
    scores += optional
    for name in board.manifest:
        column = (
            _end(name),
            [_end(shown(row[name])) for row in rows],
            is_text(board, name),
        )
        if _width([*names, column, *scores]) <= TABLE_WIDTH:
            names.append(column)
        else:
            left_out.append(name)
    columns = [*names, *scores]
    widths = [max(len(head), *map(len, cells)) for head, cells, _ in columns]
    lines = [
        "  "
        + "  ".join(
            f"{cell:<{width}}" if to_left else f"{cell:>{width}}"
            for cell, width, (_, _, to_left) in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in zip(*([head, *cells] for head, cells, _ in columns), strict=True)
    ]
    notes = []
    if len(ranked) > len(rows):
        notes.append(f"… and {len(ranked) - len(rows):,} more in leaderboard.md")
    if left_out:
        notes.append(f"Columns left out here: {', '.join(left_out)}")
    if sum(bool(row["like_best"]) for row in ranked) > 1:
        notes.append(
            "✓ marks what the intervals of all differences at once do not tell from the best."
        )
    if selection := board.about["selection"]:
        notes += textwrap.wrap(selection, TABLE_WIDTH - 2)
    return "\n".join([*lines, *(["", *(f"  {note}" for note in notes)] if notes else [])])


def _width(columns: list[tuple[str, list[str], bool]]) -> int:
    return sum(2 + max(len(head), *map(len, cells)) for head, cells, _ in columns)


def _end(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CELL else f"…{line[1 - CELL :]}"
