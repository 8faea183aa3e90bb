"""A ratio of very many models in, the critical value and the ranks of `pairwise` out, to the bit, without its matrices.

Pairs of models are taken a block at a time, each unordered pair once, over all cores. Only what belongs to one model or
one replicate is kept: memory grows as M·(G + B) and not as M². The standard errors of a block are computed twice: for
the critical value, and then for the ranks, which need that value. Blocks meet only in maxima and in counts, so neither
their order nor the number of threads changes a bit. Models that fit one block are left to `pairwise`: to load the
kernels takes longer, half a second, and to compile them several.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu
from refcocom_kernels.cpu.pool import over_rows

from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.uncertainty.pairwise import (
    critical_of,
    pair_se,
    pairwise_intervals,
    quantile_place,
    significant_se,
    surely_better,
)
from refcocom_gpu.scores.uncertainty.ratios import Ratio, se_of
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES, bootstrap

BLOCK = 120
"""Models on either side of a block of pairs, which takes 9 ms. From 72 to 200 models the time was the same within 5 %;
with 64 and 128, powers of two, rows share the same places of the cache, and the sums took up to twice as long."""

Work = Callable[[slice, slice, Floats], None]


def over_blocks(ratio: Ratio, work: Work, threads: int = 0) -> None:
    """Call `work(i, j, se)` for every block of pairs, i ≤ j, from several threads at once.

    Args:
        ratio: G images, M models.
        work: Takes two ranges of models and the block of `pairwise.pair_se` between them.
        threads: 0 means one per core.
    """
    models, images = ratio.influence.shape
    if models <= BLOCK:
        work(slice(models), slice(models), pair_se(ratio))
        return
    blocks = [slice(start, min(start + BLOCK, models)) for start in range(0, models, BLOCK)]
    # Images first, so that the kernel runs along models and adds up those of one pair in NumPy's order.
    influence = [np.ascontiguousarray(ratio.influence[block].T) for block in blocks]
    firsts, seconds = np.triu_indices(len(blocks))

    def some(first: int, last: int) -> None:
        for a, b in zip(firsts[first:last].tolist(), seconds[first:last].tolist(), strict=True):
            i, j = blocks[a], blocks[b]
            squares = cpu.squared_differences(influence[a], influence[b])
            se = se_of(squares, images)
            work(i, j, significant_se(se, ratio.estimate[i], ratio.estimate[j]))

    over_rows(some, len(firsts), threads, min_rows=1)


def critical_value(
    ratio: Ratio,
    *,
    level: float = LEVEL,
    n_replicates: int = REPLICATES,
    seed: int = 0,
    threads: int = 0,
) -> float:
    """Return `pairwise_intervals(…).critical`; the arguments and errors are the same.

    >>> ratio = Ratio(np.random.default_rng(0).random((9, 130)), np.ones((9, 1)))
    >>> critical_value(ratio) == pairwise_intervals(ratio).critical > 0
    True
    """
    if ratio.numerator.shape[1] <= BLOCK:
        return pairwise_intervals(ratio, level=level, n_replicates=n_replicates, seed=seed).critical
    place = quantile_place(level, n_replicates)
    deviation = bootstrap(ratio, n_replicates, seed)
    deviation -= ratio.estimate
    of_model = np.ascontiguousarray(deviation.T)
    del deviation
    largest, lock = np.zeros(n_replicates), threading.Lock()

    def raise_largest(i: slice, j: slice, se: Floats) -> None:
        inverse = np.divide(1, se, out=np.zeros_like(se), where=se > 0)
        of_block = np.zeros(n_replicates)
        cpu.largest_ratios(of_model[i], of_model[j], inverse, of_block)
        with lock:
            np.maximum(largest, of_block, out=largest)

    over_blocks(ratio, raise_largest, threads)
    return critical_of(largest, place, len(ratio.numerator))


def ranks_of(ratio: Ratio, critical: float, threads: int = 0) -> NDArray[np.int64]:
    """Return `rank_intervals` of the models of a ratio.

    Args:
        ratio: G images, M models.
        critical: Their critical value, or that of more models among which they are.
        threads: 0 means one per core.

    Returns:
        [M, 2] int64 best and worst rank, from 1.

    >>> ranks_of(Ratio(np.array([[1.0, 0.0], [2.0, 1.1]]), np.array([[2.0], [2.0]])), 3.0)
    array([[1, 1], [2, 2]])
    """
    score = ratio.estimate
    n_better, n_worse = np.zeros((2, len(score)), np.int64)
    lock = threading.Lock()

    def count(i: slice, j: slice, se: Floats) -> None:
        # Between a block and itself both orders of a pair are there already.
        for a, b, block in [(i, j, se), (j, i, se.T)][: 1 if i == j else 2]:
            better = surely_better(score[a], score[b], block, critical)
            with lock:
                n_worse[a] += better.sum(axis=1)
                n_better[b] += better.sum(axis=0)

    over_blocks(ratio, count, threads)
    return np.stack([1 + n_better, len(score) - n_worse], axis=1)


def se_beside(ratio: Ratio, model: int) -> Floats:
    """Return the column of `pairwise.pair_se` of one model.

    Args:
        ratio: G images, M models.
        model: 0…M−1.

    Returns:
        [M] standard errors of the differences from it.

    >>> se_beside(Ratio(np.array([[1.0, 1.0], [2.0, 1.0]]), np.array([[2.0], [2.0]])), 0)
    array([0.  , 0.25])
    """
    u, score = ratio.influence, ratio.estimate
    se = se_of(np.square(u - u[model]).sum(axis=1, keepdims=True), u.shape[1])
    return significant_se(se, score, score[model : model + 1])[:, 0]


def like_best_of(ratio: Ratio, critical: float) -> NDArray[np.bool_]:
    """Return `like_best` of the models of a ratio; the arguments are those of `ranks_of`.

    >>> like_best_of(Ratio(np.array([[1.0, 0.0], [2.0, 1.1]]), np.array([[2.0], [2.0]])), 3.0)
    array([ True, False])
    """
    score = ratio.estimate
    best = int(score.argmax())
    se = se_beside(ratio, best)[None]
    worse: NDArray[np.bool_] = surely_better(score[best : best + 1], score, se, critical)[0]
    return ~worse
