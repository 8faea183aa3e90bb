"""A dataset, a size and a seed in, a subset for cheap validation out, and estimates of the full scores from it.

Examples are in the order of their images. Consecutive whole images make a stratum just large enough for two draws at
the subset's rate, or for more where an image has many expressions. Within a stratum examples are drawn without
replacement. So the subset is spread evenly over the images, and each stratum has the two draws that an unbiased
variance needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subset:
    """Examples of a dataset, drawn to stand for all.

    Letters: `n` drawn, `S` strata.

    Attributes:
        indices: [n] int64 row numbers of the examples, ascending.
        stratum: [n] int64 the stratum of each.
        sizes: [S] int64 examples of each stratum.
        drawn: [S] int64 how many of them were drawn, at least 2.
    """

    indices: Ints
    stratum: Ints
    sizes: Ints
    drawn: Ints

    def estimate(self, iou: Floats, intersection: Ints, union: Ints) -> dict[str, float]:
        """Estimate the scores of the whole dataset.

        mIoU is a stratified mean, cIoU a combined ratio with its linearised error: Cochran, Sampling Techniques, 1977,
        ch. 5 and §6.11. The errors are those of drawing a subset; for all examples they would be 0.

        Args:
            iou: [n] IoU of each of `indices`.
            intersection: [n] pixels in both masks.
            union: [n] pixels in either mask.

        Returns:
            `miou`, `miou_se`, `ciou`, `ciou_se`.
        """
        return {
            **self.estimate_mean("miou", iou),
            **self.estimate_ratio("ciou", intersection, union),
        }

    def estimate_ratio(
        self, name: str, numerator: Ints | Flags, denominator: Ints | Flags
    ) -> dict[str, float]:
        """Estimate a ratio of sums over the whole dataset, as `estimate` does cIoU.

        Args:
            name: Of the ratio.
            numerator: [n] of each of `indices`.
            denominator: [n] likewise.

        Returns:
            The ratio under its name, and its error under the name and `_se`; NaN where no denominator is positive.
        """
        above, below = self._mean(numerator), self._mean(denominator)
        ratio = above / below if below else math.nan
        return {
            name: ratio,
            f"{name}_se": self._se(numerator - ratio * denominator) / below if below else math.nan,
        }

    def estimate_mean(self, name: str, values: Floats) -> dict[str, float]:
        """Estimate the mean over the whole dataset, as `estimate` does mIoU.

        Args:
            name: Of the mean.
            values: [n] of each of `indices`.

        Returns:
            The mean under its name, and its error under the name and `_se`.
        """
        return {name: self._mean(values), f"{name}_se": self._se(values)}

    def _mean(self, values: Floats | Ints | Flags) -> float:
        sums = np.bincount(self.stratum, values)
        return math.fsum(self.sizes * (sums / self.drawn)) / int(self.sizes.sum())

    def _se(self, values: Floats) -> float:
        means = np.bincount(self.stratum, values) / self.drawn
        squares = np.bincount(self.stratum, (values - means[self.stratum]) ** 2)
        share = self.sizes / self.sizes.sum()
        undrawn = 1 - self.drawn / self.sizes
        return math.sqrt(math.fsum(share**2 * undrawn * squares / (self.drawn * (self.drawn - 1))))


def draw_subset(dataset: Dataset, n: int, seed: int = 0) -> Subset:
    """Draw examples, spread evenly over the images.

    Args:
        dataset: The dataset to draw from.
        n: How many examples.
        seed: Equal seeds draw equal examples, with any version of NumPy.

    Raises:
        UsageError: When `n` is below 2 or not below the number of examples, or the seed is negative.

    >>> from refcocom_gpu import load_dataset
    >>> subset = draw_subset(load_dataset("sample"), 100)
    >>> len(subset.indices), int(subset.drawn.min())
    (100, 2)
    """
    n_examples = dataset.n_examples
    if not 2 <= n < n_examples:
        raise UsageError(
            f"subset={n}: from 2 to {n_examples - 1} of {n_examples} examples can be drawn"
        )
    if seed < 0:
        raise UsageError(f"seed={seed}: a seed must not be negative")
    image = dataset.sample_image[dataset.example_sample]
    stops = [*(np.flatnonzero(np.diff(image)) + 1).tolist(), n_examples]
    bounds = [0]
    for stop in stops:
        # Compared in whole numbers, so that two draws fit exactly.
        if (stop - bounds[-1]) * n >= 2 * n_examples:
            bounds.append(stop)
    # The images left at the end are too few for two draws, so they join the stratum before.
    bounds[max(1, len(bounds) - 1) :] = [n_examples]
    starts = np.array(bounds[:-1], np.int64)
    sizes: Ints = np.array(bounds[1:], np.int64) - starts
    # The largest remainders are rounded up: this gives n draws in all, each stratum within one of its share.
    drawn, remainder = np.divmod(sizes * n, n_examples)
    drawn[np.argsort(-remainder, kind="stable")[: n - int(drawn.sum())]] += 1
    # In each stratum, draw the examples with the smallest raw words; NumPy promises never to change their stream.
    words = np.random.PCG64(seed).random_raw(n_examples)
    order = np.lexsort((words, np.repeat(np.arange(len(sizes)), sizes)))
    rank = np.arange(n_examples) - np.repeat(starts, sizes)
    indices = np.sort(order[rank < np.repeat(drawn, sizes)]).astype(np.int64)
    stratum = np.searchsorted(starts, indices, side="right") - 1
    return Subset(indices, stratum, sizes, drawn)
