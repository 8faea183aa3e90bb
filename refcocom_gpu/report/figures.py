"""Numbers in, plots out: SVG drawn by Matplotlib, whose colours are variables of the page and follow light and dark.

A plot is drawn with marker colours (`INK`, `FIRST`, …), which `svg` replaces by `var(--…)` of the page's style sheet.
Text stays text, so that it can be searched, selected and read aloud.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import as_text

INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
FIRST, SECOND, THIRD = "#010105", "#010106", "#010107"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper", FIRST: "first", SECOND: "second", THIRD: "third",
}  # fmt: skip
"""Marker colours and the variables of the style sheet that replace them."""

WIDTH, HEIGHT = 4.6, 2.9
"""Inches: as wide as a phone shows without shrinking the text; a wide page shows two in a row."""

BINS = 50
"""Of the distribution of IoU: 0.02 each."""

SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "refcocom", "font.size": 9,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": GRID, "xtick.color": MUTED, "ytick.color": MUTED,
    "grid.color": GRID, "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "legend.frameon": False, "legend.labelcolor": INK, "legend.fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
}  # fmt: skip


def svg(
    name: str,
    label: str,
    draw: Callable[[Any], None],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """Draw one plot.

    Args:
        name: Its place on the page, of letters and `-`; ids within the SVG begin with it.
        label: What the plot shows, for those who hear it.
        draw: Draws into Axes.
        width: Inches.
        height: Inches.

    Returns:
        An `<svg>` element without a size, as wide as what holds it.

    Raises:
        UsageError: Matplotlib is not installed.

    >>> text = svg("line", "a < b", lambda axes: axes.plot([0, 1], [0, 1], color=FIRST))
    >>> text.startswith('<svg role="img" aria-label="a &lt; b"'), "var(--first)" in text, "#0101" in text
    (True, True, False)
    """
    from html import escape

    matplotlib = require("matplotlib", "plots need Matplotlib", "report")
    figures = require("matplotlib.figure", "plots need Matplotlib", "report")
    with (
        matplotlib.rc_context({**matplotlib.rcParamsDefault, **SETTINGS}),
        warnings.catch_warnings(),
    ):
        # The browser has the letters that Matplotlib's own font lacks; only their widths are guessed.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        # Without a date, the same numbers are the same file.
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for prefix in ('id="', "url(#", 'href="#'):
        # Points that link to an example of the page keep their address.
        text = re.sub(re.escape(prefix) + "(?!example-)", f"{prefix}{name}-", text)
    # Examples stand on the same page; among cards, the keyboard need not pass a hundred points first.
    text = text.replace('target="_blank"', 'tabindex="-1"')
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg role="img" aria-label="{escape(label)}" {box[0]} xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg">'
    return head + text[text.index(">") + 1 :].strip()


def distribution(name: str, values: Floats, *, label: str = "IoU", what: str = "examples") -> str:
    """Plot how many examples have which IoU, with their mean.

    Args:
        name: As of `svg`.
        values: [N], 0…1.
        label: Of the values.
        what: What has them.
    """
    mean = float(np.mean(values))

    def draw(axes: Any) -> None:
        axes.hist(values, bins=BINS, range=(0, 1), color=FIRST)
        axes.axvline(mean, color=SECOND, lw=1.4)
        side = "right" if mean > 0.5 else "left"
        axes.annotate(
            f"mean {100 * mean:.2f} % ", (mean, 1), xycoords=("data", "axes fraction"), ha=side, va="top",
            color=SECOND, xytext=(-3 if side == "right" else 3, 0), textcoords="offset points",
        )  # fmt: skip
        axes.set(xlabel=label, ylabel=what, xlim=(0, 1))
        axes.grid(visible=False, axis="x")

    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    text = (
        f"Distribution of {label} over {len(values):,} {what}: mean {mean:.4f}, median {middle:.4f}, "
        f"quartiles {low:.4f} and {high:.4f}."
    )
    return svg(name, text, draw)


def precision(name: str, values: Floats, at: dict[float, float], sign: str) -> str:
    """Plot the share of examples at or above each IoU.

    Args:
        name: As of `svg`.
        values: [N] IoU.
        at: The shares that are printed, by threshold.
        sign: ≥ or >.
    """
    ordered = np.sort(values)[::-1]

    shares = np.arange(len(ordered) + 2).clip(0, len(ordered)) / len(ordered)

    def draw(axes: Any) -> None:
        axes.step([1.0, *ordered, 0.0], shares, where="post", color=FIRST, lw=1.6)
        axes.plot([*at], [*at.values()], "o", color=SECOND, ms=4)
        for x, share in at.items():
            axes.annotate(
                f"{100 * share:.1f}",
                (x, share),
                xytext=(5, 3),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set(
            xlabel="IoU threshold X", ylabel=f"share with IoU {sign} X", xlim=(0, 1), ylim=(0, 1.06)
        )

    said = ", ".join(f"{100 * share:.1f} % at {x}" for x, share in at.items())
    return svg(name, f"Share of examples with IoU {sign} X by X: {said}.", draw)


def curve(name: str, scores: pa.Table, best: float) -> str:
    """Plot mIoU and cIoU against the threshold.

    Args:
        name: As of `svg`.
        scores: `threshold`, `miou` and `ciou`, ascending.
        best: The threshold that is marked.
    """
    x, *lines = (to_numpy(scores[column]) for column in ("threshold", "miou", "ciou"))

    def draw(axes: Any) -> None:
        for y, colour, style, label in zip(
            lines, (FIRST, THIRD), ("-", "--"), ("mIoU", "cIoU"), strict=True
        ):
            axes.plot(x, 100 * y, style, color=colour, lw=1.6, label=label)
        axes.axvline(best, color=SECOND, lw=1.2)
        axes.legend()
        axes.set(xlabel="threshold", ylabel="score, %")

    said = "; ".join(f"{at:g}: {100 * y:.2f}" for at, y in zip(x, lines[0], strict=True))
    return svg(name, f"mIoU by threshold, in percent; the best is {best:g}: {said}.", draw)


def intervals(
    name: str,
    rows: Sequence[tuple[str, float, float | None]],
    *,
    reference: float | None = None,
    label: str = "mIoU, %",
    about: str,
) -> str:
    """Plot a score and twice its standard error for each row, the first at the top.

    Args:
        name: As of `svg`.
        rows: Label, score and standard error, which may be None.
        reference: A score to hold the others against.
        label: Of the scores.
        about: What the plot shows, for those who hear it.
    """
    places = np.arange(len(rows))[::-1]

    def draw(axes: Any) -> None:
        if reference is not None:
            axes.axvline(100 * reference, color=MUTED, lw=1, ls="--")
        for place, (_, score, se) in zip(places, rows, strict=True):
            if se is not None:
                axes.plot(
                    100 * np.array([score - 2 * se, score + 2 * se]),
                    [place, place],
                    color=FIRST,
                    lw=1.4,
                )
        axes.plot([100 * score for _, score, _ in rows], places, "o", color=FIRST, ms=5)
        axes.set_yticks(places, [label_of(text) for text, _, _ in rows])
        axes.set(xlabel=label, ylim=(-0.6, len(rows) - 0.4))
        axes.grid(visible=False, axis="y")

    said = "; ".join(
        f"{text}: {100 * score:.2f}" + ("" if se is None else f" ± {100 * se:.2f}")
        for text, score, se in rows
    )
    return svg(name, f"{about} {said}.", draw, height=0.9 + 0.24 * len(rows))


def bars(name: str, rows: Sequence[tuple[str, int]], *, about: str) -> str:
    """Plot a number of examples for each row, the first at the top.

    Args:
        name: As of `svg`.
        rows: Label and number.
        about: What the plot shows, for those who hear it.
    """
    total = max(1, sum(n for _, n in rows))
    places = np.arange(len(rows))[::-1]

    def draw(axes: Any) -> None:
        drawn = axes.barh(places, [n for _, n in rows], color=FIRST, height=0.7)
        axes.bar_label(
            drawn,
            [f"{n:,}  ({100 * n / total:.1f} %)" for _, n in rows],
            padding=3,
            fontsize=8,
            color=INK,
        )
        axes.set_yticks(places, [label_of(text) for text, _ in rows])
        axes.set(xlabel="examples")
        axes.margins(x=0.28)
        axes.grid(visible=False, axis="y")

    said = "; ".join(f"{text}: {n:,}" for text, n in rows)
    return svg(name, f"{about} {said}.", draw, height=0.8 + 0.26 * len(rows))


def scatter(
    name: str,
    x: Floats,
    y: Floats,
    links: Sequence[str],
    *,
    labels: tuple[str, str],
    about: str,
) -> str:
    """Plot the IoU of two models for each example; a point links to its example.

    Args:
        name: As of `svg`.
        x: [N].
        y: [N].
        links: [N] addresses within the page; empty for none.
        labels: Of the axes.
        about: What the plot shows, for those who hear it.
    """

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
        linked = np.array([bool(link) for link in links], np.bool_)
        # Many points are one image within the SVG; only those that lead somewhere are shapes.
        axes.scatter(
            x[~linked],
            y[~linked],
            s=7,
            color=FIRST,
            alpha=0.35,
            lw=0,
            rasterized=False,
            gid="points",
        )
        marked = axes.scatter(x[linked], y[linked], s=22, color=SECOND, alpha=0.9, lw=0)
        marked.set_urls([link for link in links if link])
        axes.set(
            xlabel=labels[0],
            ylabel=labels[1],
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )

    return svg(name, about, draw, height=4.4)


def label_of(text: str, most: int = 28) -> str:
    r"""Return one line that leaves room for the plot; Matplotlib takes `$` for the begin of a formula.

    >>> label_of("a\nb costs $5"), label_of("runs/long/step-100", most=11)
    ('a b costs \\$5', 'runs/…p-100')
    """
    text = " ".join(as_text(text).split())
    if len(text) > most:
        # Paths and steps differ at their end.
        text = f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"
    return text.replace("$", r"\$")
