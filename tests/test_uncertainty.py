"""Standard errors, bootstrap and joint intervals: SciPy as the oracle, simulated truth, and properties to the bit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.uncertainty import pairwise, resampling

MIOU, CIOU = 0, 1
SIGMAS = 4
"""How far two estimates may be apart in Monte-Carlo errors; two that agree are further apart once in 15,000 times."""


def draw(rng, images, models, *, fail=0.03, own=1.0):
    """[N] image, [N, M] IoU: images differ in difficulty for all models alike; `own`: share of examples a model varies.

    Expressions per image are skewed (mean 4.7) and more where it is hard, so that numerator and denominator correlate;
    a model fails altogether on a share `fail` of the examples, all of them together on 6 %.
    """
    n = 1 + rng.poisson(rng.gamma(2.0, 1.85, images))
    image = np.repeat(np.arange(images), n)
    hard = (1.8 + rng.normal(size=images) - 0.15 * (n - 4.7))[image] + 0.8 * rng.normal(
        size=n.sum()
    )
    found = 1 / (1 + np.exp(-hard[:, None] - 0.6 * rng.normal(size=(len(image), models))))
    found *= rng.random(found.shape) >= fail
    found = np.where(rng.random(found.shape) < own, found, 1 / (1 + np.exp(-hard[:, None])))
    return image, found * (rng.random(len(image)) >= 0.06)[:, None]


def scores(rng, images, models, **options):
    """mIoU and cIoU of the same drawn examples, areas skewed as those of objects are."""
    image, ious = draw(rng, images, models, **options)
    union = np.exp(rng.normal(9, 1.2, len(image))).astype(np.int64)[:, None] + 1
    unions = union + rng.integers(0, 500, ious.shape)
    return un.ratio_by_image(image, ious), un.ratio_by_image(image, np.rint(ious * unions), unions)


def columns(ratio, which):
    one = ratio.denominator.shape[1] == 1
    return un.Ratio(ratio.numerator[:, which], ratio.denominator[:, [0] if one else which])


# Sums and standard errors --------------------------------------------------------------------------


def test_ratios_are_the_scores():
    rng = np.random.default_rng(0)
    image, ious = draw(rng, 50, 3)
    union = rng.integers(1, 10_000, ious.shape)
    intersection = np.rint(ious * union).astype(np.int64)
    miou = un.ratio_by_image(image, ious)
    ciou = un.ratio_by_image(image, intersection, union)
    precision = un.ratio_by_image(image, ious >= 0.5)
    for m in range(3):
        # The grid of sums rounds by less than 2⁻³⁷.
        assert miou.estimate[m] == pytest.approx(metrics.mean(ious[:, m]), abs=1e-11)
        assert ciou.estimate[m] == metrics.ciou(intersection[:, m], union[:, m], intersection[:, m])
        assert precision.estimate[m] == metrics.precision_at(ious[:, m])[0.5]


def test_sums_per_image_do_not_depend_on_the_order_of_examples():
    rng = np.random.default_rng(1)
    image, ious = draw(rng, 40, 5)
    names = np.array([f"é{k:03}" for k in range(40)])[image]
    sums, n = un.per_image(ious, names)
    for label in range(40):
        np.testing.assert_allclose(sums[label], ious[image == label].sum(axis=0), atol=1e-10)
        assert n[label] == (image == label).sum()
    for _ in range(5):
        order = rng.permutation(len(image))
        again, n_again = un.per_image(ious[order], names[order])
        assert again.tobytes() == sums.tobytes()
        assert n_again.tobytes() == n.tobytes()
    np.testing.assert_array_equal(un.per_image(ious[:, 2], names)[0], sums[:, 2])


def test_standard_errors_by_hand():
    y, x = np.array([[3.0, 1.0], [0.0, 1.0], [2.0, 4.0]]), np.array([[4.0], [1.0], [5.0]])
    found = un.Ratio(y, x)
    r = y.sum(axis=0) / 10
    residual = (y - r * x) / 10
    expected = np.sqrt(1.5 * (residual**2).sum(axis=0))
    np.testing.assert_allclose(un.cluster_se(found), expected, rtol=1e-14)
    # The factor G/(G−1): where every image has one example, the standard error of a mean.
    alone = un.Ratio(y, np.ones((3, 1)))
    np.testing.assert_allclose(un.cluster_se(alone), stats.sem(y, axis=0), rtol=1e-14)
    np.testing.assert_allclose(
        un.difference_se(alone)[0, 1], stats.sem(y[:, 0] - y[:, 1]), rtol=1e-14
    )


def test_standard_errors_do_not_depend_on_the_order_of_images():
    """Summed in another order they round differently: equal within 1e-12 of their size."""
    rng = np.random.default_rng(2)
    for ratio in scores(rng, 300, 4):
        order = rng.permutation(300)
        other = un.Ratio(ratio.numerator[order], ratio.denominator[order])
        np.testing.assert_array_equal(other.estimate, ratio.estimate)
        np.testing.assert_allclose(un.cluster_se(other), un.cluster_se(ratio), rtol=1e-12)
        np.testing.assert_allclose(un.difference_se(other), un.difference_se(ratio), rtol=1e-12)


# SciPy and the closed form -------------------------------------------------------------------------


def scipy_bootstrap(ratio, statistic, replicates=4_000):
    x = np.broadcast_to(ratio.denominator, ratio.numerator.shape)
    return stats.bootstrap(
        (*ratio.numerator.T, *x.T), statistic, paired=True, vectorized=True, method="percentile",
        n_resamples=replicates, batch=500, rng=np.random.default_rng(99),
    )  # fmt: skip


def quotient(y, x, axis=-1):
    return y.sum(axis=axis) / x.sum(axis=axis)


def quotients_apart(y0, y1, x0, x1, axis=-1):
    return quotient(y0, x0, axis) - quotient(y1, x1, axis)


def ends(replicates):
    """Standard error and ends of the 95 % interval of replicates [B]."""
    return (replicates.std(ddof=1), *np.quantile(replicates, [0.025, 0.975]))


def ends_of(scipy_result):
    return (scipy_result.standard_error, *scipy_result.confidence_interval)


def close(ours, theirs, se, replicates=4_000):
    """Standard errors, then ends of 95 % intervals, of two bootstraps of B replicates each.

    A standard deviation has the relative error 1/√(2B), a quantile √(p(1−p)/B) over the density there.
    """
    assert ours[0] == pytest.approx(theirs[0], rel=SIGMAS / math.sqrt(replicates))
    density = stats.norm.pdf(1.96) / se
    error = math.sqrt(2 * 0.025 * 0.975 / replicates) / density
    np.testing.assert_allclose(ours[1:], theirs[1:], atol=SIGMAS * error)


@pytest.mark.parametrize("score", [MIOU, CIOU])
def test_scipy_gives_the_same(score):
    ratio = scores(np.random.default_rng(3), 250, 2)[score]
    replicates = un.bootstrap(ratio, 4_000, seed=1)
    theirs = scipy_bootstrap(columns(ratio, [0]), quotient)
    close(ends(replicates[:, 0]), ends_of(theirs), un.cluster_se(ratio)[0])
    theirs = scipy_bootstrap(ratio, quotients_apart)
    apart = replicates[:, 0] - replicates[:, 1]
    close(ends(apart), ends_of(theirs), un.difference_se(ratio)[0, 1])
    # The interval of two models' difference is symmetric about its estimate, and as wide as SciPy's.
    pair = un.pairwise_intervals(ratio, n_replicates=4_000)
    low, high = theirs.confidence_interval
    assert (pair.high - pair.low)[0, 1] == pytest.approx(high - low, rel=0.1)


@pytest.mark.parametrize("score", [MIOU, CIOU])
def test_closed_form_and_bootstrap_agree_where_images_are_many(score):
    ratio = scores(np.random.default_rng(4), 4_000, 3)[score]
    replicates = un.bootstrap(ratio, 1_000)
    bound = SIGMAS / math.sqrt(2 * 1_000)
    np.testing.assert_allclose(replicates.std(axis=0, ddof=1), un.cluster_se(ratio), rtol=bound)
    pair = (replicates[:, 0] - replicates[:, 2]).std(ddof=1)
    assert pair == pytest.approx(un.difference_se(ratio)[0, 2], rel=bound)


def test_examples_of_an_image_count_as_one():
    """As if independent, ten copies of each example would seem ten times the evidence."""
    image, ious = draw(np.random.default_rng(5), 100, 1)
    once = un.cluster_se(un.ratio_by_image(image, ious))
    copied = un.ratio_by_image(np.tile(image, 10), np.tile(ious, (10, 1)))
    np.testing.assert_allclose(un.cluster_se(copied), once, rtol=1e-9)
    alone = un.ratio_by_image(np.arange(10 * len(image)), np.tile(ious, (10, 1)))
    assert un.cluster_se(alone) < once / 3


def test_a_quantile_of_student():
    for images in (50, 200, 1_190):
        for z in (1.96, 3.0, 4.6):
            factor = math.sqrt(images / (images - 1))
            exact = stats.t.isf(stats.norm.sf(z * factor), images - 1)
            assert pairwise.of_student(z, images) == pytest.approx(exact, rel=1e-2 * 50 / images)


# Replicates ----------------------------------------------------------------------------------------


def test_weights_are_multinomial_counts_from_the_seed():
    weights = np.concatenate(list(resampling.bootstrap_weights(30, 5_000, seed=7)))
    assert weights.shape == (5_000, 30)
    assert (weights.sum(axis=1) == 30).all()
    bound = SIGMAS * math.sqrt((1 - 1 / 30) / 5_000)
    # 30 images are looked at, each of which may exceed the bound.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=1.3 * bound)
    assert weights.var() == pytest.approx(1 - 1 / 30, rel=0.05)
    assert np.array_equal(
        weights, np.concatenate(list(resampling.bootstrap_weights(30, 5_000, seed=7)))
    )
    assert not np.array_equal(weights[:512], next(resampling.bootstrap_weights(30, 5_000, seed=8)))
    assert np.array_equal(weights[:10], next(resampling.bootstrap_weights(30, 10, seed=7)))


@pytest.mark.parametrize("score", [MIOU, CIOU])
def test_replicates_depend_on_neither_blocks_nor_other_models(score, monkeypatch):
    ratio = scores(np.random.default_rng(6), 120, 9)[score]
    whole = un.bootstrap(ratio, 300, seed=3)
    found = un.pairwise_intervals(ratio, n_replicates=300, seed=3)
    for which in ([4], [8, 0], [1, 2, 3, 7]):
        assert np.array_equal(un.bootstrap(columns(ratio, which), 300, seed=3), whole[:, which])
    for block in (1, 7, 64, 1_000):
        monkeypatch.setattr(resampling, "BLOCK", block)
        monkeypatch.setattr(resampling, "DRAWN", block)
        monkeypatch.setattr(pairwise, "PAIR_BLOCK", block)
        assert np.array_equal(un.bootstrap(ratio, 300, seed=3), whole)
        again = un.pairwise_intervals(ratio, n_replicates=300, seed=3)
        assert again.critical == found.critical


# Simulated truth -----------------------------------------------------------------------------------


class Population:
    """20,000 images to draw from, and so exactly known scores."""

    def __init__(self, models, score=MIOU, **options):
        self.ratio = scores(np.random.default_rng(10), 20_000, models, **options)[score]

    def sample(self, rng, images, *, equal):
        """A ratio and its true differences; models of an image change places where they are to be equal."""
        picked = rng.integers(0, 20_000, images)
        y, x = self.ratio.numerator[picked], self.ratio.denominator[picked]
        truth = self.ratio.estimate
        if equal:
            places = rng.permuted(np.tile(np.arange(len(truth)), (images, 1)), axis=1)
            y, truth = np.take_along_axis(y, places, 1), np.zeros_like(truth)
            x = x if x.shape[1] == 1 else np.take_along_axis(x, places, 1)
        return un.Ratio(y, x), truth[:, None] - truth


def missed(found, truth):
    outside = (found.low > truth) | (found.high < truth)
    return bool(outside[np.triu_indices(len(truth), 1)].any())


def misses(population, samples, images, *, equal, replicates=399):
    rng = np.random.default_rng(11)
    count = 0
    for seed in range(samples):
        ratio, truth = population.sample(rng, images, equal=equal)
        found = un.pairwise_intervals(ratio, n_replicates=replicates, seed=seed)
        count += missed(found, truth)
        if equal:
            assert missed(found, truth) == bool(found.better.any())
    return count


def at_most(samples, share):
    """What a count of misses exceeds in less than one run of 1,000 if they have this probability."""
    return stats.binom.ppf(0.999, samples, share)


CASES = [(MIOU, 200, 500), (MIOU, 1_190, 200), (CIOU, 1_190, 200)]


@pytest.mark.parametrize(("score", "images", "samples"), CASES)
def test_equal_models_are_told_apart_in_one_of_twenty_samples(score, images, samples):
    count = misses(Population(8, score), samples, images, equal=True)
    assert count <= at_most(samples, 0.05)
    # Nor are the intervals wider than they need be.
    assert count >= stats.binom.ppf(0.001, samples, 0.04)


@pytest.mark.parametrize(("score", "images", "samples"), CASES)
def test_known_differences_are_covered_together(score, images, samples):
    population = Population(8, score, fail=np.linspace(0.02, 0.1, 8))
    assert misses(population, samples, images, equal=False) <= at_most(samples, 0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("models", "images"), [(8, 50), (20, 200)])
def test_the_documented_shares_of_misses(models, images):
    population = Population(models, fail=np.linspace(0.02, 0.1, models))
    for equal in (True, False):
        assert misses(population, 300, images, equal=equal) <= at_most(300, 0.055)


def test_ranks_cover_the_true_ranks():
    population = Population(6, fail=np.linspace(0.02, 0.1, 6))
    rank = (-population.ratio.estimate).argsort().argsort() + 1
    rng, count, narrow = np.random.default_rng(12), 0, 0
    for seed in range(200):
        ratio, _ = population.sample(rng, 400, equal=False)
        found = un.rank_intervals(un.pairwise_intervals(ratio, n_replicates=399, seed=seed))
        count += bool(((rank < found[:, 0]) | (rank > found[:, 1])).any())
        narrow += (np.diff(found, axis=1) < 5).all()
    assert count <= at_most(200, 0.05)
    assert narrow > 150


def test_intervals_of_one_pair_each_make_a_winner_of_equal_models():
    """Why pairs are not tested one by one: the best of many is chosen for its luck."""
    rng = np.random.default_rng(13)
    winners = 0
    for _ in range(5):
        image, ious = draw(rng, 1_190, 200)
        ratio = un.ratio_by_image(image, ious)
        alone = pairwise.Pairwise(ratio.estimate, un.difference_se(ratio), 1.96, 0.95)
        winners += not un.like_best(alone).all()
    assert winners == 5


def studentised_critical(ratio, replicates):
    """What the quantile would be, were the standard errors computed anew in each replicate."""
    y, x = ratio.numerator, ratio.denominator
    r, images, largest = ratio.estimate, len(y), []
    for w in np.concatenate(list(resampling.bootstrap_weights(images, replicates))):
        again = w @ y / (w @ x)
        u = (y - again * x) / (w @ x)
        squares = np.einsum("g,gij->ij", w, np.square(u[:, :, None] - u[:, None]))
        deviation = (again - r)[:, None] - (again - r)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(deviation) / np.sqrt(squares * images / (images - 1))
        largest.append(np.where(np.abs(deviation) < 1e-12, 0, t).max())
    return float(np.quantile(largest, 0.95))


def test_fixed_standard_errors_are_no_worse_and_bear_models_that_are_nearly_alike():
    rng = np.random.default_rng(14)
    ratio = Population(5).sample(rng, 200, equal=True)[0]
    fixed = un.pairwise_intervals(ratio, n_replicates=1_999).critical
    assert studentised_critical(ratio, 1_999) == pytest.approx(fixed, rel=0.05)
    ratio = Population(5, own=0.01).sample(rng, 200, equal=True)[0]
    fixed_alike = un.pairwise_intervals(ratio, n_replicates=499).critical
    assert fixed_alike == pytest.approx(fixed, rel=0.15)
    assert studentised_critical(ratio, 499) > 1.5 * fixed_alike


# Properties ----------------------------------------------------------------------------------------

sums = st.integers(2, 12).flatmap(
    lambda g: st.integers(1, 6).flatmap(
        lambda m: st.tuples(
            st.lists(
                st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=m, max_size=m),
                min_size=g,
                max_size=g,
            ),
            st.lists(st.integers(1, 5), min_size=g, max_size=g),
        )
    )
).map(lambda t: un.Ratio(np.array(t[0]) * np.array(t[1])[:, None], np.array(t[1], float)[:, None]))  # fmt: skip


@given(sums)
@settings(max_examples=60)
def test_pairs_are_antisymmetric_and_ranks_contain_the_rank(ratio):
    found = un.pairwise_intervals(ratio, n_replicates=39)
    np.testing.assert_array_equal(found.difference, -found.difference.T)
    np.testing.assert_array_equal(found.low, -found.high.T)
    np.testing.assert_array_equal(found.se, found.se.T)
    assert np.isfinite(found.low).all()
    assert not (found.better & found.better.T).any()
    ranks = un.rank_intervals(found)
    for model, score in enumerate(found.estimate):
        ahead, behind = (found.estimate > score).sum(), (found.estimate < score).sum()
        assert 1 <= ranks[model, 0] <= ahead + 1
        assert len(found.estimate) - behind <= ranks[model, 1] <= len(found.estimate)
    assert un.like_best(found)[found.estimate == found.estimate.max()].all()
    assert (ranks[un.like_best(found) & (found.estimate == found.estimate.max()), 0] == 1).all()


@given(sums, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_another_model_changes_no_other_pair(ratio, rng):
    models = ratio.numerator.shape[1]
    which = sorted(rng.sample(range(models), rng.randint(1, models)))
    whole = un.pairwise_intervals(ratio, n_replicates=39)
    part = un.pairwise_intervals(columns(ratio, which), n_replicates=39)
    np.testing.assert_array_equal(part.difference, whole.difference[np.ix_(which, which)])
    np.testing.assert_array_equal(part.se, whole.se[np.ix_(which, which)])
    assert part.critical <= whole.critical


def test_a_model_twice_is_equal_to_itself():
    for ratio in scores(np.random.default_rng(15), 60, 4):
        once = un.pairwise_intervals(ratio, n_replicates=199)
        twice = un.pairwise_intervals(columns(ratio, [0, 1, 2, 3, 1, 1]), n_replicates=199)
        for pair in ((1, 4), (4, 1), (4, 5)):
            assert twice.difference[pair] == twice.se[pair] == twice.low[pair] == 0
            assert not twice.better[pair]
        assert twice.critical == once.critical
        np.testing.assert_array_equal(twice.se[:4, :4], once.se)
        only = un.pairwise_intervals(columns(ratio, [2, 2, 2]), n_replicates=199)
        assert only.critical == 0
        assert un.rank_intervals(only).tolist() == [[1, 3]] * 3
        assert un.like_best(only).all()


def test_a_difference_that_is_the_same_in_every_image_is_certain():
    rng = np.random.default_rng(16)
    n = rng.integers(1, 9, 80).astype(float)[:, None]
    sums = rng.random((80, 2)) * n / 3
    other = un.Ratio(np.column_stack([sums, sums[:, 0] + 0.1 * n[:, 0]]), n)
    found = un.pairwise_intervals(other, n_replicates=199)
    assert found.se[0, 2] == 0
    assert found.low[2, 0] == found.high[2, 0] == pytest.approx(0.1)
    assert found.better[2, 0]
    without = un.pairwise_intervals(un.Ratio(other.numerator[:, :2], n), n_replicates=199)
    # Pairs (0, 1) and (2, 1) vary alike, and (0, 2), which would be rounding over rounding, takes no part.
    assert found.critical == pytest.approx(without.critical, rel=1e-9)
    # Nothing but rounding is no difference: 0.1 + 0.2 is not 0.3.
    sums = np.column_stack([np.full(50, 0.1 + 0.2), np.full(50, 0.3)])
    assert sums[0, 0] != sums[0, 1]
    assert not un.pairwise_intervals(un.Ratio(sums, np.ones((50, 1)))).better.any()


def test_one_model_and_two():
    ratio = scores(np.random.default_rng(17), 60, 2)[1]
    alone = un.pairwise_intervals(columns(ratio, [0]))
    assert (alone.critical, un.rank_intervals(alone).tolist()) == (0, [[1, 1]])
    both = un.pairwise_intervals(ratio, seed=4)
    assert both.low[0, 1] < both.difference[0, 1] < both.high[0, 1]
    back = un.pairwise_intervals(columns(ratio, [1, 0]), seed=4)
    assert back.difference[0, 1] == -both.difference[0, 1]
    assert back.se[0, 1] == both.se[0, 1]
    assert (back.low[0, 1], back.high[0, 1]) == (-both.high[0, 1], -both.low[0, 1])


def test_what_cannot_be_answered_is_refused():
    y, x = np.ones((5, 2)), np.ones((5, 1))
    refusals = {
        "at least 2 of them, not 1": lambda: un.Ratio(y[:1], x[:1]),
        "at least 2 of them": lambda: un.ratio_by_image([4, 4], [0.5, 0.6]),
        r"not \(5, 2\) / \(4, 1\)": lambda: un.Ratio(y, x[:4]),
        r"not \(5, 0\)": lambda: un.Ratio(y[:, :0], x),
        r"not \(5,\)": lambda: un.Ratio(y[:, 0], x),
        "not finite has no": lambda: un.Ratio(y * np.nan, x),
        "positive in some": lambda: un.Ratio(y, x * 0),
        "negative in none": lambda: un.Ratio(y, np.array([[-1.0], [1], [1], [1], [1]])),
        "an image for each row": lambda: un.per_image([1, 2, 3], [1, 2]),
        r"not \(0,\)": lambda: un.per_image([], []),
        "not finite cannot": lambda: un.per_image([1, math.inf], [1, 2]),
        "too few images have": lambda: un.bootstrap(un.Ratio(y, np.eye(5)[:, :1])),
        "images and replicates, not 5, 0": lambda: un.bootstrap(un.Ratio(y, x), 0),
        "needs 19 replicates": lambda: un.pairwise_intervals(un.Ratio(y, x), n_replicates=18),
        "between 0 and 1, not 95": lambda: un.pairwise_intervals(un.Ratio(y, x), level=95),
    }
    for message, call in refusals.items():
        with pytest.raises(UsageError, match=message):
            call()
    assert un.pairwise_intervals(un.Ratio(y, x), n_replicates=19).critical == 0
