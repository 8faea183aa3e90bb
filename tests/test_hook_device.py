"""The hook of a device: what the host's counts, with mistakes that come to light at the end; nothing waits for it.

There is no GPU here: the device is host memory, whose tensors take the same way through operators and state.
"""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import sample_case
from hypothesis import given, settings
from hypothesis import strategies as st
from refcocom_kernels import ops, reference
from torch.utils._python_dispatch import TorchDispatchMode

import refcocom_gpu as rc
from refcocom_gpu.counting.device import DeviceCounter
from refcocom_gpu.counting.host import HostCounter
from refcocom_gpu.counting.rows import SAME_RANK
from refcocom_gpu.counting.stacks import count_stacks
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.training import metric as metric_module
from refcocom_gpu.training.batches import read_batch
from refcocom_gpu.training.state import empty_state, record


@pytest.fixture(scope="module")
def case():
    return sample_case()


@pytest.fixture
def on_device(monkeypatch):
    """Metrics count as on a device."""
    monkeypatch.setattr(metric_module, "counter_on", DeviceCounter)
    monkeypatch.setattr(metric_module, "record", partial(reference.tally, conflict=SAME_RANK))

    # Indices, too, come from there.
    def read(preds, index, *rest):
        place = torch.as_tensor(index).reshape(-1)
        return place, read_batch(preds, np.arange(len(place)), *rest)[1]

    monkeypatch.setattr(metric_module, "read_batch", read)


def stacks_of(case, preds, n):
    return read_batch(preds, np.arange(n), case.dataset, ReadOptions(), torch.device("cpu"))[1]


def fields(n, cells, kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, cells, cells, generator=generator).to(kind)


INPUTS = {
    "float32": lambda case: (fields(60, 24, torch.float32), "logits", None),
    "float16, letterboxed": lambda case: (fields(60, 24, torch.float16), "logits", 96),
    "bfloat16, centred": lambda case: (fields(60, 24, torch.bfloat16), "logits", "center"),
    "bfloat16": lambda case: (fields(60, 24, torch.bfloat16), "logits", None),
    "probabilities": lambda case: (fields(60, 24, torch.float32).sigmoid(), "probabilities", None),
    "masks of the images": lambda case: (
        [torch.from_numpy(m) for m in case.masks[:60]],
        "logits",
        None,
    ),
    "the same, letterboxed": lambda case: (
        [torch.from_numpy(m) for m in case.masks[:60]],
        "logits",
        96,
    ),
    "small masks, centred": lambda case: (fields(60, 24, torch.float32) > 0, "logits", "center"),
    "small masks": lambda case: (fields(60, 24, torch.float32) > 0, "logits", None),
    "small masks, letterboxed": lambda case: (fields(60, 24, torch.float32) > 0, "logits", 96),
    "ragged": lambda case: (
        [fields(1, 8 + k % 3, torch.float32, k)[0] for k in range(60)],
        "logits",
        None,
    ),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("index_is_there", [False, True])
def test_equals_the_host(case, name, index_is_there):
    preds, values, letterbox = INPUTS[name](case)
    options = ReadOptions(values=values, letterbox=letterbox, resize_masks="nearest")
    index = np.arange(60)
    stacks = stacks_of(case, preds, 60)
    host = count_stacks(HostCounter(case.store, options), stacks, index)
    there = torch.from_numpy(index) if index_is_there else index
    for metrics in (["iou"], ["iou", "boundary"]):
        device = count_stacks(
            DeviceCounter(case.store, options, torch.device("cpu"), metrics), stacks, there
        )
        assert torch.equal(device.table()[:, :6], host.table())
    boundaries = count_stacks(HostCounter(case.store, options, metrics), stacks, index)
    assert torch.equal(boundaries.table(), device.table())
    assert boundaries.rows.shape[1] == 10


@settings(max_examples=60)
@given(st.data())
def test_both_record_alike(data):
    """Repeated, conflicting, in any batches."""
    case = sample_case()
    options = ReadOptions()
    counters = (
        HostCounter(case.store, options),
        DeviceCounter(case.store, options, torch.device("cpu")),
    )
    states = empty_state(len(case.store)), empty_state(len(case.store))
    for _ in range(data.draw(st.integers(1, 3))):
        index = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)))
        signs = data.draw(st.lists(st.booleans(), min_size=len(index), max_size=len(index)))
        preds = [np.full((2, 2), 1.0 if sign else -1.0) for sign in signs]
        host, device = (
            count_stacks(c, stacks_of(case, preds, len(index)), index) for c in counters
        )
        record(states[0], host.index, host.rows)
        reference.tally(states[1], device.index, device.rows, SAME_RANK)
    assert torch.equal(*states)


class Waits(TorchDispatchMode):
    """Refuses the operators by which the host waits for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        waits = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
        assert name not in waits, name
        # A boolean mask as an index is as long as the device says.
        if name in {"index", "index_put", "index_put_"}:
            assert not any(t is not None and t.dtype == torch.bool for t in args[1])
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_reading(monkeypatch):
    """Refuse what brings a tensor to the host, which on host memory dispatches nothing."""
    inside = []

    def refuse(name, real):
        def reads(tensor, *args, **kwargs):
            # The operators' own side for host memory is not what runs on a device.
            assert inside, name
            return real(tensor, *args, **kwargs)

        return reads

    def operator(call):
        def calls(*args, **kwargs):
            inside.append(call)
            try:
                return call(*args, **kwargs)
            finally:
                inside.pop()

        return calls

    for name in ("cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse(name, getattr(torch.Tensor, name)))
    for name in ("logit_counts", "mask_counts"):
        monkeypatch.setattr(ops, name, operator(getattr(ops, name)))


@pytest.mark.parametrize("name", INPUTS)
def test_update_waits_for_nothing(case, name, on_device, request):
    preds, values, letterbox = INPUTS[name](case)
    options = {"values": values, "letterbox": letterbox, "resize_masks": "nearest"}
    metric = rc.RefCOCOMMetric(case.store, partial=True, **options)
    index = torch.arange(60)
    metric.update(preds, index)  # tables that are made once
    metric.reset()
    with pytest.MonkeyPatch.context():
        request.getfixturevalue("no_reading")
        with Waits():
            metric.update(preds, index)
        request.getfixturevalue("monkeypatch").undo()
    assert int((metric.counts[:, 0] >= 0).sum()) == 60


def test_inference_mode(case, on_device):
    """A state that was made in inference mode is written to out of it."""
    metric = rc.RefCOCOMMetric(case.store, partial=True, values="logits")
    with torch.inference_mode():
        metric.reset()
        metric.update(2 * torch.ones(1, 4, 4), [0])
    metric.update(2 * torch.ones(1, 4, 4), [1])
    assert metric.compute()["refcocom_partial/n_examples"].item() == 2


def test_forward_names_what_is_wrong(case, on_device):
    metric = rc.RefCOCOMMetric(case.store)
    with pytest.raises(rc.PredictionError, match="non-finite"):
        metric(torch.full((1, 4, 4), float("nan")), [0])
    with pytest.raises(rc.PredictionError, match="unknown key"):
        metric(torch.ones(1, 4, 4), [10**6])


def test_what_is_not_finite_is_not_saved(case, on_device, tmp_path):
    """Saving waits for the device, so a mistake comes to light at once, and nothing of the batch is kept."""
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path, partial=True)
    with pytest.raises(rc.PredictionError, match="row 1 of the batch: non-finite"):
        metric.update([-torch.ones(4, 4), torch.full((4, 4), float("nan"))], [0, 1])
    metric.update([-torch.ones(4, 4)], [0])
    assert metric.compute()["refcocom_partial/n_examples"].item() == 1
    saved = rc.score(tmp_path / "epoch-00000" / "*.parquet", case.store, missing="zero")
    assert saved.n_missing == len(case.masks) - 1


def test_indices_of_a_device():
    """What is asked of an index that only a device knows is asked of its type and shape."""
    from refcocom_gpu.training.batches import as_index

    on_device = torch.zeros(3, dtype=torch.int32, device="meta")
    assert as_index(on_device).dtype == torch.int64
    for bad in (on_device.float(), on_device.bool(), on_device[None]):
        with pytest.raises(rc.UsageError, match=r"whole numbers|one row"):
            as_index(bad)


def test_mistakes_come_to_light_at_the_end(case, on_device):
    heights, widths = case.dataset.heights, case.dataset.widths
    sample = int(np.flatnonzero(heights != widths)[0])
    turned = int(case.dataset.first_example[sample])
    metric = rc.RefCOCOMMetric(case.store)
    nan = torch.full((4, 4), float("nan"))
    fine = [k for k in range(len(case.masks)) if k not in (turned, turned + 1)]
    metric.update([torch.from_numpy(case.masks[k]) for k in fine], fine)
    metric.update([torch.from_numpy(case.masks[turned].T.copy()), nan], [turned, turned + 1])
    metric.update(torch.zeros(2, 4, 4), [-1, 10**9])
    with pytest.raises(rc.PredictionError) as caught:
        metric.compute()
    assert caught.value.counts == {"wrong size": 1, "non-finite": 1, "unknown key": 1}
    assert f"index {turned} (sample_id" in str(caught.value)
    assert "height and width are swapped" in str(caught.value)
    # An epoch later all is well.
    metric.reset()
    metric.update([torch.from_numpy(mask) for mask in case.masks], range(len(case.masks)))
    offline = rc.score([(k, mask) for k, mask in enumerate(case.masks)], case.store)
    assert metric.compute()["refcocom/miou"].item() == offline.miou


def test_forward_and_saving(case, on_device, tmp_path):
    metric = rc.RefCOCOMMetric(case.store, save_predictions=tmp_path)
    for first in range(0, len(case.masks), 40):
        index = range(first, min(first + 40, len(case.masks)))
        saved = metric([torch.from_numpy(case.masks[k]) for k in index], list(index))
        assert saved["refcocom_partial/n_examples"].item() == len(index)
    miou = metric.compute()["refcocom/miou"].item()
    assert rc.score(tmp_path / "epoch-00000" / "*.parquet", case.store).miou == miou


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_without_a_synchronisation(case):
    metric = rc.RefCOCOMMetric(case.store.to("cuda"))
    logits = fields(len(case.masks), 24, torch.float32)
    on_device, index = logits.cuda(), torch.arange(len(case.masks))
    for where in (index, index.cuda()):
        metric.update(on_device, where)  # kernels are compiled
        metric.reset()
        torch.cuda.set_sync_debug_mode("error")
        try:
            metric.update(on_device, where)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        offline = rc.score([(index, logits)], case.store)
        assert metric.compute()["refcocom/miou"].item() == offline.miou
