"""Two versions of a set's masks in, their page out: both as outlines on the picture, what stayed and why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.masks import rle
from refcocom_gpu.report import figures
from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.examples import EMBED, Cards, Fact, check_pictures, codes_of, extremes
from refcocom_gpu.report.overlay import FIRST, SECOND, Pixels, faded, fitted, outlined, window_of
from refcocom_gpu.report.page import data, markup, percent, render
from refcocom_gpu.report.thumbnails import SIDE, Sketch
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

INSTANCES = pa.schema(
    [
        ("sample", pa.int64()),
        ("sentences", pa.string()),
        ("after", pa.string()),
        ("fate", pa.string()),
        ("reason", pa.string()),
        ("iou", pa.float64()),
        ("boundary_iou", pa.float64()),
        ("after_area", pa.int64()),
    ]
)
"""A row per instance of the original set: its row there; the expressions that may be shown; its new mask as compressed
RLE, or null; `kept` or the cause of its removal; the reason in words; how alike both masks are, and the new mask's
pixels, null without a new one."""

EXPRESSIONS = pa.schema([("key", pa.string()), ("cause", pa.string())])
"""A row per expression that is gone: its key in the original set and why. Its text is not here: some are harmful."""

KEPT = "kept"

MARGIN, LEAST = 0.15, 0.12
"""Of the window around an instance: tight, because the contours are what is looked at."""

LEGEND = (("before", "the original mask"), ("after", "the refined mask"))


@dataclass(frozen=True, eq=False)
class Versions:
    """An original set beside a refined one.

    Attributes:
        original: The original set, of M instances.
        names: Of the original and the refined set, for people.
        instances: `INSTANCES`, M rows.
        expressions: `EXPRESSIONS`.
        meanings: What the causes of both tables mean.
        n_expressions: Of the original and of the refined set.
    """

    original: Dataset
    names: tuple[str, str]
    instances: pa.Table
    expressions: pa.Table
    meanings: dict[str, str]
    n_expressions: tuple[int, int]

    def __repr__(self) -> str:
        return (
            f"Versions({self.names[0]!r} → {self.names[1]!r}: {self.n_kept:,} of {self.original.n_samples:,} "
            f"instances, {self.n_expressions[1]:,} of {self.n_expressions[0]:,} expressions)"
        )

    @property
    def n_kept(self) -> int:
        """Number of instances that stay."""
        fates: list[str] = self.instances.column("fate").to_pylist()
        return fates.count(KEPT)

    def values(self, name: str) -> Floats:
        """Return [K] the values of a column of `instances` for those that have both masks."""
        values: Floats = to_numpy(self.instances.column(name).drop_null())
        return values


def before_after_page(
    versions: Versions,
    page: Path,
    *,
    images: str | Path | None = None,
    pictures: str = EMBED,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Return the page of two versions of a set; pictures that are linked are written beside `page`.

    Args:
        versions: From `rc.before_after`.
        page: Where the page will stand.
        images: A folder that holds the pictures by `file_name`, where the original set does not hold them.
        pictures: `embed`, `link` or `none`.
        progress: Called with the number of pictures that are drawn since.
    """
    check_pictures(pictures)
    original = versions.original
    canvas = Canvas(original, images)
    cards = _cards(versions)
    examples = cards.data(canvas, pictures, page, progress)
    notes = []
    if pictures != "none" and canvas.problem:
        notes.append(f"Masks are drawn on grey: {canvas.problem}")
    values = {
        "kind": "Before and after",
        "title": f"{versions.names[0]} → {versions.names[1]}",
        "heading": f"{versions.names[0]} → {versions.names[1]}",
        "about": [
            ("original", f"{original.source} ({original.split})"),
            ("refined", versions.names[1]),
            ("images", f"{original.n_images:,}"),
        ],
        "notes": notes,
        "sections": [
            ("scores", "What stayed"), ("distribution", "How the masks differ"), ("removed", "Removed"),
            ("examples", "Instances"),
        ],
        "picture_source": "'self' file:" if pictures == "link" else "",
        "scores": _headline(versions),
        "plots": _plots(versions),
        "causes": _causes(versions),
        "expressions": _expressions(versions),
        "examples": data(examples),
        "legend": LEGEND,
    }  # fmt: skip
    return render("before_after.html.j2", values)


def _headline(versions: Versions) -> list[dict[str, Any]]:
    n, (before, after) = versions.original.n_samples, versions.n_expressions
    rows = [
        ("instances kept", f"{versions.n_kept:,}", f"of {n:,}"),
        ("expressions kept", f"{after:,}", f"of {before:,}"),
    ]
    for name, label in (("iou", "mean IoU"), ("boundary_iou", "mean boundary IoU")):
        values = versions.values(name)
        if len(values):
            low, high = np.quantile(values, [0.05, 0.95])
            rows.append(
                (
                    label,
                    percent(float(values.mean())),
                    f"90 % of them {percent(low)} to {percent(high)}",
                )
            )
    return [{"name": name, "value": value, "range": text} for name, value, text in rows]


def _plots(versions: Versions) -> list[tuple[Any, str]]:
    plots = []
    for name, label in (("iou", "IoU"), ("boundary_iou", "boundary IoU")):
        if len(values := versions.values(name)):
            picture = figures.distribution(
                name.replace("_", "-"), values, label=f"{label} of both masks", what="instances"
            )
            plots.append(
                (
                    markup(picture),
                    f"{label} of the original and the refined mask of {len(values):,} instances.",
                )
            )
    fates = _counted(versions.instances.column("fate"))
    plots.append(
        (
            markup(figures.bars("fates", fates, about="Instances by what became of them:")),
            "What became of the instances.",
        )
    )
    return plots


def _counted(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    """Return the values of a column with their numbers, `kept` first, then the most frequent."""
    counts = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
    return sorted(counts.items(), key=lambda pair: (pair[0] != KEPT, -pair[1], pair[0]))


def _causes(versions: Versions) -> list[list[Any]]:
    rows = []
    for what, column in (
        ("instances", versions.instances["fate"]),
        ("expressions", versions.expressions["cause"]),
    ):
        rows += [
            [cause, what, (f"{n:,}", n), versions.meanings.get(cause, "")]
            for cause, n in _counted(column)
            if cause != KEPT
        ]
    return rows


def _expressions(versions: Versions) -> list[tuple[str, list[str]]]:
    keys: dict[str, list[str]] = {}
    for row in versions.expressions.to_pylist():
        keys.setdefault(row["cause"], []).append(row["key"])
    return sorted(keys.items())


def _cards(versions: Versions) -> Cards:
    original, instances = versions.original, versions.instances
    iou = _floats(instances, "iou")
    areas = np.array([_area(versions, k) for k in range(instances.num_rows)], np.float64)
    after = _floats(instances, "after_area")
    facts = [
        Fact("IoU", iou),
        Fact("boundary IoU", _floats(instances, "boundary_iou")),
        Fact("area changed by", after / np.maximum(areas, 1) - 1, signed=True),
    ]
    names, codes = codes_of(instances.column("fate"))
    table = pa.table(
        {
            "index": instances.column("sample"),
            "sample_id": from_numpy(original.sample_ids),
            "sentence": instances.column("sentences"),
        }
    )
    choices = {"fate": (names, codes), "category": codes_of(original.samples["category"])}
    orders: list[tuple[str, int | None, bool]] = [
        ("changed most first", 0, False), ("least alike contours first", 1, False), ("by chance", None, False),
    ]  # fmt: skip
    # Instances without a new mask come last.
    chosen = extremes(np.where(np.isnan(iou), 2.0, iou), np.arange(len(iou)), codes)
    texts = {"reason": instances.column("reason").to_pylist()}
    return Cards(
        table, facts, choices, orders, sketch=_sketcher(versions), chosen=chosen, notes=texts
    )


def _floats(table: pa.Table, name: str) -> Floats:
    return np.array(
        [np.nan if x is None else x for x in table.column(name).to_pylist()], np.float64
    )


def _area(versions: Versions, sample: int) -> int:
    return int(_mask(versions.original, sample).sum())


def _mask(dataset: Dataset, sample: int) -> Any:
    size = [int(dataset.heights[sample]), int(dataset.widths[sample])]
    return rle.decode({"size": size, "counts": dataset.counts.row(sample)})


def _sketcher(versions: Versions) -> Callable[[int, int], Sketch]:
    dataset, new = versions.original, versions.instances.column("after")

    def sketch(sample: int, _: int) -> Sketch:
        def draw(picture: Pixels) -> Pixels:
            before = _mask(dataset, sample)
            counts = new[sample].as_py()
            masks, colours = [before], [FIRST]
            if counts is not None:
                size = [int(dataset.heights[sample]), int(dataset.widths[sample])]
                masks.append(rle.decode({"size": size, "counts": counts}))
                colours.append(SECOND)
            seen = np.logical_or.reduce(masks)
            window = window_of(seen, margin=MARGIN, least=LEAST)
            shown, *parts = fitted(picture, masks, window, SIDE)
            lines = [(part.astype(bool), c) for part, c in zip(parts, colours, strict=True)]
            return outlined(faded(shown), lines, thickness=2)

        return Sketch(str(sample), int(dataset.sample_image[sample]), draw)

    return sketch
