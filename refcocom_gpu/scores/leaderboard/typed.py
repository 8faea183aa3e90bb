"""Columns of a manifest in, Arrow columns of one type each out."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.utils.text import as_text

EXACT_INTEGER = 2**53
"""Every integer up to this one is exact as float64; a larger one among floats would change."""

INT64 = 2**63


def typed_columns(
    rows: Sequence[Mapping[str, Any]], taken: Collection[str] = ()
) -> dict[str, pa.Array]:
    """Return the columns of all rows, each as one type: bool, int64, float64, or else text.

    Args:
        rows: A mapping per row; a name that it lacks is null.
        taken: Names of other columns, whatever their case; a column of such a name gets the prefix `manifest.`.

    Returns:
        Name to column, in the order in which names first appear.

    >>> columns = typed_columns([{"step": 1, "lr": 1}, {"lr": 0.1, "tag": 3}, {"tag": "b", "Rank": None}], ["rank"])
    >>> {name: str(column.type) for name, column in columns.items()}
    {'step': 'int64', 'lr': 'double', 'tag': 'string', 'manifest.Rank': 'string'}
    >>> columns["tag"].to_pylist()
    [None, '3', 'b']
    """
    names = dict.fromkeys(name for row in rows for name in row)
    used = {name.casefold() for name in taken}
    columns = {}
    for name in names:
        shown = as_text(str(name))
        # DuckDB and spreadsheets treat names that differ only in case as one.
        while shown.casefold() in used:
            shown = f"manifest.{shown}"
        used.add(shown.casefold())
        columns[shown] = _typed([_plain(row.get(name)) for row in rows])
    return columns


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    # JSON has no NaN and no infinity.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _typed(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    integers = [value for value in values if type(value) is int]
    if kinds == {int} and all(-INT64 <= value < INT64 for value in integers):
        return pa.array(values, pa.int64())
    if float in kinds <= {int, float} and all(abs(value) <= EXACT_INTEGER for value in integers):
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array([None if v is None else _as_string(v) for v in values], pa.string())


def _as_string(value: Any) -> str:
    if isinstance(value, bool | int | float | list | tuple | dict):
        return as_text(json.dumps(value, ensure_ascii=False, default=str))
    return as_text(str(value))
