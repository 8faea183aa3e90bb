"""`metric.update`, `writer.write` and a data loader as users call them at first: a mistake names the right call."""

import copy
import functools
import inspect
import json
import pickle

import numpy as np
import pytest
import torch
from helpers import pictured, sample_case, unpictured
from torch.utils.data import DataLoader, Subset

import refcocom_gpu as rc
from refcocom_gpu.predictions.arguments import UPDATE, WRITE, has_pixels
from refcocom_gpu.scores import metrics


@pytest.fixture(scope="module")
def case():
    return sample_case()


def masks_of(case, n=2):
    """[n, H, W] of examples that share an image."""
    return np.stack([case.masks[k] for k in range(n)])


TARGETS = {
    "bool": lambda m: torch.from_numpy(m),
    "float": lambda m: torch.from_numpy(m).float(),
    "uint8": lambda m: torch.from_numpy(m).to(torch.uint8),
    "int64, as a class map": lambda m: torch.from_numpy(m).long(),
    "with a channel": lambda m: torch.from_numpy(m)[:, None].float(),
    "an array": lambda m: m,
    "a list": lambda m: list(torch.from_numpy(m)),
    "arrays": lambda m: [mask.astype(np.uint8) for mask in m],
}
CALLS = {"update": lambda metric: metric.update, "forward": lambda metric: metric}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("call", CALLS)
def test_a_target_is_no_index(case, target, call):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    masks = masks_of(case)
    for preds in (torch.randn(2, 8, 8), torch.from_numpy(masks)):
        with pytest.raises(rc.UsageError) as caught:
            CALLS[call](metric)(preds, TARGETS[target](masks))
        said = str(caught.value)
        assert "index is not a target mask" in said
        assert 'batch["index"]' in said
        assert "collate_fn=rc.collate" in said
        assert UPDATE in said
    # What the message names works.
    loader = DataLoader(rc.ExpressionDataset(case.dataset), batch_size=2, collate_fn=rc.collate)
    batch = next(iter(loader))
    CALLS[call](metric)(torch.randn(2, 8, 8), batch["index"])
    assert metric.compute()["refcocom_partial/n_examples"] == 2


def test_one_target_is_no_index(case):
    metric = rc.RefCOCOMMetric(case.store)
    mask = case.masks[0]
    for target in (mask, torch.from_numpy(mask).long()):
        with pytest.raises(rc.UsageError, match="index is not a target mask"):
            metric.update(mask, target)
    with pytest.raises(rc.UsageError, match="index is not a target mask"):
        metric.update(mask, case.rows()[0]["segmentation"])


INDICES = {
    "ints": lambda case: [0, 1],
    "a tensor": lambda case: torch.arange(2),
    "an array": lambda case: np.arange(2, dtype=np.int32),
    "keys": lambda case: [case.dataset.key_of(0), case.dataset.key_of(1)],
    "keys in a tensor": lambda case: torch.tensor([case.dataset.key_of(k) for k in range(2)]),
}


@pytest.mark.parametrize("index", INDICES)
def test_swapped_arguments_are_refused_and_names_cannot_be_swapped(case, index, tmp_path):
    index, masks = INDICES[index](case), masks_of(case)
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    writer = rc.PredictionWriter(tmp_path / "p.jsonl", case.dataset)
    calls = ((metric.update, UPDATE), (metric.count, UPDATE), (metric, UPDATE))
    for swapped in (masks, torch.from_numpy(masks), list(masks)):
        for call, right in calls:
            with pytest.raises(rc.UsageError, match="masks and index are swapped") as caught:
                call(index, swapped)
            assert f"{right}, or by name: index=…, masks=…" in str(caught.value)
        with pytest.raises(rc.UsageError, match="masks and index are swapped") as caught:
            writer.write(swapped, index)
        assert f"{WRITE}, or by name: index=…, masks=…" in str(caught.value)
    assert len(writer.pending()) == len(case.masks)
    assert (metric.counts[:, 0] == -1).all()
    # The same names on both, in any order.
    metric.update(index=index, masks=masks)
    writer.write(masks=masks, index=index)
    assert metric.counts[:2, :2].tolist() == case.expected[:2].tolist()
    assert len(writer.pending()) == len(case.masks) - 2
    one, two = rc.RefCOCOMMetric(case.store), rc.RefCOCOMMetric(case.store)
    one.update(masks, index)
    two(masks=masks, index=index)
    assert torch.equal(one.counts, two.counts)
    assert torch.equal(one.count(masks, index), one.count(index=index, masks=masks))


def test_both_take_the_same_names():
    def names(function):
        return set(inspect.signature(function).parameters) - {"self"}

    metric = rc.RefCOCOMMetric
    takes = [rc.PredictionWriter.write, metric.update, metric.count, metric.forward]
    expected = frozenset({"index", "masks", "no_target"})
    assert {frozenset(names(function)) for function in takes} == {expected}


def test_what_is_not_given_is_named(case, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    writer = rc.PredictionWriter(tmp_path / "p.jsonl", case.dataset)
    mask, rle = case.masks[0], case.rows()[0]["segmentation"]
    for value in (mask, rle, None):
        with pytest.raises(rc.UsageError, match="index, which names the example"):
            metric.update(value)
    with pytest.raises(rc.UsageError, match="index, which names the example"):
        writer.write(masks=mask)
    for call in (lambda: metric.update(index=0), lambda: writer.write(0)):
        # It would be an empty mask, and nobody said so.
        with pytest.raises(rc.UsageError, match="masks are not given, and None is an empty mask"):
            call()
    writer.write(0, None)
    metric.update(None, 0)
    assert metric.counts[0, :2].tolist() == [0, 0]


def test_dicts_by_either_name(case, tmp_path):
    by_key = {case.dataset.key_of(k): case.masks[k] for k in range(2)}
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    metric.update({0: case.masks[0]})
    metric.update(masks=by_key)
    assert metric.counts[:2, :2].tolist() == case.expected[:2].tolist()
    with rc.PredictionWriter(tmp_path / "p.jsonl", case.dataset) as writer:
        writer.write({2: case.masks[2]})
        writer.write(masks=by_key)
        assert len(writer.pending()) == len(case.masks) - 3


@pytest.mark.parametrize(
    "value",
    [5, [5], (20002, 0), [(20002, 0)], [[1, 2, 3]], np.arange(4), torch.arange(4), [torch.tensor(3)],
     np.zeros((9, 2), int), torch.zeros(9, 3, dtype=torch.int64), [np.array([20002, 0])], [], None,
     np.int64(3), "5"],
)  # fmt: skip
def test_what_names_examples_is_no_mask(value):
    assert not has_pixels(value)


# torch's data loader ----------------------------------------------------------------------------


def cropped(item, side=16):
    return {"pixels": torch.from_numpy(np.asarray(item["image"])[:side, :side].copy())}


def ragged(item):
    return {"pixels": torch.from_numpy(np.asarray(item["image"]).copy())}


@pytest.fixture
def examples(tmp_path):
    records, _ = pictured()
    path = unpictured(tmp_path / "r.jsonl", records)
    return functools.partial(rc.ExpressionDataset, rc.load_dataset(path), images=path.parent)


@pytest.mark.parametrize("transform", [None, ragged])
@pytest.mark.parametrize("workers", [0, 1])
def test_default_collation_names_collate(examples, transform, workers):
    dataset = examples(transform=transform)
    loader = DataLoader(dataset, batch_size=6, num_workers=workers)
    with pytest.raises(rc.UsageError, match=r"pass DataLoader\(…, collate_fn=rc\.collate\)"):
        next(iter(loader))
    with pytest.raises(rc.UsageError, match=r"collate_fn=rc\.collate"):
        next(iter(DataLoader(Subset(dataset, range(9)), batch_size=6)))
    batch = next(iter(DataLoader(dataset, batch_size=6, collate_fn=rc.collate)))
    assert batch["index"].tolist() == list(range(6))


def test_default_collation_of_what_it_can_collate_is_torch_s(examples):
    batch = next(iter(DataLoader(examples(transform=cropped), batch_size=4)))
    assert batch["pixels"].shape == (4, 16, 16, 3)
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert type(batch) is dict
    # Without batches nothing is collated.
    item = next(iter(DataLoader(examples(), batch_size=None)))
    assert item["index"] == 0
    assert pickle.loads(pickle.dumps(examples(transform=cropped)[3]))["index"] == 3
    # Other items are not ours to judge.
    with pytest.raises(TypeError):
        next(iter(DataLoader([{"image": object()}])))


# Scores by threshold ----------------------------------------------------------------------------


def test_a_threshold_that_is_not_there_is_named(case):
    result = rc.score([(k, mask) for k, mask in enumerate(case.masks)], case.store)
    shares = result.precision_at
    for threshold in (0.75, 0.55, "0.5", None):
        with pytest.raises(KeyError, match=r"0\.5, 0\.6, 0\.7, 0\.8, 0\.9") as caught:
            shares[threshold]
        assert isinstance(caught.value, rc.UsageError)
        # A KeyError alone would print its message as a quoted string.
        assert str(caught.value).startswith(f"no score at the threshold {threshold!r}, only at")
    # What the message names is there.
    assert 0 < metrics.precision_at(result.iou, [0.75])[0.75] < 1
    # All else is a dict's.
    assert isinstance(shares, dict)
    assert shares == {x: float(np.mean(result.iou >= x)) for x in metrics.PRECISION_THRESHOLDS}
    assert shares.get(0.75) is None
    assert 0.75 not in shares
    assert json.loads(json.dumps(shares)) == {str(x): share for x, share in shares.items()}
    assert pickle.loads(pickle.dumps(shares)) == copy.deepcopy(shares) == shares
