"""The metric as torchmetrics knows metrics: reset, copies, checkpoints, merges, collections, trackers, plots."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from epochs import assert_same, feed
from helpers import sample_case
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.utilities.exceptions import TorchMetricsUserError

import refcocom_gpu as rc
from refcocom_gpu.counting.rows import CONFLICT, INTERSECTION, OTHER_RANK


@pytest.fixture(scope="module")
def case():
    return sample_case()


@pytest.fixture(scope="module")
def offline(case):
    return rc.score([(k, mask) for k, mask in enumerate(case.masks)], case.store)


def test_forward_scores_the_batch_and_keeps_the_rest(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    n = len(case.masks)
    for k in range(0, n, 50):
        index = list(range(k, min(n, k + 50)))
        scores = metric([case.masks[i] for i in index], index)
        assert scores["refcocom_partial/n_examples"].item() == len(index)
        alone = rc.RefCOCOMMetric(case.store, partial=True)
        alone.update([case.masks[i] for i in index], index)
        assert scores == alone.compute()
        assert metric._forward_cache == scores
    assert_same(metric, offline)
    again = metric([case.masks[0]], [0])
    assert again["refcocom_partial/n_examples"].item() == 1
    assert_same(metric, offline)
    with pytest.raises(rc.PredictionError, match="seen before"):
        metric([~case.masks[0]], [0])


def test_reset(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    metric.update([~mask for mask in case.masks], range(len(case.masks)))
    metric.reset()
    assert (metric.counts[:, INTERSECTION] == -1).all()
    feed(metric, case)
    assert_same(metric, offline)


def test_clone_and_pickle_share_or_reopen_the_store(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case, range(100))
    n = len(case.masks)
    for again in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        feed(again, case, range(100, n))
        assert_same(again, offline)
    assert metric.clone().store is metric.store
    # The original is as it was.
    assert int((metric.counts[:, INTERSECTION] >= 0).sum()) == 100


def test_metrics_over_one_store_share_its_bits(case):
    metrics = [rc.RefCOCOMMetric(case.store, name=f"run{k}") for k in range(5)]
    for metric in metrics:
        feed(metric, case, range(10))
    assert len({metric.store.words.ctypes.data for metric in metrics}) == 1


def test_state_dict(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    assert not metric.state_dict()
    metric.persistent(True)
    feed(metric, case, range(100))
    saved = metric.state_dict()
    again = rc.RefCOCOMMetric(case.store)
    again.persistent(True)
    again.load_state_dict(saved)
    feed(again, case, range(100, len(case.masks)))
    assert_same(again, offline)
    other = rc.RefCOCOMMetric(case.store, values="probabilities")
    other.persistent(True)
    with pytest.raises(rc.UsageError, match="of another dataset or of other options"):
        other.load_state_dict(saved)


def test_merge_state(case, offline):
    one, two = rc.RefCOCOMMetric(case.store), rc.RefCOCOMMetric(case.store)
    feed(one, case, range(200))
    feed(two, case, range(150, len(case.masks)))
    one.merge_state(two)
    assert_same(one, offline)
    with pytest.raises(rc.SyncError, match="another dataset or other options"):
        one.merge_state(rc.RefCOCOMMetric(case.store, letterbox=64))


def test_own_counts_come_first_in_a_merge(case):
    one, two = (rc.RefCOCOMMetric(case.store, partial=True) for _ in range(2))
    one.update(case.masks[0], 0)
    two.update(~case.masks[0], 0)
    one.merge_state(two)
    assert one.counts[0, :2].tolist() == case.expected[0].tolist()
    assert one.counts[0, CONFLICT] == OTHER_RANK


def test_a_checkpoint_is_not_written_to(case):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    metric.persistent(True)
    saved = metric.state_dict()
    metric.load_state_dict(saved)
    metric.update(case.masks[0], 0)
    assert saved["counts"][0, INTERSECTION] == -1
    saved["counts"] = saved["counts"][:3]
    with pytest.raises(rc.UsageError, match="no counts of this dataset"):
        metric.load_state_dict(saved)


def test_state_that_moves(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case, range(100))
    metric.share_memory()
    feed(metric, case, range(100, 200))
    metric.set_dtype(torch.float16)
    feed(metric.half().to(torch.bfloat16), case, range(200, len(case.masks)))
    assert_same(metric, offline)


def test_nothing_is_added_between_sync_and_unsync(case):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    metric._is_synced = True
    for add in (
        lambda: metric.update(case.masks[0], 0),
        lambda: metric(case.masks[0], 0),
        lambda: metric.add(torch.zeros(1, 6, dtype=torch.int64)),
    ):
        with pytest.raises(TorchMetricsUserError, match=r"until unsync\(\)"):
            add()


def test_order_within_a_ragged_batch(case):
    """Shapes are counted apart, but of an example that comes twice the first in the batch counts."""
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    small, large = np.ones((4, 4)), np.ones((8, 8))
    with pytest.raises(rc.PredictionError, match="seen before"):
        metric.update([small, large, -small], [0, 3, 3])
    alone = rc.RefCOCOMMetric(case.store, partial=True)
    alone.update(large, 3)
    assert torch.equal(metric.counts[3, :2], alone.counts[3, :2])


def test_collection_saves_all_of_it(case, tmp_path):
    """Only the first metric of a group is updated, so one that saves is in no group."""
    collection = MetricCollection(
        {
            "plain": rc.RefCOCOMMetric(case.store),
            "saving": rc.RefCOCOMMetric(case.store, save_predictions=tmp_path),
        }
    )
    for part in np.array_split(np.arange(len(case.masks)), 4):
        collection.update([torch.from_numpy(case.masks[k]) for k in part], part)
    scores = collection.compute()
    offline = rc.score(tmp_path / "epoch-00000" / "*.parquet", case.store)
    assert scores["saving_refcocom/miou"].item() == offline.miou


def test_collection_tells_metrics_apart(case):
    """Groups of a collection are of equal states: masks count alike under any options, floats do not."""
    collection = MetricCollection(
        {
            "logits": rc.RefCOCOMMetric(case.store, values="logits"),
            "probabilities": rc.RefCOCOMMetric(case.store, values="probabilities"),
            "same": rc.RefCOCOMMetric(case.store, values="logits"),
        }
    )
    n = len(case.masks)
    collection.update([torch.from_numpy(m) for m in case.masks[:5]], list(range(5)))
    assert len(collection.compute_groups) == 2
    halves = [torch.full((8, 8), 0.25) for _ in range(n - 5)]
    collection.update(halves, list(range(5, n)))
    scores = collection.compute()
    full, empty = (scores[f"{name}_refcocom/ciou"].item() for name in ("logits", "probabilities"))
    assert full != empty
    assert scores["same_refcocom/ciou"].item() == full


def test_tracker_and_plot(case):
    tracker = MetricTracker(rc.RefCOCOMMetric(case.store), maximize=True)
    for _ in range(2):
        tracker.increment()
        feed(tracker, case)
    assert tracker.compute_all()["refcocom/miou"].shape == (2,)
    pytest.importorskip("matplotlib").use("agg")
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case)
    figure, axes = metric.plot([metric.compute(), metric.compute()])
    labels = axes.get_legend_handles_labels()[1]
    assert "refcocom/miou" in labels
    assert not any("n_examples" in label for label in labels)
    figure.clear()


def test_scores_are_for_loggers(case):
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case)
    flat = {key: value.item() for key, value in metric.compute().items()}
    assert json.loads(json.dumps(flat)) == flat
    assert [type(value) for value in flat.values()] == [float] * 7 + [int] * 2


def test_inference_mode(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    with torch.inference_mode():
        metric.reset()
        feed(metric, case, range(100))
    feed(metric, case, range(100, len(case.masks)))
    assert_same(metric, offline)


def test_convention_and_strictness(case):
    metric = rc.RefCOCOMMetric(case.store, precision_strict=True)
    feed(metric, case)
    offline = rc.score(
        [(k, m) for k, m in enumerate(case.masks)], case.store, precision_strict=True
    )
    assert_same(metric, offline)
    with pytest.raises(rc.UsageError, match="unknown convention"):
        rc.RefCOCOMMetric(case.store, convention="best")
