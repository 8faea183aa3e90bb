"""Some rows that name no example in, what would make them name one out: each suggestion was tried on the rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, islice, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from refcocom_gpu.dataset.facts import HOLDERS, REFER_IDS
from refcocom_gpu.errors import NotFoundError
from refcocom_gpu.predictions.key_forms import ID_FORMS, ByRefer, whole_number
from refcocom_gpu.predictions.options import BOX_FORMS
from refcocom_gpu.predictions.renames import Renames

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

WITNESSES = 256
"""Rows on which a suggestion is tried: more than a few, so that other numbers do not fit all of them by chance."""

MOST_COLUMNS = 12
"""Columns of whole numbers that are tried; a table with more than these holds other things than ids."""

BOX_NAMES = ("box", "bbox", "bbox_2d", "bboxes", "boxes", "pred_box")
"""What rows call a box: we, and others."""

SHOWN = 2
"""Suggestions of a kind that a message shows."""

Row = Mapping[str, Any]


def fitting(rows: Sequence[Row], dataset: Dataset, keys: str | None, renames: Renames) -> list[str]:
    """Return words of the command line, each of which makes every row find an example of its own.

    Args:
        rows: Of the file, under its names.
        dataset: What the predictions are for.
        keys: How rows are read now.
        renames: What the file calls our fields now.

    Returns:
        The words; none where the rows are found as they are read now.
    """
    usual = next(name for name, kind in ID_FORMS.items() if kind == dataset.key)
    as_usual = _columns(rows, dataset, renames)
    as_refer = _is_found_by_refer(rows, dataset, renames)
    if (keys in (None, usual) and as_usual == [{}]) or (keys == "refer" and as_refer):
        return []
    prefix = [] if keys in (None, usual) else [f"keys={usual}"]
    words = [
        " ".join([*prefix, *([f"fields={dict(columns)}"] if columns else [])])
        for columns in as_usual
    ]
    return [*words, *(["keys=refer"] if as_refer else [])]


def _columns(rows: Sequence[Row], dataset: Dataset, renames: Renames) -> list[dict[str, str]]:
    """Return by which columns, for as few fields of the key as possible, all rows are found; none for no way."""
    names = set.intersection(*(set(row) for row in rows)) if rows else set()
    numbers: dict[str, np.ndarray[Any, Any]] = {}
    for name in (name for name in rows[0] if name in names) if rows else ():
        values = [whole_number(row[name]) for row in rows]
        if None not in values:
            numbers[name] = np.array(values, np.int64)
    fields = dataset.example_key_fields
    present = {name: renames.column(name) or "" for name in fields}
    others = [name for name in numbers if name not in present.values()][:MOST_COLUMNS]
    for n_changed in range(3):
        ways = (
            dict(zip(changed, columns, strict=True))
            for changed in combinations(fields, n_changed)
            for columns in permutations(others, n_changed)
        )
        fits = (
            way
            for way in ways
            if _are_found([{**present, **way}[f] for f in fields], numbers, dataset)
        )
        if found := list(islice(fits, SHOWN)):
            return found
    return []


def _are_found(
    columns: Sequence[str], numbers: Mapping[str, np.ndarray[Any, Any]], dataset: Dataset
) -> bool:
    if any(name not in numbers for name in columns):
        return False
    index = dataset.index_of_key([numbers[name] for name in columns])
    return bool((index >= 0).all()) and len(np.unique(index)) == len(index)


def _is_found_by_refer(rows: Sequence[Row], dataset: Dataset, renames: Renames) -> bool:
    if not rows or not dataset.refer_ids:
        return False
    form = ByRefer(dataset)
    try:
        found = {form.index_of(renames.row(row)) for row in rows}
    except NotFoundError:
        return False
    return len(found) == len(rows)


def suggestion(names: Collection[str], dataset: Dataset, words: Sequence[str]) -> str:
    """Return what may help rows that lack the key.

    Args:
        names: What the rows carry.
        dataset: What the predictions are for.
        words: From `fitting`.
    """
    if words:
        return f"; try {', or '.join(words)}"
    if "sentence" in names and any(name in names for name in HOLDERS):
        return "; try keys=sentence, which finds examples by the sentence and the image or sample"
    if not dataset.refer_ids and any(name in names for name in REFER_IDS):
        return f"; {ByRefer.NOT_CARRIED}"
    return "; keys=order takes one row for each example, in the order of the dataset"


def mask_column(row: Row) -> str:
    """Return the hint that names the column of a row that holds an RLE; empty where none does."""
    names = (n for n, v in row.items() if isinstance(v, Mapping) and {"size", "counts"} <= set(v))
    return next(
        (f"; try fields={{'segmentation': {name!r}}}" for name in names), boxes_instead(row)
    )


def boxes_instead(names: Collection[str]) -> str:
    """Return how rows without a mask are read that have a box; empty where they have none.

    >>> boxes_instead(["sample_id", "label"])
    ''
    >>> print(boxes_instead(["sample_id", "bbox"]))  # doctest: +ELLIPSIS
    ; bbox may be boxes: declare box_format=xyxy ... or thousandths (0…1000), and fields.box=bbox
    """
    found = next((name for name in BOX_NAMES if name in names), None)
    if found is None:
        return ""
    renamed = "" if found == BOX_NAMES[0] else f", and fields.box={found}"
    return f"; {found} may be boxes: {BOX_FORMS}{renamed}"
