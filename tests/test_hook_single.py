"""One score as a metric: `self.log("miou", metric["miou"])` as Lightning handles it, and shared state."""

import copy
import pickle
import warnings

import pytest
import rank_worker
import torch
from loops import Module, lightning_trainer, loader
from torchmetrics import MeanMetric, MetricCollection, MetricTracker

import refcocom_gpu as rc
from refcocom_gpu.counting.rows import INTERSECTION
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS

NAMES = ["miou", "ciou", *(f"precision_at_{x}" for x in PRECISION_THRESHOLDS)]

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # Lightning's advice, and what it deprecates itself


@pytest.fixture(scope="module")
def store():
    return rc.MaskStore.build(rc.load_dataset("sample"), cache=False)


@pytest.fixture(scope="module")
def logits(store):
    return rank_worker.make_logits(store)


@pytest.fixture(scope="module")
def offline(store, logits):
    """The scores of one epoch, and of another whose logits are shrunk masks."""
    return [rc.score([(range(len(store)), logits - shift)], store) for shift in (0.0, 1.0)]


def expected(result):
    return {
        "miou": result.miou,
        "ciou": result.ciou,
        **{f"precision_at_{x}": share for x, share in result.precision_at.items()},
    }


def seen(metric):
    return int((metric.counts[:-1, INTERSECTION] >= 0).sum())


# Lightning --------------------------------------------------------------------------------------


class Logging(Module):
    """A module whose logits are another's in every epoch, and which notes what was logged."""

    def __init__(self, logits, metric, log):
        super().__init__(logits)
        self.metric, self.log_scores = metric, log
        self.logged = []

    def validation_step(self, batch, batch_idx):
        shift = float(self.current_epoch and not self.trainer.sanity_checking)
        self.metric.update(self.model(**batch)["logits"] - shift, batch["index"])
        self.log_scores(self)

    def on_validation_end(self):
        scores = {k: v.item() for k, v in self.trainer.callback_metrics.items()}
        self.logged.append((self.trainer.sanity_checking, scores))


def fit(store, logits, log, folder, metric=None, **options):
    metric = metric or rc.RefCOCOMMetric(store)
    module = Logging(logits, metric, log)
    options = {"max_epochs": 2, "num_sanity_val_steps": 2, **options}
    lightning_trainer([], folder, **options).fit(module, loader(store), loader(store))
    return module


def log_one(module):
    module.log("miou", module.metric["miou"])


def log_all(module):
    for name in NAMES:
        module.log(name, module.metric[name], on_step=False, on_epoch=True, prog_bar=True)


def log_dict(module):
    module.log_dict({name: module.metric[name] for name in NAMES})


@pytest.mark.parametrize("log", [log_one, log_all, log_dict])
def test_lightning_logs_the_offline_scores_of_each_epoch(store, logits, offline, tmp_path, log):
    module = fit(store, logits, log, tmp_path)
    assert offline[0].miou != offline[1].miou
    (sanity, checked), *epochs = module.logged
    assert sanity
    assert all(score != score for score in checked.values())
    assert len(epochs) == 2
    for (_, scores), result in zip(epochs, offline, strict=True):
        assert scores == {name: expected(result)[name] for name in scores}
        assert len(scores) == (1 if log is log_one else len(NAMES))
    # Lightning resets what it logged at the end of an epoch.
    assert seen(module.metric) == 0


def test_lightning_logs_at_the_end_of_an_epoch(store, logits, offline, tmp_path):
    class AtTheEnd(Logging):
        def on_validation_epoch_end(self):
            log_all(self)

    module = AtTheEnd(logits, rc.RefCOCOMMetric(store), lambda module: None)
    lightning_trainer([], tmp_path, max_epochs=2).fit(module, loader(store), loader(store))
    assert [scores for _, scores in module.logged[1:]] == [expected(r) for r in offline]


def test_lightning_logs_a_collection(store, logits, offline, tmp_path):
    class Collected(Logging):
        def __init__(self):
            metric = rc.RefCOCOMMetric(store)
            # torch allows no dot in the name of a module.
            members = {name.replace(".", "_"): metric[name] for name in NAMES}
            scores = MetricCollection(members, prefix="val/")
            super().__init__(logits, scores, lambda module: module.log_dict(module.metric))

    module = Collected()
    lightning_trainer([], tmp_path, max_epochs=2).fit(module, loader(store), loader(store))
    for (_, scores), result in zip(module.logged[1:], offline, strict=True):
        named = {f"val/{k}".replace(".", "_"): score for k, score in expected(result).items()}
        assert scores == named


def test_lightning_logs_the_score_of_a_step(store, logits, offline, tmp_path):
    class Stepping(Logging):
        def validation_step(self, batch, batch_idx):
            self.metric(self.model(**batch)["logits"], batch["index"])
            self.log("miou", self.metric["miou"], on_step=True, on_epoch=True)

    module = Stepping(logits, rc.RefCOCOMMetric(store), None)
    lightning_trainer([], tmp_path, max_epochs=1).fit(module, loader(store), loader(store))
    assert module.logged[-1][1]["miou_epoch"] == offline[0].miou


def test_lightning_finds_a_score_after_another_metric_was_logged(store, logits, offline, tmp_path):
    """Lightning looks up the attributes of a module once, when the first metric is logged."""

    class Mixed(Logging):
        def __init__(self):
            super().__init__(logits, rc.RefCOCOMMetric(store), log_all)
            self.loss = MeanMetric()

        def validation_step(self, batch, batch_idx):
            self.loss.update(1.5)
            self.log("loss", self.loss)
            super().validation_step(batch, batch_idx)

    module = Mixed()
    lightning_trainer([], tmp_path, max_epochs=1).fit(module, loader(store), loader(store))
    assert module.logged[-1][1] == {**expected(offline[0]), "loss": 1.5}


def test_only_the_score_is_an_attribute(store, logits, offline, tmp_path):
    module = fit(
        store, logits, lambda m: m.log("miou", m.metric), tmp_path, rc.RefCOCOMMetric(store)["miou"]
    )
    assert [scores["miou"] for _, scores in module.logged[1:]] == [r.miou for r in offline]


def log_whole(module):
    module.log("x", module.metric)


def log_computed(module):
    if module.trainer.sanity_checking:
        module.log_dict(module.metric.compute())


@pytest.mark.parametrize("log", [log_whole, log_computed])
def test_the_error_names_the_sanity_check_and_the_ways_out(store, logits, tmp_path, log):
    with pytest.raises(rc.PredictionError) as caught:
        fit(store, logits, log, tmp_path)
    said = str(caught.value)
    assert "Lightning runs a part of the batches in the sanity check" in said
    assert "RefCOCOMCallback" in said
    assert 'metric["miou"]' in said
    # 2 steps of 16.
    assert caught.value.counts["missing"] in {len(store) - 32, len(store) - 16}


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"limit_val_batches": 3}, "limit_val_batches"),
        ({"limit_val_batches": 0.5}, "limit_val_batches"),
        ({"fast_dev_run": 2}, "fast_dev_run"),
    ],
)
def test_a_part_that_was_asked_for_is_nan_and_said(store, logits, tmp_path, options, limit):
    with pytest.warns(UserWarning, match=rf"miou is NaN: {limit} left out .* RefCOCOMCallback"):
        module = fit(store, logits, log_one, tmp_path, **options)
    assert all(scores["miou"] != scores["miou"] for _, scores in module.logged)
    with pytest.raises(rc.PredictionError, match=f"part of the batches in {limit}"):
        fit(store, logits, log_whole, tmp_path, num_sanity_val_steps=0, **options)


def test_a_limit_beyond_the_end_is_none(store, logits, offline, tmp_path):
    module = fit(store, logits, log_one, tmp_path, limit_val_batches=1000, max_epochs=1)
    assert module.logged[-1][1]["miou"] == offline[0].miou


def test_a_loader_that_lacks_examples_is_an_error_in_lightning_too(store, logits, tmp_path):
    module = Logging(logits, rc.RefCOCOMMetric(store), log_one)
    short = loader(store, n=50)
    with pytest.raises(rc.PredictionError, match=f"{len(store) - 50} missing") as caught:
        lightning_trainer([], tmp_path, max_epochs=1).fit(module, loader(store), short)
    assert "Lightning" not in str(caught.value)


def test_partial_is_the_score_of_what_was_seen(store, logits, tmp_path):
    metric = rc.RefCOCOMMetric(store, partial=True)
    module = fit(store, logits, log_one, tmp_path, metric, limit_val_batches=2, max_epochs=1)
    alone = rc.RefCOCOMMetric(store, partial=True)
    alone.update(logits[:32], range(32))
    score = alone.compute()["refcocom_partial/miou"].item()
    assert [scores["miou"] for _, scores in module.logged] == [score, score]


# torchmetrics -----------------------------------------------------------------------------------


def test_one_state(store, logits, offline):
    metric = rc.RefCOCOMMetric(store)
    n = len(store)
    metric.update(logits[:100], range(100))
    metric["ciou"].update(logits[100:200], range(100, 200))
    metric["miou"].update(index=range(200, n), masks=logits[200:])
    for name, score in expected(offline[0]).items():
        assert metric[name].compute().item() == score
        assert metric[name].compute().dtype == torch.float64
    assert metric["miou"] is metric["miou"]
    assert metric["miou"].update_count == metric.update_count == 3
    metric["ciou"].reset()
    assert seen(metric) == 0
    with pytest.raises(rc.PredictionError, match=f"{n} missing"):
        metric["miou"].compute()
    batch = metric["miou"](logits[:9], range(9))
    again = rc.RefCOCOMMetric(store)
    assert batch == again(logits[:9], range(9))["refcocom_partial/miou"]


def test_names_that_are_not_there_are_listed(store):
    metric = rc.RefCOCOMMetric(store, name="my/metric", subset=50)
    for name in ("mIoU", "refcocom/miou", "precision_at_0.5", 0):
        with pytest.raises(rc.UsageError, match="only miou, miou_se, ciou, ciou_se"):
            metric[name]
    with pytest.raises(
        KeyError, match=r"no score 'n_examples', only miou, ciou, precision_at_0\.5"
    ):
        rc.RefCOCOMMetric(store)["n_examples"]


def test_scores_of_a_subset(store, logits):
    metric = rc.RefCOCOMMetric(store, subset=50)
    index = metric.subset.indices
    metric["miou"].update(logits[index], index)
    scores = metric.compute()
    for name in ("miou", "miou_se", "ciou", "ciou_se"):
        assert metric[name].compute() == scores[f"refcocom_estimate/{name}"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_collection_counts_once(store, logits, offline, monkeypatch, whole):
    metric = rc.RefCOCOMMetric(store)
    members = {name: metric[name] for name in ("miou", "ciou")}
    collection = MetricCollection({**members, **({"all": metric} if whole else {})})
    counted = []
    update = metric.update
    monkeypatch.setattr(metric, "update", lambda *a, **k: counted.append(1) or update(*a, **k))
    parts = torch.arange(len(store)).split(60)
    for part in parts:
        collection.update(logits[part], part)
    # torchmetrics finds the groups of equal states with the first batch.
    assert len(counted) == len(parts) - 1 + len(collection)
    assert len(collection.compute_groups) == 1
    scores = collection.compute()
    assert scores["miou"].item() == offline[0].miou
    assert scores["ciou"].item() == offline[0].ciou
    assert collection["miou"].compute().item() == offline[0].miou
    collection.reset()
    assert seen(metric) == 0


def test_a_collection_of_two_metrics(store, logits, offline):
    """Groups share states, here of metrics that are not the same."""
    metrics = [rc.RefCOCOMMetric(store) for _ in range(2)]
    collection = MetricCollection({"a": metrics[0]["miou"], "b": metrics[1]["ciou"]})
    for part in torch.arange(len(store)).split(60):
        collection.update(logits[part], part)
    scores = collection.compute()
    assert (scores["a"].item(), scores["b"].item()) == (offline[0].miou, offline[0].ciou)


def test_copies_share_with_their_own_metric(store, logits, offline):
    metric = rc.RefCOCOMMetric(store)
    metric.update(logits, range(len(store)))
    for single in (
        pickle.loads(pickle.dumps(metric))["miou"],
        pickle.loads(pickle.dumps(metric["miou"])),
        copy.deepcopy(metric)["miou"],
        metric["miou"].clone(),
        MetricCollection({"miou": metric["miou"]}).clone()["miou"],
    ):
        assert single.compute().item() == offline[0].miou
        single.reset()
        assert single.metric is not metric
        assert seen(single.metric) == 0
        assert single.metric["miou"] is single
    assert seen(metric) == len(store)


def test_moves_and_checkpoints(store, logits, offline):
    metric = rc.RefCOCOMMetric(store)
    single = metric["miou"]
    holder = torch.nn.Module()
    holder.miou = single
    assert holder.to("cpu").miou.device == metric.device
    holder.half()
    assert metric.counts.dtype == torch.int64
    single.to("meta")
    assert metric.counts.is_meta
    metric = rc.RefCOCOMMetric(store)
    metric.persistent(True)
    metric.update(logits, range(len(store)))
    saved = MetricCollection({"miou": metric["miou"]}).state_dict()
    again = rc.RefCOCOMMetric(store)
    again.persistent(True)
    MetricCollection({"miou": again["miou"]}).load_state_dict(saved)
    assert again["miou"].compute().item() == offline[0].miou
    other = rc.RefCOCOMMetric(store)
    other["ciou"].merge_state(metric["miou"])
    assert other["ciou"].compute().item() == offline[0].ciou


def test_a_metric_has_no_more_parts_than_before(store):
    metric = rc.RefCOCOMMetric(store)
    assert not metric.state_dict()
    assert not list(metric.children())
    assert not list(metric.parameters())
    names = [name for name, _ in metric.named_modules()]
    assert names == ["", *(name.replace(".", "_") for name in NAMES)]
    holder = torch.nn.ModuleDict({"metric": metric, "miou": metric["miou"]})
    assert sum(module is metric["miou"] for module in holder.modules()) == 1
    assert "miou" in repr(metric["miou"])


def test_a_tracker_of_one_score(store, logits, offline):
    tracker = MetricTracker(rc.RefCOCOMMetric(store)["miou"])
    for shift in (1.0, 0.0):
        tracker.increment()
        tracker.update(logits - shift, range(len(store)))
    best, step = tracker.best_metric(return_step=True)
    assert best == max(result.miou for result in offline)
    assert step == (1 if offline[0].miou > offline[1].miou else 0)


def test_without_lightning_an_incomplete_score_is_an_error(store, logits):
    metric = rc.RefCOCOMMetric(store)
    metric.update(logits[:5], range(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(rc.PredictionError, match="no update held it; partial=True"):
            metric["miou"].compute()
