"""The table of a result in, the scores of its slices out: by what an example is, and by what a user says of it.

`groupings` puts each example in one slice of a grouping; `words` holds the word lists behind two of them, and `tags`
reads a user's file. `table` scores each slice; `breakdown` uses the same slices for the difference of two results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from refcocom_gpu.scores.slices.columns import groupings_for as groupings_for
from refcocom_gpu.scores.slices.columns import of_predictions as of_predictions
from refcocom_gpu.scores.slices.columns import tags_of as tags_of
from refcocom_gpu.scores.slices.groupings import ALL as ALL
from refcocom_gpu.scores.slices.groupings import CAUSE as CAUSE
from refcocom_gpu.scores.slices.groupings import GROUPINGS as GROUPINGS
from refcocom_gpu.scores.slices.groupings import PERIMETER as PERIMETER
from refcocom_gpu.scores.slices.groupings import TAG as TAG
from refcocom_gpu.scores.slices.groupings import chosen as chosen
from refcocom_gpu.scores.slices.groupings import names_of as names_of
from refcocom_gpu.scores.slices.groupings import slicing_of as slicing_of
from refcocom_gpu.scores.slices.table import MIN_IMAGES as MIN_IMAGES
from refcocom_gpu.scores.slices.table import SCHEMA as SCHEMA
from refcocom_gpu.scores.slices.table import slice_rows as slice_rows
from refcocom_gpu.scores.slices.tags import Tags as Tags
from refcocom_gpu.scores.slices.tags import read_tags as read_tags
from refcocom_gpu.utils.arrow import from_numpy

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


def with_tags(table: pa.Table, tags: Mapping[str, pa.Array]) -> pa.Table:
    """Return a result's table with the columns of tags; they replace tags of the same name."""
    for name, column in tags.items():
        if TAG + name in table.column_names:
            table = table.drop_columns([TAG + name])
        table = table.append_column(TAG + name, column)
    return table


def with_masks(table: pa.Table, names: str | Iterable[str], store: MaskStore) -> pa.Table:
    """Return a result's table with the columns that some slices need of the true masks.

    Args:
        table: N rows.
        names: Of groupings, or `all`.
        store: Ground truth of the same N examples.
    """
    names = {names} if isinstance(names, str) else {*names}
    needed = {g.needs for name, g in GROUPINGS.items() if name in names or ALL in names}
    if PERIMETER in needed and PERIMETER not in table.column_names:
        column = from_numpy(store.perimeters[store.example_sample])
        table = table.append_column(PERIMETER, column)
    return table


def is_open(name: str) -> bool:
    """Return whether a grouping may have any number of slices, such as categories and tags."""
    return name not in GROUPINGS or GROUPINGS[name].is_open
