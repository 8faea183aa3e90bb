"""Two versions of a dataset's masks, compared, in; a table for a terminal out."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.cli.tables.conversion import match_lines
from refcocom_gpu.cli.tables.lines import WIDTH, incomplete
from refcocom_gpu.scores.boundary import LABELS

if TYPE_CHECKING:
    from refcocom_gpu.construct.truth_noise import TruthNoise

SHOWN_SWAPS = 10
"""Pairs of runs that are listed one by one."""

NOTE = (
    "Two masks of one object that overlap too little are not taken for a pair, so the versions may differ by more than "
    "this shows."
)

MEASURE_NAMES = {"iou": "IoU", "boundary_iou": "boundary IoU"}


def truth_noise_table(noise: TruthNoise) -> str:
    """Return what is matched, how far matched masks agree, and the scores and ranks that follow, in percent."""
    lines = [
        "Two versions of the true masks",
        f"  A  {noise.match.target.source}",
        f"  B  {noise.match.source.source}",
        "",
        "What of A is in B",
        *match_lines(noise.match),
        *_left_of_truth(noise),
        "",
        *_agreement(noise),
        "",
        *_baseline(noise),
    ]
    if noise.runs:
        lines += ["", *_runs(noise)]
    return "\n".join([*lines, "", textwrap.fill(NOTE, WIDTH)])


def _left_of_truth(noise: TruthNoise) -> list[str]:
    """Return what of the truth has no counterpart: the lines above count what of the dataset has none."""
    source = noise.match.source
    samples = source.n_samples - noise.masks.num_rows
    sentences = source.n_examples - noise.match.n_matched
    return [
        f"  left out too, of B: {samples:,} of {source.n_samples:,} samples, "
        f"{sentences:,} of {source.n_examples:,} sentences"
    ]


def _agreement(noise: TruthNoise) -> list[str]:
    """Return the mean and the quantiles of the agreement of each pair of masks."""
    rows = {name: noise.agreement(measure) for measure, name in MEASURE_NAMES.items()}
    heads = [f"{float(q):.0%}" if float(q) else "lowest" for q in rows["IoU"]["quantiles"]]
    lines = [
        f"Agreement of {noise.masks.num_rows:,} pairs of masks, in percent: mean and quantiles",
        f"  {'':<24}" + "".join(f"{head:>8}" for head in ("mean", *heads)),
    ]
    for name, row in rows.items():
        cells = (row["mean"], *row["quantiles"].values())
        lines.append(f"  {name:<24}" + "".join(f"{100 * cell:>8.2f}" for cell in cells))
    return lines


def _baseline(noise: TruthNoise) -> list[str]:
    """Return the scores of one version's masks as predictions of the other's."""
    result = noise.baseline
    scores = [
        ("mIoU", result.miou),
        ("cIoU", result.ciou),
        *((f"Pr@{x} (≥)", share) for x, share in result.precision_at.items()),
        *zip(LABELS, result.boundary_scores.values(), strict=True),
    ]
    return [
        "A perfect model of A scored on B, or of B on A",
        f"  {_of_all(noise)}",
        *(f"  {name:<24}{100 * score:>8.2f} %" for name, score in scores),
    ]


def _of_all(noise: TruthNoise) -> str:
    """Say over which examples a score is, and how many are not among them."""
    n, total = noise.match.n_matched, noise.match.target.n_examples
    return f"over {n:,} matched of {total:,} examples, {total - n:,} left out"


def _runs(noise: TruthNoise) -> list[str]:
    """Return the scores and ranks of the runs on both versions, in the order of A."""
    ranks, names = noise.ranks, [run.name for run in noise.runs]
    width = max(len("run"), *map(len, names))
    lines = [
        "Runs scored on A and on B",
        f"  {_of_all(noise)}",
        f"  {'run':<{width}}  rank A  rank B  mIoU A  mIoU B     B−A  cIoU A  cIoU B",
    ]
    for k in sorted(range(len(names)), key=lambda k: (ranks[k, 0], ranks[k, 1])):
        a, b = noise.runs[k].on_dataset, noise.runs[k].on_truth
        change = f"{100 * (b.miou - a.miou):+.2f}".replace("-", "−")
        lines.append(
            f"  {names[k]:<{width}}{ranks[k, 0]:>8,}{ranks[k, 1]:>8,}{100 * a.miou:>8.2f}{100 * b.miou:>8.2f}"
            f"{change:>8}{100 * a.ciou:>8.2f}{100 * b.ciou:>8.2f}{incomplete(a)}"
        )
    if len(names) < 2:
        return lines
    swaps, n_pairs = noise.swaps, len(names) * (len(names) - 1) // 2
    tau = "none, all scores are equal" if math.isnan(noise.tau) else f"{noise.tau:.3f}"
    lines += ["", f"Kendall's tau by mIoU: {tau}; {len(swaps):,} of {n_pairs:,} pairs swap"]
    lines += [
        f"  {swap.better_on_dataset} is better on A, {swap.better_on_truth} on B"
        for swap in swaps[:SHOWN_SWAPS]
    ]
    if len(swaps) > SHOWN_SWAPS:
        lines.append(f"  … and {len(swaps) - SHOWN_SWAPS:,} more (json=true lists all)")
    return lines
