"""A conversion in, what became of its predictions as a table for a terminal out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refcocom_gpu.cli.tables.lines import one_line

if TYPE_CHECKING:
    from refcocom_gpu.predictions.convert import Conversion
    from refcocom_gpu.store.match import DatasetMatch

SHOWN_ROWS = 20
"""Sentences or answers that are listed one by one."""


def conversion_table(made: Conversion) -> str:
    """Return how many predictions were written and why others were not; those that may be meant differently by name."""
    lines, match = [], made.match
    if match is not None:
        source, target = match.source, match.target
        lines += [
            f"{source.source} ({source.n_examples:,} sentences) → {target.source} ({target.n_examples:,} sentences)",
            "",
            *match_lines(match),
        ]
    lines.append(_number("predictions", made.n_read))
    if match is not None:
        lines.append(_number("  carried", made.n_written))
        lines.append(_number("  left behind", made.n_left, "their sentences have no counterpart"))
    if made.n_extra:
        lines.append(_number("  extra", made.n_extra, "left out, as extra=ignore asks"))
    if made.n_repeated:
        lines.append(_number("  repeated", made.n_repeated, "read once, as repeats=identical asks"))
    n_absent = made.n_missing - len(made.unread)
    if n_absent:
        lines.append(_number("  missing", n_absent, "left out, as missing=skip asks"))
    if made.unread:
        lines.append(_number("  unreadable", len(made.unread), "left out, as missing=skip asks"))
    if match is not None and match.ambiguous:
        lines += ["", "Ambiguous, and not carried", *_listed(_ambiguous(match))]
    if made.unread:
        lines += ["", "Answers that could not be read", *_listed(list(map(str, made.unread)))]
    return "\n".join([*lines, "", f"Wrote {made.path}"])


def match_lines(match: DatasetMatch) -> list[str]:
    """Return how many samples and sentences of the target are matched, ambiguous and absent, by rule."""
    from refcocom_gpu.store.match import SAMPLE_RULES, SENTENCE_RULES

    counts, lines = match.counts(), []
    for what, total, rules in (
        ("samples", match.target.n_samples, SAMPLE_RULES),
        ("sentences", match.target.n_examples, SENTENCE_RULES),
    ):
        lines.append(_number(what, total))
        lines += [
            _number(f"  {rules[name].outcome}", n, f"{rules[name].meaning} ({name})")
            for name, n in counts[what].items()
        ]
    return lines


def _ambiguous(match: DatasetMatch) -> list[str]:
    from refcocom_gpu.predictions.keys import describe_key
    from refcocom_gpu.store.match import SENTENCE_RULES

    target, rows = match.target, []
    for index in match.ambiguous:
        key = describe_key(target.example_key_fields, target.key_of(index))
        sentence = one_line(target.examples["sentence"][index].as_py())
        rows.append(f"{key}, {sentence!r}: {SENTENCE_RULES[match.rule[index]].meaning}")
    return rows


def _number(what: str, number: int, meaning: str = "") -> str:
    return f"  {what:<14}{number:>8,}  {meaning}".rstrip()


def _listed(rows: list[str]) -> list[str]:
    left = len(rows) - SHOWN_ROWS
    more = [f"  … and {left:,} more (json=true lists all)"] if left > 0 else []
    return [*(f"  {row}" for row in rows[:SHOWN_ROWS]), *more]
