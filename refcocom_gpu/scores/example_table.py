"""A store and the counts of a run in, the table of a result out: one row per example, in index order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.scores import consistency, under
from refcocom_gpu.scores.conventions import OFFICIAL
from refcocom_gpu.scores.folder import SCHEMA_VERSION
from refcocom_gpu.scores.no_target import PRED_NO_TARGET, label_array
from refcocom_gpu.scores.under import STATUSES
from refcocom_gpu.utils.arrow import from_numpy

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("sample_id", pa.int64()),
        ("sentence_idx", pa.int64()),
        ("image_id", pa.int64()),
        ("sentence", pa.string()),
        ("category", pa.string()),
        ("supercategory", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("intersection", pa.int64()),
        ("pred_area", pa.int64()),
        ("target_area", pa.int64()),
        ("status", pa.string()),
    ],
    metadata={"schema": "refcocom-per-example", "version": str(SCHEMA_VERSION)},
)
"""What every score is computed from. Older files hold no more; a table has the column `IOU` beside it."""

IOU = "iou"

KEY_COLUMNS = ("index", "sample_id", "sentence_idx", "image_id")
"""Columns that name an example. Two results that are compared agree in them and in `target_area`, row by row."""

SHOWN_COLUMNS = (*KEY_COLUMNS, "sentence", "category")
"""Columns that tell a person which example it is."""


_STATUS = pa.StringArray.from_buffers(
    3,
    pa.py_buffer(np.cumsum([0, *map(len, STATUSES)]).astype(np.int32)),
    pa.py_buffer("".join(STATUSES).encode()),
)


def per_example(
    store: MaskStore,
    counts: NDArray[np.int64],
    absent: NDArray[np.int64],
    measured: Mapping[str, NDArray[Any]] | None = None,
) -> pa.Table:
    """Make the table of a result.

    Args:
        store: Ground truth.
        counts: [N, 2] intersection and predicted area.
        absent: Indices of the examples that had no prediction.
        measured: [N] or [N, T] columns of metrics besides IoU, and of labels, by name; those of T numbers become lists;
            that of pairs is as `counting.pairs` orders them.

    Returns:
        `SCHEMA`, `IOU`, then the measured columns; N rows. A row of pairs lists those with the later sentences of its
        sample.
    """
    status = np.where(counts[:, 1] > 0, 0, 1)
    status[absent] = 2
    table = store.dataset.described
    for name, column in (
        ("intersection", from_numpy(counts[:, 0])),
        ("pred_area", from_numpy(counts[:, 1])),
        ("target_area", from_numpy(store.areas[store.example_sample])),
        ("status", _STATUS.take(from_numpy(status))),
    ):
        table = table.append_column(name, column)
    table = with_iou(table.cast(SCHEMA).replace_schema_metadata(SCHEMA.metadata))
    for name, column in (measured or {}).items():
        values = from_numpy(np.ascontiguousarray(column).reshape(-1))
        if column.ndim == 2:
            values = pa.FixedSizeListArray.from_arrays(values, column.shape[1])
        elif name == consistency.PAIRS:
            values = consistency.as_lists(values, store.example_sample)
        elif name == PRED_NO_TARGET:
            values = label_array(column)
        table = table.append_column(name, values)
    return table


def with_iou(table: pa.Table) -> pa.Table:
    """Return a result's table with the column `iou` of the official convention, computed if a table of masks lacks it.

    Files written before the column was added hold the counts it is computed from.

    >>> counts = {"intersection": [1, 0], "pred_area": [2, 0], "target_area": [3, 0], "status": ["scored", "empty"]}
    >>> with_iou(pa.table(counts))["iou"].to_pylist()
    [0.25, 1.0]
    """
    if IOU in table.column_names or "intersection" not in table.column_names:
        return table
    place = 1 + table.column_names.index("status")
    return table.add_column(place, IOU, from_numpy(under.ious(OFFICIAL, *under.counts_of(table))))
