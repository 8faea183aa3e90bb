"""Adapters to trainers: each hands over every example once and gives the offline numbers, or says what is partial."""

import warnings

import numpy as np
import pytest
import rank_worker
import torch
from loops import Examples, Lookup, Module, lightning_trainer, loader
from torch.utils.data import DataLoader

import refcocom_gpu as rc
from refcocom_gpu.training.state import INTERSECTION


@pytest.fixture(scope="module")
def store():
    return rc.MaskStore.build(rc.load_dataset("sample"), cache=False)


@pytest.fixture(scope="module")
def logits(store):
    return rank_worker.make_logits(store)


@pytest.fixture(scope="module")
def offline(store, logits):
    return rc.score([(range(len(store)), logits)], store)


# Lightning --------------------------------------------------------------------------------------


class Returning(Module):
    """A module whose step returns what `returns` makes of logits and batch."""

    def __init__(self, logits, returns):
        super().__init__(logits)
        self.returns = returns

    def validation_step(self, batch, batch_idx):
        return self.returns(self.model(**batch)["logits"], batch)

    test_step = validation_step


@pytest.fixture
def _calm():
    with warnings.catch_warnings():
        # Lightning's advice on workers, and what it deprecates itself.
        warnings.simplefilter("ignore")
        yield


RETURNS = {
    "a mapping": lambda preds, batch: {"preds": preds},
    "with its index": lambda preds, batch: {"preds": preds, "index": batch["index"]},
    "predictions alone": lambda preds, batch: preds,
}


@pytest.mark.parametrize("returns", RETURNS)
@pytest.mark.usefixtures("_calm")
def test_lightning(store, logits, offline, tmp_path, returns):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    metric = rc.RefCOCOMMetric(store)
    trainer = lightning_trainer(RefCOCOMCallback(metric), tmp_path, max_epochs=2)
    module = Returning(logits, RETURNS[returns])
    trainer.fit(module, loader(store), loader(store))
    found = {key: value.item() for key, value in trainer.callback_metrics.items()}
    # Not rounded to float32 on the way through Lightning's own collection.
    assert found["refcocom/miou"] == offline.miou
    assert found["refcocom/ciou"] == offline.ciou
    assert found["refcocom/n_examples"] == offline.n_examples
    assert metric.partial is False
    (tested,) = trainer.test(module, loader(store), verbose=False)
    assert tested["refcocom/miou"] == offline.miou


@pytest.mark.parametrize(
    ("how", "n"),
    [
        ({"limit_val_batches": 3}, 48),
        ({"limit_val_batches": 1}, 16),
        ({"limit_val_batches": 0.5}, 144),
        ({"fast_dev_run": 2}, 32),
    ],
)
@pytest.mark.usefixtures("_calm")
def test_lightning_says_what_is_partial(store, logits, tmp_path, how, n):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    trainer = lightning_trainer(
        RefCOCOMCallback(rc.RefCOCOMMetric(store)), tmp_path, max_epochs=1, **how
    )
    trainer.fit(Returning(logits, RETURNS["a mapping"]), loader(store), loader(store))
    assert trainer.callback_metrics["refcocom_partial/n_examples"].item() == n
    assert "refcocom/miou" not in trainer.callback_metrics


@pytest.mark.usefixtures("_calm")
def test_lightning_limit_beyond_the_end(store, logits, offline, tmp_path):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    trainer = lightning_trainer(
        RefCOCOMCallback(rc.RefCOCOMMetric(store)), tmp_path, limit_val_batches=1000
    )
    (found,) = trainer.validate(
        Returning(logits, RETURNS["a mapping"]), loader(store), verbose=False
    )
    assert found["refcocom/miou"] == offline.miou


@pytest.mark.usefixtures("_calm")
def test_lightning_with_another_loader(store, logits, offline, tmp_path):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    class Stepping(Module):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return self.model(**batch)["logits"] if dataloader_idx == 1 else None

    def validate(**options):
        callback = RefCOCOMCallback(rc.RefCOCOMMetric(store), **options)
        trainer = lightning_trainer(callback, tmp_path)
        trainer.validate(Stepping(logits), [loader(store), loader(store)], verbose=False)
        return trainer.callback_metrics

    assert validate(dataloader_idx=1)["refcocom/miou"].item() == offline.miou
    with pytest.raises(rc.UsageError, match=r"should return|dataloader_idx"):
        validate()


@pytest.mark.usefixtures("_calm")
def test_lightning_sanity_check_is_partial_and_forgotten(store, logits, offline, tmp_path):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    labels = []

    class Noting(RefCOCOMCallback):
        def _log(self, pl_module, *, limited):
            labels.append((limited, int((self.metric.counts[:, INTERSECTION] >= 0).sum())))
            super()._log(pl_module, limited=limited)

    trainer = lightning_trainer(
        Noting(rc.RefCOCOMMetric(store)), tmp_path, max_epochs=1, num_sanity_val_steps=2
    )
    trainer.fit(Returning(logits, RETURNS["a mapping"]), loader(store), loader(store))
    assert labels == [(True, 32), (False, len(store))]
    assert trainer.callback_metrics["refcocom/miou"].item() == offline.miou


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (lambda preds, batch: {"loss": preds.sum()}, "no 'preds', only loss"),
        (lambda preds, batch: None, "should return the predictions"),
    ],
)
@pytest.mark.usefixtures("_calm")
def test_lightning_mistakes(store, logits, tmp_path, returns, said):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    trainer = lightning_trainer(RefCOCOMCallback(rc.RefCOCOMMetric(store)), tmp_path)
    with pytest.raises(rc.UsageError, match=said):
        trainer.validate(Returning(logits, returns), loader(store), verbose=False)


@pytest.mark.usefixtures("_calm")
def test_lightning_without_an_index(store, logits, tmp_path):
    from refcocom_gpu.training.lightning import RefCOCOMCallback

    class Stepping(Module):
        def validation_step(self, batch, batch_idx):
            return self.model.logits[batch.long()]

    trainer = lightning_trainer(RefCOCOMCallback(rc.RefCOCOMMetric(store)), tmp_path)
    with pytest.raises(rc.UsageError, match="collate_fn=collate puts it into the batch"):
        trainer.validate(Stepping(logits), DataLoader(torch.arange(4.0)), verbose=False)


# Transformers -----------------------------------------------------------------------------------


def transformers_trainer(hook, model, store, folder, **options):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        label_names=["index"],
        per_device_eval_batch_size=16,
        per_device_train_batch_size=64,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=Examples(len(store)),
        eval_dataset=Examples(len(store)),
        data_collator=rc.collate,
        preprocess_logits_for_metrics=hook.preprocess_logits_for_metrics,
        compute_metrics=hook.compute_metrics,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_eval_metrics": True},
        {"eval_do_concat_batches": False},
        {"eval_accumulation_steps": 2},
        {"dataloader_num_workers": 1},
    ],
)
@pytest.mark.usefixtures("_calm")
def test_transformers(store, logits, offline, tmp_path, options):
    from refcocom_gpu.training.transformers import TrainerHook

    hook = TrainerHook(store)
    trainer = transformers_trainer(hook, Lookup(logits), store, tmp_path, **options)
    for _ in range(2):
        found = trainer.evaluate()
        assert found["eval_refcocom/miou"] == offline.miou
        assert found["eval_refcocom/ciou"] == offline.ciou
        assert found["eval_refcocom/n_examples"] == offline.n_examples


@pytest.mark.usefixtures("_calm")
def test_transformers_chooses_the_best_model_by_it(store, logits, offline, tmp_path):
    from refcocom_gpu.training.transformers import TrainerHook

    trainer = transformers_trainer(
        TrainerHook(store),
        Lookup(logits),
        store,
        tmp_path,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="refcocom/miou",
        learning_rate=0.0,
    )
    trainer.train()
    assert trainer.state.best_metric == offline.miou


def test_transformers_rows_may_repeat(store, logits, offline):
    """A sampler that pads repeats examples, and ranks come in any order."""
    from refcocom_gpu.training.transformers import TrainerHook

    hook = TrainerHook(store)
    order = np.random.default_rng(0).permutation(len(store))
    rows = [
        hook.preprocess_logits_for_metrics((logits[part], None), (None, torch.from_numpy(part)))
        for part in np.array_split(np.concatenate([order, order[:9]]), 7)
    ]
    found = hook.compute_metrics((torch.cat(rows).numpy(), None))
    assert found["refcocom/miou"] == offline.miou
    assert found["refcocom/n_conflicting"] == 0
    with pytest.raises(rc.PredictionError, match="missing"):
        hook.compute_metrics((rows[0].numpy(), None))
    # An error forgets the epoch, as a score does.
    assert hook.compute_metrics((torch.cat(rows).numpy(), None))["refcocom/miou"] == offline.miou
    with pytest.raises(rc.UsageError, match="label_names"):
        hook.preprocess_logits_for_metrics(logits[:2], None)
    with pytest.raises(rc.UsageError, match="save_predictions"):
        TrainerHook(store, save_predictions="somewhere")


def test_transformers_which_output_holds_the_masks(store, logits, offline):
    from refcocom_gpu.training.transformers import TrainerHook

    n = len(store)
    index, quality = torch.arange(n), torch.rand(n, 1, 3)
    with pytest.raises(
        rc.UsageError, match=r"\(297, 1, 3\), \(297, 1, 1, 24, 24\); TrainerHook\(…, preds=K\)"
    ):
        TrainerHook(store).preprocess_logits_for_metrics((quality, logits[:, None, None]), index)
    hook = TrainerHook(store, preds=1, label=0)
    rows = hook.preprocess_logits_for_metrics((quality, logits[:, None, None]), (index, quality))
    assert hook.compute_metrics((rows.numpy(), None))["refcocom/miou"] == offline.miou


def test_transformers_forgets_an_evaluation_that_was_broken_off(store, logits, offline):
    from refcocom_gpu.training.transformers import TrainerHook

    hook = TrainerHook(store)
    for sign, parts in ((-1, 4), (1, 9)):
        for k, part in enumerate(np.array_split(np.arange(len(store)), 9)[:parts]):
            rows = hook.preprocess_logits_for_metrics(sign * logits[part], torch.from_numpy(part))
            found = hook.compute_metrics((rows, None), compute_result=k == 8)
    assert found["refcocom/miou"] == offline.miou


# mmengine ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_calm")
def test_mmengine(store, logits, offline):
    evaluator_module = pytest.importorskip("mmengine.evaluator")
    import refcocom_gpu.training.mmengine  # noqa: F401 (registers the metric)

    evaluator = evaluator_module.Evaluator({"type": "RefCOCOMEvaluator", "dataset": "sample"})
    for _ in range(2):
        for index in torch.arange(len(store)).split(20):
            samples = [{"preds": logits[k][None], "index": int(k)} for k in index]
            evaluator.process(data_samples=samples, data_batch=None)
        found = evaluator.evaluate(len(store))
        assert found["refcocom/miou"] == offline.miou
        assert found["refcocom/n_examples"] == offline.n_examples
    with pytest.raises(rc.UsageError, match="a data sample has no 'index', only preds"):
        evaluator.process(data_samples=[{"preds": logits[0]}])
    evaluator.process(data_samples=[{"preds": logits[0], "index": 0}])
    with pytest.raises(rc.PredictionError, match="missing"):
        evaluator.evaluate(len(store))
