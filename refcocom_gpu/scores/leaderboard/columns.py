"""The columns of a leaderboard: their names and types, what a reader may conclude from them, and what is reserved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from refcocom_gpu.scores import boundary, boxes, causes, consistency, no_target
from refcocom_gpu.scores.example_table import IOU, SCHEMA
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS

NAMES = (("rank", pa.int64()), ("model", pa.string()), ("path", pa.string()))
"""Columns before the manifest's."""

SIZES = tuple((f"miou_{size}", pa.float64()) for size in ("small", "medium", "large"))
"""Columns of mIoU by the size of the true mask: COCO's, as the slices `size`; null where no mask is of that size."""

SCORES = (
    ("miou", pa.float64()),
    ("miou_se", pa.float64()),
    ("best_of", pa.int64()),
    ("rank_low", pa.int64()),
    ("rank_high", pa.int64()),
    ("like_best", pa.bool_()),
    ("difference", pa.float64()),
    ("difference_low", pa.float64()),
    ("difference_high", pa.float64()),
    ("ciou", pa.float64()),
    *((f"pr{round(100 * x)}", pa.float64()) for x in PRECISION_THRESHOLDS),
    ("miou_per_instance", pa.float64()),
    ("hard_pass_rate", pa.float64()),
    *SIZES,
    ("n_examples", pa.int64()),
    ("n_missing", pa.int64()),
    ("n_empty", pa.int64()),
    ("digest", pa.string()),
    ("error", pa.string()),
    ("warnings", pa.string()),
)
"""Columns after the manifest's; scores and differences are shares of 1."""

BOUNDARY = tuple((f"{name}{end}", pa.float64()) for name in boundary.NAMES for end in ("", "_se"))
"""Means over examples and their standard errors."""

CAUSES = {cause: f"cause_{cause.replace(' ', '_').replace('-', '_')}" for cause in causes.CAUSES}
"""The column of each cause: its share of the examples."""

HEADS = (
    "rank",
    "model",
    "mIoU",
    "ranks",
    "best?",
    "cIoU",
    "Pr@0.5",
    "Pr@0.9",
    "missing",
    "best of",
)
"""Heads of the columns of a leaderboard for people."""

NO_TARGET = tuple((f"{name}{end}", pa.float64()) for name in no_target.NAMES for end in ("", "_se"))
"""Columns before `n_examples` where some examples have no target: N-acc, T-acc and their standard errors."""

RESERVED = frozenset(
    (
        *HEADS,
        *(name for name, _ in (*NAMES, *SCORES, *NO_TARGET)),
        *SCHEMA.names,
        IOU,
        *no_target.LABELS,
        no_target.PRED_NO_TARGET,
    )
)
"""Names that no column of a manifest may have, here or beside the counts of examples: it has one name everywhere."""

SELECTION = (
    "Each row is the best of all with the same {}, chosen by its mIoU on this set. The highest of several scores is "
    "too high on average, and the more there are, the more so: choose a checkpoint on other data, then report its "
    "score here."
)
"""What a reader must know of rows that were chosen by their score."""

MEANING = {
    "miou_se": "Standard error of mIoU over other images like these: images are the unit, because expressions of one "
    "image are not independent.",
    "difference": "mIoU minus that of the first row; the intervals cover the true differences of all pairs of models "
    "at once with the probability `level`, so the best may be chosen after looking.",
    "rank": "From 1 + how many models are surely better to the number of models − how many are surely worse, surely "
    "meaning that the interval of the difference excludes 0; all true ranks lie within at once at the same level.",
    "best_of": "How many files the row was chosen from by its mIoU (best_per); null where every file has a row. The "
    "intervals of differences hold for all files at once, so they allow for the choice; mIoU itself does not.",
    "miou_per_instance": "Mean over masks of the mean IoU of their expressions.",
    "hard_pass_rate": "Share of masks all of whose expressions reach IoU 0.5.",
    "miou_small": "mIoU where the true mask has fewer than 32² pixels; `miou_medium` than 96²; `miou_large` the rest.",
    "like_best": "The first row is not surely better: its lead may be chance.",
}
"""What a reader may conclude from a column."""

BOUNDARY_MEANING = {
    "boundary_iou": "Mean IoU of the pixels within 2 % of the diagonal from each contour; its standard error, "
    "`boundary_iou_se`, is like that of mIoU, as are the two below. They decide no rank.",
    "min_mask_boundary_iou": "Mean of the lower of IoU and boundary IoU.",
    "boundary_f": "Mean F-measure of the contours, whose pixels match within 0.8 % of the diagonal.",
}
"""The same, for `BOUNDARY`."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What a leaderboard says of a metric besides IoU, where it was counted for any file.

    Attributes:
        counts: Columns of counts of each example, by which it is known.
        columns: Its columns, before `n_examples`.
        heads: The columns that people are shown, with their heads.
        meaning: What a reader may conclude from a column.
    """

    counts: tuple[str, ...]
    columns: tuple[tuple[str, pa.DataType], ...]
    heads: Mapping[str, str]
    meaning: Mapping[str, str]


EXTRAS: Mapping[str, Extra] = {
    "boundary": Extra(
        boundary.COLUMNS,
        BOUNDARY,
        dict(zip(boundary.NAMES, boundary.LABELS, strict=True)),
        BOUNDARY_MEANING,
    ),
    "causes": Extra(
        ("other_intersection", "other_area"),
        tuple((name, pa.float64()) for name in CAUSES.values()),
        {},
        {"cause_…": "Share of the examples that have this cause; `scores.causes` defines them."},
    ),
    "boxes": Extra(
        (*boxes.PRED_COLUMNS, *boxes.TIGHT_COLUMNS),
        tuple((name, pa.float64()) for name in boxes.NAMES),
        dict(zip(boxes.NAMES, ("box IoU", f"box accuracy@{boxes.THRESHOLD}"), strict=True)),
        {
            "box_iou": "Mean IoU of the tight boxes of the predicted masks with the boxes of the records, or where not "
            "every record has one with the tight boxes of the true masks; `box_accuracy` is Pr@0.5 of it.",
        },
    ),
    "consistency": Extra(
        (consistency.PAIRS,),
        (("pairwise_iou", pa.float64()),),
        {"pairwise_iou": "pairwise IoU"},
        {"pairwise_iou": "Mean IoU of each two predictions for one mask, right or wrong."},
    ),
}
"""By the name of the metric."""


UNTARGETED = Extra(
    (),
    NO_TARGET,
    dict(zip(no_target.NAMES, no_target.LABELS, strict=True)),
    {
        "n_acc": "Share of the expressions without a target that are rejected, by a label or an empty mask; its "
        "standard error, `n_acc_se`, is like that of mIoU, over the images that have such expressions.",
        "t_acc": "Share of the expressions with a target that are not rejected.",
    },
)
"""What a leaderboard says of a set in which some examples have no target, whatever was counted."""


def extras_of(counted: Collection[str], *, untargeted: bool = False) -> list[Extra]:
    """Return what a leaderboard says besides IoU.

    Args:
        counted: Names of the columns of counts that any file has.
        untargeted: Whether some examples have no target.
    """
    extras = [extra for extra in EXTRAS.values() if {*extra.counts} <= {*counted}]
    return [*extras, UNTARGETED] if untargeted else extras


def reserved(counted: Collection[str]) -> set[str]:
    """Return the names that no column of a manifest may have: `RESERVED`, and those of what was counted.

    Args:
        counted: As of `extras_of`.
    """
    extras = extras_of(counted)
    names = {name for extra in extras for name, _ in extra.columns}
    return {
        *RESERVED,
        *counted,
        *names,
        *(head for extra in extras for head in extra.heads.values()),
    }


def score_columns(extras: Sequence[Extra]) -> tuple[tuple[str, pa.DataType], ...]:
    """Return the columns after the manifest's: `SCORES`, and among them those of metrics besides IoU."""
    at = [name for name, _ in SCORES].index("n_examples")
    return (*SCORES[:at], *(column for extra in extras for column in extra.columns), *SCORES[at:])
