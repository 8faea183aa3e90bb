"""IoUs of two models in, their difference in mIoU within groups of examples out.

The groups are the slices of `slices`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.scores import metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.slices import MIN_IMAGES, is_open, slicing_of
from refcocom_gpu.utils.arrow import to_numpy

BREAKDOWNS = ("category", "size", "length")
"""The groupings of every comparison; others are made if asked for."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One score of two models, their difference, and its uncertainty.

    Attributes:
        label: Name of the score or of the group.
        n_examples: Number of examples scored.
        n_images: Number of images that hold them.
        a: The first model's score, 0…1.
        b: The second model's score, 0…1.
        difference: a − b.
        se: Standard error of the difference, clustered by image; None where there are too few images to estimate it.
        low: Lower end of the difference's interval, or None.
        high: Upper end, or None.
    """

    label: str
    n_examples: int
    n_images: int
    a: float
    b: float
    difference: float
    se: float | None = None
    low: float | None = None
    high: float | None = None


def breakdowns(
    table: pa.Table, names: Iterable[str], a: Floats, b: Floats, level: float
) -> dict[str, list[Difference]]:
    """Return breakdowns of two results; see `by_group`.

    Args:
        table: `per_example` of either result: N rows.
        names: Of groupings.
        a: [N] IoU of the first model.
        b: [N] IoU of the second.
        level: Probability that all intervals of a breakdown cover.

    Returns:
        Name to groups. Sizes, lengths and the like ascend. Categories and tags begin with the surest difference and end
        with those whose uncertainty could not be estimated; equally sure ones are ordered by name.
    """
    image = to_numpy(table.column("image_id"))
    differences = {
        name: by_group(slicing_of(table, name).groups(), a, b, image, level) for name in names
    }
    for name in filter(is_open, differences):
        differences[name].sort(key=lambda group: (_doubt(group), group.label))
    return differences


def _doubt(group: Difference) -> float:
    """Return a sort key: the surer the difference, the smaller the key."""
    if group.se is None:
        return math.inf
    if group.se == 0:
        # The difference is the same in every image, which is as sure as images can tell.
        return -math.inf
    return -abs(group.difference) / group.se


def by_group(
    groups: list[tuple[str, NDArray[np.bool_]]],
    a: Floats,
    b: Floats,
    image: NDArray[np.int64],
    level: float,
) -> list[Difference]:
    """Return the difference in mIoU within each group, with intervals that hold jointly.

    The interval of a group is d ± t·se. Here se is clustered by the G images that have examples of the group, and t is
    the quantile of Student's t with G − 1 degrees of freedom at level^(1/K) for K groups (Šidák, Rectangular Confidence
    Regions for the Means of Multivariate Normal Distributions, JASA 62, 1967: valid whatever the dependence between the
    groups, and nearly exact where there is none, as here). A bootstrap does not serve: some resample would hold no
    example of a small group.

    Args:
        groups: Labels and examples; empty groups are left out.
        a: [N] IoU of the first model.
        b: [N] IoU of the second.
        image: [N] the image of each example.
        level: Probability that all intervals cover.

    Returns:
        One difference per group, in the same order.

    >>> groups = [("even", np.arange(80) % 2 == 0), ("one", np.arange(80) == 1)]
    >>> differences = by_group(groups, np.linspace(0, 1, 80), np.full(80, 0.2), np.arange(80), 0.95)
    >>> [(group.label, round(group.difference, 3), group.se is None) for group in differences]
    [('even', 0.294, False), ('one', -0.187, True)]
    """
    groups = [(label, rows) for label, rows in groups if rows.any()]
    differ = a != b
    enough = [len(np.unique(image[rows & differ])) >= MIN_IMAGES for _, rows in groups]
    level_of_each = level ** (1 / max(sum(enough), 1))
    return [
        _within(label, a[rows], b[rows], image[rows], level_of_each if has_interval else None)
        for (label, rows), has_interval in zip(groups, enough, strict=True)
    ]


def _within(
    label: str, a: Floats, b: Floats, image: NDArray[np.int64], level: float | None
) -> Difference:
    """Return the difference within one group; `level` is that of its interval, None for no interval."""
    n_images = len(np.unique(image))
    means = metrics.mean(a), metrics.mean(b)
    difference = means[0] - means[1]
    if level is None:
        return Difference(label, len(a), n_images, *means, difference)
    # From the difference itself, so that swapping the models changes no bit.
    se = float(un.cluster_se(un.ratio_by_image(image, a - b))[0])
    reach = un.interval_reach(n_images, level) * se
    return Difference(
        label, len(a), n_images, *means, difference, se, difference - reach, difference + reach
    )
