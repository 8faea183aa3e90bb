"""Slices that were asked for in, and those that are columns of the predictions out; their values in, tags out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from refcocom_gpu.errors import TagsError
from refcocom_gpu.scores.slices.groupings import ALL, CAUSE, GROUPINGS, chosen
from refcocom_gpu.scores.slices.tags import KEYS, MASK, Tags

if TYPE_CHECKING:
    from refcocom_gpu.predictions.own_columns import OwnColumns


def groupings_for(metrics: Collection[str]) -> list[str]:
    """Return the groupings that can be asked for before predictions are scored.

    Args:
        metrics: What is counted.
    """
    return [name for name in GROUPINGS if name != CAUSE or "causes" in metrics]


def of_predictions(
    requested: str | Iterable[str] | None, metrics: Collection[str], others: Collection[str] = ()
) -> list[str]:
    """Return the slices of a request that can only be columns of the predictions.

    Args:
        requested: As of `chosen`.
        metrics: What is counted.
        others: Further names that are known, such as those of a file of tags.

    Raises:
        UsageError: The causes that slices need are not counted.

    >>> of_predictions(["size", "prompt", "all"], ["iou"])
    ['prompt']
    """
    names = [requested] if isinstance(requested, str) else [*(requested or ())]
    known = {*GROUPINGS, ALL, *others}
    chosen([name for name in names if name in known], [*groupings_for(metrics), *others])
    return [*dict.fromkeys(name for name in names if name not in known)]


def tags_of(own: OwnColumns, source: str, metrics: Collection[str], taken: Collection[str]) -> Tags:
    """Return columns of the predictions as tags.

    Args:
        own: What was read of them.
        source: What messages call the predictions.
        metrics: What was counted, for messages.
        taken: Columns that every result has.

    Raises:
        UsageError: The predictions have no such column; the message lists those that they have.
        TagsError: A column holds something else than text, numbers and booleans.
    """
    from refcocom_gpu.scores.leaderboard.typed import typed_columns

    theirs = [n for n in own.seen if n not in {*KEYS, *GROUPINGS, MASK, ALL, *taken}]
    chosen(own.names, [*groupings_for(metrics), *theirs])
    columns: dict[str, pa.Array] = {}
    for name, values in own.values.items():
        if odd := next((value for value in values if isinstance(value, list | dict)), None):
            raise TagsError(
                f"{source}: slices are by text, numbers or booleans; column {name} holds {odd!r:.60}"
            )
        (columns[name],) = typed_columns([{name: value} for value in values]).values()
    return Tags(columns, {"predictions": source, "columns": list(columns)})
