"""The subset for cheap validation: spread over the images, the same everywhere, without bias, honest errors."""

import numpy as np
import pytest
from helpers import sample_case

import refcocom_gpu as rc
from refcocom_gpu.scores import metrics
from refcocom_gpu.training.subset import draw_subset


@pytest.fixture(scope="module")
def case():
    return sample_case()


@pytest.fixture(scope="module")
def offline(case):
    return rc.score([(k, mask) for k, mask in enumerate(case.masks)], case.store)


@pytest.mark.parametrize("n", [2, 3, 10, 72, 100, 200, 296])
def test_drawn_evenly_in_whole_images(case, n):
    dataset = case.dataset
    subset = draw_subset(dataset, n, seed=n)
    assert len(np.unique(subset.indices)) == len(subset.indices) == n
    assert (np.diff(subset.indices) > 0).all()
    assert subset.sizes.sum() == dataset.n_examples
    assert subset.drawn.sum() == n
    assert (np.bincount(subset.stratum) == subset.drawn).all()
    assert ((subset.drawn >= 2) & (subset.drawn <= subset.sizes)).all()
    # The rate of every stratum is that of the whole, to one draw.
    assert (abs(subset.drawn - subset.sizes * n / dataset.n_examples) < 1).all()
    image = dataset.sample_image[dataset.example_sample]
    starts = np.cumsum(subset.sizes)[:-1]
    assert (image[starts] != image[starts - 1]).all()
    # As many strata as two draws each allow: one more image each would be too few.
    if n >= 2 * dataset.n_images:
        assert len(subset.sizes) > 0.5 * dataset.n_images


def test_is_reproducible(case):
    one, two = draw_subset(case.dataset, 40, seed=7), draw_subset(case.dataset, 40, seed=7)
    assert np.array_equal(one.indices, two.indices)
    assert not np.array_equal(one.indices, draw_subset(case.dataset, 40, seed=8).indices)
    # Pinned: validation curves of two versions are of the same examples.
    assert draw_subset(case.dataset, 8).indices.tolist() == PINNED


PINNED = [3, 11, 92, 150, 196, 212, 248, 269]


@pytest.mark.parametrize(
    ("n", "seed", "said"), [(1, 0, "from 2 to 296"), (297, 0, "of 297"), (9, -1, "not be negative")]
)
def test_what_cannot_be_drawn(case, n, seed, said):
    with pytest.raises(rc.UsageError, match=said):
        draw_subset(case.dataset, n, seed)


def test_estimates_are_unbiased_and_their_errors_honest(case, offline):
    """Over many seeds: the mean is the full score, the spread is the stated error, ±1.96 of it covers 95 %."""
    table = offline.per_example
    intersection, pred, target = (
        table[name].to_numpy() for name in ("intersection", "pred_area", "target_area")
    )
    union = pred + target - intersection
    seeds, n = 800, 80
    found = []
    for seed in range(seeds):
        subset = draw_subset(case.dataset, n, seed)
        k = subset.indices
        found.append(subset.estimate(offline.iou[k], intersection[k], union[k]))
    for name, truth in (("miou", offline.miou), ("ciou", offline.ciou)):
        value = np.array([one[name] for one in found])
        se = np.array([one[f"{name}_se"] for one in found])
        spread = value.std(ddof=1)
        # Four Monte-Carlo errors; a ratio is unbiased but for a term in 1/n, far below its error.
        assert abs(value.mean() - truth) < 4 * spread / np.sqrt(seeds) + (
            0.002 if name == "ciou" else 0
        )
        assert abs(np.sqrt((se**2).mean()) / spread - 1) < 0.12
        covered = (abs(value - truth) <= 1.96 * se).mean()
        assert covered > 0.95 - 0.01 - 4 * np.sqrt(0.95 * 0.05 / seeds)


def test_every_example_but_one_gives_nearly_the_full_score(case, offline):
    table = offline.per_example
    intersection, pred, target = (
        table[name].to_numpy() for name in ("intersection", "pred_area", "target_area")
    )
    subset = draw_subset(case.dataset, 296)
    k = subset.indices
    found = subset.estimate(offline.iou[k], intersection[k], (pred + target - intersection)[k])
    assert found["miou"] == pytest.approx(offline.miou, abs=4 * found["miou_se"] + 1e-12)
    assert found["miou_se"] < 0.005


def test_metric_and_data_agree_on_it(case):
    examples = rc.ExpressionDataset(case.dataset, subset=50, seed=3)
    metric = rc.RefCOCOMMetric(case.store, subset=50, seed=3)
    index = examples.indices.tolist()
    metric.update([case.masks[k] for k in index[:20]], index[:20])
    with pytest.raises(rc.PredictionError, match="30 missing"):
        metric.compute()
    metric.update([case.masks[k] for k in index[20:]], index[20:])
    found = {key: value.item() for key, value in metric.compute().items()}
    assert list(found) == [
        f"refcocom_estimate/{key}"
        for key in ("miou", "miou_se", "ciou", "ciou_se", "n_examples", "n_conflicting")
    ]
    assert found["refcocom_estimate/n_examples"] == 50
    iou = metrics.iou(*case.expected[index].T, case.store.areas[case.dataset.example_sample[index]])
    expected = metric.subset.estimate(iou, case.expected[index, 0], np.ones(50, np.int64))
    assert found["refcocom_estimate/miou"] == expected["miou"]
    # An example beyond the subset would be a second thing that is measured.
    other = int(np.setdiff1d(np.arange(len(case.masks)), index)[0])
    metric.update(case.masks[other], other)
    with pytest.raises(
        rc.UsageError, match=f"1 examples do not belong to the subset, first index {other}"
    ):
        metric.compute()
    with pytest.raises(rc.UsageError, match="pass one"):
        rc.ExpressionDataset(case.dataset, subset=50, indices=[1])
