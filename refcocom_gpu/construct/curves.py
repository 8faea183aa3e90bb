"""Curves of quality against the share of instances kept in; one plot of them out, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.optional import require

Z = 1.96
"""Standard errors to either side of an interval: 95 %."""

LINES = (
    ("refined", "refined, most confident kept", "#1b7f4d", "-"),
    ("best", "best single proposer, same instances", "#3465a4", "-"),
    ("original", "original, same instances", "#c4552d", "-"),
    ("by_area", "refined, largest kept", "#888888", "--"),
    ("at_random", "refined, kept at random", "#888888", ":"),
)
"""Column of the curve, label, colour and style of each line."""


def plot_curves(curves: Sequence[tuple[str, Mapping[str, pa.Table]]]) -> bytes:
    """Plot quality against the share kept: a column of plots for each title, a row for each measure.

    Args:
        curves: Titles with `Judgement.curves()`.

    Raises:
        UsageError: matplotlib is not installed.
    """
    plots = require("matplotlib.figure", "plots need matplotlib", "construct")
    n = len(curves)
    figure = plots.Figure(figsize=(5.2 * n, 7.2), layout="constrained")
    axes = figure.subplots(2, n, sharex=True, squeeze=False)
    for column, (title, by_measure) in enumerate(curves):
        for row, (measure, curve) in enumerate(by_measure.items()):
            _draw(axes[row][column], measure, curve)
        axes[0][column].set_title(title)
        axes[1][column].set_xlabel("share of instances kept")
    axes[0][0].legend(fontsize=8, loc="lower left")
    buffer = io.BytesIO()
    # Without the software's version, the same figure is the same file.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axis: Any, measure: str, curve: pa.Table) -> None:
    share = to_numpy(curve["share"])
    for name, label, colour, style in LINES:
        value = to_numpy(curve[name])
        axis.plot(share, value, style, color=colour, label=label)
        if f"{name}_se" in curve.column_names:
            spread = Z * to_numpy(curve[f"{name}_se"])
            axis.fill_between(share, value - spread, value + spread, color=colour, alpha=0.15, lw=0)
    axis.set_ylabel(f"mean {measure.replace('_', ' ').replace('iou', 'IoU')} with the truth")
    axis.grid(alpha=0.3)
