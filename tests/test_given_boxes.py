"""Predictions that are boxes: read from every container of rows in every declared form, scored as by plain loops."""

import gzip
import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from helpers import problems_of, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.boxes import box_in_pixels
from refcocom_gpu.predictions.options import BOX_FORMATS, SCALES, ReadOptions

FORMS = [{"box_format": form, "box_scale": scale} for form in BOX_FORMATS for scale in SCALES]
PIXELS = {"box_format": "xyxy", "box_scale": "pixels"}
SIZES = [(40, 61), (33, 120), (101, 30)]
PRED = ("pred_x0", "pred_y0", "pred_x1", "pred_y1")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three images with two masks each and two sentences for each mask."""
    lines = []
    for image, (height, width) in enumerate(SIZES):
        samples = []
        for k in range(2):
            mask = np.zeros((height, width), bool)
            mask[3 + k : 20 + 5 * k, 2 + 4 * k : 25] = True
            mask[5, 5] = False
            x0, y0 = 2 + 4 * k, 3 + k
            samples.append(
                {
                    "id": 10 * image + k,
                    "sentences": [f"one {image} {k}", f"two {image} {k}"],
                    "mask": rle.encode(mask),
                    "bbox": [x0 - 0.25, y0 + 0.5, 25 - x0 + 0.125, 17 + 4 * k - 0.75],
                }
            )
        lines.append(json.dumps({"image_id": image, "samples": samples}))
    path = tmp_path_factory.mktemp("given") / "set.jsonl"
    path.write_text("\n".join(lines))
    return rc.MaskStore.build(rc.load_dataset(path), cache=False)


@pytest.fixture(scope="module")
def boxes(store):
    """A box with parts of pixels for each example; one of nothing, and one that is none."""
    rng = np.random.default_rng(0)
    truth = store.boxes[store.example_sample]
    found = [list(map(float, box)) for box in truth + rng.uniform(-2, 3, truth.shape)]
    found[3] = None
    found[5][2] = found[5][0]
    return found


def size_of(store, index):
    sample = store.example_sample[index]
    return int(store.heights[sample]), int(store.widths[sample])


def in_form(box, size, box_format, box_scale):
    """A box in pixels as a file of this form states it."""
    if box is None:
        return None
    height, width = size
    unit = {"pixels": None, "normalized": 1, "thousandths": 1000}[box_scale]
    x0, y0, x1, y1 = box
    if unit:
        x0, x1, y0, y1 = (
            *(unit * x / width for x in (x0, x1)),
            *(unit * y / height for y in (y0, y1)),
        )
    return [x0, y0, x1 - x0, y1 - y0] if box_format == "xywh" else [x0, y0, x1, y1]


def rows_of(store, boxes, form=PIXELS, name="box"):
    dataset = store.dataset
    return [
        {
            **dict(zip(dataset.example_key_fields, dataset.key_of(index), strict=True)),
            name: in_form(box, size_of(store, index), **form),
        }
        for index, box in enumerate(boxes)
    ]


def loop_iou(a, b):
    """IoU of two boxes in fractions, corner by corner."""
    if a is None:
        return 0.0
    a, b = (list(map(Fraction, box)) for box in (a, b))
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    shared = sides[0] * sides[1] if min(sides) > 0 else Fraction(0)
    union = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)) - shared
    return float(shared / union)


def torchvision_iou(boxes1, boxes2):
    """`torchvision.ops.box_iou`, whose diagonal is the IoU of each pair."""

    def area(boxes):
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    lt = torch.max(boxes1[:, None, :2], boxes2[:, :2])
    rb = torch.min(boxes1[:, None, 2:], boxes2[:, 2:])
    wh = (rb - lt).clamp(min=0)
    inter = wh[:, :, 0] * wh[:, :, 1]
    return (inter / (area(boxes1)[:, None] + area(boxes2) - inter)).diagonal()


def stated(result):
    return np.stack([result.per_example[name].to_numpy() for name in PRED], 1)


def numbers(boxes):
    return np.array([box or [0.0] * 4 for box in boxes])


# Scores -------------------------------------------------------------------------------------------


def test_a_case_by_hand(tmp_path):
    mask = np.zeros((10, 20), bool)
    mask[2:6, 4:12] = True  # 4, 2, 12, 6: 32 pixels
    sample = {"id": 1, "sentences": list("abcde"), "mask": rle.encode(mask)}
    path = write_jsonl(tmp_path / "one.jsonl", [{"image_id": 1, "samples": [sample]}])
    boxes = [
        [4, 2, 12, 6],  # the box itself
        [4, 2, 8, 6],  # its left half: 16 / 32
        [4, 2, 12, 6.5],  # half a row more: 32 / 36
        [12, 6, 20, 10],  # touches it, and x1, y1 are exclusive
        None,
    ]
    result = rc.score(dict(enumerate(boxes)), path, **PIXELS)
    assert result.box_values["box_iou"].tolist() == [1.0, 0.5, 32 / 36, 0.0, 0.0]
    assert result.box_scores == {
        "box_iou": (1 + 0.5 + 32 / 36) / 5,
        "box_accuracy": 0.6,
        "box_truth": "mask",
    }
    assert (
        rc.score(dict(enumerate(boxes)), path, precision_strict=True, **PIXELS).box_accuracy == 0.4
    )
    assert result.per_example["status"].to_pylist() == ["scored"] * 4 + ["empty"]


@pytest.mark.parametrize("truth", ["bbox", "mask"])
def test_scores_equal_plain_loops_and_torchvision(store, boxes, truth):
    result = rc.score(dict(enumerate(boxes)), store, box_truth=truth, **PIXELS)
    targets = store.boxes.astype(float)
    if truth == "bbox":
        targets = store.dataset.boxes.copy()
        targets[:, 2:] += targets[:, :2]
    targets = targets[store.example_sample]
    expected = [loop_iou(box, target) for box, target in zip(boxes, targets.tolist(), strict=True)]
    found = result.box_values["box_iou"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    reference = torchvision_iou(torch.from_numpy(numbers(boxes)), torch.from_numpy(targets))
    np.testing.assert_allclose(found, reference.numpy(), rtol=0, atol=1e-14)
    assert result.box_iou == pytest.approx(sum(expected) / len(expected), abs=1e-14)
    assert result.box_accuracy == sum(iou >= 0.5 for iou in expected) / len(expected)
    assert 0 < result.box_accuracy < 1
    assert stated(result).tolist() == numbers(boxes).tolist()  # no corner is rounded


def test_tight_boxes_of_masks_have_the_scores_of_the_masks(store):
    masks = [np.roll(store.mask(index), index % 4, 1) for index in range(len(store))]
    of_masks = rc.score(dict(enumerate(masks)), store, metrics=["iou", "boxes"])
    boxes = {index: box.tolist() for index, box in enumerate(stated(of_masks))}
    assert rc.score(boxes, store, **PIXELS).box_scores == of_masks.box_scores


def test_what_is_missing_counts_as_no_box(store, boxes):
    some = {index: box for index, box in enumerate(boxes) if index != 1}
    error = problems_of(some, store, **PIXELS)
    assert error.counts == {"missing": 1}
    result = rc.score(some, store, missing="zero", **PIXELS)
    assert (result.n_missing, result.n_empty) == (1, 2)
    assert result.box_values["box_iou"][[1, 3, 5]].tolist() == [0.0] * 3
    assert result.per_example["status"].to_pylist()[1:4] == ["missing", "scored", "empty"]


def test_no_box_is_right_where_nothing_is_meant(tmp_path):
    sample = {"id": 1, "sentences": ["a", "b"], "mask": rle.encode(np.zeros((9, 9), bool))}
    record = {"image_id": 1, "samples": [{**sample, "no_target": True}]}
    path = write_jsonl(tmp_path / "none.jsonl", [record])
    result = rc.score({0: None, 1: [1, 1, 3, 3]}, path, **PIXELS)
    assert result.box_values["box_iou"].tolist() == [1.0, 0.0]
    assert (result.summary()["n_no_target"], result.n_empty) == (2, 1)


# Containers and forms -----------------------------------------------------------------------------


def arrow(rows, kind):
    return pa.table(
        {name: [r[name] for r in rows] for name in rows[0] if name != "box"}
    ).append_column("box", pa.array([r["box"] for r in rows], kind))


def saved_parquet(path, rows):
    pq.write_table(arrow(rows, pa.list_(pa.float64())), path / "p.parquet", row_group_size=5)
    return path / "p.parquet"


def saved_feather(path, rows):
    pyarrow.feather.write_feather(arrow(rows, pa.list_(pa.float64(), 4)), path / "p.feather")
    return path / "p.feather"


def saved_gz(path, rows):
    (path / "p.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path / "p.jsonl.gz"


def saved_json(path, rows):
    (path / "p.json").write_text(json.dumps(rows))
    return path / "p.json"


def saved_shards(path, rows):
    write_jsonl(path / "a.jsonl", rows[:5])
    write_jsonl(path / "b.jsonl", rows[5:])
    return path


def keyed(rows):
    return {(row["sample_id"], row["sentence_idx"]): row["box"] for row in rows}


HEADER = {"schema": "refcocom-predictions", "version": 1}

CONTAINERS = {
    "jsonl": lambda path, rows: write_jsonl(path / "p.jsonl", [HEADER, *rows]),
    "jsonl.gz": saved_gz,
    "json": saved_json,
    "shards": saved_shards,
    "parquet": saved_parquet,
    "feather": saved_feather,
    "dict": lambda _, rows: keyed(rows),
    "pairs": lambda _, rows: [(list(keyed(rows)), list(keyed(rows).values()))],
    "single pairs": lambda _, rows: list(keyed(rows).items()),
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_in_every_form(store, boxes, tmp_path, container, form):
    predictions = CONTAINERS[container](tmp_path, rows_of(store, boxes, form))
    result = rc.score(predictions, store, **form)
    np.testing.assert_allclose(stated(result), numbers(boxes), rtol=0, atol=1e-12)
    assert result.n_empty == 2
    assert result.info["options"] | form == result.info["options"]


def test_a_dataset_in_memory_and_saved(store, boxes, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list(rows_of(store, boxes))
    made.save_to_disk(tmp_path / "saved")
    for predictions in (made, tmp_path / "saved"):
        assert stated(rc.score(predictions, store, **PIXELS)).tolist() == numbers(boxes).tolist()


def test_arrays_tensors_and_float32_in_memory(store, boxes):
    whole = numbers(boxes).astype(np.float32)
    for values in (whole, torch.from_numpy(whole), list(whole)):
        result = rc.score([(np.arange(len(store)), values)], store, **PIXELS)
        assert stated(result).tolist() == whole.astype(np.float64).tolist()


def test_coco_results_under_their_own_names(store, boxes, tmp_path):
    rows = [
        {"image_id": 0, "category_id": 1, "score": 0.5, **row}
        for row in rows_of(store, boxes, {"box_format": "xywh", "box_scale": "pixels"}, "bbox")
    ]
    path = saved_json(tmp_path, rows)
    form = {"box_format": "xywh", "box_scale": "pixels"}
    result = rc.score(path, store, fields={"box": "bbox"}, **form)
    np.testing.assert_allclose(stated(result), numbers(boxes), rtol=0, atol=1e-12)
    assert "try fields.box=bbox" in str(problems_of(path, store, **form))
    table = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    np.testing.assert_allclose(
        stated(rc.score(table, store, fields={"box": "bbox"}, **form)), numbers(boxes), atol=1e-12
    )
    assert "try fields.box=bbox" in str(problems_of(table, store, **form))


def test_rows_name_their_examples_in_every_way(store, boxes, tmp_path):
    rows = rows_of(store, boxes)
    sentences = store.dataset.examples["sentence"].to_pylist()
    path = write_jsonl(tmp_path / "o.jsonl", [{"box": row["box"]} for row in rows])
    assert stated(rc.score(path, store, keys="order", **PIXELS)).tolist() == numbers(boxes).tolist()
    named = [
        {"image_id": int(k // 4), "sentence": sentence, "box": row["box"]}
        for k, (row, sentence) in enumerate(zip(rows, sentences, strict=True))
    ]
    path = tmp_path / "s.parquet"
    pq.write_table(pa.Table.from_pylist(named[::-1]), path)
    by_text = rc.score(path, store, keys="sentence", **PIXELS)
    assert stated(by_text).tolist() == numbers(boxes).tolist()
    again = write_jsonl(tmp_path / "r.jsonl", [*rows, rows[0]])
    assert (
        rc.score(again, store, repeats="identical", **PIXELS).info["predictions"]["n_repeated"] == 1
    )
    other = write_jsonl(tmp_path / "r2.jsonl", [*rows, {**rows[0], "box": rows[1]["box"]}])
    assert "its box is another one here" in str(
        problems_of(other, store, repeats="identical", **PIXELS)
    )
    extra = [{**row, "sentence": s} for row, s in zip(rows, sentences, strict=True)]
    extra.append({"sample_id": 999, "sentence_idx": 0, "sentence": "?", "box": [0, 0, 1, 1]})
    path = write_jsonl(tmp_path / "e.jsonl", extra)
    assert rc.score(path, store, extra="ignore", **PIXELS).info["predictions"]["n_extra"] == 1


@settings(max_examples=100)
@given(
    st.tuples(st.integers(9, 2000), st.integers(9, 2000)),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_any_box_is_the_same_in_every_form(size, parts):
    (x0, x1), (y0, y1) = sorted(parts[:2]), sorted(parts[2:])
    box = [x0 * size[1], y0 * size[0], x1 * size[1], y1 * size[0]]
    for form in FORMS:
        found = box_in_pixels(in_form(box, size, **form), size, ReadOptions(**form))
        assert found == pytest.approx(box, rel=1e-9, abs=1e-9)


# Mistakes -----------------------------------------------------------------------------------------


def test_a_form_is_never_guessed(store, boxes, tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", rows_of(store, boxes))
    table = saved_parquet(tmp_path, rows_of(store, boxes))
    for predictions in (path, table, {0: boxes[0]}):
        message = str(problems_of(predictions, store))
        assert "box_format=xyxy" in message
        assert "box_scale=pixels, normalized" in message
    for alone in ({"box_format": "xyxy"}, {"box_scale": "pixels"}, {"fields": {"box": "bbox"}}):
        with pytest.raises(rc.UsageError, match=r"declare box_format=xyxy .* and box_scale=pixels"):
            rc.score(path, store, **alone)
    for name in ("box_format", "box_scale"):
        with pytest.raises(rc.UsageError, match=f"{name} must be"):
            rc.score(path, store, **(PIXELS | {name: "cxcywh"}))


def test_all_mistakes_of_a_file_are_named_in_one_pass(store, boxes, tmp_path):
    good = rows_of(store, boxes)
    height, width = size_of(store, 0)
    wrong = {
        0: [1, 2, 3],
        1: [1, 2, float("1e999"), 4],
        2: "1,2,3,4",
        3: [1, 2, 3, True],
        4: [5, 2, 3, 4],
        6: [0, 0, 640, 480],
        7: [-50, 0, 2, 2],
    }
    rows = [{**row, "box": wrong.get(k, row["box"])} for k, row in enumerate(good)]
    rows[1]["box"] = [1, 2, None, 4]
    del rows[8]["box"]
    rows.append({**good[9]})
    rows.append({"sample_id": 77, "sentence_idx": 0, "box": [3, 3, 2, 4]})
    error = problems_of(write_jsonl(tmp_path / "p.jsonl", rows), store, **PIXELS)
    assert error.counts == {"malformed box": 8, "no box": 1, "duplicate": 1, "unknown key": 1}
    places = {p.where.rpartition("line ")[2]: p.message for p in error.problems if "box" in p.kind}
    assert [*map(int, places)] == [9, 1, 2, 3, 4, 5, 7, 8, 14]
    assert "write null for no box on purpose" in places["9"]
    assert "four finite numbers" in places["1"]
    assert "not x0 ≤ x1 and y0 ≤ y1" in places["5"]
    assert "reaches beyond the image of 33×120" in places["7"]
    assert (height, width) == SIZES[0]


def test_a_box_may_overshoot_as_little_as_models_do(store):
    height, width = size_of(store, 0)
    reach = width / 8
    fits = [-reach, 0, width + reach, height + 4]
    result = rc.score({0: fits}, store, missing="zero", **PIXELS)
    assert stated(result)[0].tolist() == fits  # and is not cut
    for beyond in ([-reach - 0.01, 0, 9, 9], [0, 0, width + reach + 0.01, 9]):
        message = str(problems_of({0: beyond}, store, missing="zero", **PIXELS))
        assert "by more than 12.5% of a side" in message


@pytest.mark.parametrize(
    ("real", "declared", "reason"),
    [
        (("xyxy", "normalized"), ("xyxy", "pixels"), "so they are not in pixels"),
        (("xyxy", "normalized"), ("xyxy", "thousandths"), "so they are not in thousandths"),
        (("xyxy", "pixels"), ("xyxy", "normalized"), "reaches beyond"),
        (("xyxy", "thousandths"), ("xyxy", "pixels"), "reaches beyond"),
        (("xyxy", "pixels"), ("xywh", "pixels"), "it fits box_format=xyxy"),
        (("xywh", "pixels"), ("xyxy", "pixels"), "it fits box_format=xywh"),
    ],
)
def test_another_form_than_the_declared_one_is_noticed(store, real, declared, reason):
    names = ("box_format", "box_scale")
    height, width = size_of(store, 0)
    boxes = [
        [0.3 * width, 0.6 * height, 0.5 * width, 0.9 * height],
        [0.6 * width, 1, width, height],
    ]
    given = {
        k: in_form(box, (height, width), *real) for k, box in enumerate(boxes)
    }  # both are of the first image
    error = problems_of(given, store, missing="zero", **dict(zip(names, declared, strict=True)))
    assert reason in str(error)
    right = rc.score(given, store, missing="zero", **dict(zip(names, real, strict=True)))
    np.testing.assert_allclose(stated(right)[:2], boxes, atol=1e-9)


def test_masks_are_no_boxes(store, tmp_path):
    arrays = {"_".join(map(str, store.dataset.key_of(k))): store.mask(k) for k in range(len(store))}
    np.savez(tmp_path / "masks.npz", **arrays)
    with pytest.raises(rc.UsageError, match=r"holds masks, and box_format=xyxy reads boxes"):
        rc.score(tmp_path / "masks.npz", store, **PIXELS)
    rows = [{**row, "segmentation": None} for row in rows_of(store, [None] * len(store))]
    for row in rows:
        del row["box"]
    error = problems_of(write_jsonl(tmp_path / "m.jsonl", rows), store, **PIXELS)
    assert error.counts == {"no box": len(store)}
    table = pa.table({"sample_id": [1], "sentence_idx": [0], "box": ["1,2,3,4"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert "box is string, not a list" in str(problems_of(tmp_path / "t.parquet", store, **PIXELS))


# Results ------------------------------------------------------------------------------------------


def test_a_result_of_boxes_has_no_scores_of_masks(store, boxes, tmp_path):
    result = rc.score(dict(enumerate(boxes)), store, **PIXELS)
    result.save(tmp_path / "out")
    again = rc.load_results(tmp_path / "out")
    assert again.box_scores == result.box_scores
    assert again.summary() == result.summary()
    assert again.per_example.equals(result.per_example)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"] == ["boxes"]
    assert not {"miou", "ciou", "precision_at", "n_acc"} & {*summary}
    assert not {"intersection", "pred_area"} & {*again.per_example.column_names}
    for one in (result, again):
        for name in (
            *("iou", "miou", "ciou", "precision_at", "miou_by_category", "miou_per_instance"),
            *("miou_worst_sentence", "hard_pass_rate", "n_acc", "t_acc", "causes"),
            *("boundary_values", "boundary_iou"),
        ):
            with pytest.raises(rc.UsageError, match="these predictions are boxes"):
                getattr(one, name)
        for refused in (
            lambda one=one: one.slices("size"),
            lambda one=one: one.with_slices("size"),
            lambda one=one: rc.compare(one, one),
            lambda one=one: one.under("cris"),
        ):
            with pytest.raises(rc.UsageError, match="these predictions are boxes"):
                refused()


def test_what_needs_masks_refuses_boxes_by_name(store, boxes, tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", rows_of(store, boxes))
    for what in (
        lambda: rc.sweep([path], store, tmp_path / "sweep", **PIXELS),
        lambda: rc.construct([path], store.dataset, output_dir=tmp_path / "made", **PIXELS),
        lambda: rc.truth_noise(store, store, {"a": path}, **PIXELS),
    ):
        with pytest.raises(rc.UsageError, match=r"needs masks, and box_format=xyxy"):
            what()
    with pytest.raises(rc.UsageError, match="boundary needs masks"):
        rc.score(path, store, metrics=["iou", "boundary"], **PIXELS)
    with pytest.raises(rc.UsageError, match="convention official, not 'cris'"):
        rc.score(path, store, convention="cris", **PIXELS)


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def sample_rows(tmp_path):
    dataset = rc.load_dataset("sample")
    rows = [
        {"sample_id": key[0], "sentence_idx": key[1], "bbox": dataset.boxes[sample].tolist()}
        for index, sample in enumerate(dataset.example_sample)
        for key in [dataset.key_of(index)]
    ]
    return write_jsonl(tmp_path / "rec.jsonl", rows)


def test_the_command(sample_rows, tmp_path, capsys):
    command = ["score", str(sample_rows), "dataset=sample", "fields.box=bbox", "box_scale=pixels"]
    assert main([*command, "box_format=xywh", f"output_dir={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    assert "box IoU               100.00 %" in printed
    assert "box accuracy@0.5 (≥)  100.00 %" in printed
    assert "box_truth=bbox" in printed
    assert "mIoU" not in printed
    assert main([*command, "box_format=xywh", "precision=gt", "json=true"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["box_iou"], summary["precision"]) == (1.0, ">")
    assert "miou" not in summary
    assert main([*command, "box_format=xyxy"]) == 3
    assert "it fits box_format=xywh" in capsys.readouterr().err
    assert main(command) == 2
    assert "declare box_format=xyxy" in capsys.readouterr().err
    for word in ("slices=size", "convention=all", f"eval_results={tmp_path / 'e.yaml'}"):
        assert main([*command, "box_format=xywh", word]) == 2
        assert "needs masks" in capsys.readouterr().err
    out = str(tmp_path / "out")
    for words in (["compare", out, out], ["explain", out]):
        assert main(words) == 2
        assert "these predictions are boxes" in capsys.readouterr().err
    for words in (["compare", str(sample_rows), "sample"], ["explain", str(sample_rows)]):
        assert main([*words, "dataset=sample", *command[3:], "box_format=xywh"]) == 2
        assert "needs masks" in capsys.readouterr().err


# Writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_file_of_boxes_says_what_it_is(store, boxes, tmp_path, ending):
    path = tmp_path / f"p{ending}"
    with rc.PredictionWriter(path, store.dataset, **PIXELS) as writer:
        writer.write([0, 1], boxes[:2])
        with pytest.raises(rc.PredictionError, match="written before"):
            writer.write(1, boxes[1])
        with pytest.raises(rc.PredictionError, match="not x0 ≤ x1"):
            writer.write(2, [5, 5, 1, 9])
        for index in writer.pending():
            writer.write(index, boxes[index])
    result = rc.score(path, store)
    assert stated(result).tolist() == numbers(boxes).tolist()
    assert result.info["options"] | PIXELS == result.info["options"]
    assert stated(rc.score(path, store, **PIXELS)).tolist() == numbers(boxes).tolist()
    with pytest.raises(rc.UsageError, match="declares box_format=xyxy box_scale=pixels"):
        rc.score(path, store, box_format="xywh", box_scale="pixels")


def test_boxes_are_converted_and_carried(store, boxes, tmp_path):
    form = {"box_format": "xywh", "box_scale": "normalized"}
    path = write_jsonl(tmp_path / "p.jsonl", rows_of(store, boxes, form))
    made = rc.convert(path, tmp_path / "n.parquet", store.dataset, **form)
    carried = rc.convert(made.path, tmp_path / "c.jsonl", store.dataset, from_dataset=store.dataset)
    for one in (made, carried):
        assert one.n_written == len(store)
        result = rc.score(one.path, store)
        np.testing.assert_allclose(stated(result), numbers(boxes), rtol=0, atol=1e-12)
        assert result.n_empty == 2
    wrong = write_jsonl(tmp_path / "q.jsonl", rows_of(store, boxes))
    with pytest.raises(rc.PredictionError, match="reaches beyond"):
        rc.convert(wrong, tmp_path / "x.jsonl", store.dataset, **form)
    small = {"box_format": "xyxy", "box_scale": "thousandths"}
    wrong = write_jsonl(
        tmp_path / "q.jsonl", rows_of(store, boxes, PIXELS | {"box_scale": "normalized"})
    )
    with pytest.raises(rc.PredictionError, match="not in thousandths"):
        rc.convert(wrong, tmp_path / "x.jsonl", store.dataset, **small)
    assert not (tmp_path / "x.jsonl").exists()


# Answers of models --------------------------------------------------------------------------------

BOX = [10.0, 5.0, 40.0, 20.0]


def qwen3(size):
    height, width = size
    x0, y0, x1, y1 = BOX
    box = [1000 * x0 / width, 1000 * y0 / height, 1000 * x1 / width, 1000 * y1 / height]
    return [{"bbox_2d": box, "label": "cup"}]


def gemini(size):
    (box,) = (entry["bbox_2d"] for entry in qwen3(size))
    return [{"box_2d": [box[1], box[0], box[3], box[2]], "label": "cup", "mask": "unread"}]


ANSWERS = {
    "qwen3": (qwen3, {"source": "qwen", "version": 3}),
    "qwen2.5": (
        lambda size: [{"bbox_2d": [2 * edge for edge in BOX]}],
        {"source": "qwen", "version": 2.5},
    ),
    "gemini": (gemini, {"source": "gemini"}),
    "florence": (
        lambda _: {"<CAPTION_TO_PHRASE_GROUNDING>": {"bboxes": [BOX], "labels": ["cup"]}},
        {"source": "florence"},
    ),
}


def answer_rows(store, answer, source):
    rows = []
    for k, row in enumerate(rows_of(store, [None] * len(store))):
        size = size_of(store, k)
        own = {"processed_size": [2 * side for side in size]} if source == "qwen2.5" else {}
        key = {name: row[name] for name in ("sample_id", "sentence_idx")}
        rows.append({**key, **own, "response": f"It is:\n```json\n{json.dumps(answer(size))}\n```"})
    return rows


@pytest.mark.filterwarnings("ignore:refcocom. 4 answers could not be read")
@pytest.mark.parametrize("source", ANSWERS)
def test_answers_with_boxes(store, tmp_path, source):
    answer, options = ANSWERS[source]
    rows = answer_rows(store, answer, source)
    sizes = [size_of(store, k) for k in range(len(store))]
    inside = [k for k, (_, width) in enumerate(sizes) if width >= BOX[2]]
    unread = [k for k in range(len(store)) if k not in inside]
    rows[0]["response"] = "[]" if source != "florence" else rows[0]["response"]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    answers = rc.adapters.read(path, store.dataset, boxes="keep", **options)
    assert len(answers.unread) == len(unread) == 4  # the images of 30 columns
    result = rc.score(answers, store, missing="zero") if unread else rc.score(answers, store)
    found = stated(result)
    np.testing.assert_allclose(found[inside[1:]], [BOX] * (len(inside) - 1), rtol=0, atol=1e-9)
    assert found[unread].tolist() == [[0.0] * 4] * len(unread)
    assert found[0].any() == (source == "florence")
    assert result.info["predictions"]["adapter"]["boxes"] == "keep"


def test_one_answer_and_its_refusals(store, tmp_path):
    size = SIZES[0]
    to_box = rc.adapters.to_box
    text = "<|box_start|>(0,250),(500,1000)<|box_end|>"
    assert to_box(text, 40, 60, source="qwen", version=2) == (0.0, 10.0, 30.0, 40.0)
    assert to_box("[]", *size, source="gemini") is None
    two = [{"box_2d": [0, 0, 500, 500], "score": 0.1}, {"box_2d": [0, 0, 1000, 1000], "score": 0.2}]
    assert to_box(two, 10, 20, source="gemini", combine="best") == (0.0, 0.0, 20.0, 10.0)
    with pytest.raises(rc.UsageError, match="2 boxes for one expression; pass combine=best"):
        to_box(two, *size, source="gemini")
    with pytest.raises(rc.UsageError, match="union is no box"):
        to_box(two, *size, source="gemini", combine="union")
    with pytest.raises(rc.UsageError, match="2 of 2 have none"):
        to_box([{"box_2d": [0, 0, 5, 5]}] * 2, *size, source="gemini", combine="best")
    with pytest.raises(rc.UsageError, match="needs version"):
        to_box(qwen3(size), *size, source="qwen")
    for wrong in ([0, 0, 1001, 5], [5, 5, 5, 9], [9, 0, 5, 5], [0, 0, 5], None):
        with pytest.raises(rc.AnswerError):
            to_box([{"bbox_2d": wrong}], *size, source="qwen", version=3)
    with pytest.raises(rc.UsageError, match=r"adapters\.to_box"):
        rc.adapters.to_mask("[]", *size, source="gemini", boxes="keep")
    with pytest.raises(rc.UsageError, match="must be keep, not 'fill'"):
        rc.adapters.to_mask("[]", *size, source="gemini", boxes="fill")
    for source, options in (("svg", {}), ("gemini", {"points": "yx"})):
        with pytest.raises(rc.UsageError, match=f"source={source} takes"):
            to_box("[]", *size, source=source, **options)
    rows = answer_rows(store, lambda _: two, "gemini")
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(rc.PredictionError, match="several boxes"):
        rc.adapters.read(path, store.dataset, source="gemini", boxes="keep")
    with pytest.raises(rc.UsageError, match="union of boxes is no box"):
        rc.adapters.read(path, store.dataset, source="gemini", boxes="keep", combine="union")


def test_answers_are_converted_to_boxes_by_the_command(tmp_path, capsys):
    dataset = rc.load_dataset("sample")
    rows = []
    for index, sample in enumerate(dataset.example_sample):
        x, y, w, h = dataset.boxes[sample]
        sides = np.array([dataset.heights[sample], dataset.widths[sample]] * 2)
        box = (1000 * np.array([y, x, y + h, x + w]) / sides).tolist()
        key = dict(zip(("sample_id", "sentence_idx"), dataset.key_of(index), strict=True))
        rows.append({**key, "response": [{"box_2d": box}]})
    path, out = write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "boxes.parquet"
    words = ["dataset=sample", "source=gemini", "boxes=keep"]
    assert main(["convert", str(path), str(out), *words]) == 0
    capsys.readouterr()
    assert main(["score", str(out), "dataset=sample", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["box_iou"] == pytest.approx(1, abs=1e-12)


def test_the_checks_take_what_json_cannot_hold():
    options = ReadOptions(**PIXELS)
    for wrong in ([0, 0, float("nan"), 1], [0, 0, float("inf"), 1], [0, 0, 10**400, 1], {}, 5):
        with pytest.raises(rc.DataError, match="four finite numbers"):
            box_in_pixels(wrong, (10, 10), options)
