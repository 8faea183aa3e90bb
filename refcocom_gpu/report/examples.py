"""Examples of one or two results in, what a page knows of each out: the data of its cards, and which are drawn.

The data of all examples stand in the page, 70 bytes each; pictures are the larger part, so that only some are drawn
into it unless they are written beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.thumbnails import Sketch, thumbnails
from refcocom_gpu.scores.metrics import Floats, Ints
from refcocom_gpu.utils.arrow import to_numpy

EMBED, LINK, NONE = "embed", "link", "none"
PICTURES = (EMBED, LINK, NONE)
"""Pictures of some examples inside the page, of all in a folder beside it, or none."""

EXTREME, OF_EACH = 60, 12
"""Examples drawn into a page: the worst, as many of the best and by chance, and of each cause: 2 to 3 MB."""

FOLDER = "{}_pictures"
"""Beside the page NAME.html."""


@dataclass(frozen=True, eq=False)
class Fact:
    """A number of each example.

    Attributes:
        label: Its name.
        values: [N] float64; NaN is shown as nothing.
        signed: Whether it is a difference.
    """

    label: str
    values: Floats
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Cards:
    """What the cards of a page show.

    Attributes:
        table: `index`, `sample_id`, `sentence` and, of examples, `sentence_idx`; N rows.
        facts: Numbers of each.
        choices: By label, names and [N] codes: what examples can be chosen by.
        orders: Label, the fact that sorts and whether the highest come first; None for an order by chance.
        labels: Of the pictures on a card, side by side; one empty label for one picture.
        sketch: From an index and the place of a label to what is drawn; None where masks are not at hand.
        chosen: Indices of the examples that are drawn where not all are.
        problem: Why masks are not at hand.
        suffixes: Of the names of the pictures of a card, one for each label.
        notes: By label, [N] texts of which an empty one is not shown.
    """

    table: pa.Table
    facts: Sequence[Fact]
    choices: Mapping[str, tuple[Sequence[str], Ints]]
    orders: Sequence[tuple[str, int | None, bool]]
    labels: Sequence[str] = ("",)
    sketch: Callable[[int, int], Sketch] | None = None
    chosen: Iterable[int] = ()
    problem: str = "masks are not at hand"
    suffixes: Sequence[str] = ("", "b")
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def data(
        self,
        canvas: Canvas | None,
        pictures: str,
        page: Path,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Draw the pictures and return what the script of the page reads.

        Args:
            canvas: What is drawn on; None where nothing can be drawn.
            pictures: One of `PICTURES`.
            page: The page to be written; linked pictures are written beside it.
            progress: Called with the number of pictures that are drawn since.
        """
        index = to_numpy(self.table.column("index"))
        parts = [name for name in ("sample_id", "sentence_idx") if name in self.table.column_names]
        keys = zip(*(self.table.column(name).to_pylist() for name in parts), strict=True)
        return {
            "index": index.tolist(),
            "names": ["_".join(map(str, key)) for key in keys],
            "texts": self.table.column("sentence").to_pylist(),
            "facts": [
                {
                    "label": fact.label,
                    "signed": fact.signed,
                    "values": [None if x != x else round(x, 4) for x in fact.values.tolist()],
                }
                for fact in self.facts
            ],
            "notes": [
                {"label": label, "values": [*values]} for label, values in self.notes.items()
            ],
            "choices": [
                {"label": label, "names": [*names], "codes": codes.tolist()}
                for label, (names, codes) in self.choices.items()
            ],
            "orders": [
                {"label": label, "mixed": True}
                if fact is None
                else {"label": label, "fact": fact, "down": down}
                for label, fact, down in self.orders
            ],
            "pictures": {
                "labels": [*self.labels],
                "suffixes": [*self.suffixes[: len(self.labels)]],
                **self._pictures(canvas, pictures, page, index, progress),
            },
        }

    def _pictures(
        self,
        canvas: Canvas | None,
        pictures: str,
        page: Path,
        index: Ints,
        progress: Callable[[int], None] | None,
    ) -> dict[str, Any]:
        if pictures == NONE or canvas is None or self.sketch is None:
            why = "no pictures were asked for" if pictures == NONE else self.problem
            return {"none": why, "files": {}}
        places = range(len(self.labels))
        if pictures == EMBED:
            sketches = [self.sketch(k, side) for k in dict.fromkeys(self.chosen) for side in places]
            drawn = thumbnails(canvas, sketches, progress)
            return {"files": {name: base64.b64encode(file).decode() for name, file in drawn}}
        folder = FOLDER.format(page.stem)
        sketches = [self.sketch(k, side) for k in index.tolist() for side in places]
        (page.parent / folder).mkdir(parents=True, exist_ok=True)
        for name, file in thumbnails(canvas, sketches, progress):
            # Not synced one by one, which takes longer than drawing: the page, which is, comes last.
            (page.parent / folder / f"{name}.webp").write_bytes(file)
        return {"folder": folder, "all": True}

    def n_drawn(self, pictures: str) -> int:
        """Return how many pictures `data` draws, for a progress bar."""
        if pictures == NONE or self.sketch is None:
            return 0
        n = len({*self.chosen}) if pictures == EMBED else self.table.num_rows
        return n * len(self.labels)


def check_pictures(pictures: str) -> None:
    """Refuse an unknown way to show pictures.

    Raises:
        UsageError: It is not one of `PICTURES`.
    """
    if pictures not in PICTURES:
        raise UsageError(f"pictures must be {', '.join(PICTURES[:-1])} or {NONE}, not {pictures!r}")


def extremes(
    values: Floats, index: Ints, groups: Ints | None = None, *, most: int = EXTREME
) -> list[int]:
    """Choose examples to draw: the lowest and the highest, some by chance, and some of each group.

    Args:
        values: [K] what they are ordered by.
        index: [K] of the examples.
        groups: [K] codes, or None.
        most: How many of each kind but groups.

    Returns:
        Indices, each once. The choice by chance is the same for the same number of examples.

    >>> extremes(np.array([0.5, 0.1, 0.9]), np.array([10, 11, 12]))
    [11, 10, 12]
    """
    order = np.argsort(values, kind="stable")
    mixed = np.random.default_rng(0).permutation(len(values))[:most]
    parts = [order[:most], order[::-1][:most], mixed]
    if groups is not None:
        by_chance = np.random.default_rng(0).permutation(len(values))
        parts += [by_chance[groups[by_chance] == g][:OF_EACH] for g in np.unique(groups)]
    return [*dict.fromkeys(index[np.concatenate(parts)].tolist())]


def codes_of(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the values of a column of text in their order, and [N] the place of each row's value."""
    encoded = column.combine_chunks().dictionary_encode()
    names = [name or "(none)" for name in encoded.dictionary.to_pylist()]
    order = np.argsort(names, kind="stable")
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return [names[k] for k in order], place[to_numpy(encoded.indices)]
