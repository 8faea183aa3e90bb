"""Counts of other readings of the same values in, their scores out: at every threshold, and by every interpolation.

`per_example` holds lists of counts, one for each threshold, and columns of counts for each further interpolation; the
metadata of the table says which thresholds they are, which is in use, and which interpolation made the score. A
threshold that is chosen on the examples it is then scored on is optimistic: it fits them, and new ones less well.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.counting.readings import AT_THRESHOLDS, Readings, columns_of
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import INTERPOLATIONS
from refcocom_gpu.scores import metrics
from refcocom_gpu.utils.arrow import to_numpy

if TYPE_CHECKING:
    from collections.abc import Sequence

Ints = NDArray[np.int64]

PRECISION = 0.5
"""The IoU at which a curve gives Pr@X."""

CURVE_SCHEMA = pa.schema(
    [
        ("threshold", pa.float64()),
        ("miou", pa.float64()),
        ("ciou", pa.float64()),
        (f"precision_at_{PRECISION}", pa.float64()),
    ]
)
"""Columns of a curve; a row for each threshold, ascending."""

INTERPOLATION_SCHEMA = pa.schema(
    [("interpolation", pa.string()), ("miou", pa.float64()), ("ciou", pa.float64())]
)
"""Columns of the interpolations side by side; the first makes the score."""

_KEY = b"readings"
"""Of the metadata of a table: JSON of the thresholds, the one in use, and the interpolation of the score."""


class BestThreshold(NamedTuple):
    """The threshold with the highest mean IoU on the examples that it is scored on, which is optimistic.

    Attributes:
        threshold: In the unit of the values; of several equal ones that in use, else the nearest to it.
        miou: Mean IoU there, 0…1.
        gain: By how much that is more than at the threshold in use, 0 or more.
        used: The threshold in use.
    """

    threshold: float
    miou: float
    gain: float
    used: float


def with_readings(table: pa.Table, readings: Readings, used: float) -> pa.Table:
    """Return the table of a result whose metadata says what its columns of other readings hold.

    Args:
        table: One row per example.
        readings: What was counted.
        used: The threshold of the score.
    """
    about = {
        "thresholds": list(readings.thresholds),
        "used": used,
        "interpolation": readings.interpolation,
    }
    return table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()}
    )


def curve(table: pa.Table, *, empty: float, strict: bool) -> pa.Table:
    """Score every threshold that was counted.

    Args:
        table: One row per example.
        empty: IoU where both masks are empty.
        strict: Whether Pr@0.5 counts IoU > 0.5 instead of IoU ≥ 0.5.

    Returns:
        `CURVE_SCHEMA`.

    Raises:
        UsageError: When thresholds were not counted.
    """
    about = _about(table)
    if not about.get("thresholds"):
        raise UsageError(
            "thresholds were not counted; score logits or probabilities with metrics=[iou,thresholds] "
            '(in Python: metrics=["iou", "thresholds"])'
        )
    intersection, area = (_lists(table.column(name)) for name in AT_THRESHOLDS)
    target = to_numpy(table.column("target_area"))
    rows = []
    for k, threshold in enumerate(about["thresholds"]):
        counts = intersection[:, k], area[:, k], target
        ious = metrics.iou(*counts, empty=empty)
        share = metrics.precision_at(ious, (PRECISION,), strict=strict)[PRECISION]
        row = threshold, metrics.mean(ious), metrics.ciou(*counts, empty=empty), share
        rows.append(dict(zip(CURVE_SCHEMA.names, row, strict=True)))
    return pa.Table.from_pylist(rows, CURVE_SCHEMA)


def best(table: pa.Table, of_curve: pa.Table) -> BestThreshold:
    """Return the best threshold of a curve.

    Args:
        table: One row per example.
        of_curve: From `curve`.
    """
    used = float(_about(table)["used"])
    pairs = list(zip(of_curve["threshold"].to_pylist(), of_curve["miou"].to_pylist(), strict=True))
    now = dict(pairs)[used]
    threshold, miou = max(pairs, key=lambda pair: (pair[1], -abs(pair[0] - used)))
    return BestThreshold(threshold, miou, miou - now, used)


def interpolations(table: pa.Table, *, empty: float) -> pa.Table:
    """Score every interpolation that was counted, at the threshold in use.

    Args:
        table: One row per example.
        empty: IoU where both masks are empty.

    Returns:
        `INTERPOLATION_SCHEMA`: that of the score first.

    Raises:
        UsageError: When no other was counted.
    """
    others = others_of(table)
    if not others:
        raise UsageError(
            "one interpolation was counted; score logits or probabilities with interpolation=[bilinear,nearest,bicubic]"
        )
    rows = []
    for name, columns in (
        (_about(table)["interpolation"], ("intersection", "pred_area")),
        *((name, columns_of(name)) for name in others),
    ):
        counts = [to_numpy(table.column(column)) for column in (*columns, "target_area")]
        score = metrics.mean(metrics.iou(*counts, empty=empty))
        rows.append(
            {"interpolation": name, "miou": score, "ciou": metrics.ciou(*counts, empty=empty)}
        )
    return pa.Table.from_pylist(rows, INTERPOLATION_SCHEMA)


def has_curve(table: pa.Table) -> bool:
    """Return whether thresholds were counted."""
    return bool(_about(table).get("thresholds"))


def others_of(table: pa.Table) -> Sequence[str]:
    """Return the interpolations that were counted beside that of the score."""
    return [name for name in INTERPOLATIONS if columns_of(name)[0] in table.column_names]


def summary(table: pa.Table, *, empty: float, strict: bool) -> dict[str, Any]:
    """Return what a summary says of other readings, ready for JSON; nothing where none was counted."""
    said: dict[str, Any] = {}
    if has_curve(table):
        rows = curve(table, empty=empty, strict=strict)
        said["thresholds"] = {
            "used": _about(table)["used"],
            "best_on_these_examples": best(table, rows)._asdict(),
            "curve": rows.to_pylist(),
        }
    if others_of(table):
        said["interpolations"] = interpolations(table, empty=empty).to_pylist()
    return said


def _about(table: pa.Table) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    return about


def _lists(column: pa.ChunkedArray) -> Ints:
    """Return a column of lists of T numbers as [N, T]."""
    numbers = to_numpy(column.combine_chunks().flatten())
    return numbers.reshape(len(column), column.type.list_size)
