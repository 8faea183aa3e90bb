"""A result or a comparison in, the one table of the command line out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.scores.breakdown import MIN_IMAGES, Difference

if TYPE_CHECKING:
    from refcocom_gpu.scores.comparison import ResultComparison
    from refcocom_gpu.scores.result import Result

SHOWN_TEXT = 60
"""Characters of a sentence that are printed."""


def score_table(result: Result) -> str:
    """Scores in percent, each with what it is a score of."""
    dataset = result.info["dataset"]
    caveat = f"   ({result.n_missing:,} missing, scored as empty)" if result.n_missing else ""
    sign = ">" if result.precision_strict else "≥"
    rows = [("mIoU", result.miou), ("cIoU", result.ciou)]
    rows += [(f"Pr@{x} ({sign})", share) for x, share in result.precision_at.items()]
    rows += [("mIoU per instance", result.miou_per_instance)]
    empty = f", {result.n_empty:,} predicted empty" if result.n_empty else ""
    lines = [
        f"{result.info['predictions']['source']}",
        f"{dataset['source']}: {result.n_examples:,} examples{empty}; "
        f"convention {result.convention}; counted on {result.info['device']}",
        "",
    ]
    lines += [f"  {name:<20}{100 * value:6.2f} %{caveat}" for name, value in rows]
    return "\n".join(lines)


def comparison_table(found: ResultComparison) -> str:
    """Both results in percent, their difference in points of a percent, and where it comes from."""
    a = found.a
    dataset = a.info.get("dataset", {})
    percent = f"{100 * found.level:g} %"
    lines = [
        *(
            f"{letter}  {_one_line(name)}" + _incomplete(result)
            for letter, name, result in zip("AB", found.names, (a, found.b), strict=True)
        ),
        f"{dataset.get('source', 'dataset')}: {a.n_examples:,} examples in {found.miou.n_images:,} images; "
        f"convention {a.convention}; in percent",
        "",
        *_differences("score", [found.miou, found.ciou]),
        "",
        f"  * the {percent} interval, over other images like these, excludes 0.",
        f"  A is better on {found.won:,} examples, worse on {found.lost:,}, equal on {found.tied:,}.",
        "",
        f"mIoU by kind of example; the intervals of a part hold jointly. · differs in fewer than {MIN_IMAGES} images",
    ]
    for name, groups in found.breakdowns.items():
        lines += ["", *_differences(name, groups[: found.top] if name == "category" else groups)]
        left = len(groups) - found.top
        if name == "category" and left > 0:
            lines.append(f"  … and {left:,} more with less sure differences (top={len(groups)})")
    for name, direction in (("won", "A is better"), ("lost", "B is better")):
        if rows := found.largest[name]:
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


def _incomplete(result: Result) -> str:
    return f"   ({result.n_missing:,} missing, scored as empty)" if result.n_missing else ""


def _one_line(text: str) -> str:
    return textwrap.shorten(text, SHOWN_TEXT, placeholder=" …")
