"""IoUs of two models in, their difference in mIoU within groups of examples out.

Examples are grouped by category, by mask size and by the length of the expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refcocom_gpu.scores import metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.utils.arrow import to_numpy

SMALL, LARGE = 32**2, 96**2
"""Areas in pixels between COCO's small, medium and large objects; RefCOCO's images are COCO's."""

SHORT, LONG = 2, 5
"""Words: an expression of up to 2 is short (`left man`), one of 5 or more is long."""

MIN_IMAGES = 20
"""A group gets an interval if the two models differ in at least this many of its images.

Measured on simulated groups (expressions of an image alike, IoU skewed, 3,000 to 4,000 samples) whose intervals should
miss in 0.3 to 0.5 % of the samples. With 20 images that differ they missed in up to 1 %. With 20 images of which only
some differ, because one model fails now and then where the other does not, they missed in 10 %; with 10 such images,
in 29 %.
"""


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


Labels = list[tuple[str, NDArray[np.bool_]]]
"""The groups of a breakdown: a label, and [N] whether each example belongs to it."""


def categories(table: pa.Table) -> Labels:
    """Group a result's table by category; examples without a category are `(none)`.

    >>> [(name, rows.tolist()) for name, rows in categories(pa.table({"category": ["cow", "", "cow"]}))]
    [('(none)', [False, True, False]), ('cow', [True, False, True])]
    """
    encoded = pc.fill_null(table.column("category").combine_chunks(), "").dictionary_encode()
    codes, names = to_numpy(encoded.indices), encoded.dictionary.to_pylist()
    groups = [(name or "(none)", codes == code) for code, name in enumerate(names)]
    return sorted(groups, key=lambda group: group[0])


def sizes(table: pa.Table) -> Labels:
    """Group by the true mask's area in pixels of its image: COCO's small, medium and large."""
    area = to_numpy(table.column("target_area"))
    return [
        (f"small (< {SMALL:,} px)", area < SMALL),
        (f"medium (< {LARGE:,} px)", (area >= SMALL) & (area < LARGE)),
        (f"large (≥ {LARGE:,} px)", area >= LARGE),
    ]


def lengths(table: pa.Table) -> Labels:
    """Group by the number of words, which white space separates."""
    words = np.array([len(sentence.split()) for sentence in table.column("sentence").to_pylist()])
    return [
        (f"1-{SHORT} words", words <= SHORT),
        (f"{SHORT + 1}-{LONG - 1} words", (words > SHORT) & (words < LONG)),
        (f"{LONG}+ words", words >= LONG),
    ]


BREAKDOWNS: dict[str, Callable[[pa.Table], Labels]] = {
    "category": categories,
    "size": sizes,
    "length": lengths,
}


def breakdowns(table: pa.Table, a: Floats, b: Floats, level: float) -> dict[str, list[Difference]]:
    """Return every breakdown of two results; see `by_group`.

    Args:
        table: `per_example` of either result: N rows.
        a: [N] IoU of the first model.
        b: [N] IoU of the second.
        level: Probability that all intervals of a breakdown cover.

    Returns:
        Name to groups. Sizes and lengths ascend. Categories begin with the surest difference and end with those whose
        uncertainty could not be estimated; equally sure ones are ordered by name.
    """
    image = to_numpy(table.column("image_id"))
    differences = {
        name: by_group(labels(table), a, b, image, level) for name, labels in BREAKDOWNS.items()
    }
    differences["category"].sort(key=_doubt)
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
    groups: Labels, a: Floats, b: Floats, image: NDArray[np.int64], level: float
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
    z = NormalDist().inv_cdf((1 + level_of_each) / 2)
    return [
        _within(label, a[rows], b[rows], image[rows], z if has_interval else None)
        for (label, rows), has_interval in zip(groups, enough, strict=True)
    ]


def _within(
    label: str, a: Floats, b: Floats, image: NDArray[np.int64], z: float | None
) -> Difference:
    """Return the difference within one group; `z` is the normal quantile of its interval, None for no interval."""
    n_images = len(np.unique(image))
    means = metrics.mean(a), metrics.mean(b)
    difference = means[0] - means[1]
    if z is None:
        return Difference(label, len(a), n_images, *means, difference)
    # From the difference itself, so that swapping the models changes no bit.
    se = float(un.cluster_se(un.ratio_by_image(image, a - b))[0])
    reach = un.student_quantile(z, n_images - 1) * se
    return Difference(
        label, len(a), n_images, *means, difference, se, difference - reach, difference + reach
    )
