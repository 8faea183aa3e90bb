"""Scores under every convention in, their table and why they differ out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.cli.tables.lines import WIDTH, mark_of
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.conventions import FLOAT32, OFFICIAL
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS

if TYPE_CHECKING:
    from refcocom_gpu.scores.explain import Reason, Row
    from refcocom_gpu.scores.reported import Candidate, Search
    from refcocom_gpu.scores.result import Result

SHOWN_CHANGE = 5e-5
"""A smaller change shows as 0.00 percentage points."""


def conventions_table(rows: list[Row]) -> str:
    """Return the scores under each convention, in percent."""
    names = ("mIoU", "cIoU", *(f"Pr@{x}" for x in PRECISION_THRESHOLDS))
    lines = [f"  {'convention':<12}examples  " + "".join(f"{name:>9}" for name in names)]
    for row in rows:
        mark, printed = mark_of(row.caveat), row.printed
        cells = (f"{mark}{100 * printed[name]:.2f}" if name in printed else "·" for name in names)
        lines.append(
            f"  {row.convention.name:<12}{row.scores.n_examples:>8,}  "
            + "".join(f"{cell:>9}" for cell in cells)
        )
    return "\n".join(
        [
            *lines,
            "",
            "  in percent   · not printed by it   ~ sums float32: last digits may differ   ≈ other masks",
        ]
    )


def explain_table(result: Result, rows: list[Row]) -> str:
    """Return the scores under each convention and the reasons of their differences."""
    lines = [
        *_header(result),
        "",
        conventions_table(rows),
        "",
        "Why they differ from official, and by how many percentage points",
    ]
    for row in rows:
        if row.convention is not OFFICIAL:
            lines += _item(row.convention.name, _why(row))
    return "\n".join(lines)


def _header(result: Result) -> list[str]:
    predictions = result.info.get("predictions", {})
    return [
        str(predictions.get("source", "predictions")),
        *left_out(predictions),
        *([f"{result.n_missing:,} examples have no prediction"] if result.n_missing else []),
        f"{result.info.get('dataset', {}).get('source', 'dataset')}: {len(result.per_example):,} examples",
    ]


def _why(row: Row) -> list[str]:
    c = row.convention
    texts = [_reason(reason) for reason in row.reasons]
    inexact = row.caveat not in ("", FLOAT32)
    if not texts:
        texts = ["the same in all that counts show" if inexact else "exactly the same"]
    if inexact:
        texts.append(f"not in these numbers ({row.caveat}): it compares masks at {c.resolution}")
    if row.resized:
        texts.append(row.resized)
    return texts


def _reason(reason: Reason) -> str:
    shown = [
        f"{name} {100 * change:+.2f}".replace("-", "−")
        for name, change in reason.changes.items()
        if not abs(change) < SHOWN_CHANGE
    ]
    return f"{reason.text}; {', '.join(shown) or 'less than 0.01'}"


def _item(name: str, texts: list[str]) -> list[str]:
    """Return texts, each in lines of its own, beside a name."""
    wrapped = [
        textwrap.fill(text, WIDTH, initial_indent=" " * 14, subsequent_indent=" " * 16)
        for text in texts
    ]
    first = f"  {name:<12}" + wrapped[0].lstrip()
    return [first, *wrapped[1:]]


def reported_table(result: Result, search: Search) -> str:
    """Return what a published number may be."""
    number = search.reported
    factor = 100 if number.percent else 1
    how = "percent" if number.percent else "a fraction (write 0.7% for a percentage below 1)"
    lines = [
        *_header(result),
        "",
        f"{number.text} is read as {how}, ± {factor * number.tolerance:g}",
    ]
    if not search.matches:
        lines += ["", "No score of any convention, or of a simple mistake, comes within. Nearest:"]
    lines += ["", *_candidates(search.matches or search.nearest, number.value, factor)]
    kinds = {candidate.score for candidate in search.matches}
    if "mIoU" in kinds and "cIoU" not in kinds:
        lines += ["", "If it was published as cIoU or oIoU, it is a mean under a wrong name."]
    if "cIoU" in kinds and "mIoU" not in kinds:
        lines += ["", "If it was published as mIoU or gIoU, it is ΣI / ΣU under a wrong name."]
    lines += [
        "",
        textwrap.fill(
            "Counts cannot show: examples that a distributed sampler repeats, other thresholds of logits, masks "
            "compared at another size, other predictions or other ground truth.",
            WIDTH,
        ),
    ]
    return "\n".join(lines)


def _candidates(candidates: tuple[Candidate, ...], value: float, factor: int) -> list[str]:
    """Return a line per score and value, with all that have it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for candidate in candidates:
        difference = f"{factor * (candidate.value - value):+.{2 if factor > 1 else 4}f}"
        shown = f"{factor * candidate.value:.{2 if factor > 1 else 4}f} ({difference})"
        names = groups.setdefault((candidate.score, shown.replace("-", "−")), [])
        names.append(mark_of(candidate.caveat) + candidate.of)
    lines = []
    for (score, shown), names in groups.items():
        lines += textwrap.fill(
            ", ".join(names),
            WIDTH,
            initial_indent=f"  {score:<8}{shown:<18}",
            subsequent_indent=" " * 28,
        ).splitlines()
    return lines
