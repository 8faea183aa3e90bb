"""The rules for predictions against an oracle in plain NumPy, at every kind of entrance."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from entrances import (
    DATASET,
    DEVICE_STORE,
    STORE,
    TRUTH,
    counts_of,
    metrics_on_a_device,
    scored,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from refcocom_kernels import reference

import refcocom_gpu as rc
from refcocom_gpu.errors import RefCOCOMError

REFUSED = "refused"

# An oracle ----------------------------------------------------------------------------------------

PALETTES: dict[type, list[float]] = {
    np.bool_: [0, 1],
    np.uint8: [0, 1, 3, 127, 128, 255],
    np.int8: [-1, 0, 1, 3, 127],
    np.uint16: [0, 1, 3, 255, 32767, 32768, 65535],
    np.int16: [-300, 0, 3, 255],
    np.uint32: [0, 3, 2**32 - 1],
    np.int32: [-1, 0, 3, 7],
    np.int64: [-(2**40), 0, 3, 2**40],
    np.uint64: [0, 3, 2**63, 2**64 - 1],
    np.float16: [-4, -1, -0.25, 0, 0.25, 0.75, 1, 1.25, 3, np.nan, np.inf],
    np.float32: [-40, -1, -0.08, 0, 1e-30, 0.3, 0.7, 1, 1.0000001, 1.08, 2, 255, np.nan, -np.inf],
    np.float64: [-1, -1e-9, 0, 1e-9, 0.5, 0.5 + 1e-9, 0.9, 1, 1 + 1e-12, 100, 1e39],
}


@st.composite
def sets(draw: st.DrawFn) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
    """A few predictions and how they are read."""
    options: dict[str, Any] = {
        "values": draw(st.sampled_from([None, "logits", "probabilities"])),
        "label": draw(st.sampled_from([None, None, None, 3])),
        "resize_masks": draw(st.sampled_from([None, "nearest"])),
    }
    kinds = draw(st.lists(st.sampled_from(list(PALETTES)), min_size=1, max_size=2))
    predictions = {}
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        # Of all values few sets would be accepted.
        some = st.lists(st.sampled_from(PALETTES[kind]), min_size=1, max_size=3)
        palette = np.array(draw(some), kind)
        h, w = TRUTH[index].shape
        size = draw(st.sampled_from([(h, w), (h, w), (h - 1, w), (7, 5)]))
        at = np.random.default_rng(draw(st.integers(0, 9))).integers(0, len(palette), (7, 5))
        blocks = at.repeat(-(-size[0] // 7), 0).repeat(-(-size[1] // 5), 1)[: size[0], : size[1]]
        predictions[index] = palette[blocks]
    return predictions, {name: value for name, value in options.items() if value is not None}


def stretched(values: np.ndarray, index: int, threshold: float) -> np.ndarray:
    # A float64 that float32 rounds to the threshold stays above it.
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    above = (
        np.float32(2.0**-126)
        if threshold == 0
        else np.nextafter(np.float32(threshold), np.float32(1))
    )
    rounded[(values > threshold) & (rounded <= threshold)] = above
    logits = torch.from_numpy(rounded)
    return (reference.resize_logits(logits, *TRUTH[index].shape) > threshold).numpy()


def nearest(mask: np.ndarray, index: int) -> np.ndarray:
    (h, w), (H, W) = mask.shape, TRUTH[index].shape
    rows = ((np.arange(H) + 0.5) * h / H).astype(int)
    return mask[rows[:, None], ((np.arange(W) + 0.5) * w / W).astype(int)]


def floats(values: np.ndarray, fits: bool, declared: str | None) -> str:
    """What floats are: `refused`, `logits`, `undecided` or `anything`."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        return REFUSED
    largest = max(abs(low), abs(high))
    is_negative = largest >= 2.0**-20 and low < -0.5 * min(1, largest)
    if declared == "probabilities":
        return REFUSED if is_negative or largest > 1.5 else "anything"
    if declared == "logits" or largest == 0:
        return "anything"
    if is_negative:
        return "logits"
    return "anything" if fits and set(np.unique(values)) <= {0, 1} else "undecided"


def oracle(predictions: dict[int, np.ndarray], options: dict[str, Any]) -> Any:
    """Counts, or `refused`."""
    declared, label = options.get("values"), options.get("label")
    masks, told, labelled = {}, set(), []
    for index, values in predictions.items():
        fits = values.shape == TRUTH[index].shape
        may_differ = fits or "resize_masks" in options
        distinct = set(np.unique(values).tolist()) - {0}
        kind, maximum = values.dtype.kind, 255 if values.dtype == np.uint8 else 65535
        threshold = 0.5 if declared == "probabilities" else 0.0
        if kind in "bf" and label is not None:
            return REFUSED
        if kind == "f":
            told.add(floats(values, fits, declared))
            masks[index] = values
        elif label is not None:
            masks[index] = values == label
            labelled.append(masks[index].any())
        elif declared == "probabilities" and values.dtype in (np.uint8, np.uint16):
            if len(distinct) > 1 or not distinct:
                told.update(["map"] * bool(distinct))
                masks[index] = values.astype(np.float32) / np.float32(maximum)
            else:
                is_loud = max(distinct) > maximum / 2
                told.update([] if is_loud else ["quiet"])
                masks[index] = values != 0
                if is_loud and not may_differ:
                    told.add("sized")
                    masks[index] = values.astype(np.float32) / np.float32(maximum)
        elif len(distinct) > 1 or min(distinct, default=0) < 0:
            return REFUSED
        else:
            masks[index] = values != 0
        if masks[index].dtype == np.bool_:
            if not may_differ:
                return REFUSED
            masks[index] = masks[index] if fits else nearest(masks[index], index)
        elif REFUSED not in told:
            masks[index] = stretched(masks[index], index, threshold)
    contradicts = {"map", "quiet"} <= told or ("sized" in told and "map" not in told)
    undecided = "undecided" in told and "logits" not in told
    if REFUSED in told or contradicts or undecided or (labelled and not any(labelled)):
        return REFUSED
    return counts_of(masks).tolist()


def by_writer(predictions: dict[int, np.ndarray], options: dict[str, Any]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written.jsonl"
        with rc.PredictionWriter(path, DATASET, **options) as writer:
            writer.write(predictions)
        return scored(path, {"missing": "zero"})


def by_metric(predictions: dict[int, np.ndarray], options: dict[str, Any]) -> np.ndarray:
    metric = rc.RefCOCOMMetric(STORE, partial=True, **options)
    metric.update(predictions)
    metric.compute()
    return np.maximum(metric.counts[:-1, :2].numpy(), 0)


@settings(max_examples=60)
@given(sets())
def test_every_entrance_follows_the_oracle(drawn):
    predictions, options = drawn
    missing = {**options, "missing": "zero"}

    def outcome(count, *arguments, on_a_device=False):
        with metrics_on_a_device() if on_a_device else contextlib.nullcontext():
            try:
                return count(*arguments).tolist()
            except RefCOCOMError:
                return REFUSED

    found = {
        "memory": outcome(scored, predictions, missing),
        "device": outcome(scored, predictions, missing, DEVICE_STORE),
        "writer": outcome(by_writer, predictions, options),
        "metric": outcome(by_metric, predictions, options),
        "metric on a device": outcome(by_metric, predictions, options, on_a_device=True),
    }
    assert found == dict.fromkeys(found, oracle(predictions, options))
