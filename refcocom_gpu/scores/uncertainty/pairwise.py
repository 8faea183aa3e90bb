"""A ratio of many models in, intervals for all their differences at once out, and what follows for their ranks.

Every difference d has its linearised standard error, and one critical value c serves all of them: the quantile, over
replicates, of the largest |d* − d| / se among all pairs (the max-t of Romano & Wolf, Econometrica 73, 2005). The
intervals d ± c·se cover all true differences at once. A rank follows by counting those that exclude 0 (Mogstad, Romano,
Shaikh & Wilhelm, Inference for Ranks, Review of Economic Studies 91, 2024), and so does what is like the best.

Why not a p-value for each pair: the best of many equal models is the luckiest. In 60 simulated sweeps of 200 equal
models over 1,190 images, intervals made for one pair each set the best above some other in all 60, and above a model
named beforehand in 21. Holm's correction over 19,900 pairs needs p-values below 3·10⁻⁶, which 2,000 replicates lack.

Why se is not computed anew in each replicate, the true studentised bootstrap: models of a sweep are often nearly alike.
Where two differ in a few images, replicates without these have se* ≈ 0, and one such pair widens the intervals of all:
with 8 models, each its own in only 1 % of the examples of 200 images, c was 7.6 instead of 3.1. Where models are less
alike, se* does what a quantile of Student's t does (`of_student`): c was 3.09 with it, 3.04 without either and 3.08
with the latter, which saves B matrix products of M × M. With a fixed se likeness costs little: of 100 models over 1,190
images, 50 of which were one model but for 3 examples each, c was 4.55; with all 100 unlike, 4.33.

Share of simulated samples in which any interval misses (expressions of an image alike, IoU skewed, images of unequal
size, 399 replicates, 1,000 to 3,000 samples; standard errors in brackets):

| images | models | true differences of mIoU | any interval misses |
|---|---|---|---|
| 10, 20, 50 | 8 | none | 3.4 %, 4.1 %, 5.3 % (0.4) |
| 100, 200, 500, 1,190 | 8 | none | 3.7 %, 5.1 %, 5.4 %, 4.6 % (0.4) |
| 200, 1,190 | 8 | up to 0.06 | 5.1 % (0.4), 4.7 % (0.5) |
| 200, 1,190 | 20 | none | 5.0 % (0.4), 4.5 % (0.5) |
| 200 | 20 | up to 0.06 | 5.4 % (0.6) |
| 200 | 8, 99 % alike | none | 0.2 % (0.1) |

cIoU, which a few large objects decide, missed a little more often with few images: 6.5 % (0.6) of samples of 200 images
and 5.2 % (0.9) of 1,190 where models differed, 4.3 % (0.5) and 4.2 % (0.8) where they did not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.uncertainty.ratios import Ratio, difference_se
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES, bootstrap

ROUNDING = 1e-12
"""A difference or its standard error below this share of the scores is rounding: one pixel of RefCOCO-M moves 1e-9."""

PAIR_BLOCK = 64
"""Replicates whose maximum is taken together, so that a row of pairs stays in the cache."""


@dataclass(frozen=True, eq=False)
class Pairwise:
    """Differences between all models, [i, j] that of i over j, and intervals that hold for all of them at once.

    Attributes:
        estimate: [M] scores.
        se: [M, M] standard errors of the differences.
        critical: How many standard errors an interval extends to either side; 0 where no pair varies.
        level: Probability that all intervals cover.
    """

    estimate: Floats
    se: Floats
    critical: float
    level: float

    @cached_property
    def difference(self) -> Floats:
        """[M, M] score of i minus score of j."""
        return self.estimate[:, None] - self.estimate

    @cached_property
    def low(self) -> Floats:
        """[M, M] lower ends."""
        return self.difference - self.critical * self.se

    @cached_property
    def high(self) -> Floats:
        """[M, M] upper ends."""
        return self.difference + self.critical * self.se

    @cached_property
    def better(self) -> NDArray[np.bool_]:
        """[M, M] whether i is surely better than j: the interval lies above 0.

        Equal models (one file under two names) differ by exactly 0 with a standard error of 0 and are never better.
        A difference that is the same in every image has no standard error either, and is certain as far as images can
        tell: no resample of them gives another. It still has to be more than rounding.
        """
        return self.low > rounding(self.estimate)


def pairwise_intervals(
    ratio: Ratio, *, level: float = LEVEL, n_replicates: int = REPLICATES, seed: int = 0
) -> Pairwise:
    """Simultaneous intervals for the differences between all models.

    Args:
        ratio: G images, M models; more is better.
        level: Probability that all M(M−1)/2 intervals cover.
        n_replicates: B.
        seed: Of `bootstrap_weights`.

    Raises:
        UsageError: For a level outside 0…1, or with too few replicates to have a quantile at that level.
    """
    place = quantile_place(level, n_replicates)
    estimate, se = ratio.estimate, difference_se(ratio)
    # The t of a pair that varies by rounding would be one rounding over another: anything.
    se[se <= rounding(estimate)] = 0
    largest = largest_t(bootstrap(ratio, n_replicates, seed) - estimate, se)
    critical = of_student(float(np.partition(largest, place - 1)[place - 1]), len(ratio.numerator))
    return Pairwise(estimate, se, critical, level)


def quantile_place(level: float, n_replicates: int) -> int:
    """Which of the sorted replicates is the critical value; of use by itself to refuse a request before any work.

    The one whose exceedance is at most 1 − level for exchangeable draws, the estimate being one more of them.

    Args:
        level: Probability that all intervals cover.
        n_replicates: B.

    Returns:
        1…B.

    Raises:
        UsageError: For a level outside 0…1, or with too few replicates to have a quantile at that level.

    >>> quantile_place(0.95, 2_000), quantile_place(0.95, 19)
    (1901, 19)
    """
    if not 0 < level < 1:
        raise UsageError(f"a confidence level must lie between 0 and 1, not {level}")
    place = math.ceil((n_replicates + 1) * level)
    if place > n_replicates:
        raise UsageError(
            f"level {level} needs {math.ceil(round(level / (1 - level), 6))} replicates or more, not {n_replicates}"
        )
    return place


def rounding(estimate: Floats) -> Floats:
    """[M, M] what a difference of scores [M] must exceed to be told from the rounding of either."""
    magnitude = np.abs(estimate)
    return ROUNDING * np.maximum(magnitude[:, None], magnitude)


def largest_t(deviation: Floats, se: Floats) -> Floats:
    """The largest |t| among all pairs in each replicate.

    Args:
        deviation: [B, M] replicates minus estimates.
        se: [M, M] standard errors of the differences; pairs with 0 take no part.

    Returns:
        [B] float64; 0 where no pair takes part.
    """
    models = len(se)
    inverse = np.divide(1, se, out=np.zeros_like(se), where=se > 0)
    largest = np.zeros(len(deviation))
    buffer = np.empty((models, PAIR_BLOCK))
    for start in range(0, len(deviation), PAIR_BLOCK):
        # [M, b]: replicates last, so that every step runs along them.
        z = np.ascontiguousarray(deviation[start : start + PAIR_BLOCK].T)
        top = np.zeros(z.shape[1])
        for i in range(models - 1):
            t = np.subtract(z[i + 1 :], z[i], out=buffer[i + 1 :, : len(top)])
            t *= inverse[i, i + 1 :, None]
            np.maximum(top, np.abs(t, out=t).max(axis=0), out=top)
        largest[start : start + len(top)] = top
    return largest


def of_student(quantile: float, images: int) -> float:
    """What a quantile of t with a fixed standard error becomes where that error was estimated from G images.

    Resampling draws about the images' own mean, so its deviations are √((G−1)/G) of what `se` says; and the normal
    quantile becomes that of Student's t with G−1 degrees of freedom, as Cameron & Miller (2015) advise for clusters.

    >>> of_student(0.0, 1190), of_student(1.959964, 1190), of_student(1.959964, 10)
    (0.0, 1.962..., 2.411...)
    """
    return student_quantile(quantile * math.sqrt(images / (images - 1)), images - 1)


def student_quantile(z: float, f: int) -> float:
    """The quantile of Student's t that belongs to one of the normal distribution.

    Abramowitz & Stegun (1964), 26.7.5, to the second order in 1/f: too small by less than 0.6 % for f ≥ 19 and z ≤ 4.

    Args:
        z: Quantile of the normal distribution.
        f: Degrees of freedom.

    >>> student_quantile(1.959964, 19)
    2.0926...
    """
    return z + (z**3 + z) / (4 * f) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)


def rank_intervals(pairwise: Pairwise) -> NDArray[np.int64]:
    """Ranks a model may have: behind those surely better, before those surely worse.

    Args:
        pairwise: Intervals for all differences of M models.

    Returns:
        [M, 2] int64 best and worst rank, 1 being the best; all true ranks lie within at once at the intervals' level.

    >>> rank_intervals(Pairwise(np.array([3.0, 1.0, 1.0]), np.ones((3, 3)), 1.5, 0.95))
    array([[1, 1], [2, 3], [2, 3]])
    """
    better = pairwise.better
    return np.stack([1 + better.sum(axis=0), len(better) - better.sum(axis=1)], axis=1)


def like_best(pairwise: Pairwise) -> NDArray[np.bool_]:
    """Which models are not distinguishable from the one with the highest score.

    Args:
        pairwise: Intervals for all differences of M models.

    Returns:
        [M] bool, True for the best itself.

    >>> like_best(Pairwise(np.array([1.0, 2.9, 3.0]), np.ones((3, 3)), 1.5, 0.95))
    array([False,  True,  True])
    """
    worse: NDArray[np.bool_] = pairwise.better[int(pairwise.estimate.argmax())]
    return ~worse
