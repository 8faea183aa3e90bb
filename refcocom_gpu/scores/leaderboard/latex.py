"""A leaderboard in, a table of a paper out: LaTeX for the package booktabs, in percent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from refcocom_gpu.scores.leaderboard.board import Board
from refcocom_gpu.scores.leaderboard.formats import difference, is_text, percent, shown

Row = dict[str, Any]

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        # At the beginning of a row, these would be taken for an argument of the row before.
        **{character: f"{{{character}}}" for character in "[]*"},
        # Not every font encoding has these.
        "²": "$^2$",
        "≥": r"$\geq$",
        "±": r"$\pm$",
        "−": "$-$",
        "…": r"\dots{}",
    }
)


def escaped(text: str) -> str:
    r"""Return text as LaTeX prints it, on one line: no character of it is taken for a command.

    >>> print(escaped("50% of a_b & $c\n"), escaped("\\input{x}"))
    50\% of a\_b \& \$c \textbackslash{}input\{x\}
    """
    return " ".join(text.split()).translate(_ESCAPES)


def _share(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else percent(row[name])


def _with_error(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        score, se = row[name], row[f"{name}_se"]
        if score is None:
            return ""
        return percent(score) if se is None else rf"${percent(score)} \pm {percent(se)}$"

    return cell


def _difference(row: Row) -> str:
    """Return the difference to the first row and its interval; nothing for the first row."""
    text = difference(row).replace(" [", r"\,[")
    return f"${text}$" if text else ""


COLUMNS: tuple[tuple[str, str, Callable[[Row], str]], ...] = (
    ("mIoU", "miou", _with_error("miou")),
    (r"$\Delta$ [interval]", "difference", _difference),
    ("cIoU", "ciou", _share("ciou")),
    ("Pr@0.5", "pr50", _share("pr50")),
    ("Pr@0.7", "pr70", _share("pr70")),
    ("Pr@0.9", "pr90", _share("pr90")),
    ("boundary IoU", "boundary_iou", _with_error("boundary_iou")),
    ("per instance", "miou_per_instance", _share("miou_per_instance")),
    ("hard pass", "hard_pass_rate", _share("hard_pass_rate")),
    ("small", "miou_small", _share("miou_small")),
    ("medium", "miou_medium", _share("miou_medium")),
    ("large", "miou_large", _share("miou_large")),
    ("N", "n_examples", lambda row: str(row["n_examples"])),
    ("missing", "n_missing", lambda row: str(row["n_missing"] or "")),
)
"""Head, column of the leaderboard, and the cell of a row."""


def to_latex(board: Board, notes: Sequence[str] = ()) -> str:
    """Return the ranked rows as a `table` environment; columns whose cells are all empty are left out.

    Args:
        board: The leaderboard.
        notes: Further sentences of the caption.
    """
    rows = board.ranked
    # Each column: its head, its cells, and its alignment.
    columns = [("model", [escaped(row["model"]) for row in rows], "l")]
    columns += [
        (
            escaped(name),
            [escaped(shown(row[name])) for row in rows],
            "l" if is_text(board, name) else "r",
        )
        for name in board.manifest
    ]
    held = {*board.table.column_names}
    columns += [
        (head, [cell(row) for row in rows], "r") for head, name, cell in COLUMNS if name in held
    ]
    columns = [columns[0], *(column for column in columns[1:] if any(column[1]))]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(board, rows, notes)}}}",
        rf"\begin{{tabular}}{{{''.join(align for _, _, align in columns)}}}",
        r"\toprule",
        " & ".join(head for head, _, _ in columns) + r" \\",
        r"\midrule",
        *(" & ".join(of_row) + r" \\" for of_row in zip(*(c for _, c, _ in columns), strict=True)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(board: Board, rows: list[Row], notes: Sequence[str]) -> str:
    about = board.about
    dataset, sign = about["dataset"], about["precision"].replace(">=", "≥")
    n_missing = sum(row["n_missing"] for row in rows)
    missing = (
        "missing expressions count as empty"
        if n_missing
        else "every row scores all of them, none missing"
    )
    sentences = [
        f"{dataset['source']}: {dataset['n_examples']:,} expressions in {dataset['n_images']:,} images (fingerprint "
        f"{dataset['fingerprint'][:8]}), {missing}; convention {about['convention']}; in percent; "
        f"Pr@X counts IoU {sign} X."
    ]
    if any(row["miou_se"] is not None for row in rows):
        level = about["uncertainty"]["level"]
        sentences.append(
            "± is the standard error over images. Differences are paired, from the first row; their "
            f"{100 * level:g} % intervals hold for all pairs of rows at once."
        )
    if any(row["miou_small"] is not None for row in rows):
        sentences.append(
            "Small, medium, large: mIoU where the true mask has < 32², < 96², ≥ 96² pixels."
        )
    if combine := about.get("options", {}).get("combine"):
        sentences.append(f"Several masks for an expression were combined by {combine}.")
    if n := about["n_failed"]:
        sentences.append(f"{n} files could not be scored.")
    if about["selection"]:
        sentences.append(about["selection"])
    return " ".join(escaped(sentence) for sentence in (*sentences, *notes))
