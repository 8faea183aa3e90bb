"""Streaming to a device: in parts of any size, with too little memory, and with mistakes that are found late.

There is no GPU here: the device is host memory under another name, which takes the same way through staging, operators
and late verdicts.
"""

import copy

import numpy as np
import pytest
import torch
from helpers import coco_encode, sample_case
from refcocom_kernels import ops

import refcocom_gpu as rc
from refcocom_gpu.counting import staging, stream
from refcocom_gpu.counting.batches import HostBatches
from refcocom_gpu.counting.choose import batch_counter
from refcocom_gpu.counting.staging import Staging
from refcocom_gpu.counting.stream import DeviceBatches
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.options import ReadOptions


@pytest.fixture(scope="module")
def case():
    return sample_case()


@pytest.fixture(scope="module")
def device_store(case):
    """The store on a device."""
    store = copy.copy(case.store)
    store.device = "cpu:0"
    return store


def logits_of(case, kind=np.float32):
    rng = np.random.default_rng(7)
    return [
        (mask[::2, ::2] * 8.0 - 4 + rng.normal(size=mask[::2, ::2].shape)).astype(kind)
        for mask in case.masks
    ]


FORMS = {
    "masks": lambda case: case.masks,
    "wide integers": lambda case: [mask.astype(np.int32) * 1000 for mask in case.masks],
    "tensors there": lambda case: [torch.from_numpy(mask) for mask in case.masks],
    "float32": logits_of,
    "float16": lambda case: logits_of(case, np.float16),
    "float64": lambda case: logits_of(case, np.float64),
    "bfloat16 tensors": lambda case: [torch.from_numpy(x).bfloat16() for x in logits_of(case)],
    "RLE": lambda case: [coco_encode(mask) for mask in case.masks],
}


def in_batches(predictions, size=7):
    for first in range(0, len(predictions), size):
        part = predictions[first : first + size]
        yield list(range(first, first + len(part))), part


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part_bytes", [1, 5_000, 2**26])
@pytest.mark.parametrize("letterbox", [None, 512, "center"])
def test_the_counts_of_the_host(case, device_store, monkeypatch, form, part_bytes, letterbox):
    monkeypatch.setattr(stream, "BUFFER_BYTES", part_bytes)
    predictions = FORMS[form](case)
    options = {"letterbox": letterbox} if form in {"float16", "bfloat16 tensors"} else {}
    mine = rc.score(in_batches(predictions), device_store, **options)
    host = rc.score(in_batches(predictions), case.store, **options)
    assert mine.per_example.equals(host.per_example)
    assert mine.info["device"] == "cpu:0"


def test_a_counter_for_each_device(case, device_store):
    assert isinstance(batch_counter(case.store, ReadOptions(), Problems()), HostBatches)
    assert isinstance(batch_counter(device_store, ReadOptions(), Problems()), DeviceBatches)


@pytest.mark.parametrize("room", [1, 3, 5])
def test_parts_shrink_until_they_fit(case, device_store, monkeypatch, room):
    """A device with room for a few masks: the parts are halved, and no row is counted twice or lost."""
    tried = []
    count = ops.mask_counts

    def scarce(masks, *rest):
        tried.append(len(masks))
        if len(masks) > room:
            raise torch.OutOfMemoryError("out of memory")
        return count(masks, *rest)

    monkeypatch.setattr(ops, "mask_counts", scarce)
    result = rc.score(in_batches(case.masks, 16), device_store)
    assert result.per_example.equals(rc.score(in_batches(case.masks), case.store).per_example)
    assert max(tried) > room
    # Once it is known what fits, nothing larger is tried.
    failures = [k for k, n in enumerate(tried) if n > room]
    assert len(failures) < 6
    assert failures[-1] < len(tried) // 2


@pytest.mark.parametrize("form", ["masks", "float32", "RLE"])
def test_what_fits_nowhere_is_counted_on_the_host(case, device_store, monkeypatch, form):
    def full(*_):
        raise torch.OutOfMemoryError("out of memory")

    for name in ("mask_counts", "logit_counts", "rle_counts"):
        monkeypatch.setattr(ops, name, full)
    predictions = FORMS[form](case)
    with pytest.warns(RuntimeWarning, match="cpu:0 has no memory left for batch 0, row 0") as seen:
        result = rc.score(in_batches(predictions), device_store)
    assert len(seen) == 1
    host = rc.score(in_batches(predictions), case.store)
    assert result.per_example.equals(host.per_example)


def test_mistakes_found_late_are_all_named(case, device_store):
    """Verdicts come back batches later; every one names its own row."""
    bad = {3: np.nan, 20: np.inf, len(case.masks) - 1: -np.inf}
    predictions = logits_of(case)
    for row, value in bad.items():
        predictions[row][0, 0] = value
    with pytest.raises(rc.PredictionError) as caught:
        rc.score(in_batches(predictions, 4), device_store)
    places = [problem.where for problem in caught.value.problems]
    assert places == [f"batch {row // 4}, row {row % 4}" for row in bad]


def test_malformed_strings_are_explained(case, device_store):
    rows = [coco_encode(mask) for mask in case.masks]
    rows[5] = {**rows[5], "counts": rows[5]["counts"][:-1]}
    rows[30] = {**rows[30], "counts": rows[30]["counts"] + "~"}
    messages = []
    for store in (device_store, case.store):
        with pytest.raises(rc.PredictionError) as caught:
            rc.score(in_batches(rows, 8), store)
        messages.append([(p.where, p.message) for p in caught.value.problems])
    assert messages[0] == messages[1]
    assert len(messages[0]) == 2


def test_probabilities_are_noticed(case, device_store):
    predictions = [np.abs(np.tanh(x)) for x in logits_of(case)]
    with pytest.raises(rc.PredictionError, match="undeclared values"):
        rc.score(in_batches(predictions), device_store)


# Staging ------------------------------------------------------------------------------------------


def test_what_is_sent_arrives():
    sender = Staging(torch.device("cpu"))
    rng = np.random.default_rng(0)
    kept = []
    for turn in range(6):
        arrays = [
            rng.integers(0, 255, (turn + 1, 3, 5), np.uint8),
            rng.integers(-9, 9, 7 * turn),
            [rng.random((4, 2)).astype(np.float16) for _ in range(turn + 1)],
            rng.random((2, 3))[:, ::2],
            np.array(turn),
        ]
        sent = sender.send(*arrays)
        kept.append((sent, [np.array(array) for array in arrays]))
    # What was sent first is untouched by what followed through the same buffer.
    for sent, arrays in kept:
        for tensor, array in zip(sent, arrays, strict=True):
            assert tensor.numpy().dtype == array.dtype
            np.testing.assert_array_equal(tensor.numpy(), array)
            assert tensor.data_ptr() % tensor.element_size() == 0


def test_buffers_grow_and_stay(monkeypatch):
    sender = Staging(torch.device("cpu"))
    for size in (10, 1_000, 10):
        for _ in range(2):
            (sent,) = sender.send(np.full(size, size))
            assert sent.tolist() == [size] * size
    assert all(len(buffer) >= 8_000 for buffer in sender._buffers)
    assert staging.BUFFER_BYTES >= 2**20
