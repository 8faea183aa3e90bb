"""A result in, its scores at other thresholds and by other interpolations as lines for a terminal out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refcocom_gpu.scores.thresholds import PRECISION

if TYPE_CHECKING:
    from refcocom_gpu.scores.result import Result

OPTIMISTIC = (
    "  a threshold chosen on the examples that it is scored on is optimistic: choose it on others"
)


def threshold_lines(result: Result) -> str:
    """Return the scores in percent at the threshold in use and at the best one, and what the best gains."""
    best = result.best_threshold
    rows = {row["threshold"]: row for row in result.threshold_curve().to_pylist()}
    marks = {best.used: "used", best.threshold: "best"}
    if best.used == best.threshold:
        marks = {best.used: "used and best"}
    lines = ["", f"  {'threshold':<24}  mIoU    cIoU  Pr@{PRECISION}"]
    for threshold, mark in marks.items():
        row = rows[threshold]
        cells = (row["miou"], row["ciou"], row[f"precision_at_{PRECISION}"])
        lines.append(
            f"  {f'{threshold:g} ({mark})':<22}" + "".join(f"{100 * x:>8.2f}" for x in cells)
        )
    lines += [f"  the best of {len(rows):,} gains {100 * best.gain:.2f} points of mIoU", OPTIMISTIC]
    return "\n".join(lines)


def interpolation_lines(result: Result) -> str:
    """Return the scores in percent by each interpolation."""
    lines = ["", f"  {'interpolation':<24}  mIoU    cIoU"]
    for place, row in enumerate(result.interpolations().to_pylist()):
        name = f"{row['interpolation']}{'' if place else ' (the score)'}"
        lines.append(f"  {name:<22}{100 * row['miou']:>8.2f}{100 * row['ciou']:>8.2f}")
    return "\n".join(lines)
