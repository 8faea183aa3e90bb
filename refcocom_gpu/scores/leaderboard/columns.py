"""The columns of a leaderboard: their names and types, what a reader may conclude from them, and what is reserved."""

from __future__ import annotations

import pyarrow as pa

from refcocom_gpu.scores import boundary
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
"""Columns before `n_examples` where boundaries were counted: means over examples and their standard errors."""

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

RESERVED = frozenset((*HEADS, *(name for name, _ in (*NAMES, *SCORES)), *SCHEMA.names, IOU))
"""Names that no column of a manifest may have, here or beside the counts of examples: it has one name everywhere."""

BOUNDARY_RESERVED = frozenset(
    (*boundary.LABELS, *boundary.COLUMNS, *(name for name, _ in BOUNDARY))
)
"""Names that are reserved too where boundaries were counted."""

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


def score_columns(*, boundaries: bool) -> tuple[tuple[str, pa.DataType], ...]:
    """Return the columns after the manifest's: `SCORES`, and `BOUNDARY` among them where boundaries were counted."""
    at = [name for name, _ in SCORES].index("n_examples")
    return (*SCORES[:at], *(BOUNDARY if boundaries else ()), *SCORES[at:])
