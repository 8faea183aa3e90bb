"""A leaderboard in, its text in CSV, JSON and Markdown out."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from refcocom_gpu.scores.leaderboard.rows import Leaderboard

_ESCAPES = str.maketrans({"\\": r"\\", "|": r"\|", "`": r"\`", "*": r"\*", "[": r"\[", "<": "&lt;"})


def to_csv(board: Leaderboard) -> str:
    """Return all columns as CSV: numbers in full, null as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(board.table.column_names)
    for row in board.table.to_pylist():
        writer.writerow(str(v).lower() if isinstance(v, bool) else v for v in row.values())
    return text.getvalue()


def to_json(board: Leaderboard) -> str:
    """Return all rows as JSON, after what the scores are scores of and what the intervals mean."""
    content = {**board.about, "rows": board.table.to_pylist()}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(board: Leaderboard) -> str:
    """Return a short table in percent with a caption, the files that could not be scored, and those to look at."""
    rows = board.table.to_pylist()
    ranked = [row for row in rows if row["error"] is None]
    lines = [_caption(board.about), ""]
    if ranked:
        lines += [
            "| rank | model | mIoU | ranks | best? | cIoU | Pr@0.5 | Pr@0.9 | missing |",
            "|---:|---|---:|---:|:---:|---:|---:|---:|---:|",
            *map(_row, ranked),
        ]
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        lines += ["", "Not scored:", ""]
        # The first line of an error counts the mistakes; the other formats hold the whole message.
        for row in failed:
            first, *_ = row["error"].splitlines() or [""]
            lines.append(f"- {_cell(_file_name(row))}: {_cell(first)}")
    warned = [row for row in ranked if row["warnings"] is not None]
    if warned:
        lines += ["", "Scored, but perhaps misread:", ""]
        for row in warned:
            text = "; ".join(row["warnings"].splitlines())
            lines.append(f"- {_cell(_file_name(row))}: {_cell(text)}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _caption(about: dict[str, Any]) -> str:
    dataset, level = about["dataset"], about["uncertainty"]["level"]
    sign = about["precision"].replace(">=", "≥")
    return (
        f"{_cell(dataset['source'])}, {dataset['n_examples']:,} expressions in {dataset['n_images']:,} images "
        f"(fingerprint {dataset['fingerprint'][:8]}), convention {about['convention']}, in percent; Pr@X counts "
        f"IoU {sign} X. ± is the standard error over images. Ranks are those that {100 * level:g} % intervals for "
        "all differences at once leave open; ✓ marks what they do not tell from the best. Missing expressions count "
        "as empty."
    )


def _row(row: dict[str, Any]) -> str:
    known = row["miou_se"] is not None
    low, high = row["rank_low"], row["rank_high"]
    cells = [
        str(row["rank"]),
        _cell(row["model"]),
        _percent(row["miou"]) + (f" ± {_percent(row['miou_se'])}" if known else ""),
        (str(low) if low == high else f"{low}–{high}") if known else "",
        "✓" if row["like_best"] else "",
        *(_percent(row[name]) for name in ("ciou", "pr50", "pr90")),
        f"{row['n_missing']:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _file_name(row: dict[str, Any]) -> str:
    if row["model"] == row["path"]:
        return str(row["path"])
    return f"{row['model']} ({row['path']})"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _cell(text: str) -> str:
    r"""Escape text so that it neither ends a cell nor is taken for markup.

    >>> _cell("a|b\n*c*")
    'a\\|b \\*c\\*'
    """
    return " ".join(text.split()).translate(_ESCAPES)
