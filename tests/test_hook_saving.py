"""Saved predictions: what was counted, per epoch, whole files only, never another run's masks."""

import copy
import gc
import pickle

import numpy as np
import pytest
import torch
from helpers import sample_case

import refcocom_gpu as rc


@pytest.fixture(scope="module")
def case():
    return sample_case()


def offline(folder, case, epoch=0):
    return rc.score(folder / f"epoch-{epoch:05}", case.store)


@pytest.mark.parametrize("letterbox", [None, 512, "center"])
@pytest.mark.parametrize("form", ["masks", "small masks", "logits", "bfloat16", "probabilities"])
def test_saved_as_counted(case, tmp_path, form, letterbox):
    n = len(case.masks)
    fields = torch.randn(n, 12, 12, generator=torch.Generator().manual_seed(1))
    preds = {
        "masks": [torch.from_numpy(mask) for mask in case.masks],
        "small masks": fields > 0,
        "logits": fields,
        "bfloat16": fields.bfloat16(),
        "probabilities": fields.sigmoid(),
    }[form]
    values = "probabilities" if form == "probabilities" else "logits"
    metric = rc.RefCOCOMMetric(
        case.store,
        values=values,
        letterbox=letterbox,
        resize_masks="nearest",
        save_predictions=tmp_path / "é saved",
    )
    for part in np.array_split(np.random.default_rng(2).permutation(n), 9):
        metric.update([preds[k] for k in part], part)
    result = metric.result()
    assert not list(tmp_path.rglob("*.parquet"))
    assert metric.compute()["refcocom/miou"].item() == result.miou
    assert offline(tmp_path / "é saved", case).per_example.equals(result.per_example)


def test_epochs_have_folders_and_files_follow_the_epoch(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path, partial=True)
    metric.reset()
    for epoch in range(2):
        preds = [mask if epoch else ~mask for mask in case.masks]
        metric.update(preds[:100], range(100))
        metric.compute()
        metric.update(preds[50:], range(50, len(preds)))
        miou = metric.compute()["refcocom_partial/miou"].item()
        assert offline(tmp_path, case, epoch).miou == miou
        metric.reset()
    # Nothing but the files is left.
    assert (
        sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
        == ["rank-00000-of-00001.parquet"] * 2
    )


def test_partial_files_between(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path, partial=True)
    metric.update(case.masks[:10], range(10))
    metric.compute()
    result = rc.score(tmp_path / "epoch-00000", case.store, missing="zero")
    assert result.n_missing == len(case.masks) - 10


def test_repeats_are_saved_once(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path)
    index = [*range(len(case.masks)), *range(20)]
    metric.update([case.masks[k] for k in index], index)
    metric.update([case.masks[0]], [0])
    assert metric.compute()["refcocom/n_conflicting"].item() == 0
    assert offline(tmp_path, case).per_example.equals(metric.result().per_example)


def test_another_runs_predictions_are_left_alone(case, tmp_path):
    first = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path, partial=True)
    first.update(case.masks[:3], range(3))
    # Killed: only a journal is there.
    assert [p.suffix for p in tmp_path.rglob("*.*")] == [".partial"]
    second = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path, partial=True)
    with pytest.raises(
        rc.UsageError, match="holds the predictions of another run; give another folder"
    ):
        second.update(case.masks[:3], range(3))
    assert int((second.counts[:, 0] >= 0).sum()) == 0


def test_a_bad_batch_saves_nothing(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path)
    with pytest.raises(rc.PredictionError, match="non-finite"):
        metric.update([np.ones((2, 2)), np.full((2, 2), np.nan)], [0, 1])
    assert not list(tmp_path.iterdir())


def test_no_two_writers(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path)
    with pytest.raises(rc.UsageError, match="two would write one file"):
        copy.deepcopy(metric)
    # To another process it may go before it has begun.
    pickle.loads(pickle.dumps(metric))
    metric.update(case.masks[:1], [0])
    with pytest.raises(rc.UsageError, match="reset it first"):
        pickle.dumps(metric)


def test_reset_loses_nothing(case, tmp_path):
    """What no compute has written, reset writes."""
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path)
    metric.update(case.masks, range(len(case.masks)))
    result = metric.result()
    metric.reset()
    assert offline(tmp_path, case).per_example.equals(result.per_example)
    # An epoch in which nothing came has no folder.
    metric.reset()
    metric.update(case.masks, range(len(case.masks)))
    metric.compute()
    assert offline(tmp_path, case, 1).miou == result.miou


def test_counts_from_elsewhere_are_not_in_the_file(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path)
    other = rc.RefCOCOMMetric(case.store)
    with pytest.raises(rc.UsageError, match="takes counts from update alone"):
        metric.merge_state(other)
    metric.persistent(True)
    other.persistent(True)
    with pytest.raises(rc.UsageError, match="takes counts from update alone"):
        metric.load_state_dict(other.state_dict())
    metric.count(case.masks[0], 0)
    assert not list(tmp_path.iterdir())


def test_journals_go_with_the_metric(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path, partial=True)
    metric.update(case.masks[:5], range(5))
    metric.compute()
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    del metric
    gc.collect()
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".parquet"]
