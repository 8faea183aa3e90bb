"""A result or a comparison in, its table for a terminal out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.scores.breakdown import MIN_IMAGES, Difference
from refcocom_gpu.scores.conventions import FLOAT32, OFFICIAL, get_convention
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.result import left_out

if TYPE_CHECKING:
    from refcocom_gpu.scores.comparison import ResultComparison
    from refcocom_gpu.scores.conventions import Convention
    from refcocom_gpu.scores.explain import Reason, Row
    from refcocom_gpu.scores.reported import Candidate, Search
    from refcocom_gpu.scores.result import Result

SHOWN_TEXT = 60
"""Characters of a sentence or name that are printed."""

WIDTH = 98
"""Columns of a line of prose."""

SHOWN_CHANGE = 5e-5
"""A smaller change shows as 0.00 percentage points."""


def score_table(result: Result) -> str:
    """Return scores in percent, below the predictions, the dataset and the convention that they belong to."""
    dataset = result.info["dataset"]
    caveat = _incomplete(result)
    rows_left_out = left_out(result.info["predictions"])
    sign = ">" if result.is_strict else "≥"
    convention = get_convention(result.convention)
    rows = [("mIoU", result.miou), *([("cIoU", result.ciou)] if convention.names[1] else [])]
    rows += [(f"Pr@{x} ({sign})", share) for x, share in result.precision_at.items()]
    rows += [("mIoU per instance", result.miou_per_instance)]
    of_all = len(result.per_example)
    number = f"{result.n_examples:,}" + (f" of {of_all:,}" if of_all > result.n_examples else "")
    empty = f", {result.n_empty:,} predicted empty" if result.n_empty else ""
    lines = [
        f"{result.info['predictions']['source']}",
        f"{dataset['source']}: {number} examples{empty}; "
        f"convention {result.convention}; counted on {result.info['device']}",
        *rows_left_out,
        *_about(convention),
        "",
    ]
    mark = _mark(convention.caveat)
    lines += [f"  {name:<18}{mark:>2}{100 * value:6.2f} %{caveat}" for name, value in rows]
    return "\n".join(lines)


def comparison_table(comparison: ResultComparison) -> str:
    """Return both results in percent, their difference in percentage points, and its parts by kind of example."""
    a = comparison.a
    dataset = a.info.get("dataset", {})
    percent = f"{100 * comparison.level:g} %"
    lines = [
        *(
            "; ".join(
                (
                    f"{letter}  {_one_line(name)}{_incomplete(result)}",
                    *left_out(result.info.get("predictions", {})),
                )
            )
            for letter, name, result in zip("AB", comparison.names, (a, comparison.b), strict=True)
        ),
        f"{dataset.get('source', 'dataset')}: {a.n_examples:,} examples in {comparison.miou.n_images:,} images; "
        f"convention {a.convention}; in percent",
        "",
        *_differences("score", [comparison.miou, comparison.ciou]),
        "",
        f"  * the {percent} interval, over other images like these, excludes 0.",
        f"  A is better on {comparison.won:,} examples, worse on {comparison.lost:,}, equal on {comparison.tied:,}.",
        "",
        f"mIoU by kind of example; the intervals of a part hold jointly. · differs in fewer than {MIN_IMAGES} images",
    ]
    for name, groups in comparison.breakdowns.items():
        lines += [
            "",
            *_differences(name, groups[: comparison.top] if name == "category" else groups),
        ]
        left = len(groups) - comparison.top
        if name == "category" and left > 0:
            lines.append(f"  … and {left:,} more with less sure differences (top={len(groups)})")
    for name, direction in (("won", "A is better"), ("lost", "B is better")):
        if rows := comparison.largest[name]:
            lines += ["", f"Where {direction}, most first", "   index       A       B  sentence"]
            lines += [
                f"  {row['index']:>6}{100 * row['iou_a']:>8.2f}{100 * row['iou_b']:>8.2f}  "
                f"{_one_line(row['sentence'])} ({row['sample_id']}_{row['sentence_idx']})"
                for row in rows
            ]
    return "\n".join(lines)


def _differences(title: str, groups: list[Difference]) -> list[str]:
    width = max(len(title), *(len(group.label) for group in groups))
    lines = [
        f"  {title:<{width}}  examples  images       A       B   A − B  interval of the difference"
    ]
    for group in groups:
        interval = "·"
        if group.low is not None and group.high is not None:
            sure = " *" if group.low > 0 or group.high < 0 else ""
            interval = f"{100 * group.low:+.2f} … {100 * group.high:+.2f}{sure}"
        lines.append(
            f"  {group.label:<{width}}{group.n_examples:>10,}{group.n_images:>8,}"
            f"{100 * group.a:>8.2f}{100 * group.b:>8.2f}{100 * group.difference:>+8.2f}  {interval}"
        )
    return lines


def conventions_table(rows: list[Row]) -> str:
    """Return the scores under each convention, in percent."""
    names = ("mIoU", "cIoU", *(f"Pr@{x}" for x in PRECISION_THRESHOLDS))
    lines = [f"  {'convention':<12}examples  " + "".join(f"{name:>9}" for name in names)]
    for row in rows:
        mark, printed = _mark(row.convention.caveat), row.printed
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
    if not texts:
        texts = ["the same in all that counts show" if c.needs else "exactly the same"]
    if c.needs:
        texts.append(f"not in these numbers ({c.caveat}): it compares masks at {c.resolution}")
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
        names.append(_mark(candidate.caveat) + candidate.of)
    lines = []
    for (score, shown), names in groups.items():
        lines += textwrap.fill(
            ", ".join(names),
            WIDTH,
            initial_indent=f"  {score:<8}{shown:<18}",
            subsequent_indent=" " * 28,
        ).splitlines()
    return lines


def _mark(caveat: str) -> str:
    """Return the sign before a number that is only approximate."""
    if not caveat:
        return ""
    return "~" if caveat == FLOAT32 else "≈"


def _about(convention: Convention) -> list[str]:
    """Return what a reader must know of another convention than the official one."""
    if convention is OFFICIAL:
        return []
    names = [
        f"{ours} is its {theirs}"
        for ours, theirs in zip(("mIoU", "cIoU"), convention.names, strict=True)
        if theirs not in (ours, None)
    ]
    lines = ["; ".join((convention.about, *names))]
    if convention.needs:
        lines += textwrap.wrap(
            f"≈ approximate, {convention.caveat}: it compares masks at {convention.resolution}",
            WIDTH,
        )
    elif convention.caveat:
        lines.append("~ approximate: it adds in float32, so its last digits may differ")
    return lines


def _incomplete(result: Result) -> str:
    if not result.n_missing:
        return ""
    how = "scored as empty" if get_convention(result.convention).counts_missing else "left out"
    return f"   ({result.n_missing:,} missing, {how})"


def _one_line(text: str) -> str:
    return textwrap.shorten(text, SHOWN_TEXT, placeholder=" …")
