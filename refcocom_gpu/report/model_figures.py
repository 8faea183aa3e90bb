"""Numbers of two or more models in, plots out: how they differ, how they rank, and what their scores depend on.

Every plot tells its numbers in words too. Labels are text of others: `label_of` makes them fit for a plot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.report.figures import (
    FIRST,
    GRID,
    INK,
    MUTED,
    SECOND,
    THIRD,
    label_of,
    svg,
)
from refcocom_gpu.scores.breakdown import Difference
from refcocom_gpu.scores.metrics import Floats

HALF_BINS = 25
"""Of the distribution of differences, on either side of 0."""

STYLES = [(colour, dash) for dash in ("-", "--", ":") for colour in (FIRST, SECOND, THIRD)]
"""Of the lines that a legend names; further lines look alike."""

BANDS = 3
"""Lines with a band, each in a colour of its own; more bands hide the lines."""

WIDE = 1000
"""Ratio of the largest to the smallest positive value from which an axis is logarithmic."""

CELL, ACROSS = 0.2, 4.0
"""Inches of a cell of the matrix of pairs, and at most of all beside each other."""

NUMBERED = 20
"""Columns up to which each has its number."""

ROW = 0.24
"""Inches of a row with a label."""


class Ranked(NamedTuple):
    """A model of a leaderboard.

    Attributes:
        name: Of the model, for people.
        score: Its mIoU, 0…1.
        se: Standard error, or None.
        ranks: The ranks that it may have, or None.
        like_best: Whether the best is not surely better.
    """

    name: str
    score: float
    se: float | None
    ranks: tuple[int, int] | None
    like_best: bool

    @property
    def rank(self) -> str:
        """The ranks in words; empty where they are not known."""
        if self.ranks is None:
            return ""
        low, high = self.ranks
        return str(low) if low == high else f"{low}–{high}"


class Line(NamedTuple):
    """The scores of one model by a number of the manifest.

    Attributes:
        name: Of the model.
        x: [P] ascending.
        y: [P] mIoU.
        se: [P] standard errors; NaN for one that is not known.
    """

    name: str
    x: Floats
    y: Floats
    se: Floats


def differences(name: str, values: Floats) -> str:
    """Plot how many examples have which difference in IoU; equal ones are left out.

    Args:
        name: As of `svg`.
        values: [N] A minus B, −1…1.
    """
    unequal = values[values != 0]
    reach = max(0.1, float(np.abs(values).max(initial=0)))
    won, lost = int((values > 0).sum()), int((values < 0).sum())

    def draw(axes: Any) -> None:
        for sign, colour, n, at, side in (
            (-1, SECOND, lost, 0.02, "left"),
            (1, FIRST, won, 0.98, "right"),
        ):
            edges = np.linspace(0, reach, HALF_BINS + 1)
            counts, _ = np.histogram(sign * unequal[sign * unequal > 0], edges)
            axes.bar(sign * edges[:-1], counts, width=sign * edges[1], align="edge", color=colour)
            axes.text(
                at,
                1,
                f"{'A' if sign > 0 else 'B'} better: {n:,}",
                transform=axes.transAxes,
                ha=side,
                va="top",
                color=colour,
            )
        axes.axvline(0, color=MUTED, lw=1)
        axes.set(xlabel="IoU of A − IoU of B", ylabel="examples", xlim=(-reach, reach))
        axes.margins(y=0.14)
        axes.grid(visible=False, axis="x")

    text = (
        f"Distribution of the difference in IoU, A minus B: A is better on {won:,} examples, B on {lost:,}, "
        f"{len(values) - won - lost:,} are equal; mean {values.mean():+.4f}, median {np.median(values):+.4f}."
    )
    return svg(name, text, draw)


def forest(name: str, rows: Sequence[Difference], *, about: str) -> str:
    """Plot the difference of each group with its interval, the first at the top; hollow where there is no interval.

    Args:
        name: As of `svg`.
        rows: Of one breakdown.
        about: What the plot shows, for those who hear it.
    """
    places = np.arange(len(rows))[::-1]

    def draw(axes: Any) -> None:
        axes.axvline(0, color=MUTED, lw=1, ls="--")
        for place, row in zip(places, rows, strict=True):
            colour = _verdict(row)
            if row.low is not None and row.high is not None:
                axes.plot([100 * row.low, 100 * row.high], [place, place], color=colour, lw=1.4)
            face = "none" if row.low is None else colour
            axes.plot(
                [100 * row.difference], [place], "o", color=colour, ms=5, markerfacecolor=face
            )
        axes.set_yticks(places, [f"{label_of(row.label)} ({row.n_examples:,})" for row in rows])
        axes.set(xlabel="mIoU of A − mIoU of B, points", ylim=(-0.6, len(rows) - 0.4))
        axes.grid(visible=False, axis="y")

    said = "; ".join(
        f"{row.label}: {100 * row.difference:+.2f}"
        + (
            ""
            if row.low is None or row.high is None
            else f", {100 * row.low:+.2f} to {100 * row.high:+.2f}"
        )
        for row in rows
    )
    return svg(name, f"{about} {said}.", draw, height=0.9 + ROW * len(rows))


def _verdict(row: Difference) -> str:
    if row.low is not None and row.low > 0:
        return FIRST
    return SECOND if row.high is not None and row.high < 0 else MUTED


def ranking(name: str, rows: Sequence[Ranked]) -> str:
    """Plot mIoU and twice its standard error by rank, the best at the top, with the ranks that each may have.

    Args:
        name: As of `svg`.
        rows: Best first.
    """
    places = np.arange(len(rows))[::-1]

    def draw(axes: Any) -> None:
        for place, row in zip(places, rows, strict=True):
            colour = FIRST if row.like_best else MUTED
            if row.se is not None:
                ends = 100 * np.array([row.score - 2 * row.se, row.score + 2 * row.se])
                axes.plot(ends, [place, place], color=colour, lw=1.4)
            axes.plot([100 * row.score], [place], "o", color=colour, ms=5)
        for place, text in [
            *zip(places, (row.rank for row in rows), strict=True),
            (len(rows), "ranks"),
        ]:
            axes.annotate(
                text, (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.set_yticks(places, [label_of(row.name) for row in rows])
        axes.set(xlabel="mIoU, %", ylim=(-0.6, len(rows) - 0.4))
        axes.grid(visible=False, axis="y")

    said = "; ".join(
        f"{row.name}: {100 * row.score:.2f}"
        + ("" if row.se is None else f" ± {100 * row.se:.2f}")
        + (f", rank {row.rank}" if row.rank else "")
        for row in rows
    )
    about = "mIoU in percent with standard errors, and the ranks that each may have:"
    return svg(name, f"{about} {said}.", draw, height=1 + ROW * len(rows))


def curves(name: str, lines: Sequence[Line], *, label: str) -> str:
    """Plot mIoU by a number, a line for each model, the first `BANDS` with a band of twice the standard error.

    Args:
        name: As of `svg`.
        lines: The best model first. Beyond `STYLES` they look alike and have no name.
        label: Of the number.
    """
    all_x = np.concatenate([line.x for line in lines])
    positive = float(all_x.min()) > 0
    is_log = positive and float(all_x.max()) >= WIDE * float(all_x.min())

    def draw(axes: Any) -> None:
        handles, names = [], []
        for k, line in reversed([*enumerate(lines)]):
            named = k < len(STYLES)
            colour, dash = STYLES[k] if named else (MUTED, "-")
            # Several scores of one model at one place, as of several seeds, are no line.
            joined = len(np.unique(line.x)) == len(line.x)
            drawn = axes.plot(
                line.x, 100 * line.y, marker="o", ms=3.5, color=colour,
                lw=1.5 if named else 0.8, ls=dash if joined else "",
            )  # fmt: skip
            if joined and k < BANDS:
                ends = (100 * (line.y + sign * 2 * line.se) for sign in (-1, 1))
                axes.fill_between(line.x, *ends, color=colour, alpha=0.13, lw=0)
            if named:
                handles.append(drawn[0])
                names.append(label_of(line.name))
        if is_log:
            axes.set_xscale("log")
        axes.set(xlabel=label_of(label), ylabel="mIoU, %")
        if len(lines) > 1:
            axes.figure.legend(handles[::-1], names[::-1], loc="outside upper left", ncols=2)

    said = "; ".join(
        f"{line.name}: " + ", ".join(f"{100 * y:.2f} at {x:g}" for x, y in _spread(line))
        for line in lines[: len(STYLES)]
    )
    more = (
        f"; and {len(lines) - len(STYLES):,} further models, in grey"
        if len(lines) > len(STYLES)
        else ""
    )
    height = 2.9 + (0.2 * ((min(len(lines), len(STYLES)) + 1) // 2) if len(lines) > 1 else 0)
    return svg(name, f"mIoU in percent by {label}: {said}{more}.", draw, height=height)


def _spread(line: Line, most: int = 12) -> list[tuple[float, float]]:
    """Return the points of a line that are told in words: all, or some from its first to its last."""
    places = np.unique(np.linspace(0, len(line.x) - 1, min(most, len(line.x))).round().astype(int))
    return [*zip(line.x[places].tolist(), line.y[places].tolist(), strict=True)]


def dots(name: str, groups: Mapping[str, Floats], *, label: str) -> str:
    """Plot mIoU of each model in the row of its group, and the mean of the group as a line.

    Args:
        name: As of `svg`.
        groups: Name to [M] mIoU, the first at the top.
        label: Of the groups.
    """
    places = np.arange(len(groups))[::-1]

    def draw(axes: Any) -> None:
        for place, scores in zip(places, groups.values(), strict=True):
            axes.plot(
                100 * scores, np.full(len(scores), place), "o", color=FIRST, ms=5, alpha=0.55, mew=0
            )
            mean = 100 * scores.mean()
            axes.plot([mean, mean], [place - 0.32, place + 0.32], color=SECOND, lw=1.6)
        axes.set_yticks(
            places, [f"{label_of(text)} ({len(scores):,})" for text, scores in groups.items()]
        )
        axes.set(xlabel="mIoU, %", ylabel=label_of(label), ylim=(-0.6, len(groups) - 0.4))
        axes.grid(visible=False, axis="y")

    said = "; ".join(
        f"{text}: {len(s):,} files, mean {100 * s.mean():.2f}, {100 * s.min():.2f} to {100 * s.max():.2f}"
        for text, s in groups.items()
    )
    return svg(
        name, f"mIoU in percent by {label}: {said}.", draw, height=0.9 + 0.3 * max(2, len(groups))
    )


def matrix(name: str, names: Sequence[str], better: NDArray[np.bool_]) -> str:
    """Plot which model is surely better than which.

    Args:
        name: As of `svg`.
        names: Of M models, best first.
        better: [M, M] whether the model of the row is surely better than that of the column.
    """
    n = len(names)

    def draw(axes: Any) -> None:
        axes.set(xlim=(0, n), ylim=(n, 0), aspect="equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        places = np.arange(n) + 0.5
        numbers = [k + 1 if n <= NUMBERED or k == 0 or (k + 1) % 5 == 0 else "" for k in range(n)]
        axes.set_yticks(
            places, [f"{label_of(text)}  {k}" for k, text in enumerate(names, 1)], color=INK
        )
        axes.set_xticks(places, numbers, color=INK)
        axes.tick_params(length=0, labelsize=7.5, top=True, labeltop=True, labelbottom=False)
        # One bar for cells in a row that are alike: a square each would be a megabyte.
        for k in range(n):
            for cells, colour in ((better[k], FIRST), (better[:, k], SECOND)):
                axes.broken_barh(_runs(cells), (k + 0.06, 0.88), color=colour, lw=0)
            neither = ~(better[k] | better[:, k])
            neither[k] = False
            axes.broken_barh(_runs(neither), (k + 0.06, 0.88), color=GRID, lw=0)

    said = "; ".join(
        f"{k + 1} {text}: surely better than {int(better[k].sum())}, surely worse than {int(better[:, k].sum())}"
        for k, text in enumerate(names)
    )
    about = f"Which of the first {n} models is surely better than which:"
    side = min(CELL, ACROSS / n)
    return svg(name, f"{about} {said}.", draw, width=5.6, height=0.5 + side * n)


def _runs(cells: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return start and length of each run of cells that are set.

    >>> _runs(np.array([True, True, False, True]))
    [(0.0, 2.0), (3.0, 1.0)]
    """
    edges = np.flatnonzero(np.diff(cells.astype(np.int8), prepend=0, append=0))
    return [
        (float(start), float(end - start))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]
