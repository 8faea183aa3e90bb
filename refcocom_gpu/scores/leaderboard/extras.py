"""Counts of metrics besides IoU of one prediction file in, their columns of a row of a leaderboard out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.scores import boundary, boxes, causes, consistency, metrics, no_target
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.conventions import OFFICIAL
from refcocom_gpu.scores.leaderboard.columns import CAUSES, EXTRAS
from refcocom_gpu.scores.leaderboard.examples import Examples
from refcocom_gpu.scores.leaderboard.scored import FileResult
from refcocom_gpu.scores.metrics import Floats, Ints


def extra_row(
    result: FileResult,
    absent: NDArray[np.bool_],
    ious: Floats,
    examples: Examples,
    *,
    strict: bool,
) -> dict[str, float]:
    """Return the columns of what was counted for a file.

    Args:
        result: The file.
        absent: [N] whether there is no prediction.
        ious: [N] IoU.
        examples: Those of all files.
        strict: Whether a threshold must be exceeded.
    """
    assert result.counts is not None
    measured, empty, image = result.measured, OFFICIAL.empty, examples.image
    counted = [name for name, extra in EXTRAS.items() if {*extra.counts} <= {*measured}]
    targets = examples.target_area
    rejected = no_target.rejections(result.counts[:, 1], measured.get(no_target.PRED_NO_TARGET))
    row = _no_target_row(rejected, targets, image)
    if "boundary" in counted:
        row |= _boundary_row(boundary.boundary_values(measured, ious, empty), image)
    if "causes" in counted:
        names = ("intersection", "pred_area", "target_area")
        triple = (*result.counts.T, targets)
        columns = {**measured, **dict(zip(names, triple, strict=True)), causes.REJECTED: rejected}
        places = causes.cause_places(columns, absent)
        row |= {CAUSES[of["cause"]]: of["share"] for of in causes.cause_rows(places)}
    if "boxes" in counted:
        truth = boxes.chosen_truth(None, stated={*boxes.STATED_COLUMNS} <= {*measured})
        values = boxes.box_values(measured, truth, empty, strict=strict)
        row |= {name: metrics.mean(of_examples) for name, of_examples in values.items()}
    if "consistency" in counted:
        pairs = consistency.pair_ious(
            measured[consistency.PAIRS], result.counts[:, 1], examples.sample, empty=empty
        )
        # A table has no NaN, which is what sets with one sentence for each object have.
        mean = consistency.pairwise_iou(*pairs)
        row |= {} if math.isnan(mean) else {"pairwise_iou": mean}
    return row


def _boundary_row(values: dict[str, Floats], image: Ints) -> dict[str, float]:
    """Return the columns `BOUNDARY`; without standard errors where all examples are of one image."""
    row = {name: metrics.mean(of_examples) for name, of_examples in values.items()}
    if len(np.unique(image)) > 1:
        ratio = un.ratio_by_image(image, np.stack([*values.values()], axis=1))
        ses = un.cluster_se(ratio).tolist()
        row |= {f"{name}_se": se for name, se in zip(values, ses, strict=True)}
    return row


def _no_target_row(rejected: NDArray[np.bool_], target_area: Ints, image: Ints) -> dict[str, float]:
    """Return the columns `NO_TARGET` that hold a number; nothing where every example has a target."""
    without = target_area == 0
    if not without.any():
        return {}
    row: dict[str, float] = {}
    for name, is_right, is_one in (
        (no_target.NAMES[0], rejected, without),
        (no_target.NAMES[1], ~rejected, ~without),
    ):
        if is_one.any():
            row[name] = no_target.share(is_right[is_one])
        if len(np.unique(image[is_one])) > 1:
            ratio = un.ratio_by_image(image[is_one], is_right[is_one])
            row[f"{name}_se"] = un.cluster_se(ratio).item()
    return row
