"""A ratio of many models in, joint intervals for all their differences out, and the ranks that follow from them.

Every difference d has its linearised standard error, and one critical value c serves all of them: the quantile, over
replicates, of the largest |d* − d| / se among all pairs (the max-t of Romano & Wolf, Econometrica 73, 2005). The
intervals d ± c·se cover all true differences at once. Counting the intervals that exclude 0 gives the ranks (Mogstad,
Romano, Shaikh & Wilhelm, Inference for Ranks, Review of Economic Studies 91, 2024) and the models like the best.

Why not a p-value for each pair: the best of many equal models is the luckiest. In 60 simulated sweeps of 200 equal
models over 1,190 images, intervals made for single pairs put the best above some other model in all 60 sweeps, and
above a model named beforehand in 21. Holm's correction over 19,900 pairs needs p-values below 3·10⁻⁶, which 2,000
replicates cannot give.

Why se is not computed again in each replicate, as the true studentised bootstrap does: models of a sweep are often
nearly alike. If two differ in a few images only, replicates without these images have se* ≈ 0, and one such pair widens
the intervals of all pairs. With 8 models that differed from each other in only 1 % of the examples of 200 images, c was
7.6 instead of 3.1. For models that are less alike, a quantile of Student's t (`of_student`) does what se* does: c was
3.09 with se*, 3.08 with Student's t and 3.04 with neither, and Student's t saves B matrix products of M × M. With a
fixed se nearly equal models cost little: c was 4.55 for 100 models over 1,190 images of which 50 differed from one
model in 3 examples each, and 4.33 for 100 models that were all unlike.

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

Intervals of cIoU, which depends on a few large objects, missed a little more often where images were few. With models
that differed they missed in 6.5 % (0.6) of samples of 200 images and in 5.2 % (0.9) of 1,190; with equal models in
4.3 % (0.5) and 4.2 % (0.8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.uncertainty.ratios import Ratio, difference_se
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES, bootstrap

ROUNDING = 1e-12
"""Differences and standard errors below this share of the scores are rounding; one pixel of RefCOCO-M moves 1e-9."""

PAIR_BLOCK = 64
"""Replicates whose maximum is taken together, so that a row of pairs stays in the cache."""


@dataclass(frozen=True, eq=False)
class Pairwise:
    """Differences between all models, [i, j] being i minus j, and intervals that hold for all of them at once.

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

        Equal models (one file under two names) differ by exactly 0 with a standard error of 0, and neither is better.
        A difference that is the same in every image also has a standard error of 0. It is certain as far as images can
        tell, since every resample gives the same difference, but it must still exceed rounding.
        """
        return surely_better(self.estimate, self.estimate, self.se, self.critical)


def pairwise_intervals(
    ratio: Ratio, *, level: float = LEVEL, n_replicates: int = REPLICATES, seed: int = 0
) -> Pairwise:
    """Return simultaneous intervals for the differences between all models.

    Args:
        ratio: A score of M models over G images; higher is better.
        level: Probability that all M(M−1)/2 intervals cover.
        n_replicates: B.
        seed: Seed of `bootstrap_weights`.

    Raises:
        UsageError: For a level outside 0…1, or with too few replicates to have a quantile at that level.
    """
    place = quantile_place(level, n_replicates)
    estimate, se = ratio.estimate, pair_se(ratio)
    largest = largest_t(bootstrap(ratio, n_replicates, seed) - estimate, se)
    return Pairwise(estimate, se, critical_of(largest, place, len(ratio.numerator)), level)


def pair_se(ratio: Ratio) -> Floats:
    """Return [M, M] standard errors of the differences, 0 for a pair that varies by no more than rounding."""
    return significant_se(difference_se(ratio), ratio.estimate, ratio.estimate)


def significant_se(se: Floats, first: Floats, second: Floats) -> Floats:
    """Set the standard errors [m, n] between models of scores [m] and [n] to 0, in place, where they are rounding."""
    # The t of a pair that varies only by rounding is one rounding divided by another, which can be anything.
    se[se <= rounding(first, second)] = 0
    return se


def surely_better(first: Floats, second: Floats, se: Floats, critical: float) -> NDArray[np.bool_]:
    """Return [m, n]: whether the interval of each model of scores [m] minus each of scores [n] lies above 0."""
    better: NDArray[np.bool_] = (first[:, None] - second) - critical * se > rounding(first, second)
    return better


def critical_of(largest: Floats, place: int, images: int) -> float:
    """Return the critical value, from the largest |t| [B] of each replicate over G images; see `quantile_place`."""
    return of_student(float(np.partition(largest, place - 1)[place - 1]), images)


def quantile_place(level: float, n_replicates: int) -> int:
    """Return which of the sorted replicates is the critical value; also checks a request before any work.

    It is exceeded with a probability of at most 1 − level if the estimate and the replicates are exchangeable draws.

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


def rounding(first: Floats, second: Floats) -> Floats:
    """Return [m, n]: what a difference between scores [m] and [n] must exceed to be more than rounding of either."""
    return ROUNDING * np.maximum(np.abs(first)[:, None], np.abs(second))


def largest_t(deviation: Floats, se: Floats) -> Floats:
    """Return the largest |t| among all pairs in each replicate.

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
        # [M, b]: replicates come last, so that every operation runs along them.
        z = np.ascontiguousarray(deviation[start : start + PAIR_BLOCK].T)
        top = np.zeros(z.shape[1])
        for i in range(models - 1):
            t = np.subtract(z[i + 1 :], z[i], out=buffer[i + 1 :, : len(top)])
            t *= inverse[i, i + 1 :, None]
            np.maximum(top, np.abs(t, out=t).max(axis=0), out=top)
        largest[start : start + len(top)] = top
    return largest


def of_student(quantile: float, images: int) -> float:
    """Correct a quantile of t for the standard error having been estimated from G images.

    Replicates spread around the images' own mean, so their deviations are √((G−1)/G) of what `se` says. The normal
    quantile then becomes that of Student's t with G−1 degrees of freedom, as Cameron & Miller (2015) advise for
    clusters.

    >>> of_student(0.0, 1190), of_student(1.959964, 1190), of_student(1.959964, 10)
    (0.0, 1.962..., 2.411...)
    """
    return student_quantile(quantile * math.sqrt(images / (images - 1)), images - 1)


def student_quantile(z: float, f: int) -> float:
    """Return the quantile of Student's t at the same probability as a normal quantile.

    Abramowitz & Stegun (1964), 26.7.5, to the second order in 1/f: too small by less than 0.6 % for f ≥ 19 and z ≤ 4.

    Args:
        z: Quantile of the normal distribution.
        f: Degrees of freedom.

    >>> student_quantile(1.959964, 19)
    2.0926...
    """
    return z + (z**3 + z) / (4 * f) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)


def interval_reach(n_images: int, level: float = LEVEL) -> float:
    """Return how many standard errors the interval of one score reaches to either side: Student's t over G images.

    Args:
        n_images: G, at least 2.
        level: Probability that the interval covers the true score.

    >>> interval_reach(20), interval_reach(1190)
    (2.0926..., 1.9619...)
    """
    return student_quantile(NormalDist().inv_cdf((1 + level) / 2), n_images - 1)


def rank_intervals(pairwise: Pairwise) -> NDArray[np.int64]:
    """Return the ranks that each model may have: behind the models surely better, ahead of those surely worse.

    Args:
        pairwise: Intervals for all differences of M models.

    Returns:
        [M, 2] int64 best and worst rank, from 1. All true ranks lie within, with the intervals' joint probability.

    >>> rank_intervals(Pairwise(np.array([3.0, 1.0, 1.0]), np.ones((3, 3)), 1.5, 0.95))
    array([[1, 1], [2, 3], [2, 3]])
    """
    better = pairwise.better
    return np.stack([1 + better.sum(axis=0), len(better) - better.sum(axis=1)], axis=1)


def like_best(pairwise: Pairwise) -> NDArray[np.bool_]:
    """Return which models cannot be told from the one with the highest score.

    Args:
        pairwise: Intervals for all differences of M models.

    Returns:
        [M] bool, True for the best itself.

    >>> like_best(Pairwise(np.array([1.0, 2.9, 3.0]), np.ones((3, 3)), 1.5, 0.95))
    array([False,  True,  True])
    """
    worse: NDArray[np.bool_] = pairwise.better[int(pairwise.estimate.argmax())]
    return ~worse
