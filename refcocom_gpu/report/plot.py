"""A leaderboard or results in, Matplotlib axes out; `rc.plot` is this module, and Matplotlib is imported on demand."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.leaderboard.board import Board
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.sweep_results import SweepResults
from refcocom_gpu.scores.views import miou_se, model_of
from refcocom_gpu.utils.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 0.2
"""Opacity of the band of a standard error: the bands of several lines stay legible where they overlap."""


class Point(NamedTuple):
    """A score of a curve: the name of its line, its step, its mIoU and the standard error of it, shares of 1."""

    line: str
    step: Any
    miou: float
    se: float | None


def step_curve(
    scores: Board | SweepResults | Mapping[Any, Result] | Iterable[Result],
    step: str = "step",
    *,
    line: str = "model",
    ax: Axes | None = None,
) -> Axes:
    """Draw mIoU in percent, with a band of one standard error, against the training step; a line for each model.

    A row without a step, such as a baseline, is a dashed level.

    Args:
        scores: A leaderboard; the results of a sweep, `rc.load_results("sweep")`; results of it; or one run, as results
            by step.
        step: The column of the manifest that is drawn along x; of results by step, only the label.
        line: The column of which each value is a line: `model` or one of the manifest.
        ax: Where to draw; by default axes of a new figure, `axes.figure`, which pyplot does not hold.

    Raises:
        UsageError: There is no such column, its values are not numbers, two rows of a line have the same step, nothing
            was scored, or Matplotlib is not installed.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> run = {100: rc.score("sample-coarse", store), 200: rc.score("sample", store)}
    >>> axes = rc.plot.step_curve(run)
    >>> axes.get_xlabel(), axes.lines[0].get_xdata().tolist()
    ('step', [100, 200])
    """
    lines = _lines([*_points(scores, step, line)], step, line)
    if ax is None:
        figure = require("matplotlib.figure", "plots need Matplotlib", "report")
        ax = figure.Figure(layout="constrained").add_subplot()
    assert ax is not None
    for name, points in lines.items():
        along = [point for point in points if point.step is not None]
        for level in (point for point in points if point.step is None):
            ax.axhline(100 * level.miou, linestyle="--", color="gray", label=name)
        if not along:
            continue
        steps = [point.step for point in along]
        (drawn,) = ax.plot(steps, [100 * point.miou for point in along], "o-", label=name)
        known = [point for point in along if point.se is not None]
        ax.fill_between(
            [point.step for point in known],
            [100 * (point.miou - (point.se or 0)) for point in known],
            [100 * (point.miou + (point.se or 0)) for point in known],
            color=drawn.get_color(),
            alpha=BAND,
            linewidth=0,
        )
    ax.set_xlabel(step)
    ax.set_ylabel("mIoU, %")
    if len(lines) > 1:
        ax.legend()
    return ax


def _points(scores: Any, step: str, line: str) -> Iterator[Point]:
    if isinstance(scores, Board):
        known = ["model", *scores.manifest]
        _check_column(step, scores.manifest)
        _check_column(line, known)
        for row in scores.ranked:
            yield Point(str(row[line]), row[step], row["miou"], row["miou_se"])
    elif isinstance(scores, Mapping) and not isinstance(scores, SweepResults):
        for at, result in scores.items():
            yield Point("", at, result.miou, miou_se(result))
    else:
        # Of a sweep also the rows that best_per left out: a curve shows every step.
        of_sweep = isinstance(scores, SweepResults)
        for result in map(scores.result, scores.rows) if of_sweep else scores:
            row = result.info.get("sweep")
            if row is None:
                raise UsageError(
                    f"{model_of(result)} is not of a sweep and has no column {step!r}: pass results by step, "
                    "{100: result, …}"
                )
            columns = {"model": row["model"], **row["columns"]}
            _check_column(step, row["columns"])
            _check_column(line, columns)
            yield Point(str(columns[line]), columns[step], result.miou, miou_se(result))


def _lines(points: list[Point], step: str, line: str) -> dict[str, list[Point]]:
    """Return the points of each line by step, those without a step last."""
    if not points:
        raise UsageError("there is no score to draw")
    lines: dict[str, list[Point]] = {}
    for point in points:
        if isinstance(point.step, bool) or not isinstance(point.step, numbers.Real | None):
            raise UsageError(f"{step} is {point.step!r} in a row: a curve needs numbers")
        lines.setdefault(point.line, []).append(point)
    for name, of_line in lines.items():
        of_line.sort(key=lambda point: (point.step is None, point.step or 0))
        steps = [point.step for point in of_line if point.step is not None]
        if twice := {k for k in steps if steps.count(k) > 1}:
            raise UsageError(
                f"{len(twice)} steps of {name!r} have several rows, such as {step} {min(twice)}: line= names a column "
                f"that tells them apart, not {line}"
            )
    return lines


def _check_column(name: str, known: Iterable[str]) -> None:
    if name not in known:
        listed = ", ".join(known) or "no column of a manifest"
        raise UsageError(f"there is no column {name!r}; there is {listed}")
