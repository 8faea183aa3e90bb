"""A result, a comparison or a conversion in, its table for a terminal out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from refcocom_gpu.scores.breakdown import Difference
from refcocom_gpu.scores.conventions import FLOAT32, OFFICIAL, get_convention
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.result import left_out
from refcocom_gpu.scores.slices import MIN_IMAGES, is_open

if TYPE_CHECKING:
    from refcocom_gpu.predictions.convert import Conversion
    from refcocom_gpu.scores.comparison import ResultComparison
    from refcocom_gpu.scores.conventions import Convention
    from refcocom_gpu.scores.explain import Reason, Row
    from refcocom_gpu.scores.leaderboard.rows import Leaderboard
    from refcocom_gpu.scores.reported import Candidate, Search
    from refcocom_gpu.scores.result import Result
    from refcocom_gpu.store.match import DatasetMatch

SHOWN_SLICES = 10
"""Slices of a grouping that are printed."""

SHOWN_TEXT = 60
"""Characters of a sentence or name that are printed."""

SHOWN_ROWS = 20
"""Sentences or answers that are listed one by one."""
TOP_ROWS = 10
"""Rows of a leaderboard that are printed."""

TABLE_WIDTH = 100
"""Characters of a line of a leaderboard on a terminal; columns of a manifest that do not fit are left out."""

CELL = 28
"""Characters of a cell of a leaderboard; of a longer name the end is kept, where checkpoints differ."""

NORMAL_95 = 1.96
"""Standard errors to either side of a score that a 95 % interval extends."""
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


def slice_lines(result: Result, name: str) -> str:
    """Return the scores of the slices of one grouping in percent; of many slices, those with most examples."""
    rows = result.slice_rows(name)
    largest = sorted(range(len(rows)), key=lambda k: -rows[k]["n_examples"])[:SHOWN_SLICES]
    shown = [rows[k] for k in sorted(largest)]
    labels = [_one_line(row["slice"]) for row in shown]
    width = max(len(name), *map(len, labels))
    missing = "  missing" if result.n_missing else ""
    lines = ["", f"  {name:<{width}}  examples  images{missing}    mIoU    ± se    cIoU  Pr@0.5"]
    for label, row in zip(labels, shown, strict=True):
        n_missing = f"{row['n_missing']:>9,}" if result.n_missing else ""
        se = "·" if row["se"] is None else f"{100 * row['se']:.2f}"
        lines.append(
            f"  {label:<{width}}{row['n_examples']:>10,}{row['n_images']:>8,}{n_missing}"
            f"{100 * row['miou']:>8.2f}{se:>8}{100 * row['ciou']:>8.2f}{100 * row['precision_at_0.5']:>8.2f}"
        )
    if len(rows) > len(shown):
        left = sum(row["n_examples"] for row in rows) - sum(row["n_examples"] for row in shown)
        lines.append(f"  … and {len(rows) - len(shown):,} more of {left:,} examples (json=true)")
    if any(row["se"] is None for row in shown):
        lines.append(f"  · fewer than {MIN_IMAGES} images")
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
            *_differences(name, groups[: comparison.top] if is_open(name) else groups),
        ]
        left = len(groups) - comparison.top
        if is_open(name) and left > 0:
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


def conversion_table(made: Conversion) -> str:
    """Return how many predictions were written and why others were not; those that may be meant differently by name."""
    lines, match = [], made.match
    if match is not None:
        from refcocom_gpu.store.match import SAMPLE_RULES, SENTENCE_RULES

        source, target = match.source, match.target
        lines += [
            f"{source.source} ({source.n_examples:,} sentences) → {target.source} ({target.n_examples:,} sentences)",
            "",
        ]
        counts = match.counts()
        for what, total, rules in (
            ("samples", target.n_samples, SAMPLE_RULES),
            ("sentences", target.n_examples, SENTENCE_RULES),
        ):
            lines.append(_number(what, total))
            lines += [
                _number(f"  {rules[name].outcome}", n, f"{rules[name].meaning} ({name})")
                for name, n in counts[what].items()
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


def _ambiguous(match: DatasetMatch) -> list[str]:
    from refcocom_gpu.predictions.keys import describe_key
    from refcocom_gpu.store.match import SENTENCE_RULES

    target, rows = match.target, []
    for index in match.ambiguous:
        key = describe_key(target.example_key_fields, target.key_of(index))
        sentence = _one_line(target.examples["sentence"][index].as_py())
        rows.append(f"{key}, {sentence!r}: {SENTENCE_RULES[match.rule[index]].meaning}")
    return rows


def _number(what: str, number: int, meaning: str = "") -> str:
    return f"  {what:<14}{number:>8,}  {meaning}".rstrip()


def _listed(rows: list[str]) -> list[str]:
    left = len(rows) - SHOWN_ROWS
    more = [f"  … and {left:,} more (json=true lists all)"] if left > 0 else []
    return [*(f"  {row}" for row in rows[:SHOWN_ROWS]), *more]


def leaderboard_table(board: Leaderboard) -> str:
    """Return the first rows of a leaderboard in percent, no wider than `TABLE_WIDTH`; empty if nothing was scored."""
    from refcocom_gpu.scores.leaderboard.formats import is_text, percent, shown

    ranked = [row for row in board.table.to_pylist() if row["error"] is None]
    rows = ranked[:TOP_ROWS]
    if not rows:
        return ""

    def interval(row: dict[str, Any]) -> str:
        if row["miou_se"] is None:
            return ""
        reach = NORMAL_95 * row["miou_se"]
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
    optional = (("missing", "n_missing"), ("best of", "best_of"))
    for head, name in optional:
        if any(row[name] for row in rows):
            scores.append((head, [f"{row[name] or 0:,}" for row in rows], False))
    left_out = []
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
