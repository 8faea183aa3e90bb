"""Counts of every example in; why each prediction fails, or that it is right, out: pure functions of `per_example`.

I, P and T are the areas of the intersection, the predicted and the true mask; precision is I / P, recall I / T. Each
example has the first cause of `CAUSES` that holds:

| cause | holds where |
|---|---|
| missing | there is no prediction |
| right rejection, false alarm | T = 0, and the prediction rejects, or does not; see `scores.no_target` |
| empty | P = 0 |
| wrong instance | IoU < 0.5, and IoU ≥ 0.5 with another annotated sample of the image, which the target overlaps less |
| right | IoU ≥ 0.8 and boundary IoU ≥ 0.6 |
| coarse | IoU ≥ 0.5 |
| part | precision ≥ 0.8: within the target, but too little of it |
| over-extended | recall ≥ 0.8: all of the target, and too much around it |
| mixed | I > 0 |
| off target | no pixel of the target, and no other annotated sample fits |

What is off target may well be an object: RefCOCO-M annotates only those that are referred to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import boundary, metrics
from refcocom_gpu.scores.boxes import refuse_given
from refcocom_gpu.scores.no_target import rejections_of
from refcocom_gpu.scores.under import MISSING
from refcocom_gpu.utils.arrow import to_numpy

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]

NO_TARGET = ("right rejection", "false alarm")
"""Causes of examples without a target, of which RefCOCO-M has none."""

CAUSES = (
    MISSING, *NO_TARGET, "empty", "wrong instance", "right", "coarse", "part", "over-extended", "mixed", "off target",
)  # fmt: skip
"""All causes; of those that hold for an example, it has the first."""

COLUMNS = (
    "intersection", "pred_area", "target_area", *boundary.IOU_COLUMNS, "other_intersection", "other_area",
)  # fmt: skip

REJECTED = "rejected"
"""Beside these, whether the prediction says that there is no target."""

MOVED_BY = 0.1
"""How far each threshold is moved to show what the shares owe to it."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which value on each ratio counts as high.

    They are choices, not measurements: `moved_rows` shows what the shares owe to each.

    Attributes:
        found: IoU with the target, as Pr@0.5 has it. Of disjoint masks, a prediction can exceed 0.5 with one at most.
        other: IoU with another sample of the image; as `found`, so that both are judged alike.
        right: IoU of a right mask.
        boundary: Boundary IoU of a right mask; lower than `right`, because it forgives less at the contour.
        part: Precision of a prediction that lies within the target.
        over_extended: Recall of a prediction that covers the target.
    """

    found: float = 0.5
    other: float = 0.5
    right: float = 0.8
    boundary: float = 0.6
    part: float = 0.8
    over_extended: float = 0.8


DEFAULT = Thresholds()


def cause_places(
    columns: Mapping[str, Ints], missing: NDArray[np.bool_], thresholds: Thresholds = DEFAULT
) -> Ints:
    """Return the cause of each example.

    Args:
        columns: [N] each of `COLUMNS`, and `REJECTED` where an empty mask is not all that rejects.
        missing: [N] whether there is no prediction.
        thresholds: Others than the default.

    Returns:
        [N] its place in `CAUSES`.

    >>> counts = dict(zip(COLUMNS, np.array([[9, 3], [10, 4], [10, 9], [8, 1], [10, 4], [9, 9], [0, 0], [0, 0]])))
    >>> [CAUSES[place] for place in cause_places(counts, np.array([False, False]))]
    ['right', 'mixed']
    """
    shared, pred, target, *edges, other_shared, other = (columns[name] for name in COLUMNS)
    iou = metrics.iou(shared, pred, target)
    other_iou = metrics.iou(other_shared, pred, other, empty=0.0)
    precision, recall = shared / np.maximum(pred, 1), shared / np.maximum(target, 1)
    found = iou >= thresholds.found
    holds = [
        missing,
        (target == 0) & columns.get(REJECTED, pred == 0),
        target == 0,
        pred == 0,
        ~found & (other_iou >= thresholds.other),
        (iou >= thresholds.right) & (metrics.iou(*edges) >= thresholds.boundary),
        found,
        precision >= thresholds.part,
        recall >= thresholds.over_extended,
        shared > 0,
    ]
    return np.select(holds, range(len(holds)), len(holds))


def are_counted(table: pa.Table) -> bool:
    """Return whether a table of examples holds the columns of this module."""
    return {*COLUMNS} <= {*table.column_names}


def cause_columns(table: pa.Table) -> tuple[dict[str, Ints], NDArray[np.bool_]]:
    """Return what `cause_places` takes of a table of examples.

    Raises:
        UsageError: When causes were not counted.
    """
    refuse_given(table)
    if not are_counted(table):
        raise UsageError(
            "causes were not counted; score with metrics=[iou,causes] "
            '(in Python: metrics=["iou", "causes"])'
        )
    missing = [status == MISSING for status in table.column("status").to_pylist()]
    columns = {name: to_numpy(table.column(name)) for name in COLUMNS}
    return columns | {REJECTED: rejections_of(table)}, np.array(missing, np.bool_)


def cause_rows(places: Ints) -> list[dict[str, Any]]:
    """Return `cause`, `n_examples` and `share` of each cause, also of those that no example has.

    Args:
        places: [N] from `cause_places`. Where no example is without a target, the causes of such are left out.

    >>> cause_rows(np.array([0, 5, 5, 5]))[0]
    {'cause': 'missing', 'n_examples': 1, 'share': 0.25}
    """
    n = np.bincount(places, minlength=len(CAUSES)).tolist()
    no_target = sum(n[CAUSES.index(cause)] for cause in NO_TARGET)
    return [
        {"cause": cause, "n_examples": k, "share": k / max(len(places), 1)}
        for cause, k in zip(CAUSES, n, strict=True)
        if no_target or cause not in NO_TARGET
    ]


def moved_rows(columns: Mapping[str, Ints], missing: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the shares with each threshold lower and higher by `MOVED_BY`, the others as they are.

    Args:
        columns: As of `cause_places`.
        missing: As of `cause_places`.

    Returns:
        `threshold`, its `value`, and `shares` by cause, two rows for each threshold.
    """
    rows = []
    for name, default in asdict(DEFAULT).items():
        for step in (-MOVED_BY, MOVED_BY):
            value = round(default + step, 9)
            places = cause_places(columns, missing, replace(DEFAULT, **{name: value}))
            shares = {row["cause"]: row["share"] for row in cause_rows(places)}
            rows.append({"threshold": name, "value": value, "shares": shares})
    return rows


def summary(columns: Mapping[str, Ints], missing: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what a summary says of causes, ready for JSON; the arguments are those of `cause_places`."""
    return {
        "thresholds": asdict(DEFAULT),
        "shares": cause_rows(cause_places(columns, missing)),
        "moved": moved_rows(columns, missing),
    }
