"""The critical value and the ranks by blocks of pairs: to the bit as from whole matrices, on any number of threads."""

import tracemalloc

import numpy as np
import pytest
from refcocom_kernels import cpu

from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.uncertainty import blocks


def ratio_of(models, images=37, *, by_model=False, seed=0):
    """A ratio of models of which some are equal, some differ in one image, and some by rounding only."""
    rng = np.random.default_rng(seed)
    y = rng.random((images, 1)) + 0.2 * rng.random((images, models))
    y[:, models // 2 :: 5] = y[:, :1]
    y[0, models // 2 :: 10] += 0.1
    y[:, 2::7] = y[:, :1] * (1 + 1e-15)
    x = rng.integers(1, 9, (images, models if by_model else 1)).astype(np.float64)
    return un.Ratio(y, x)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("block", [7, 50, 120])
@pytest.mark.parametrize("models", [1, 2, 63, 130])
def test_blocks_give_the_bits_of_the_matrices(models, block, threads, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    for by_model in (False, True):
        ratio = ratio_of(models, by_model=by_model)
        expected = un.pairwise_intervals(ratio, n_replicates=99, seed=4)
        critical = un.critical_value(ratio, n_replicates=99, seed=4, threads=threads)
        assert critical == expected.critical
        assert (critical > 0) == (models > 1)
        for at in (critical, 0.5 * critical):
            whole = un.Pairwise(expected.estimate, expected.se, at, expected.level)
            np.testing.assert_array_equal(un.ranks_of(ratio, at, threads), un.rank_intervals(whole))
            np.testing.assert_array_equal(un.like_best_of(ratio, at), un.like_best(whole))
        for model in {0, models // 2, models - 1}:
            np.testing.assert_array_equal(un.se_beside(ratio, model), expected.se[:, model])


def test_sums_have_the_order_of_numpy():
    """Up to 8 terms one by one, up to 128 in eight lanes, more in halves."""
    rng = np.random.default_rng(1)
    for images in (1, 2, 7, 8, 9, 15, 63, 127, 128, 129, 136, 255, 257, 1190, 2_049, 5_598):
        left, right = (rng.normal(size=(n, images)) * 10 ** rng.normal() for n in (5, 13))
        found = cpu.squared_differences(left.T.copy(), right.T.copy())
        expected = [np.square(right - one).sum(axis=1) for one in left]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("width", [1, 3, 255, 256, 257, 600])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 2), (4, 5), (9, 11)])
def test_largest_ratios_are_those_of_numpy(m, n, width):
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=(m, width)), rng.normal(size=(n, width))
    inverse = rng.random((m, n)) * (rng.random((m, n)) < 0.7)
    start = rng.random(width)
    largest = start.copy()
    cpu.largest_ratios(left, right, inverse, largest)
    ratios = np.abs(left[:, None] - right) * inverse[..., None]
    np.testing.assert_array_equal(largest, np.maximum(start, ratios.max(axis=(0, 1))))


def test_no_matrix_of_all_pairs_is_held():
    ratio = ratio_of(2_000, 10)
    critical = un.critical_value(ratio, n_replicates=19)
    tracemalloc.start()
    try:
        assert un.critical_value(ratio, n_replicates=19) == critical
        un.ranks_of(ratio, critical)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000**2
