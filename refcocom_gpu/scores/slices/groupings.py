"""The table of a result in, its examples in slices out: each example is in exactly one slice of a grouping.

`GROUPINGS` holds what this package knows of an example; columns named `tag.…` hold what a user says of it (`tags`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.key_forms import EXACT
from refcocom_gpu.scores import causes
from refcocom_gpu.scores.slices.words import PLACES, RELATIONAL, SPATIAL, has_words
from refcocom_gpu.utils.arrow import filled, to_numpy

SMALL, LARGE = 32**2, 96**2
"""Areas in pixels between COCO's small, medium and large objects; RefCOCO's images are COCO's."""

SHORT, LONG = 2, 5
"""Words: an expression of up to 2 is short (`left man`), one of 5 or more is long."""

MANY_SIBLINGS = 3
"""Other samples of the same category in the image from which on they are one slice."""

DIGITS = 4
"""Significant digits of a number that is not whole; those that are alike in them are one slice."""

NONE = "(none)"
"""The slice of examples of which a grouping knows nothing: no category, no tag, an empty true mask."""

TAG = "tag."
"""What the columns of tags begin with, so that none is taken for a column of ours, now or later."""

PERIMETER = "target_perimeter"
"""The column of the true mask's perimeter, in pixel edges; a result has it if that was asked for."""

CAUSE = "cause"
"""The one grouping that depends on the predictions."""

ALL = "all"
"""Stands for every grouping in a request."""


@dataclass(frozen=True, eq=False)
class Slicing:
    """The examples of a result in slices.

    Attributes:
        labels: Names of the slices, in the order in which they are shown; some may hold no example.
        code: [N] int64, the slice of each example: its place in `labels`.
    """

    labels: list[str]
    code: NDArray[np.int64]

    def groups(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """Return each label with [N] whether an example is in its slice."""
        return [(label, self.code == place) for place, label in enumerate(self.labels)]


@dataclass(frozen=True, slots=True)
class Grouping:
    """A way to slice a result.

    Attributes:
        slicing: Makes it from a result's table.
        is_open: Whether there may be any number of slices.
        needs: A column beyond those that every result has.
        how: How to get that column, for messages.
    """

    slicing: Callable[[pa.Table], Slicing]
    is_open: bool = False
    needs: str | None = None
    how: str = ""


def category(table: pa.Table) -> Slicing:
    """Slice by category, the largest first.

    >>> slicing = category(pa.table({"category": ["cow", "", "cow"]}))
    >>> slicing.labels, slicing.code
    (['cow', '(none)'], array([0, 1, 0]))
    """
    return by_value(table.column("category"))


def supercategory(table: pa.Table) -> Slicing:
    """Slice by supercategory, the largest first."""
    return by_value(table.column("supercategory"))


def size(table: pa.Table) -> Slicing:
    """Slice by the true mask's area in pixels of its image: COCO's small, medium and large."""
    labels = [f"small (< {SMALL:,} px)", f"medium (< {LARGE:,} px)", f"large (≥ {LARGE:,} px)"]
    area = to_numpy(table.column("target_area"))
    return Slicing(labels, np.digitize(area, [SMALL, LARGE]))


def size_quantile(table: pa.Table) -> Slicing:
    """Slice by the fifths of the true mask's area over all examples; equal areas are in one slice."""
    area = to_numpy(table.column("target_area"))
    names = [f"fifth {k} of areas" for k in range(1, 6)]
    return _by_quantile(area.astype(np.float64), names, lambda x: f"{x:,.0f} px")


def length(table: pa.Table) -> Slicing:
    """Slice by the number of words, which white space separates."""
    words = [len(sentence.split()) for sentence in table.column("sentence").to_pylist()]
    labels = [f"1-{SHORT} words", f"{SHORT + 1}-{LONG - 1} words", f"{LONG}+ words"]
    return Slicing(labels, np.digitize(words, [SHORT + 1, LONG]))


def spatial(table: pa.Table) -> Slicing:
    """Slice by whether the sentence holds a word of place."""
    has = has_words(table.column("sentence"), SPATIAL)
    return Slicing(["spatial", "not spatial"], np.where(has, 0, 1))


def relational(table: pa.Table) -> Slicing:
    """Slice by whether the sentence holds a word that relates the object to another."""
    has = has_words(table.column("sentence"), RELATIONAL, but_for=PLACES)
    return Slicing(["relational", "not relational"], np.where(has, 0, 1))


def siblings(table: pa.Table) -> Slicing:
    """Slice by the number of other samples of the same category in the image.

    A sample is known by its expressions: objects that nobody refers to are not annotated in RefCOCO-M and not counted.

    >>> columns = {"image_id": [7, 7, 7, 8], "sentence_idx": [0, 1, 0, 0], "category": ["cow"] * 4}
    >>> slicing = siblings(pa.table(columns))
    >>> [slicing.labels[place] for place in slicing.code]
    ['1 other', '1 other', '1 other', '0 others']
    """
    kinds = by_value(table.column("category"))
    _, image = np.unique(to_numpy(table.column("image_id")), return_inverse=True)
    _, group = np.unique(image * len(kinds.labels) + kinds.code, return_inverse=True)
    is_first = to_numpy(table.column("sentence_idx")) == 0
    n = np.bincount(group[is_first], minlength=len(group))[group] - 1
    labels = ["0 others", "1 other", *(f"{k} others" for k in range(2, MANY_SIBLINGS))]
    labels += [f"{MANY_SIBLINGS}+ others", NONE]
    is_known = np.array([label != NONE for label in kinds.labels])[kinds.code]
    return Slicing(labels, np.where(is_known, np.minimum(n, MANY_SIBLINGS), MANY_SIBLINGS + 1))


def complexity(table: pa.Table) -> Slicing:
    """Slice by the thirds of the true mask's complexity over all examples: perimeter² / (4π · area).

    The perimeter is the number of pixel edges, holes and the border of the image included. In the plane a disc has 1,
    the least there is; of pixels a square has 1.27 and a disc some 1.6. An empty mask has none.
    """
    area, perimeter = (
        to_numpy(table.column(name)).astype(np.float64) for name in ("target_area", PERIMETER)
    )
    value = np.full(len(area), np.nan)
    np.divide(perimeter**2, 4 * math.pi * area, out=value, where=area > 0)
    return _by_quantile(value, ["simple", "middling", "complex"], lambda x: f"{x:.2f}")


def cause(table: pa.Table) -> Slicing:
    """Slice by the cause of each prediction's failure, right ones included; see `scores.causes`."""
    return Slicing([*causes.CAUSES], causes.cause_places(*causes.cause_columns(table)))


GROUPINGS = {
    "category": Grouping(category, is_open=True),
    "supercategory": Grouping(supercategory, is_open=True),
    "size": Grouping(size),
    "size_quantile": Grouping(size_quantile),
    "length": Grouping(length),
    "spatial": Grouping(spatial),
    "relational": Grouping(relational),
    "siblings": Grouping(siblings),
    "complexity": Grouping(
        complexity,
        needs=PERIMETER,
        how="the true masks, which this result does not hold: score again with slices=complexity, "
        "or call result.with_slices('complexity', store=…)",
    ),
    CAUSE: Grouping(
        cause,
        needs=causes.COLUMNS[-1],
        how="causes, which were not counted: score with metrics=[iou,causes]",
    ),
}


def names_of(table: pa.Table) -> list[str]:
    """Return the groupings by which a result's table can be sliced: those of ours, then tags.

    Those that need what the table does not hold are left out; the message of `chosen` says how to get them.
    """
    known = [name for name, g in GROUPINGS.items() if g.needs in (None, *table.column_names)]
    return known + [c.removeprefix(TAG) for c in table.column_names if c.startswith(TAG)]


def chosen(requested: str | Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """Return the groupings of a request, each once.

    Args:
        requested: A name, several, or `all`.
        known: What can be requested.

    Raises:
        UsageError: For an unknown name; the message lists the known ones and what is like it.

    >>> chosen(["size", "size"], ["category", "size"])
    ['size']
    """
    names = [requested] if isinstance(requested, str) else [*(requested or ())]
    for name in names:
        if name == ALL or name in known:
            continue
        if name in GROUPINGS:
            raise UsageError(f"slices by {name} need {GROUPINGS[name].how}")
        close = get_close_matches(str(name), [*GROUPINGS, *known])
        hint = f"did you mean {' or '.join(dict.fromkeys(close))}? " if close else ""
        more = [f"; {name} needs {g.how}" for name, g in GROUPINGS.items() if name not in known]
        raise UsageError(
            f"unknown slices {name!r}; {hint}there are {', '.join(known)} and {ALL}{''.join(more)}"
        )
    return [*dict.fromkeys(known if ALL in names else names)]


def slicing_of(table: pa.Table, name: str) -> Slicing:
    """Slice a result's table.

    Raises:
        UsageError: As `chosen` does.
    """
    chosen(name, names_of(table))
    if name in GROUPINGS:
        return GROUPINGS[name].slicing(table)
    return by_value(table.column(TAG + name))


def by_value(column: pa.ChunkedArray) -> Slicing:
    """Slice by the values of a column: text the most frequent first, numbers and booleans ascending.

    Args:
        column: [N] text, numbers or booleans. A null and an empty text are `(none)`.
    """
    encoded = column.combine_chunks().dictionary_encode()
    code = to_numpy(filled(encoded.indices, len(encoded.dictionary))).astype(np.int64)
    values = [*encoded.dictionary.to_pylist(), None]
    names = [_label(value) for value in values]
    places: dict[str, int] = {name: place for place, name in enumerate(dict.fromkeys(names))}
    code = np.array([places[name] for name in names])[code]
    labels, n = [*places], np.bincount(code, minlength=len(places))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        ranked = sorted(range(len(labels)), key=lambda k: (-n[k], labels[k]))
    else:
        first = dict(zip(names, values, strict=True))
        ranked = sorted(
            range(len(labels)), key=lambda k: (labels[k] == NONE, first[labels[k]] or 0)
        )
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    return Slicing([labels[k] for k in ranked], rank[code])


def _label(value: Any) -> str:
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    # Whole numbers become floats where pandas met an example without one.
    if isinstance(value, float):
        is_whole = value.is_integer() and abs(value) < EXACT
        return f"{value:.0f}" if is_whole else f"{value:.{DIGITS}g}"
    return str(value)


def _by_quantile(
    value: NDArray[np.float64], names: list[str], shown: Callable[[float], str]
) -> Slicing:
    """Slice at quantiles that are values themselves; a value of NaN is `(none)`."""
    known = ~np.isnan(value)
    if not known.any():
        return Slicing([NONE], np.zeros(len(value), np.int64))
    shares = np.arange(1, len(names)) / len(names)
    bounds = np.quantile(value[known], shares, method="inverted_cdf")
    labels = [f"{name} (≤ {shown(x)})" for name, x in zip(names, bounds.tolist(), strict=False)]
    labels += [f"{names[-1]} (> {shown(float(bounds[-1]))})", NONE]
    # A value that is a bound belongs below it.
    code = np.searchsorted(bounds, value)
    return Slicing(labels, np.where(known, code, len(names)))
