"""A result in, its scores and slices as a table for a terminal out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.cli.tables.boxes import BOX_TRUTHS, box_table
from refcocom_gpu.cli.tables.lines import WIDTH, incomplete, mark_of, one_line
from refcocom_gpu.scores import boundary, under
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.boxes import THRESHOLD, are_given
from refcocom_gpu.scores.causes import MOVED_BY
from refcocom_gpu.scores.consistency import PASS_IOU
from refcocom_gpu.scores.conventions import FLOAT32, OFFICIAL, get_convention
from refcocom_gpu.scores.slices import MIN_IMAGES

if TYPE_CHECKING:
    import pyarrow as pa

    from refcocom_gpu.scores.conventions import Convention
    from refcocom_gpu.scores.result import Result

NO_PAIRS = "no object has two sentences, so there is no pairwise IoU"
"""What is said of sets with a sentence per object, such as gRefCOCO."""

SHOWN_SLICES = 10
"""Slices of a grouping that are printed."""


def score_table(result: Result) -> str:
    """Return scores in percent, below the predictions, the dataset and the convention that they belong to."""
    if are_given(result.per_example):
        return box_table(result)
    dataset = result.info["dataset"]
    caveat = incomplete(result)
    rows_left_out = left_out(result.info["predictions"])
    sign = ">" if result.is_strict else "≥"
    convention = get_convention(result.convention)
    rows = [("mIoU", result.miou), *([("cIoU", result.ciou)] if convention.names[1] else [])]
    rows += [(f"Pr@{x} ({sign})", share) for x, share in result.precision_at.items()]
    rows += [("mIoU per instance", result.miou_per_instance)]
    if of_boundaries := result.boundary_scores:
        rows += zip(boundary.LABELS, of_boundaries.values(), strict=True)
    if of_boxes := result.box_scores:
        rows += [("box IoU", of_boxes["box_iou"])]
        rows += [(f"box accuracy@{THRESHOLD} ({sign})", of_boxes["box_accuracy"])]
    if of_pairs := result.consistency:
        rows += [(f"hard pass@{PASS_IOU} ({sign})", of_pairs["hard_pass_rate"])]
        rows += [("worst sentence mIoU", of_pairs["miou_worst_sentence"])]
        if of_pairs["n_samples"]:
            rows += [("pairwise IoU", of_pairs["pairwise_iou"])]
    rows += [("N-acc", result.n_acc), ("T-acc", result.t_acc)] if result.n_no_target else []
    of_all = len(result.per_example)
    number = f"{result.n_examples:,}" + (f" of {of_all:,}" if of_all > result.n_examples else "")
    empty = f", {result.n_empty:,} predicted empty" if result.n_empty else ""
    untargeted = f", {result.n_no_target:,} without a target" if result.n_no_target else ""
    lines = [
        f"{result.info['predictions']['source']}",
        f"{dataset['source']}: {number} examples{untargeted}{empty}; "
        f"convention {result.convention}; counted on {result.info['device']}",
        *rows_left_out,
        *_about(convention, result.per_example),
        *([BOX_TRUTHS[of_boxes["box_truth"]]] if of_boxes else []),
        *([NO_PAIRS] if of_pairs and not of_pairs["n_samples"] else []),
        "",
    ]
    mark = mark_of(under.caveat(convention, result.per_example))
    width = max(18, *(len(name) for name, _ in rows))
    lines += [f"  {name:<{width}}{mark:>2}{100 * value:6.2f} %{caveat}" for name, value in rows]
    return "\n".join(lines)


def cause_lines(result: Result) -> str:
    """Return the share of each cause in percent, and by how much it moves with each threshold."""
    summary = result.cause_summary
    thresholds = {name.replace("_", "-"): str(x) for name, x in summary["thresholds"].items()}
    widths = [max(13, 2 + len(name)) for name in thresholds]
    lines = ["", "  cause            examples  share %"]
    lines += [
        f"  {row['cause']:<16}{row['n_examples']:>9,}{100 * row['share']:>9.2f}"
        for row in summary["shares"]
    ]
    lines += [
        "",
        f"  points of share if one threshold is lower / higher by {MOVED_BY}",
        "  threshold     " + "".join(map(str.rjust, thresholds, widths)),
        "  is            " + "".join(map(str.rjust, thresholds.values(), widths)),
    ]
    moved = iter(summary["moved"])
    pairs = [(low["shares"], next(moved)["shares"]) for low in moved]
    for row in summary["shares"]:
        name, share = row["cause"], row["share"]
        cells = [
            " / ".join(_points(shares[name] - share) for shares in pair).rjust(width)
            for pair, width in zip(pairs, widths, strict=True)
        ]
        if any(shares[name] != share for pair in pairs for shares in pair):
            lines.append(f"  {name:<14}" + "".join(cells))
    return "\n".join(lines)


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}" if difference else "·"


def slice_lines(result: Result, name: str) -> str:
    """Return the scores of the slices of one grouping in percent; of many slices, those with most examples."""
    rows = result.slice_rows(name)
    largest = sorted(range(len(rows)), key=lambda k: -rows[k]["n_examples"])[:SHOWN_SLICES]
    shown = [rows[k] for k in sorted(largest)]
    labels = [one_line(row["slice"]) for row in shown]
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


def _about(convention: Convention, table: pa.Table) -> list[str]:
    """Return what a reader must know of another convention than the official one."""
    if convention is OFFICIAL:
        return []
    names = [
        f"{ours} is its {theirs}"
        for ours, theirs in zip(("mIoU", "cIoU"), convention.names, strict=True)
        if theirs not in (ours, None)
    ]
    lines = ["; ".join((convention.about, *names))]
    caveat, resized = (tell(convention, table) for tell in (under.caveat, under.resized))
    if caveat == FLOAT32:
        lines.append("~ approximate: it adds in float32, so its last digits may differ")
    elif caveat:
        lines += textwrap.wrap(
            f"≈ approximate, {caveat}: it compares masks at {convention.resolution}", WIDTH
        )
    if resized:
        lines += textwrap.wrap(resized, WIDTH)
    return lines
