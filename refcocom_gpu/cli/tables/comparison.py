"""A comparison in, its table for a terminal out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refcocom_gpu.cli.tables.lines import incomplete, one_line
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.breakdown import Difference
from refcocom_gpu.scores.slices import MIN_IMAGES, is_open

if TYPE_CHECKING:
    from refcocom_gpu.scores.comparison import ResultComparison


def comparison_table(comparison: ResultComparison) -> str:
    """Return both results in percent, their difference in percentage points, and its parts by kind of example."""
    a = comparison.a
    dataset = a.info.get("dataset", {})
    scores = [comparison.miou, comparison.ciou, *comparison.boundaries.values()]
    scores += comparison.no_target.values()
    percent = f"{100 * comparison.level:g} %"
    lines = [
        *(
            "; ".join(
                (
                    f"{letter}  {one_line(name)}{incomplete(result)}",
                    *left_out(result.info.get("predictions", {})),
                )
            )
            for letter, name, result in zip("AB", comparison.names, (a, comparison.b), strict=True)
        ),
        f"{dataset.get('source', 'dataset')}: {a.n_examples:,} examples in {comparison.miou.n_images:,} images; "
        f"convention {a.convention}; in percent",
        "",
        *_differences("score", scores),
        *(
            f"  boundaries were not counted in {side.upper()}; metrics=[iou,boundary] counts them"
            for side in comparison.without_boundaries
        ),
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
                f"{one_line(row['sentence'])} ({row['sample_id']}_{row['sentence_idx']})"
                for row in rows
            ]
    return "\n".join(lines)


def _differences(title: str, groups: list[Difference]) -> list[str]:
    width = max(map(len, [title, *(group.label for group in groups)]))
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
