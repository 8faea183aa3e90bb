"""A result or a comparison in, its table for a terminal out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.scores.breakdown import MIN_IMAGES, Difference
from refcocom_gpu.scores.result import left_out

if TYPE_CHECKING:
    from refcocom_gpu.scores.comparison import ResultComparison
    from refcocom_gpu.scores.result import Result

SHOWN_TEXT = 60
"""Characters of a sentence or name that are printed."""

BOUNDARY_NAMES = {
    "boundary_iou": "boundary IoU",
    "min_mask_boundary_iou": "min(IoU, boundary IoU)",
    "boundary_f": "boundary F",
}


def score_table(result: Result) -> str:
    """Return scores in percent, below the predictions, the dataset and the convention that they belong to."""
    dataset = result.info["dataset"]
    caveat = _incomplete(result)
    rows_left_out = left_out(result.info["predictions"])
    sign = ">" if result.precision_strict else "≥"
    rows = [("mIoU", result.miou), ("cIoU", result.ciou)]
    rows += [(f"Pr@{x} ({sign})", share) for x, share in result.precision_at.items()]
    rows += [("mIoU per instance", result.miou_per_instance)]
    rows += [(BOUNDARY_NAMES[name], score) for name, score in result.boundary_scores.items()]
    empty = f", {result.n_empty:,} predicted empty" if result.n_empty else ""
    lines = [
        f"{result.info['predictions']['source']}",
        f"{dataset['source']}: {result.n_examples:,} examples{empty}; "
        f"convention {result.convention}; counted on {result.info['device']}",
        *rows_left_out,
        "",
    ]
    width = max(20, *(len(name) + 2 for name, _ in rows))
    lines += [f"  {name:<{width}}{100 * value:6.2f} %{caveat}" for name, value in rows]
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


def _incomplete(result: Result) -> str:
    return f"   ({result.n_missing:,} missing, scored as empty)" if result.n_missing else ""


def _one_line(text: str) -> str:
    return textwrap.shorten(text, SHOWN_TEXT, placeholder=" …")
