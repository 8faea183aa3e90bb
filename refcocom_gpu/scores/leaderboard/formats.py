"""A leaderboard in, its text in CSV, JSON and Markdown out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from refcocom_gpu.scores.leaderboard.board import Board

DIFFERENCE = "Δ to the first [interval]"
"""The head of the column of differences."""

_ESCAPES = str.maketrans({"\\": r"\\", "|": r"\|", "`": r"\`", "*": r"\*", "[": r"\[", "<": "&lt;"})


def to_csv(board: Board) -> str:
    """Return all columns as CSV: numbers in full, null as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(board.table.column_names)
    for row in board.table.to_pylist():
        writer.writerow(str(v).lower() if isinstance(v, bool) else v for v in row.values())
    return text.getvalue()


def to_json(board: Board) -> str:
    """Return all rows as JSON, after what the scores are scores of and what the intervals mean."""
    content = {**board.about, "rows": board.table.to_pylist()}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(board: Board, notes: Sequence[str] = (), *, differences: bool = False) -> str:
    """Return a short table in percent with a caption, the files that could not be scored, and those to look at.

    Args:
        board: The leaderboard.
        notes: Further sentences of the caption.
        differences: Whether a column has the difference from the first row, with its interval.
    """
    rows = board.table.to_pylist()
    ranked = board.ranked
    lines = [cell(" ".join((plain_caption(board.about), *notes))), ""]
    if board.about["selection"] is not None:
        lines += [f"**{cell(board.about['selection'])}**", ""]
    if ranked:
        table = [
            {**cells(row, board), **({DIFFERENCE: difference(row)} if differences else {})}
            for row in ranked
        ]
        left = {"model", *(name for name in board.manifest if is_text(board, name))}
        lines += [
            f"| {' | '.join(cell(name) for name in table[0])} |",
            f"|{'|'.join('---' if name in left else ':---:' if name == 'best?' else '---:' for name in table[0])}|",
            *(f"| {' | '.join(map(cell, row.values()))} |" for row in table),
        ]
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        lines += ["", "Not scored:", ""]
        # The first line of an error counts the mistakes; the other formats hold the whole message.
        for row in failed:
            first, *_ = row["error"].splitlines() or [""]
            lines.append(f"- {cell(file_name(row))}: {cell(first)}")
    warned = [row for row in ranked if row["warnings"] is not None]
    if warned:
        lines += ["", "Scored, but perhaps misread:", ""]
        for row in warned:
            text = "; ".join(row["warnings"].splitlines())
            lines.append(f"- {cell(file_name(row))}: {cell(text)}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def plain_caption(about: dict[str, Any]) -> str:
    """Return what the scores are scores of and what the signs mean, not escaped."""
    dataset, level = about["dataset"], about["uncertainty"]["level"]
    sign = about["precision"].replace(">=", "≥")
    return (
        f"{dataset['source']}, {dataset['n_examples']:,} expressions in {dataset['n_images']:,} images "
        f"(fingerprint {dataset['fingerprint'][:8]}), convention {about['convention']}, in percent; Pr@X counts "
        f"IoU {sign} X. ± is the standard error over images. Ranks are those that {100 * level:g} % intervals for "
        "all differences at once leave open; ✓ marks what they do not tell from the best. Missing expressions count "
        "as empty."
    )


def cells(row: dict[str, Any], board: Board) -> dict[str, str]:
    """Return the cells of a row by the heads of their columns, not escaped."""
    known = row["miou_se"] is not None
    low, high = row["rank_low"], row["rank_high"]
    made = {
        "rank": str(row["rank"]),
        "model": row["model"],
        **{name: shown(row[name]) for name in board.manifest},
        "mIoU": with_error(row, "miou"),
        "ranks": (str(low) if low == high else f"{low}–{high}") if known else "",
        "best?": "✓" if row["like_best"] else "",
        "cIoU": percent(row["ciou"]),
        "Pr@0.5": percent(row["pr50"]),
        "Pr@0.9": percent(row["pr90"]),
        **{head: with_error(row, name) for name, head in board.heads.items()},
        "missing": f"{row['n_missing']:,}",
    }
    if row["best_of"] is not None:
        made["best of"] = f"{row['best_of']:,}"
    return made


def difference(row: dict[str, Any]) -> str:
    """Return the difference to the first row in percentage points and its interval; nothing for the first row.

    >>> difference({"rank": 2, "difference": -0.0123, "difference_low": -0.02, "difference_high": -0.005})
    '-1.23 [-2.00, -0.50]'
    """
    if not row["difference"] and row["rank"] == 1:
        return ""
    ends = [row["difference_low"], row["difference_high"]]
    interval = "" if None in ends else f" [{100 * ends[0]:+.2f}, {100 * ends[1]:+.2f}]"
    return f"{100 * row['difference']:+.2f}{interval}"


def with_error(row: dict[str, Any], name: str) -> str:
    """Return a score in percent with its standard error, if it has one; nothing for one that was not counted."""
    score, se = row[name], row.get(f"{name}_se")
    if score is None:
        return ""
    return percent(score) if se is None else f"{percent(score)} ± {percent(se)}"


def is_text(board: Board, name: str) -> bool:
    """Return whether a column of a leaderboard is aligned to the left."""
    return bool(pa.types.is_string(board.table.schema.field(name).type))


def shown(value: Any) -> str:
    """Return a value of a manifest for people; nothing for null.

    >>> shown(None), shown(6000), shown(1e-5 / 3), shown(True)
    ('', '6000', '3.33333e-06', 'true')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def file_name(row: dict[str, Any]) -> str:
    """Return the model and the path of a row, once where they are the same."""
    if row["model"] == row["path"]:
        return str(row["path"])
    return f"{row['model']} ({row['path']})"


def percent(share: float) -> str:
    """Return a share in percent, with two decimals."""
    return f"{100 * share:.2f}"


def cell(text: str) -> str:
    r"""Escape text so that it neither ends a cell nor is taken for markup.

    >>> cell("a|b\n*c*")
    'a\\|b \\*c\\*'
    """
    return " ".join(text.split()).translate(_ESCAPES)
