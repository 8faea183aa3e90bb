"""Curves over thresholds and interpolations side by side: hand-computed, against plain loops, saved and refused."""

import copy
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers import coco_encode, make_case, true_masks, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from refcocom_kernels import reference

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.counting.device import DeviceCounter
from refcocom_gpu.counting.host import HostCounter
from refcocom_gpu.predictions.interpolation import interpolated
from refcocom_gpu.predictions.options import BICUBIC, NEAREST, ReadOptions
from refcocom_gpu.predictions.resize import resized_values
from refcocom_gpu.predictions.value_options import THRESHOLDS, ValueOptions
from refcocom_gpu.scores import metrics

ASKED = ["iou", "thresholds"]
LEVELS = [-2.0, -0.3, 0.0, 0.5, 3.0]


def written(folder, shapes, masks):
    """An image record of each shape, with two samples of two expressions where masks are blobs."""
    records = [
        {
            "image_id": k,
            "file_name": f"{k}.png",
            "samples": [
                {"id": 10 * k + j, "image_id": k, "category": "cow", "supercategory": "animal", "label": "cow",
                 "sentences": [f"cow {j}", f"animal {j}"][: 2 - j], "bbox": [0.0, 0.0, 1.0, 1.0],
                 "mask": coco_encode(mask)}
                for j, mask in enumerate(masks(*shape))
            ],
        }
        for k, shape in enumerate(shapes)
    ]  # fmt: skip
    return write_jsonl(folder / "dataset.jsonl", records)


def blobs(height, width):
    y, x = np.mgrid[0:height, 0:width]
    yield np.hypot((y - 0.4 * height) / height, (x - 0.3 * width) / width) < 0.2
    yield (abs(y - 0.6 * height) < 0.3 * height) & (abs(x - 0.7 * width) < 9)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    shapes = [(60, 90), (81, 64), (33, 131), (70, 70)]
    return written(tmp_path_factory.mktemp("thresholds"), shapes, blobs)


@pytest.fixture(scope="module")
def case(path):
    return make_case(rc.MaskStore.build(rc.load_dataset(path), cache=False))


def logits_of(case, cells=(40, 56), seed=0):
    """Logits of each example at another resolution: its mask, blurred by the resize, and noise."""
    rng = np.random.default_rng(seed)
    blurred = [
        F.interpolate(torch.from_numpy(m)[None, None].float(), cells, mode="bilinear")[0, 0].numpy()
        for m in case.masks
    ]
    return [(6 * b - 3.5 + 0.4 * rng.normal(size=cells)).astype(np.float32) for b in blurred]


@pytest.fixture(scope="module")
def logits(case):
    return logits_of(case)


def sizes(case, index):
    sample = case.dataset.example_sample[index]
    return int(case.dataset.heights[sample]), int(case.dataset.widths[sample])


def truths(case):
    masks = true_masks(case.dataset)
    return [masks[s] for s in case.dataset.example_sample]


def plain_curve(case, values, options, levels, how="bilinear"):
    """[N, T, 2] by a loop over examples and thresholds."""
    rows = []
    for index, (one, truth) in enumerate(zip(values, truths(case), strict=True)):
        resized = resized_values(torch.as_tensor(one), *sizes(case, index), options, how).numpy()
        masks = [resized > np.float32(level) for level in levels]
        rows.append([[(mask & truth).sum(), mask.sum()] for mask in masks])
    return np.array(rows)


def stored_curve(result):
    table = result.per_example
    return np.stack(
        [np.array(table[name].to_pylist()) for name in ("intersection_at", "pred_area_at")], -1
    )


def test_a_case_by_hand(tmp_path):
    """An image of 2 × 4 whose left half is the truth; the logits have its size, so nothing is resized."""
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    data = written(tmp_path, [(2, 4)], lambda *_: [truth, truth[:, ::-1].copy()])
    store = rc.MaskStore.build(rc.load_dataset(data), cache=False)
    values = np.array([[3.0, 3.0, 1.0, -1.0], [3.0, 2.0, 1.0, -1.0]], np.float32)
    # Two expressions of the left half, and one of the right.
    result = rc.score(dict.fromkeys(range(3), values), store, metrics=ASKED, thresholds=[2, 1, -2])
    expected = [[4, 8], [4, 6], [4, 4], [3, 3]]
    assert stored_curve(result).tolist() == [
        expected, expected, [[4, 8], [2, 6], [0, 4], [0, 3]],
    ]  # fmt: skip
    rows = result.threshold_curve().to_pylist()
    assert [row["threshold"] for row in rows] == [-2.0, 0.0, 1.0, 2.0]
    assert [row["miou"] for row in rows] == [
        0.5,
        pytest.approx((4 / 6 * 2 + 2 / 8) / 3),
        2 / 3,
        0.5,
    ]
    assert [row["ciou"] for row in rows] == [12 / 24, 10 / 20, 8 / 16, 6 / 15]
    assert [row["precision_at_0.5"] for row in rows] == [1.0, 2 / 3, 2 / 3, 2 / 3]
    best = result.best_threshold
    assert (best.threshold, best.miou, best.used) == (1.0, 2 / 3, 0.0)
    assert best.gain == 2 / 3 - result.miou


@pytest.mark.parametrize(
    "reading",
    [{}, {"letterbox": 64}, {"letterbox": "center"}, {"letterbox": 64, "resize": "sam"}],
    ids=str,
)
def test_a_curve_equals_a_loop_over_thresholds(case, logits, reading):
    values = [one[:56, :56] for one in logits_of(case, (56, 56))] if reading else logits
    result = rc.score(
        enumerate(values), case.store, metrics=ASKED, thresholds=LEVELS, values="logits", **reading
    )
    options = ValueOptions(values="logits", **reading)
    expected = plain_curve(case, values, options, LEVELS)
    found = stored_curve(result)
    np.testing.assert_array_equal(found, expected)
    # At the threshold in use they are the counts that make the score, and a higher one never adds a pixel.
    at = LEVELS.index(0.0)
    table = result.per_example
    np.testing.assert_array_equal(found[:, at, 0], table["intersection"].to_numpy())
    np.testing.assert_array_equal(found[:, at, 1], table["pred_area"].to_numpy())
    assert (np.diff(found, axis=1) <= 0).all()
    rows = result.threshold_curve().to_pylist()
    target = table["target_area"].to_numpy()
    for k, row in enumerate(rows):
        counts = (expected[:, k, 0], expected[:, k, 1], target)
        assert row["miou"] == metrics.mean(metrics.iou(*counts))
        assert row["ciou"] == metrics.ciou(*counts)
    assert rows[at]["miou"] == result.miou
    assert rows[at]["ciou"] == result.ciou
    assert rows[at]["precision_at_0.5"] == result.precision_at[0.5]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_values_of_other_types(case, logits, dtype):
    values = [torch.from_numpy(one).to(getattr(torch, dtype)) for one in logits]
    result = rc.score(enumerate(values), case.store, metrics=ASKED, thresholds=LEVELS)
    expected = plain_curve(case, values, ValueOptions(), LEVELS)
    np.testing.assert_array_equal(stored_curve(result), expected)


def test_probabilities_and_integers_have_their_own_thresholds(case, logits):
    chances = [1 / (1 + np.exp(-one)) for one in logits]
    result = rc.score(enumerate(chances), case.store, metrics=ASKED, values="probabilities")
    curve = result.threshold_curve()
    assert curve["threshold"].to_pylist() == THRESHOLDS["probabilities"]
    assert (
        dict(zip(curve["threshold"].to_pylist(), curve["miou"].to_pylist(), strict=True))[0.5]
        == result.miou
    )
    eight_bits = [np.round(255 * one).astype(np.uint8) for one in chances]
    coarse = rc.score(
        enumerate(eight_bits), case.store, metrics=ASKED, values="probabilities", thresholds=[0.25]
    )
    maps = [one.astype(np.float32) / np.float32(255) for one in eight_bits]
    expected = plain_curve(case, maps, ValueOptions(values="probabilities"), [0.25, 0.5])
    np.testing.assert_array_equal(stored_curve(coarse), expected)


def test_defaults_hold_the_threshold_in_use():
    for values, grid in THRESHOLDS.items():
        assert ReadOptions(values=values).threshold in grid
        assert grid == sorted(set(grid))
        assert ValueOptions(values=values).levels == tuple(grid)
    assert ValueOptions(thresholds=["1", -2]).levels == (-2.0, 0.0, 1.0)


def test_predictions_are_read_once_and_absent_ones_are_empty(case, logits):
    drawn = []

    def once():
        for index, one in enumerate(logits[:-2]):
            drawn.append(index)
            yield index, one
        yield len(logits) - 2, None

    result = rc.score(
        once(), case.store, metrics=ASKED, thresholds=LEVELS, missing="zero",
        interpolation=["bilinear", "nearest", "bicubic"],
    )  # fmt: skip
    assert drawn == list(range(len(logits) - 2))
    assert not stored_curve(result)[-2:].any()
    assert stored_curve(result)[:-2].any()
    assert result.n_missing == 1


# Interpolations ------------------------------------------------------------------------------------


@given(st.data())
def test_nearest_and_bicubic_are_those_of_torch(data):
    size = st.integers(1, 60)
    h, w, height, width = (data.draw(size) for _ in range(4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    values = torch.from_numpy(rng.normal(size=(h, w)).astype(np.float32))
    found = interpolated(values, height, width, None, NEAREST)
    assert torch.equal(
        found, F.interpolate(values[None, None], (height, width), mode="nearest")[0, 0]
    )
    found = interpolated(values, height, width, None, BICUBIC)
    # In float64, of which ours is a rounding; torch's own float32 is further from it.
    exact = F.interpolate(
        values[None, None].double(), (height, width), mode="bicubic", align_corners=False
    )[0, 0]
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() <= 2e-6 * max(1.0, float(values.abs().max()))


@pytest.mark.parametrize("how", [NEAREST, BICUBIC])
def test_a_letterbox_is_cut_before_it_is_interpolated(how):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32))
    whole = interpolated(values[:12, :25], 31, 47, None, how)
    assert torch.equal(interpolated(values, 31, 47, (12.0, 25.0), how), whole)
    # Where the image ends inside a cell, that cell still counts, and none beyond it does.
    values[13:], values[:, 26:] = float("nan"), float("nan")
    assert interpolated(values, 31, 47, (12.4, 25.5), how).isfinite().all()


@pytest.mark.parametrize("reading", [{}, {"letterbox": 64}, {"letterbox": "center"}], ids=str)
def test_interpolations_side_by_side(case, reading):
    values, options = logits_of(case, (56, 56)), ValueOptions(values="logits", **reading)
    ways = ["bilinear", "nearest", "bicubic"]
    result = rc.score(enumerate(values), case.store, interpolation=ways, values="logits", **reading)
    alone = rc.score(enumerate(values), case.store, values="logits", **reading)
    assert result.miou == alone.miou
    shown = result.interpolations().to_pylist()
    assert [row["interpolation"] for row in shown] == ways
    target = result.per_example["target_area"].to_numpy()
    for row in shown:
        how = row["interpolation"]
        counts = plain_curve(case, values, options, [0.0], how)[:, 0]
        ious = metrics.iou(counts[:, 0], counts[:, 1], target)
        assert row["miou"] == metrics.mean(ious)
        # Declared alone or first, each makes the score itself, with a curve and boundaries of its own masks.
        first = rc.score(
            enumerate(values), case.store, interpolation=[how], values="logits",
            metrics=["iou", "boundary", "thresholds"], thresholds=LEVELS, **reading,
        )  # fmt: skip
        assert (first.miou, first.ciou) == (row["miou"], row["ciou"])
        np.testing.assert_array_equal(
            stored_curve(first), plain_curve(case, values, options, LEVELS, how)
        )
        assert first.info["options"]["interpolation"] == how
    assert len({row["miou"] for row in shown}) == 3


def test_boundaries_are_those_of_the_interpolated_masks(case, logits):
    masks = []
    for index, one in enumerate(logits):
        resized = interpolated(torch.from_numpy(one), *sizes(case, index), None, NEAREST)
        masks.append((resized > 0).numpy())
    both = ["iou", "boundary"]
    by_masks = rc.score(enumerate(masks), case.store, metrics=both)
    by_logits = rc.score(enumerate(logits), case.store, metrics=both, interpolation="nearest")
    assert by_logits.boundary_scores == by_masks.boundary_scores
    assert by_logits.miou == by_masks.miou


# Counters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", [{}, {"letterbox": 64}], ids=str)
def test_a_device_counts_the_same(case, reading):
    options = ValueOptions(
        values="logits", thresholds=LEVELS, interpolation=["bilinear", "bicubic"], **reading
    )
    values = torch.from_numpy(np.stack(logits_of(case, (56, 56))[:8])).half()
    values[3, 5, 5] = float("nan")
    sample = case.dataset.example_sample[:8].copy()
    host = HostCounter(case.store, options, ASKED).stack(values, sample, sample)
    counter = DeviceCounter(case.store, options, torch.device("cpu"), ASKED)
    device = counter.stack(values, torch.from_numpy(sample), sample)
    assert host.tolist() == device.tolist()
    assert host.shape[1] == counter.n_columns == 5 + 2 * len(LEVELS) + 2
    assert host[4, 5:].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8"])
@pytest.mark.parametrize("first", ["bilinear", "nearest"])
def test_a_run_on_a_device_gives_the_same_table(case, logits, dtype, first):
    store = copy.copy(case.store)
    store.device = "cpu:0"
    values = [torch.from_numpy(one).to(getattr(torch, dtype)) for one in logits]
    asked = {"metrics": ASKED, "interpolation": [first, "bicubic"], "thresholds": [0.25, 0.75]}
    if dtype == "uint8":
        values = [(torch.sigmoid(torch.from_numpy(one)) * 255).byte() for one in logits]
        asked["values"] = "probabilities"
    there = rc.score(enumerate(values), store, **asked)
    here = rc.score(enumerate(values), case.store, **asked)
    assert there.info["device"] == "cpu:0"
    assert there.per_example.equals(here.per_example)
    assert there.threshold_curve().equals(here.threshold_curve())
    for masks in (case.masks, list(map(coco_encode, case.masks))):
        with pytest.raises(rc.PredictionError, match=r"12 problems \(12 no values\)"):
            rc.score(enumerate(masks), store, **{**asked, "values": None})


# Saved ---------------------------------------------------------------------------------------------


def test_everything_is_computed_again_from_the_table(case, logits, tmp_path):
    result = rc.score(
        enumerate(logits), case.store, metrics=ASKED, thresholds=LEVELS,
        interpolation=["bilinear", "bicubic"],
    )  # fmt: skip
    result.save(tmp_path)
    loaded = rc.load_results(tmp_path)
    assert loaded.threshold_curve().equals(result.threshold_curve())
    assert loaded.best_threshold == result.best_threshold
    assert loaded.interpolations().equals(result.interpolations())
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["thresholds"]["curve"] == result.threshold_curve().to_pylist()
    assert summary["thresholds"]["used"] == 0.0
    assert summary["interpolations"] == result.interpolations().to_pylist()
    assert loaded.summary()["thresholds"] == summary["thresholds"]
    assert loaded.per_example.schema.field("pred_area_at").type == pa.list_(pa.int64(), len(LEVELS))
    # Also of a table that holds what slices need.
    sliced = result.with_slices("category")
    assert sliced.best_threshold == result.best_threshold


def test_the_command_prints_the_used_and_the_best(case, path, logits, tmp_path, capsys):
    file = tmp_path / "logits.npz"
    np.savez(file, **dict(zip(case.names(), logits, strict=True)))
    words = ["score", str(file), f"dataset.path={path}", "metrics=[iou,thresholds]"]
    assert main([*words, "thresholds=[-1,0.5]", "interpolation=[bilinear,nearest]"]) == 0
    printed = capsys.readouterr().out
    result = rc.score(
        file, case.store, metrics=ASKED, thresholds=[-1, 0.5], interpolation=["bilinear", "nearest"]
    )
    best = result.best_threshold
    assert f"the best of 3 gains {100 * best.gain:.2f} points of mIoU" in printed
    assert "optimistic" in printed
    assert f"{best.threshold:g} (" in printed
    nearest = result.interpolations().to_pylist()[1]
    assert f"nearest{100 * nearest['miou']:>23.2f}{100 * nearest['ciou']:>8.2f}" in printed
    assert main([*words, "json=true", "output_dir=null"]) == 0
    assert len(json.loads(capsys.readouterr().out)["thresholds"]["curve"]) == 33


# Refused -------------------------------------------------------------------------------------------


def test_masks_have_no_thresholds_and_no_interpolation(case):
    for asked in (
        {"metrics": ASKED},
        {"interpolation": "bicubic"},
        {"interpolation": ["bilinear", "nearest"]},
    ):
        with pytest.raises(rc.PredictionError, match=r"no values.*is a mask; thresholds and inter"):
            rc.score(enumerate(case.masks), case.store, **asked)
        with pytest.raises(rc.PredictionError, match=r"no values.*is a mask; thresholds and inter"):
            rc.score(dict(enumerate(map(coco_encode, case.masks))), case.store, **asked)
    wide = [m.astype(np.int32) for m in case.masks]
    with pytest.raises(rc.PredictionError, match="no values"):
        rc.score(enumerate(wide), case.store, metrics=ASKED, values="probabilities")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"thresholds": [1]}, "metrics="),
        ({"metrics": ASKED, "thresholds": []}, "1 to 256"),
        ({"metrics": ASKED, "thresholds": range(257)}, "1 to 256"),
        ({"metrics": ASKED, "thresholds": ["high"]}, "finite numbers of float32, not 'high'"),
        ({"metrics": ASKED, "thresholds": [float("nan")]}, "finite"),
        ({"metrics": ASKED, "thresholds": [1e39]}, "finite"),
        ({"metrics": ASKED, "thresholds": [True]}, "finite"),
        ({"metrics": ASKED, "thresholds": [1.0, 1 + 1e-12]}, "differ in float32"),
        ({"metrics": ASKED, "thresholds": [1e-50]}, "also from the one in use"),
        ({"metrics": ASKED, "thresholds": [1.5], "values": "probabilities"}, "0…1"),
        ({"metrics": ASKED, "label": 3}, "label is about masks"),
        ({"metrics": ASKED, "resize_masks": "nearest"}, "resize_masks is about masks"),
        ({"interpolation": "bicubic", "combine": "union"}, "combine is about masks"),
        ({"metrics": ASKED, "convention": "lavt"}, "thresholds"),
        ({"interpolation": ["bilinear", "nearest"], "convention": "lavt"}, "interpolation"),
        ({"interpolation": "area"}, "bilinear or nearest or bicubic, not 'area'"),
        ({"interpolation": []}, "each way once"),
        ({"interpolation": ["nearest", "nearest"]}, "each way once"),
        ({"interpolation": "nearest", "letterbox": 64, "resize": "sam"}, "resize=sam"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(case, logits, asked, message):
    with pytest.raises(rc.UsageError, match=message):
        rc.score(enumerate(logits), case.store, **asked)


def test_who_has_no_values_says_so(case, tmp_path):
    with pytest.raises(
        rc.UsageError, match=r"RefCOCOMMetric counts .*, not thresholds; score does"
    ):
        rc.RefCOCOMMetric(case.store, metrics=ASKED)
    file = write_jsonl(tmp_path / "masks.jsonl", case.rows())
    with pytest.raises(
        rc.UsageError,
        match="a sweep counts iou, boundary, causes, boxes, consistency, not thresholds",
    ):
        rc.sweep([file], case.store, tmp_path, metrics=ASKED)
    result = rc.score(enumerate(case.masks), case.store)
    for ask in (result.threshold_curve, lambda: result.best_threshold, result.interpolations):
        with pytest.raises(rc.UsageError, match="counted; score logits or probabilities"):
            ask()


def test_all_ways_are_the_same_at_the_size_of_the_image():
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(13, 17)).astype(np.float32))
    assert torch.equal(reference.resize_logits(values, 13, 17), values)
    for how in (NEAREST, BICUBIC):
        assert torch.equal(interpolated(values, 13, 17, None, how), values)
