"""Boundary IoU and Boundary F beside IoU, from every form of input, equal to plain loops and to OpenCV."""

import copy
import json
import pickle

import edges
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import coco_decode, coco_encode, real_file, sample_case
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from refcocom_kernels import ops
from test_store import masks_dataset

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.counting import counter as counter_module
from refcocom_gpu.errors import Problems
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.runs import array_runs

BOTH = ["iou", "boundary"]
SIZES = [(1, 1), (1, 63), (64, 64), (40, 61), (33, 127), (101, 3), (70, 90), (8, 200)]


def drawn(size, seed):
    """Masks that are hard for a boundary: discs, frames, noise, thin lines, holes, empty, full, one pixel."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0, height), rng.uniform(0, width)
    disc = np.hypot(y - centre[0], x - centre[1]) < max(size) / 3
    pixel = np.zeros(size, bool)
    pixel[rng.integers(height), rng.integers(width)] = True
    return [
        disc, disc & (rng.random(size) < 0.98), rng.random(size) < 0.5, (y == 0) | (x == 0) | (x == width - 1),
        y == height // 2, np.zeros(size, bool), np.ones(size, bool), pixel, ~pixel,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    """Each image with its masks; the images are small and of odd sizes."""
    return [drawn(size, seed)[seed % 3 :][:5] for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def store(truth, tmp_path_factory):
    return rc.MaskStore.build(masks_dataset(tmp_path_factory.mktemp("edges"), truth), cache=False)


@pytest.fixture(scope="module")
def masks(store, truth):
    """A predicted mask for each example."""
    return [
        drawn(target.shape, 50 + index)[index % 9]
        for index, target in enumerate(map(store.mask, range(len(store))))
    ]


def on_device(store):
    """The same store on host memory under another name, which takes the way of a device."""
    moved = copy.copy(store)
    moved.device = "cpu:0"
    return moved


def columns_of(result):
    table = result.per_example
    return np.stack([table[name].to_numpy() for name in edges.COLUMNS], 1)


def in_batches(predictions, size=7):
    for first in range(0, len(predictions), size):
        part = predictions[first : first + size]
        yield list(range(first, first + len(part))), part


def logits_of(masks, kind=np.float32):
    rng = np.random.default_rng(7)
    return [
        (np.kron(mask[::2, ::2], np.ones((1, 2))) * 8.0 - 4 + rng.normal(size=1)).astype(kind)
        for mask in masks
    ]


def squares_of(masks, kind=np.float32):
    """Logits of a padded square, 32 cells wide."""
    rng = np.random.default_rng(8)
    return [(rng.normal(size=(32, 32)) + 3.0 * mask.mean()).astype(kind) for mask in masks]


FORMS = {
    "masks": (lambda masks: masks, {}),
    "bytes": (lambda masks: [mask.astype(np.uint8) * 255 for mask in masks], {}),
    "wide integers": (lambda masks: [mask.astype(np.int32) * 1000 for mask in masks], {}),
    "labels": (lambda masks: [mask * 3 + 1 for mask in masks], {"label": 4}),
    "tensors": (lambda masks: [torch.from_numpy(mask) for mask in masks], {}),
    "RLE": (lambda masks: [coco_encode(mask) for mask in masks], {}),
    "masks of another size": (
        lambda masks: [np.kron(mask, np.ones((2, 3), bool)) for mask in masks],
        {"resize_masks": "nearest"},
    ),
    "float32": (logits_of, {}),
    "float16": (lambda masks: logits_of(masks, np.float16), {}),
    "float64": (lambda masks: logits_of(masks, np.float64), {}),
    "bfloat16": (lambda masks: [torch.from_numpy(x).bfloat16() for x in logits_of(masks)], {}),
    "probabilities": (
        lambda masks: [1 / (1 + np.exp(-x)) for x in logits_of(masks)],
        {"values": "probabilities"},
    ),
    "maps": (
        lambda masks: [np.rint(255 / (1 + np.exp(-x))).astype(np.uint8) for x in squares_of(masks)],
        {"values": "probabilities"},
    ),
    "letterboxed": (squares_of, {"letterbox": 128}),
    "in the middle": (squares_of, {"letterbox": "center"}),
    "SAM": (squares_of, {"letterbox": 128, "resize": "sam"}),
}


def expected_masks(predictions, store, options):
    """The masks that the writer would write."""
    if isinstance(predictions[0], dict):
        return [coco_decode(row["size"], row["counts"]) for row in predictions]
    found = []
    for index, prediction in enumerate(predictions):
        size = store.mask(index).shape
        problems = Problems()
        ends, _ = array_runs(prediction, *size, ReadOptions(**options), "", problems)
        problems.raise_if_any()
        found.append(rle.decode_ends(ends, *size))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:refcocom")
def test_every_form_equals_plain_loops(store, masks, form, monkeypatch):
    make, options = FORMS[form]
    predictions = make(masks)
    expected = [
        edges.row(mask, store.mask(index))
        for index, mask in enumerate(expected_masks(predictions, store, options))
    ]
    # Full-size masks in parts of one and of several.
    monkeypatch.setattr(counter_module, "PART_BYTES", 10_000)
    alone = rc.score(in_batches(predictions), store, **options)
    for side in (store, on_device(store)):
        result = rc.score(in_batches(predictions), side, metrics=BOTH, **options)
        assert columns_of(result).tolist() == expected
        assert result.per_example.select(alone.per_example.column_names).equals(alone.per_example)
        assert result.iou.tolist() == alone.iou.tolist()


def test_the_loops_are_the_definition():
    """The oracle itself, pixel by pixel."""
    for seed in range(6):
        for mask in drawn((9, 12), seed):
            height, width = mask.shape

            def is_set(y, x, mask=mask):
                return 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and bool(mask[y, x])

            for distance in (1, 2):
                reach = range(-distance, distance + 1)
                inner, around = edges.eroded(mask, distance), edges.near(mask, distance)
                for y in range(height):
                    for x in range(width):
                        window = [is_set(y + a, x + b) for a in reach for b in reach]
                        assert inner[y, x] == all(window)
                        assert around[y, x] == any(window)


@given(st.data())
def test_any_masks(tmp_path_factory, data):
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 70)))
    n = size[0] * size[1]
    bits = data.draw(st.binary(min_size=2 * n, max_size=2 * n))
    pair = (np.frombuffer(bits, np.uint8) % 3 > 0).reshape(2, *size)
    dataset = masks_dataset(tmp_path_factory.mktemp("any"), [[pair[1]]])
    result = rc.score(
        [([0, 1], [pair[0]] * 2)], rc.MaskStore.build(dataset, cache=False), metrics=BOTH
    )
    assert columns_of(result).tolist() == [edges.row(*pair)] * 2


# Results ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(store, masks):
    return rc.score(in_batches(masks), store, metrics="boundary")


def test_scores_are_those_of_the_definitions(result, store, masks):
    rows = [edges.row(mask, store.mask(index)) for index, mask in enumerate(masks)]
    ious = [edges.boundary_iou(row) for row in rows]
    assert result.boundary_values["boundary_iou"].tolist() == pytest.approx(ious, abs=1e-15)
    assert result.boundary_iou == pytest.approx(np.mean(ious), abs=1e-12)
    lower = np.minimum(result.iou, ious).mean()
    assert result.min_mask_boundary_iou == pytest.approx(lower, abs=1e-12)
    fs = [edges.f_measure(row) for row in rows]
    assert 0.0 in fs
    assert 1.0 in fs
    assert result.boundary_values["boundary_f"].tolist() == pytest.approx(fs, abs=1e-15)
    assert result.boundary_f == pytest.approx(np.mean(fs), abs=1e-12)


def test_a_perfect_score(store):
    exact = rc.score(in_batches([store.mask(k) for k in range(len(store))]), store, metrics=BOTH)
    assert exact.boundary_scores == dict.fromkeys(exact.boundary_scores, 1.0)
    assert len(exact.boundary_scores) == 3


def test_a_result_is_kept_and_read_back(result, tmp_path):
    result.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["metrics"] == BOTH
    again = rc.load_results(tmp_path)
    assert again.per_example.equals(result.per_example)
    assert again.boundary_scores == result.boundary_scores
    assert {name: summary[name] for name in again.boundary_scores} == result.boundary_scores
    assert again.summary() == result.summary()
    # Columns only add: what was there comes first, in its order.
    names = pq.read_schema(tmp_path / "per_example.parquet").names
    assert names[-len(edges.COLUMNS) - 1 :] == ["iou", *edges.COLUMNS]


def test_what_was_not_counted_says_so(store, masks, tmp_path):
    plain = rc.score(in_batches(masks), store)
    plain.save(tmp_path)
    for one in (plain, rc.load_results(tmp_path)):
        for name in ("boundary_values", "boundary_iou", "min_mask_boundary_iou", "boundary_f"):
            with pytest.raises(rc.UsageError, match=r"metrics=\[iou,boundary\]"):
                getattr(one, name)
        assert one.boundary_scores == {}
        assert "boundary_iou" not in one.summary()
        assert one.info["metrics"] == ["iou"]
    assert "boundary_f" not in plain.per_example.column_names


def test_examples_without_a_prediction_are_empty(store, masks):
    half = rc.score([([0, 1], masks[:2])], store, metrics=BOTH, missing="zero")
    rows = [
        edges.row(masks[index] if index < 2 else np.zeros_like(target), target)
        for index, target in enumerate(map(store.mask, range(len(store))))
    ]
    assert columns_of(half).tolist() == rows


@pytest.mark.parametrize("form", ["RLE", "float32"])
def test_mistakes_are_named_as_without(store, masks, form):
    predictions = FORMS[form][0](masks)
    if form == "RLE":
        predictions[5] = {**predictions[5], "counts": predictions[5]["counts"] + "~"}
        predictions[9] = {**predictions[9], "counts": "~~~"}
    else:
        predictions[5][0, 0] = np.nan
    messages = []
    for side in (store, on_device(store)):
        for metrics in (["iou"], BOTH):
            with pytest.raises(rc.PredictionError) as caught:
                rc.score(in_batches(predictions), side, metrics=metrics)
            messages.append([(p.where, p.message) for p in caught.value.problems])
    assert messages == [messages[0]] * 4


def test_an_unknown_metric_is_refused(store):
    with pytest.raises(rc.UsageError, match="unknown metric 'f1'; known: iou, boundary"):
        rc.score([], store, metrics=["iou", "f1"])


@pytest.mark.parametrize("form", ["masks", "float32", "RLE"])
@pytest.mark.parametrize("room", [0, 2])
@pytest.mark.filterwarnings("ignore:refcocom")
def test_a_device_with_little_memory(store, masks, monkeypatch, form, room):
    """Parts shrink until the boundaries of a part fit, or are counted on the host; the counts are the same."""
    predictions = FORMS[form][0](masks)
    expected = rc.score(in_batches(predictions), store, metrics=BOTH).per_example
    count, tried = ops.mask_boundary_counts, []

    def scarce(given, *rest):
        tried.append(len(given))
        if len(given) > room:
            raise torch.OutOfMemoryError
        return count(given, *rest)

    monkeypatch.setattr(ops, "mask_boundary_counts", scarce)
    result = rc.score(in_batches(predictions), on_device(store), metrics=BOTH)
    assert result.per_example.equals(expected)
    assert max(tried) > room


# The command --------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_them(tmp_path, capsys):
    out = tmp_path / "out"
    command = ["score", "sample", "dataset=sample", f"output_dir={out}"]
    assert main([*command, "metrics=[iou,boundary]"]) == 0
    table = capsys.readouterr().out
    read = rc.load_results(out)
    for name, score in (
        ("boundary IoU", read.boundary_iou),
        ("min(IoU, boundary IoU)", read.min_mask_boundary_iou),
        ("boundary F", read.boundary_f),
    ):
        assert f"  {name:<24}{100 * score:6.2f} %" in table
    assert read.per_example.equals(rc.score("sample", "sample", metrics=BOTH).per_example)
    assert main([*command, "overwrite=true"]) == 0
    assert "boundary" not in capsys.readouterr().out
    assert main([*command, "overwrite=true", "metrics=[iou,shape]"]) == 2
    assert "unknown metric 'shape'" in capsys.readouterr().err


# The store ----------------------------------------------------------------------------------------


def test_the_store_draws_them_once_and_when_needed(tmp_path):
    dataset = rc.load_dataset("sample")
    store = rc.MaskStore.build(dataset, cache=tmp_path)
    rc.score("sample", store)
    path = store.folder / "boundaries.safetensors"
    assert not path.exists()
    first = rc.score("sample", store, metrics=BOTH)
    written = path.stat().st_mtime_ns
    again = rc.MaskStore.build(dataset, cache=tmp_path)
    assert rc.score("sample", again, metrics=BOTH).per_example.equals(first.per_example)
    assert path.stat().st_mtime_ns == written
    for one, other in zip(store.boundaries, again.boundaries, strict=True):
        assert all(map(np.array_equal, one, other))


@pytest.mark.parametrize("piece_words", [1, 40])
def test_pieces_do_not_change_them(store, masks, monkeypatch, piece_words):
    monkeypatch.setattr("refcocom_gpu.store.store.PIECE_WORDS", piece_words)
    other = rc.MaskStore.build(store.dataset, cache=False)
    for mine, theirs in zip(store.boundaries, other.boundaries, strict=True):
        assert all(map(np.array_equal, mine, theirs))


def test_a_store_carries_them(store):
    held = store.boundaries
    again = pickle.loads(pickle.dumps(store))
    assert again._boundaries.keys() == store._boundaries.keys() != set()
    for mine, theirs in zip(held, again.boundaries, strict=True):
        assert all(map(np.array_equal, mine, theirs))
    tensors = store.tensors().boundaries
    # Host memory is not copied.
    assert tensors[2].data_ptr() == held.boundaries.words.ctypes.data


# Real masks ---------------------------------------------------------------------------------------


def opencv_row(cv2, pred, target):
    """The columns with OpenCV's erosion, as boundary-iou-api calls it."""

    def edge(mask, distance):
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
        return mask - inner[1:-1, 1:-1]

    def near(mask, reach):
        return cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))

    pred, target = pred.astype(np.uint8), target.astype(np.uint8)
    distance, reach = edges.pixels(target, 0.02), edges.pixels(target, 0.008)
    mine, true = edge(pred, distance), edge(target, distance)
    line, true_line = edge(pred, 1), edge(target, 1)
    counted = [
        mine & true, mine, true, line, true_line, line & near(true_line, reach), true_line & near(line, reach),
    ]  # fmt: skip
    return [int(each.sum()) for each in counted]


def real_masks(name):
    if name == "RLE":
        rows = json.loads(real_file("val2014/instances_val2014_fakesegm100_results.json").read_text())  # fmt: skip
        return [coco_decode(r["segmentation"]["size"], r["segmentation"]["counts"]) for r in rows]
    lvis = json.loads(real_file("lvis/lvis_val_100.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in lvis["images"]}
    return [
        coco.decode(coco.merge(coco.frPyObjects(a["segmentation"], *sizes[a["image_id"]]))).astype(bool)
        for a in lvis["annotations"]
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("RLE", 734), ("LVIS", 977)])
def test_real_masks_equal_opencv(name, n, tmp_path):
    cv2 = pytest.importorskip("cv2")
    found = real_masks(name)
    assert len(found) == n
    store = rc.MaskStore.build(masks_dataset(tmp_path, [[mask] for mask in found]), cache=False)
    # Two expressions a mask: the mask moved by some pixels, and another mask of its size where there is one.
    rng = np.random.default_rng(0)
    last, pairs = {}, []
    for mask in found:
        pairs += [(mask, tuple(rng.integers(-9, 10, 2))), (last.get(mask.shape, mask), (0, 0))]
        last[mask.shape] = mask
    moved = [np.packbits(np.roll(mask, shift, (0, 1))) for mask, shift in pairs]

    def prediction(k):
        shape = found[k // 2].shape
        return np.unpackbits(moved[k], count=shape[0] * shape[1]).astype(bool).reshape(shape)

    def batches(form):
        for first in range(0, len(moved), 100):
            index = range(first, min(first + 100, len(moved)))
            yield list(index), [form(prediction(k)) for k in index]

    strings = rc.score(batches(coco_encode), store, metrics=BOTH)
    rows = [opencv_row(cv2, prediction(k), found[k // 2]) for k in range(len(moved))]
    assert columns_of(strings).tolist() == rows
    expected = [edges.boundary_iou(row) for row in rows]
    found_ious = strings.boundary_values["boundary_iou"]
    np.testing.assert_allclose(found_ious, expected, rtol=0, atol=1e-12)
    dense = rc.score(batches(np.ascontiguousarray), store, metrics=BOTH)
    assert dense.per_example.equals(strings.per_example)


# Nothing is paid for what is not asked ------------------------------------------------------------


def test_iou_alone_draws_no_boundary(store, masks, monkeypatch):
    def drawn(_):
        raise AssertionError

    monkeypatch.setattr(rc.MaskStore, "boundaries", property(drawn))
    for form in ("masks", "RLE", "float32"):
        predictions = FORMS[form][0](masks)
        for side in (store, on_device(store)):
            assert rc.score(in_batches(predictions), side, metrics=["iou"]).n_examples == len(store)
            with pytest.raises(AssertionError):
                rc.score(in_batches(predictions), side, metrics=BOTH)


def test_the_sample_has_the_scores_of_the_loops():
    case = sample_case()
    result = rc.score(in_batches(case.masks), case.store, metrics=BOTH)
    few = range(0, len(case.masks), 9)
    rows = [edges.row(case.masks[k], case.store.mask(k)) for k in few]
    assert columns_of(result)[list(few)].tolist() == rows
