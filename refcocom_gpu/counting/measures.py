"""Names of metrics in, what is counted for them besides IoU out: blocks of int64 columns, and who counts them.

A `Metric` names its columns. A `Measure` counts them on one side: in host memory or on a device. A counter asks each
measure for its columns of a stack of masks, or of a column of runs; logits are resized to masks first. With the metric
`iou` alone there are no measures, and nothing but IoU is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.measure import Ints, Measure, Vector, runs_by_size
from refcocom_gpu.counting.rows import N_COLUMNS
from refcocom_gpu.counting.squashed import HostSquashed
from refcocom_gpu.counting.warped import HostWarped
from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.boxes import mask_boxes, run_boxes
from refcocom_gpu.masks.squash import COLUMNS, RESIZED, SQUASHED
from refcocom_gpu.masks.warp import COLUMNS as WARPED_COLUMNS
from refcocom_gpu.masks.warp import COUNTED, WARPED
from refcocom_gpu.store.others import NOBODY, pair_counts

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

Column = NDArray[Any]

IOU = "iou"
"""The metric that is always counted."""

THRESHOLDS = "thresholds"
"""The metric of values at several thresholds; `readings` says what it counts, which no mask can tell."""

CONSISTENCY, PAIRS = "consistency", "pair_intersection"
"""The metric of two predictions for one object, and its column, which no mask tells by itself; see `pairs`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The columns of one metric.

    Attributes:
        columns: All of them, as `per_example.parquet` names them, in this order. Those that `stored` may give and does
            not give for a store are left out.
        counted: Those that a prediction decides, in the order in which a measure counts them.
        stored: Those that the ground truth decides: from a store, [M] for each.
        implies: Metrics without whose columns these mean little.
    """

    columns: tuple[str, ...]
    counted: tuple[str, ...]
    stored: Callable[[MaskStore], dict[str, Column]]
    implies: tuple[str, ...] = ()


def _stored_boundaries(store: MaskStore) -> dict[str, Column]:
    boundaries, contours = store.boundaries
    return {"target_boundary": boundaries.areas, "contour_target": contours.areas}


PRED_BOX = ("pred_x0", "pred_y0", "pred_x1", "pred_y1")
"""Columns of the tight box of a predicted mask; see `masks.boxes`."""

TARGET_BOX = ("target_x0", "target_y0", "target_x1", "target_y1")
"""Columns of the tight box of the true mask."""

BBOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
"""Columns of the box that the record states; only where all records state one."""


def _stored_boxes(store: MaskStore) -> dict[str, Column]:
    stated = store.dataset.boxes
    return {
        **dict(zip(TARGET_BOX, store.boxes.T, strict=True)),
        **({} if stated is None else dict(zip(BBOX, stated.T, strict=True))),
    }


WARPED_COUNTS = (*WARPED_COLUMNS[:2], COUNTED)

METRICS: Mapping[str, Metric] = {
    IOU: Metric((), (), lambda _: {}),
    "boundary": Metric(
        columns=(
            "boundary_intersection", "pred_boundary", "target_boundary", "contour_pred", "contour_target",
            "contour_pred_matched", "contour_target_matched",
        ),
        counted=(
            "boundary_intersection", "pred_boundary", "contour_pred", "contour_pred_matched", "contour_target_matched",
        ),
        stored=_stored_boundaries,
    ),
    "causes": Metric(
        columns=("other_intersection", "other_area"),
        counted=("other_intersection", "other_area"),
        stored=lambda _: {},
        implies=("boundary",),
    ),
    "boxes": Metric((*PRED_BOX, *TARGET_BOX, *BBOX), PRED_BOX, _stored_boxes),
    THRESHOLDS: Metric((), (), lambda _: {}),
    CONSISTENCY: Metric((PAIRS,), (), lambda _: {}),
    SQUASHED: Metric(
        columns=(*COLUMNS, RESIZED),
        counted=(*COLUMNS[:2], RESIZED),
        stored=lambda store: {COLUMNS[2]: store.squashed.areas},
    ),
    WARPED: Metric(WARPED_COUNTS, WARPED_COUNTS, lambda _: {}),
}  # fmt: skip


OF_MASKS = tuple(name for name in METRICS if name not in (THRESHOLDS, SQUASHED, WARPED))
"""The metrics of masks of their images' sizes."""

RANKED = (IOU, "boundary")
"""The metrics by which sets of predictions are compared."""

ALONE = tuple(name for name in OF_MASKS if name != CONSISTENCY)
"""The metrics that take each mask by itself; the others need all of an object at once."""


class HostBoundary(Measure):
    """Counts for the metric `boundary` in host memory.

    Args:
        store: Ground truth.
        threads: 0 for all cores.
    """

    def __init__(self, store: MaskStore, threads: int) -> None:
        self._store, self._threads = store, threads
        self._truth = (store.heights, store.widths, *store.boundaries, store.word_offsets)

    def masks(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """As `Measure.masks`."""
        counted = cpu.mask_boundary_counts(masks, sample, *self._truth, threads=self._threads)
        return counted.counts

    def runs(self, ends: NDArray[np.int32], offsets: Ints, sample: Ints) -> Ints:
        """As `Measure.runs`."""
        counted = cpu.run_boundary_counts(
            ends, offsets, sample, *self._truth, threads=self._threads
        )
        return counted.counts


class HostCauses(Measure):
    """Counts for the metric `causes` in host memory: the other sample of the image that a prediction fits best.

    Args:
        store: Ground truth.
        threads: 0 for all cores.
    """

    def __init__(self, store: MaskStore, threads: int) -> None:
        self._store, self._threads = store, threads

    def masks(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """As `Measure.masks`."""
        store, columns = self._store, np.zeros((len(masks), 2), np.int64)
        has_others = np.flatnonzero((store.others[sample] != NOBODY).any(1))
        sizes = store.heights[sample], store.widths[sample]
        for rows, ends, offsets in runs_by_size(masks, *sizes, has_others, threads=self._threads):
            columns[rows] = self.runs(ends, offsets, sample[rows])
        return columns

    def runs(self, ends: NDArray[np.int32], offsets: Ints, sample: Ints) -> Ints:
        """As `Measure.runs`."""
        store, others = self._store, self._store.others[sample]
        rows, places = np.nonzero(others != NOBODY)
        counts = np.zeros((*others.shape, 2), np.int64)
        counts[rows, places] = pair_counts(
            rle.Column(*cpu.rle_write(ends, offsets, threads=self._threads)),
            rows,
            others[rows, places],
            store.ends,
            store.run_offsets,
            store.pixels,
            threads=self._threads,
        )
        return np.stack(best_other(counts, store.areas[others]), 1)


class HostBoxes(Measure):
    """Finds tight boxes for the metric `boxes` in host memory.

    Args:
        store: Ground truth.
        threads: Taken as of every measure; NumPy finds the boxes on one.
    """

    def __init__(self, store: MaskStore, threads: int) -> None:
        self._heights, self._widths = store.heights, store.widths

    def masks(self, masks: NDArray[np.uint8], sample: Ints) -> Ints:
        """As `Measure.masks`."""
        return mask_boxes(masks, self._heights[sample], self._widths[sample])

    def runs(self, ends: NDArray[np.int32], offsets: Ints, sample: Ints) -> Ints:
        """As `Measure.runs`."""
        return run_boxes(ends, offsets, self._heights[sample])


HOST_MEASURES: Mapping[str, Callable[[MaskStore, int], Measure]] = {
    "boundary": HostBoundary,
    "causes": HostCauses,
    "boxes": HostBoxes,
    SQUASHED: HostSquashed,
    WARPED: HostWarped,
}


def best_other(counts: Vector, areas: Vector) -> tuple[Vector, Vector]:
    """Choose the candidate with the highest IoU, the first of several; compared as integers, so no order matters.

    Args:
        counts: [K, c, 2] intersection with each candidate, 0 where there is none, and predicted area.
        areas: [K, c] areas of the candidates.

    Returns:
        [K] its intersection and [K] its area; 0 for both where no candidate shares a pixel.

    >>> best_other(np.array([[[2, 4], [3, 4]], [[0, 4], [0, 4]]]), np.array([[2, 9], [5, 5]]))
    (array([2, 0]), array([2, 0]))
    """
    nothing = counts[:, :0, 0].sum(1)
    intersection, area, union = nothing, nothing, nothing + 1
    for place in range(counts.shape[1]):
        shared, other = counts[:, place, 0], areas[:, place]
        joined = counts[:, place, 1] + other - shared
        # No image has more than 2**30 pixels, so the products fit 64 bits.
        better = shared * union > intersection * joined
        intersection = better * shared + ~better * intersection
        area = better * other + ~better * area
        union = better * joined + ~better * union
    return intersection, area


def chosen_metrics(
    metrics: str | Sequence[str], *, known: Collection[str] = METRICS, where: str = ""
) -> tuple[str, ...]:
    """Return the metrics that are counted: IoU, which always is, those that were asked for, and what they imply.

    Args:
        metrics: A name or names.
        known: Those that may be asked for.
        where: What asks, for the message.

    Raises:
        UsageError: For another name; the message lists the known ones.

    >>> chosen_metrics("boundary"), chosen_metrics(["iou"]), chosen_metrics("causes")
    (('iou', 'boundary'), ('iou',), ('iou', 'boundary', 'causes'))
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for name in names:
        if name not in METRICS:
            hint = f" (several are [{name}])" if "," in name else ""
            raise UsageError(f"unknown metric {name!r}{hint}; known: {', '.join(known)}")
        if name not in known:
            raise UsageError(f"{where} counts {', '.join(known)}, not {name}; score does")
    wanted = {IOU, *names, *(implied for name in names for implied in METRICS[name].implies)}
    return tuple(name for name in METRICS if name in wanted)


def n_columns(metrics: Sequence[str]) -> int:
    """Return how many columns the row of a prediction has; see `counting.rows`."""
    return N_COLUMNS + sum(len(METRICS[name].counted) for name in metrics)


def measured_columns(
    rows: Ints, sample: Ints, metrics: Sequence[str], store: MaskStore
) -> dict[str, Column]:
    """Return the columns of metrics besides IoU by name.

    Args:
        rows: [K, C] rows of examples, 0 where there was no prediction.
        sample: [K] the sample of each.
        metrics: From `chosen_metrics`.
        store: Ground truth.

    Returns:
        [K] for each column: int64, or float64 for a box that a record states.
    """
    found: dict[str, Column] = {}
    at = N_COLUMNS
    for metric in (METRICS[name] for name in metrics):
        given: dict[str, Column] = {
            **{name: rows[:, at + k] for k, name in enumerate(metric.counted)},
            **{name: m[sample] for name, m in metric.stored(store).items()},
        }
        found.update({name: given[name] for name in metric.columns if name in given})
        at += len(metric.counted)
    return found
