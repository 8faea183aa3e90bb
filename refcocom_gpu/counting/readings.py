"""Options and metrics in, the columns for other readings of the same values out: other thresholds and interpolations.

A counter adds them to a row after the columns of `measures`: the intersections at T thresholds, the areas at T
thresholds, then intersection and area of each further interpolation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refcocom_gpu.counting.measure import Ints
from refcocom_gpu.counting.measures import THRESHOLDS, Column
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import BILINEAR, ReadOptions
from refcocom_gpu.predictions.value_options import ValueOptions

AT_THRESHOLDS = ("intersection_at", "pred_area_at")
"""Columns of `per_example.parquet`: lists of T counts, one for each threshold."""


def columns_of(interpolation: str) -> tuple[str, str]:
    """Return the columns of `per_example.parquet` that hold the counts of another interpolation.

    >>> columns_of("bicubic")
    ('intersection_bicubic', 'pred_area_bicubic')
    """
    return f"intersection_{interpolation}", f"pred_area_{interpolation}"


@dataclass(frozen=True, slots=True)
class Readings:
    """What is counted of values besides the masks that make the score.

    Attributes:
        interpolation: How values are resized for the score.
        thresholds: Those at which they are counted too, ascending; none without the metric.
        others: Interpolations that are counted too.
    """

    interpolation: str = BILINEAR
    thresholds: tuple[float, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def n_columns(self) -> int:
        """Number of columns that they add to a row."""
        return 2 * (len(self.thresholds) + len(self.others))

    @property
    def need_values(self) -> bool:
        """Whether masks are refused: only values have thresholds and are interpolated."""
        return self != Readings()

    def columns(self, rows: Ints) -> Iterator[tuple[str, Column]]:
        """Yield the columns by name.

        Args:
            rows: [N, `n_columns`] what counters added.

        Returns:
            [N, T] or [N] int64 each.
        """
        n, at = len(rows), 2 * len(self.thresholds)
        if self.thresholds:
            both = rows[:, :at].reshape(n, 2, len(self.thresholds))
            yield from zip(AT_THRESHOLDS, np.moveaxis(both, 1, 0), strict=True)
        for name in self.others:
            yield from zip(columns_of(name), rows[:, at : at + 2].T, strict=True)
            at += 2


def readings_of(options: ReadOptions, metrics: Sequence[str]) -> Readings:
    """Return what is counted besides the score.

    Args:
        options: How predictions are read.
        metrics: From `measures.chosen_metrics`.

    Raises:
        UsageError: For thresholds without the metric, and for options that are about masks.
    """
    if not isinstance(options, ValueOptions):
        return Readings()
    asked = THRESHOLDS in metrics
    if options.thresholds is not None and not asked:
        raise UsageError("thresholds=[…] are those of a metric: pass metrics=[iou,thresholds] too")
    first, *others = options.interpolations
    found = Readings(first, options.levels if asked else (), tuple(others))
    if found.need_values:
        for name in ("label", "resize_masks", "combine"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"{name} is about masks; thresholds and interpolation need logits or probabilities"
                )
    return found
