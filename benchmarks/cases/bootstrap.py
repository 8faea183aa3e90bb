"""The bootstrap over images of many models' mIoU: standard errors and 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import Workload

MODELS, REPLICATES = 200, 2_000
FEW = 8
"""Models on which SciPy is timed when it is called for one at a time."""

BATCH, BATCH_OF_ALL = 25, 1
"""Replicates SciPy makes at a time, for one model and for all: the fastest of 1, 5, 10, 25, 50, 100, 250 and 2,000."""

SIGMAS = 5
"""Monte-Carlo errors by which two bootstraps may differ; three numbers of every model are compared."""


def cases(w: Workload) -> Iterator[Case]:
    """Ours beside `scipy.stats.bootstrap`, which is given the same sums per image."""
    from refcocom_gpu.scores import uncertainty

    image = w.image[w.sample]
    rng = np.random.default_rng(0)
    # Images are hard or easy for all models alike.
    hard = rng.normal(1.8, 1, len(w.image))[image, None]
    ious = 1 / (1 + np.exp(-hard - rng.normal(0, 1, (len(image), MODELS))))
    ratio = uncertainty.ratio_by_image(image, ious)

    def ours() -> NDArray[np.float64]:
        replicates = uncertainty.bootstrap(ratio, REPLICATES)
        ends = np.quantile(replicates, [0.025, 0.975], axis=0)
        return np.column_stack([replicates.std(axis=0, ddof=1), *ends])

    contenders = [Contender(OURS, ours, MODELS, "ours")]
    peers, absent = _peers(ratio.numerator, ratio.denominator)
    # The replicates differ, so two Monte-Carlo estimates are compared, not two equal numbers.
    for peer in peers:
        check(ours()[: peer.rows], peer.run(), uncertainty.cluster_se(ratio)[: peer.rows])
    yield Case(
        f"bootstrap of mIoU over images, {REPLICATES:,} replicates, {MODELS} models",
        [*contenders, *peers],
        absent,
        {"images": len(ratio.numerator), "examples": len(image)},
        unit="µs/model",
        compare=False,
    )


def check(mine: NDArray[np.float64], theirs: NDArray[np.float64], se: NDArray[np.float64]) -> None:
    """Standard errors and interval ends [models, 3] of two bootstraps agree.

    Raises:
        AssertionError: When they differ by more than Monte-Carlo error.
    """
    # The error of a standard deviation is 1/√(2B) of it; that of a quantile p is √(p(1−p)/B) over the normal density.
    share = 0.025
    ends = np.sqrt(share * (1 - share) / REPLICATES) / (np.exp(-(1.96**2) / 2) / np.sqrt(2 * np.pi))
    errors = se[:, None] * np.array([1 / np.sqrt(2 * REPLICATES), ends, ends]) * np.sqrt(2)
    if (np.abs(mine - theirs) > SIGMAS * errors).any():
        raise AssertionError("SciPy's bootstrap gives other standard errors or intervals")


def _peers(
    y: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[list[Contender], dict[str, str]]:
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        return [], {"SciPy": str(error)}

    def mean(y: NDArray[np.float64], n: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        means: NDArray[np.float64] = y.sum(axis=axis) / n.sum(axis=axis)
        return means

    sums, counts = np.ascontiguousarray(y.T), np.ascontiguousarray(n.T)

    def scipy(y: NDArray[np.float64], batch: int) -> NDArray[np.float64]:
        result = bootstrap(
            (y, counts if y.ndim > 1 else counts[0]), mean, paired=True, vectorized=True, axis=-1,
            n_resamples=REPLICATES, method="percentile", batch=batch, rng=np.random.default_rng(1),
        )  # fmt: skip
        return np.column_stack([result.standard_error, *result.confidence_interval])

    def one_by_one() -> NDArray[np.float64]:
        return np.concatenate([scipy(row, BATCH) for row in sums[:FEW]])

    def together() -> NDArray[np.float64]:
        return scipy(sums, BATCH_OF_ALL)

    return [
        Contender("scipy.stats.bootstrap, a call per model", one_by_one, FEW),
        Contender("scipy.stats.bootstrap, all models in one call", together, MODELS),
    ], {}
