"""A ratio in, its values on resampled images out: the bootstrap as matrix products."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.uncertainty.ratios import Ratio

LEVEL = 0.95
REPLICATES = 2_000

BLOCK = 256
"""Replicates whose weights exist at once: 2.4 MB for 1,190 images."""

DRAWN = 64
"""Replicates drawn and counted together; they fit in the CPU's cache, which halves the time."""


def bootstrap_weights(n_images: int, n_replicates: int, seed: int = 0) -> Iterator[Floats]:
    """Yield how often each image is drawn into each replicate.

    Images are drawn one by one with `integers` of `numpy.random.Generator(PCG64(seed))` and counted. The counts are
    multinomial, and this is faster than `multinomial`. A seed gives the same weights on every platform and for every
    block size; NumPy may change the stream of `integers` between its versions.

    Args:
        n_images: G.
        n_replicates: B.
        seed: Seed of the generator.

    Yields:
        [up to BLOCK, G] float64 whole numbers, G in total in each row; B rows in all.

    Raises:
        UsageError: When either number is not positive.

    >>> np.concatenate(list(bootstrap_weights(3, 4))).sum(axis=1)
    array([3., 3., 3., 3.])
    """
    if n_images < 1 or n_replicates < 1:
        raise UsageError(f"a bootstrap needs images and replicates, not {n_images}, {n_replicates}")
    rng = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, n_replicates, BLOCK):
        weights = np.empty((min(BLOCK, n_replicates - start), n_images))
        for first in range(0, len(weights), DRAWN):
            part = weights[first : first + DRAWN]
            drawn = rng.integers(0, n_images, part.shape)
            drawn += np.arange(len(part))[:, None] * n_images
            part[:] = np.bincount(drawn.reshape(-1), minlength=part.size).reshape(part.shape)
        yield weights


def bootstrap(ratio: Ratio, n_replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """Return the scores of all models on resampled images, the same for every model, so that differences are paired.

    A seed gives the same resamples for every score of the same images. If the sums come from `per_image`, no bit of a
    model's replicates depends on the other models.

    Args:
        ratio: G images, M models.
        n_replicates: B.
        seed: Seed of `bootstrap_weights`.

    Returns:
        [B, M] float64. Their standard deviation is the bootstrap's standard error. To first order it is on average
        √((G−1)/G) times `cluster_se`, because the variance of draws from G images has the divisor G and not G−1.

    Raises:
        UsageError: When `n_replicates` is not positive, or a denominator is 0 in some resample, which happens where
            the unions of nearly all images are empty.

    >>> miou = Ratio(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[2.0], [4.0]]))
    >>> bootstrap(miou, 3, seed=1).shape
    (3, 2)
    """
    result = np.empty((max(n_replicates, 0), ratio.numerator.shape[1]))
    done = 0
    for weights in bootstrap_weights(len(ratio.numerator), n_replicates, seed):
        denominator = weights @ ratio.denominator
        if not denominator.all():
            raise UsageError(
                "too few images have a denominator above 0: in some resample it is 0 in all of them"
            )
        np.divide(weights @ ratio.numerator, denominator, out=result[done : done + len(weights)])
        done += len(weights)
    return result
