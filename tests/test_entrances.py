"""What a prediction may be, at every entrance alike: what is refused, counted exactly, repeated, and warned of."""

import contextlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entrance_cases import ACCEPTED, EXAMPLES, MASKS, REFUSED, Case, each, own
from entrances import (
    DATASET,
    ENTRANCES,
    STORE,
    TRUTH,
    as_on_a_device,
    counts_of,
    form_of,
    key_of,
    metrics_on_a_device,
    scored,
    small_store,
)
from helpers import true_masks

import refcocom_gpu as rc
from refcocom_gpu.errors import RefCOCOMError


def entrances_of(values: dict[int, Any]) -> set[str]:
    """The entrances that the predictions of a case can come through."""
    forms = {form_of(value) for value in values.values()}
    return {name for name, (_, accepted) in ENTRANCES.items() if forms <= accepted}


def outcomes(case: Case, folder: Path, shown: Callable[[str], Any]) -> dict[str, Any]:
    """Counts of a case through every entrance; an error becomes what `shown` makes of its text."""
    values, found = case.values(), {}
    chosen = entrances_of(values)
    if callable(case.expected) and not case.options:
        # Without a word for an option, the command is `score` of the same file, and takes long.
        chosen.discard("command")
    for entrance in chosen:
        (folder / entrance).mkdir()
        try:
            found[entrance] = (
                ENTRANCES[entrance].count(values, case.options, folder / entrance).tolist()
            )
        except RefCOCOMError as error:
            found[entrance] = shown(str(error))
    return found


@pytest.mark.parametrize("name", REFUSED)
# Of torch, when it reads a quantized tensor from a file.
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_refused(name, tmp_path):
    case = REFUSED[name]

    def shown(text: str) -> Any:
        return [words for words in case.expected if re.search(words, text)] or text

    found = outcomes(case, tmp_path, shown)
    assert found == {entrance: list(case.expected) for entrance in found}


@pytest.mark.parametrize("name", ACCEPTED)
def test_counted(name, tmp_path):
    case = ACCEPTED[name]
    found = outcomes(case, tmp_path, str)
    assert found == dict.fromkeys(found, counts_of(each(case.expected)).tolist())


@pytest.mark.parametrize("as_numbers", [np.array, torch.tensor, list])
def test_keys_of_two_columns(as_numbers, tmp_path):
    keys, expected = as_numbers([key_of(k) for k in EXAMPLES]), counts_of(each(own))
    np.testing.assert_array_equal(scored([(keys, MASKS)], {}), expected)
    metric = rc.RefCOCOMMetric(STORE)
    metric.update(MASKS, keys)
    np.testing.assert_array_equal(metric.counts[:-1, :2].numpy(), expected)
    with rc.PredictionWriter(tmp_path / "p.parquet", DATASET) as writer:
        writer.write(keys, MASKS)
    np.testing.assert_array_equal(scored(tmp_path / "p.parquet", {}), expected)


# Repeats ------------------------------------------------------------------------------------------


def test_a_forgotten_reset():
    metric = rc.RefCOCOMMetric(STORE)
    metric.update(TRUTH, range(len(TRUTH)))
    metric.compute()
    with pytest.raises(rc.PredictionError, match=r"seen before.*\n?.*reset\(\)"):
        metric.update([~mask for mask in TRUTH], range(len(TRUTH)))
    metric.reset()
    metric.update(TRUTH, range(len(TRUTH)))
    assert metric.compute()["refcocom/miou"] == 1


def test_a_forgotten_reset_on_a_device():
    with metrics_on_a_device():
        metric = rc.RefCOCOMMetric(STORE)
        for masks in (TRUTH, [~mask for mask in TRUTH]):
            metric.update(masks, range(len(TRUTH)))
        with pytest.raises(rc.PredictionError, match=r"seen before.*\n?.*reset\(\)"):
            metric.compute()


@pytest.mark.parametrize("on_a_device", [False, True])
def test_scores_between_updates_and_equal_repeats(on_a_device):
    with metrics_on_a_device() if on_a_device else contextlib.nullcontext():
        metric = rc.RefCOCOMMetric(STORE, partial=True)
        for index, mask in enumerate(TRUTH):
            metric.update([mask, TRUTH[0]], [index, 0])
            assert metric.compute()["refcocom_partial/n_examples"] == index + 1


# Warnings -----------------------------------------------------------------------------------------

MANY = small_store(30, 1)
TRUTHS = true_masks(MANY.dataset)
SIDE = 64


def warnings_of(predictions: list[Any], **options: Any) -> list[str]:
    """The texts of the result; those that `score` and the metric warn of are the same."""
    pairs = dict(enumerate(predictions))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = rc.score(pairs, MANY, **options)
    texts = result.info["warnings"]
    assert [str(w.message) for w in caught] == [f"refcocom: {text}" for text in texts]
    for on_a_device in (False, True):
        with (
            metrics_on_a_device() if on_a_device else contextlib.nullcontext(),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            metric = rc.RefCOCOMMetric(MANY, **options)
            metric.update(pairs)
            scores = metric.compute()
        assert [str(w.message) for w in caught] == [f"refcocom: {text}" for text in texts]
        assert scores["refcocom/miou"] == result.miou
        assert metric.result().info["warnings"] == texts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert rc.score(pairs, as_on_a_device(MANY), **options).info["warnings"] == texts
    return texts


def letterboxed(mask: np.ndarray, centred: bool) -> np.ndarray:
    """Logits of a square that the image fills at the top left or in the middle."""
    H, W = mask.shape
    h, w = (round(n * SIDE / max(H, W)) for n in (H, W))
    y, x = ((np.arange(n) + 0.5) * N // n for n, N in ((h, H), (w, W)))
    logits = np.full((SIDE, SIDE), -4, np.float32)
    top, left = ((SIDE - h) // 2, (SIDE - w) // 2) if centred else (0, 0)
    logits[top : top + h, left : left + w] = mask[y.astype(int)[:, None], x.astype(int)] * 8 - 4
    return logits


def squashed(mask: np.ndarray) -> np.ndarray:
    y, x = (((np.arange(SIDE) + 0.5) * n / SIDE).astype(int) for n in mask.shape)
    return (mask[y[:, None], x] * 8 - 4).astype(np.float32)


def tall(mask: np.ndarray) -> np.ndarray:
    """Logits of the image's size, of another mask in a turned image."""
    return np.ascontiguousarray(mask.T * np.float32(8) - 4)


def test_a_forgotten_letterbox():
    predictions = [letterboxed(mask, centred=False) for mask in TRUTHS]
    (text,) = warnings_of(predictions)
    assert "letterbox=SIDE" in text
    assert warnings_of(predictions, letterbox=SIDE) == []


def test_a_forgotten_crop():
    predictions = [letterboxed(mask, centred=True) for mask in TRUTHS]
    (text,) = warnings_of(predictions)
    assert "letterbox=center" in text
    assert warnings_of(predictions, letterbox="center") == []


def test_turned_logits():
    texts = warnings_of([tall(mask) for mask in TRUTHS])
    assert any("height and width swapped" in text for text in texts)


def test_inverted_masks():
    (text,) = warnings_of([~mask for mask in TRUTHS])
    assert "fit better inverted" in text


@pytest.mark.parametrize(
    "make",
    [
        squashed,
        lambda mask: squashed(np.roll(mask, 9, 0)),
        np.zeros_like,
        lambda mask: np.full((SIDE, SIDE), -3, np.float32),
        lambda mask: mask,
        lambda mask: mask * np.float32(8) - 4,
    ],
)
def test_nothing_is_warned_of(make):
    assert warnings_of([make(mask) for mask in TRUTHS]) == []
