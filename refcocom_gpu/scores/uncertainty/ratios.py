"""Values of examples in, sums per image out, and the standard error of a ratio of such sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.metrics import Floats, Ints

GRID_BITS = 52
"""One bit less than the 53 of a float64, so that rounding up to the grid cannot overflow them."""

LARGEST_SCALE = 1000
"""Largest exponent of the grid's scale: keeps the power of two finite where all values are tiny."""


@dataclass(frozen=True, eq=False)
class Ratio:
    """A score of M models as a ratio of two sums over the same G images.

    mIoU is ΣIoU / n, Pr@X is Σ(IoU ≥ X) / n, and cIoU is ΣI / ΣU.

    Attributes:
        numerator: [G, M] sum within each image.
        denominator: [G, M], or [G, 1] where it is the same for all models; not negative.

    Raises:
        UsageError: For fewer than two images, no model, wrong shapes, numbers that are not finite, a negative
            denominator, or a model whose denominators are all zero.
    """

    numerator: Floats
    denominator: Floats

    def __post_init__(self) -> None:
        y, x = self.numerator, self.denominator
        if y.ndim != 2 or x.shape not in (y.shape, (len(y), 1)) or not y.shape[1]:
            raise UsageError(
                f"a ratio needs [G, M] over [G, M] or [G, 1], not {y.shape} / {x.shape}"
            )
        if len(y) < 2:
            raise UsageError(f"uncertainty over images needs at least 2 of them, not {len(y)}")
        if not (np.isfinite(y).all() and np.isfinite(x).all()):
            raise UsageError("a ratio of sums that are not finite has no standard error")
        if (x < 0).any() or not (x > 0).any(axis=0).all():
            raise UsageError("a denominator must be positive in some image and negative in none")

    @cached_property
    def estimate(self) -> Floats:
        """[M] the score over all images."""
        score: Floats = self.numerator.sum(axis=0) / self.denominator.sum(axis=0)
        return score

    @cached_property
    def influence(self) -> Floats:
        """[M, G] what each image adds to the error of the score, (yᵍ − r·xᵍ) / Σx: the linearised ratio.

        Models come first, so that sums over images read contiguous memory.
        """
        residual = self.numerator - self.estimate * self.denominator
        return np.ascontiguousarray((residual / self.denominator.sum(axis=0)).T)


def per_image(values: ArrayLike, image: Sequence[Any] | NDArray[Any]) -> tuple[Floats, Ints]:
    """Sum the values of each image's examples.

    Values are first rounded to multiples of a power of two, chosen so that a sum over any resample of the images is
    exact (near 2⁻³⁷ for the IoUs of RefCOCO-M; whole numbers do not change). So no bit of a later result depends on
    the order of the examples, on other models, on block sizes or on how a matrix product orders its sums.

    Args:
        values: [N] or [N, M], bool, integers or floats.
        image: [N] the image of each example, as labels that can be sorted.

    Returns:
        [G] or [G, M] float64 sums and [G] int64 examples per image; images in the order of their sorted labels.

    Raises:
        UsageError: When the lengths differ, there are no values, or a value is not finite.

    >>> per_image([0.5, 1, 1], ["b", "a", "b"])
    (array([1. , 1.5]), array([1, 2]))
    """
    values = np.asarray(values, np.float64)
    labels = np.asarray(image)
    if values.ndim not in (1, 2) or labels.shape != values.shape[:1] or not values.size:
        raise UsageError(
            f"values must be [N] or [N, M] with an image for each row, not {values.shape} and {labels.shape}"
        )
    if not np.isfinite(values).all():
        raise UsageError("values that are not finite cannot be summed per image")
    _, member, n = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(member, kind="stable")
    # A resample draws G images; in the worst case it draws the image with most examples every time.
    exact = _on_grid(values[order], len(n) * int(n.max()))
    return np.add.reduceat(exact, np.cumsum(n) - n, axis=0), n


def _on_grid(values: Floats, n_terms: int) -> Floats:
    """Round values [N, …] so that sums of up to `n_terms` of them are exact; each column has its own grid."""
    _, exponent = np.frexp(np.abs(values).max(axis=0) * n_terms)
    scale = np.ldexp(1.0, np.clip(GRID_BITS - exponent, -LARGEST_SCALE, LARGEST_SCALE))
    rounded: Floats = np.rint(values * scale) / scale
    return rounded


def ratio_by_image(
    image: Sequence[Any] | NDArray[Any], numerator: ArrayLike, denominator: ArrayLike | None = None
) -> Ratio:
    """Make the ratio of one or more models from their examples.

    Args:
        image: [N] the image of each example.
        numerator: [N] or [N, M]: IoU for mIoU, IoU ≥ X for Pr@X, I for cIoU.
        denominator: Of the same shape: U for cIoU. None counts the examples.

    Returns:
        The ratio, with M = 1 for values [N].

    Raises:
        UsageError: As `per_image` and `Ratio` do.

    >>> ratio_by_image([1, 1, 2], [3, 1, 0], [4, 1, 5]).estimate
    array([0.4])
    """
    y, n = per_image(numerator, image)
    x = n.astype(np.float64) if denominator is None else per_image(denominator, image)[0]
    return Ratio(y.reshape(len(y), -1), x.reshape(len(x), -1))


def cluster_se(ratio: Ratio) -> Floats:
    """Return the standard error of each model's score under resampling of images, linearised (delta method).

    With images g, sums y and x and the score r = Σy / Σx: se² = G/(G−1) · Σ(yᵍ − r·xᵍ)² / (Σx)². This is the variance
    of a ratio from clusters drawn with replacement (Cochran, Sampling Techniques, 1977, ch. 6, without the factor of a
    finite population, because other images could have been drawn). For mIoU it is exactly the cluster-robust variance
    of a mean (Cameron & Miller, A Practitioner's Guide to Cluster-Robust Inference, 2015), whose usual factor
    G/(G−1) · (N−1)/(N−K) is G/(G−1) at K = 1. Fitting r to the images takes one of their G degrees of freedom; hence
    G−1.

    Args:
        ratio: G images, M models.

    Returns:
        [M] float64.

    >>> cluster_se(Ratio(np.array([[1.0], [2.0]]), np.array([[2.0], [2.0]])))
    array([0.25])
    """
    return se_of(np.square(ratio.influence).sum(axis=1), len(ratio.numerator))


def difference_se(ratio: Ratio) -> Floats:
    """Return the standard error of the difference between every two models' scores on the same images.

    This is `cluster_se` of the difference between the two models' influences. Covariances are not used: for models that
    are nearly alike var(i) + var(j) − 2 cov(i, j) would leave only rounding, and for equal ones not exactly 0.

    Args:
        ratio: G images, M models.

    Returns:
        [M, M] float64, symmetric, 0 on the diagonal and between equal models; no entry depends on a third model.

    >>> difference_se(Ratio(np.array([[1.0, 1.0], [2.0, 1.0]]), np.array([[2.0], [2.0]])))
    array([[0.  , 0.25],
           [0.25, 0.  ]])
    """
    u = ratio.influence
    models, images = u.shape
    squares = np.zeros((models, models))
    for i in range(models - 1):
        squares[i, i + 1 :] = np.square(u[i + 1 :] - u[i]).sum(axis=1)
    return se_of(squares + squares.T, images)


def se_of(squares: Floats, images: int) -> Floats:
    """Return the standard errors of sums over G images, of the sums of the squares of their influences, any shape."""
    se: Floats = np.sqrt(squares * (images / (images - 1)))
    return se
