"""CRIS's masks: the bicubic warp of its logits beside torch and OpenCV, and CRIS's loop on real masks."""

import copy

import cv2
import numpy as np
import pytest
import torch
from helpers import coco_encode, few_real_case, sample_case, true_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conventions import firsts

import refcocom_gpu as rc
from refcocom_gpu.masks.warp import COUNTED, SIDE, warped
from refcocom_gpu.scores import under
from refcocom_gpu.scores.conventions import CONVENTIONS
from refcocom_gpu.scores.explain import explain

FLIPS = 1e-4
"""Share of pixels at the threshold that float32 sums in another order may turn; 1 in 5 million was seen."""


def matrices(height, width):
    """From the image to the letterboxed input, and back, as CRIS asks OpenCV for them."""
    scale = min(SIDE / height, SIDE / width)
    h, w = height * scale, width * scale
    x, y = (SIDE - w) / 2, (SIDE - h) / 2
    image = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    square = np.array([[x, y], [w + x, y], [x, h + y]], np.float32)
    return cv2.getAffineTransform(image, square), cv2.getAffineTransform(square, image)


def of_cris(sigmoids, height, width):
    """[H, W] bool as `engine.validate` makes it."""
    if sigmoids.shape != (SIDE, SIDE):
        sigmoids = torch.nn.functional.interpolate(
            torch.from_numpy(sigmoids)[None, None], size=(SIDE, SIDE), mode="bicubic", align_corners=True
        )[0, 0].numpy()  # fmt: skip
    _, back = matrices(height, width)
    flags = cv2.INTER_CUBIC
    return cv2.warpAffine(sigmoids, back, (width, height), flags=flags, borderValue=0.0) > 0.35


def needs_opencv_5():
    if int(cv2.__version__.partition(".")[0]) < 5:
        pytest.skip(f"OpenCV {cv2.__version__} rounds the coordinates of a warp")


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([104, 416]), st.integers(0, 9))
def test_the_warp_is_that_of_torch_and_opencv(height, width, cells, seed):
    needs_opencv_5()
    noise = np.random.default_rng(seed).normal(size=(26, 26)).astype(np.float32) * 4
    logits = cv2.resize(noise, (cells, cells), interpolation=cv2.INTER_CUBIC)
    sigmoids = torch.from_numpy(logits).sigmoid().numpy()
    found, expected = warped(sigmoids, height, width), of_cris(sigmoids, height, width)
    assert (found != expected).sum() <= max(1, FLIPS * found.size)


@pytest.fixture(scope="module")
def case():
    return few_real_case()


@pytest.fixture(scope="module")
def logits(case):
    """What CRIS might say of the masks: their letterboxed input, blurred, at 104²."""
    found = []
    for mask in case.masks:
        to_square, _ = matrices(*mask.shape)
        square = cv2.warpAffine(mask.astype(np.float32), to_square, (SIDE, SIDE))
        small = cv2.resize(square, (104, 104), interpolation=cv2.INTER_AREA)
        found.append(cv2.GaussianBlur(small, (0, 0), 1.5) * 8 - 4)
    return found


def score(case, predictions, device="cpu", **options):
    store = copy.copy(case.store)
    store.device = device
    return rc.score(list(enumerate(predictions)), store, **options)


@pytest.mark.parametrize("name", ["cris", "cris_test"])
def test_loop_of_cris_on_its_logits(case, logits, name):
    needs_opencv_5()
    result = score(case, logits, values="logits", letterbox="center", convention=name)
    truth = true_masks(case.dataset)
    triples = [
        (s, of_cris(torch.from_numpy(x).sigmoid().numpy(), *truth[s].shape), truth[s])
        for s, x in zip(case.dataset.example_sample.tolist(), logits, strict=True)
    ]
    each = [
        np.sum(pred & true) / (np.sum(pred | true) + 1e-6)
        for _, pred, true in (firsts(triples) if name == "cris" else triples)
    ]
    assert result.iou[result.is_counted] == pytest.approx(each, abs=1e-3)
    assert result.miou == pytest.approx(np.mean(each), abs=1e-5)
    assert abs(result.miou - rc.Result(without_counts(result.per_example), {}, name).miou) > 1e-4
    assert result.summary()["approximate"] == "needs the rounding of OpenCV 4"


def without_counts(table):
    return table.drop_columns([x for x in table.column_names if x.startswith("warped_")])


def test_the_counts_of_every_side(case, logits):
    options = {"letterbox": "center", "metrics": "warped"}
    names = ["warped_intersection", "warped_pred_area", COUNTED]
    expected = score(case, logits, values="logits", **options).per_example.select(names)
    assert set(expected[COUNTED].to_pylist()) == {1}
    on_device = score(case, logits, "cpu:0", values="logits", **options)
    assert on_device.per_example.select(names) == expected
    tensors = [torch.from_numpy(x) for x in logits]
    assert score(case, tensors, values="logits", **options).per_example.select(names) == expected
    shares = [1 / (1 + np.exp(-x)) for x in logits]
    as_shares = score(case, shares, values="probabilities", **options)
    assert as_shares.per_example.select(names) == expected
    rounded = [x.bfloat16() for x in tensors]
    counts = [
        score(case, rounded, device, values="logits", **options).per_example.select(names)
        for device in ("cpu", "cpu:0")
    ]
    assert counts[0] == counts[1]


def test_other_predictions_are_not_counted(case):
    for predictions, options in (
        ([coco_encode(m) for m in case.masks], {}),
        (case.masks, {}),
        ([m * np.float32(2) - 1 for m in case.masks], {"values": "logits"}),
    ):
        for device in ("cpu", "cpu:0"):
            result = score(case, predictions, device, convention="cris", **options)
            assert set(result.per_example[COUNTED].to_pylist()) == {0}
            assert result.summary()["approximate"].startswith("needs logits: score its 104² ones")
            assert result.miou == score(case, predictions, **options).under("cris").miou


def test_one_prediction_that_is_not_counted_leaves_all_as_they_were():
    """Scores of two kinds of masks are no score; an absent prediction is empty for CRIS too."""
    case = sample_case()
    ones = np.full((104, 104), 3, np.float32)
    options = {"letterbox": "center", "values": "logits", "missing": "zero", "convention": "cris"}
    full = np.full(case.masks[1].shape, 3, np.float32)
    mixed = rc.score([(0, ones), (1, full)], case.store, **options)
    assert not under.is_counted(CONVENTIONS["cris"], mixed.per_example)
    alone = rc.score([(0, ones)], case.store, **options)
    assert under.is_counted(CONVENTIONS["cris"], alone.per_example)
    assert alone.n_missing == len(case.masks) - 1


def test_the_reason_has_its_size(case, logits):
    result = score(case, logits, values="logits", letterbox="center", metrics="warped")
    rows = {row.convention.name: row for row in explain(result)}
    (reason,) = (r for r in rows["cris_test"].reasons if "0.35" in r.text)
    assert reason.text == "warps sigmoids to the image and cuts them at > 0.35"
    assert abs(reason.changes["mIoU"]) > 1e-4
    assert rows["cris_test"].scores.miou == result.under("cris_test").miou
