"""Predictions that say that an expression has no target: a rejection, whatever their mask, wherever they come from."""

import copy
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import coco_encode, problems_of, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from refer_sets import TABLES, write_table
from sweeps import STORE

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.counting.device import DeviceCounter
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.labels import (
    FIELD,
    NO_TARGET,
    UNREADABLE,
    label_codes,
    listed_labels,
    tensor_codes,
)
from refcocom_gpu.scores.explain import explain
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.training import metric as metric_module
from refcocom_gpu.training.labels import LABEL

H, W = 4, 5
NOTHING = np.zeros((H, W), bool)


def block(rows, columns):
    mask = NOTHING.copy()
    mask[:rows, :columns] = True
    return mask


TRUE = [NOTHING, NOTHING, NOTHING, block(2, 2), block(2, 3), block(4, 1)]
PRED = [block(3, 3), NOTHING, NOTHING, block(2, 2), block(2, 3), NOTHING]
SAID = [True, False, None, True, None, False]
"""Right by the label; missed, although its mask is empty; right by its mask. Rejected; found; kept, but empty."""

EXPECTED = {"miou": 4 / 6, "ciou": 6 / (4 + 6 + 4), "n_acc": 2 / 3, "t_acc": 2 / 3}
SCORES = [0.9, 0.1, None, 0.6, None, 0.5]
"""What 0.5 cuts into the same labels: only what is above it rejects."""


def records(folder: Path, true=TRUE, images=2) -> Path:
    """A set with a sample for each mask, in some images."""
    rows = [{"image_id": k, "samples": []} for k in range(images)]
    for k, mask in enumerate(true):
        sample = {"id": k, "sentences": ["x"], "mask": coco_encode(mask), "no_target": not mask.any()}  # fmt: skip
        rows[k * images // len(true)]["samples"].append(sample)
    return write_jsonl(folder / "records.jsonl", rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("set")


@pytest.fixture(scope="module")
def store(folder):
    return rc.MaskStore.build(rc.load_dataset(records(folder), cache=False), cache=False)


def rows_of(labels, masks=PRED, name=FIELD):
    return [
        {"sample_id": k, "sentence_idx": 0, "segmentation": coco_encode(mask), name: label}
        for k, (mask, label) in enumerate(zip(masks, labels, strict=True))
    ]


def scores_of(result):
    return {name: getattr(result, name) for name in EXPECTED}


def is_expected(result):
    assert scores_of(result) == EXPECTED
    assert result.per_example[PRED_NO_TARGET].to_pylist() == SAID
    assert result.per_example["pred_area"].to_pylist() == [0, 0, 0, 0, 6, 0]
    return result


# Entrances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", TABLES)
def test_every_table(store, tmp_path, suffix):
    is_expected(rc.score(write_table(tmp_path / f"p{suffix}", rows_of(SAID)), store))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ([None if x is None else int(x) for x in SAID], {}),
        ([None if x is None else float(x) for x in SAID], {}),
        ([None if x is None else int(x) for x in SAID], {"no_target_threshold": 0.5}),
        (SCORES, {"no_target_threshold": 0.5}),
    ],
    ids=["integers", "floats", "integers as scores", "scores"],
)
def test_every_kind_of_label(store, tmp_path, suffix, labels, options):
    is_expected(rc.score(write_table(tmp_path / f"p{suffix}", rows_of(labels)), store, **options))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_another_name(store, tmp_path, suffix):
    rows = [{**row, FIELD: 7} for row in rows_of(SAID, name="nt")]
    path = write_table(tmp_path / f"p{suffix}", rows)
    is_expected(rc.score(path, store, fields={FIELD: "nt"}))
    told = problems_of(path, store, fields={FIELD: "label"})
    assert "label (fields.no_target) not found" in str(told)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_rows_found_one_by_one(store, tmp_path, suffix):
    rows = [{"segmentation": row["segmentation"], FIELD: row[FIELD]} for row in rows_of(SAID)]
    is_expected(rc.score(write_table(tmp_path / f"p{suffix}", rows), store, keys="order"))


def test_a_rejection_needs_no_mask(store, tmp_path):
    for changed in ({"segmentation": None}, {}):
        rows = rows_of(SAID)
        for k in (0, 3):
            del rows[k]["segmentation"]
            rows[k] |= changed
        is_expected(rc.score(write_jsonl(tmp_path / "p.jsonl", rows), store))
    del rows[1]["segmentation"]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    assert problems_of(path, store).counts == {"no segmentation": 1}


def test_text_that_repeats_a_label(store, tmp_path):
    lines = [json.dumps(row) for row in rows_of(SAID)]
    lines[1] = lines[1].replace('"no_target"', '"no_target": true, "no_target"')
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    assert "no_target more than once" in str(problems_of(tmp_path / "p.jsonl", store))


@pytest.mark.parametrize("said", [list, np.array, torch.tensor], ids=["list", "array", "tensor"])
def test_memory(store, said):
    labels, parts = SAID, [(0, 2), (3, 4), (5, 6)]
    pairs = [(list(range(a, b)), PRED[a:b], said(labels[a:b])) for a, b in parts]
    pairs += [([2], [PRED[2]]), ([4], [PRED[4]], [None])]
    is_expected(rc.score(pairs, store))
    with pytest.raises(rc.UsageError, match=r"has shape \[2\]; 1 predictions"):
        rc.score([([0], PRED[:1], [True, False])], store)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_writer(store, tmp_path, kind):
    path = tmp_path / f"p.{kind}"
    with rc.PredictionWriter(path, store.dataset, no_target_threshold=0.5) as writer:
        writer.write([0, 1], PRED[:2], no_target=np.array(SCORES[:2]))
        writer.write({2: PRED[2]})
        with pytest.raises(rc.PredictionError, match=r"row 0 of the batch: .*no_target is nan"):
            writer.write([3], [PRED[3]], no_target=[np.nan])
    # A writer that goes on from a journal knows of the labels in it.
    writer = rc.PredictionWriter(tmp_path / f"q.{kind}", store.dataset)
    writer.write(range(4), PRED[:4], no_target=SAID[:4])
    writer.journal.close()
    writer = rc.PredictionWriter(tmp_path / f"q.{kind}", store.dataset)
    writer.write(range(4, 6), PRED[4:], no_target=[None, False])
    is_expected(rc.score(writer.close(), store))
    # The mask is kept beside the label.
    table = rc.convert(writer.path, tmp_path / "r.jsonl", store.dataset)
    is_expected(rc.score(table.path, store))
    first = json.loads(table.path.read_text().splitlines()[1])
    assert (first[FIELD], first["segmentation"]) == (True, coco_encode(PRED[0]))


def test_construct_takes_a_rejection_for_an_empty_mask(store):
    proposed = FileProposer("p", [(range(6), PRED, SAID)], store.dataset)
    masks = [proposed._masks.of(k) for k in range(6)]
    assert [len(runs) for runs in masks[:4]] == [1, 1, 1, 1]
    np.testing.assert_array_equal(masks[4], rle.run_ends(PRED[4]))


def test_a_file_without_labels_has_no_column(store, tmp_path):
    with rc.PredictionWriter(tmp_path / "p.parquet", store.dataset) as writer:
        writer.write(range(6), PRED)
    assert FIELD not in pq.read_schema(tmp_path / "p.parquet").names
    result = rc.score(tmp_path / "p.parquet", store)
    assert PRED_NO_TARGET not in result.per_example.column_names
    assert (result.n_acc, result.t_acc) == (2 / 3, 2 / 3)


def test_a_set_of_targets_takes_rejections():
    pairs = [(range(len(STORE)), [STORE.mask(k) for k in range(len(STORE))])]
    labels = np.arange(len(STORE)) % 3 == 0
    result = rc.score([(*pairs[0], labels)], STORE)
    assert result.iou.tolist() == (~labels).astype(float).tolist()
    assert result.n_empty == labels.sum()
    assert result.t_acc == (~labels).mean()
    assert "t_acc" not in result.summary()


def test_rows_that_come_again(store, tmp_path):
    rows = rows_of(SAID)
    shards = [write_jsonl(tmp_path / "a.jsonl", rows[:4]), tmp_path / "b.jsonl"]
    write_jsonl(shards[1], [rows[3], *rows[4:]])
    is_expected(rc.score(shards, store, repeats="identical"))
    write_jsonl(shards[1], [{**rows[3], FIELD: None}, *rows[4:]])
    is_expected(rc.score(shards, store, repeats="identical"))
    write_jsonl(shards[1], [{**rows[3], FIELD: False}, *rows[4:]])
    told = problems_of(shards, store, repeats="identical")
    assert "its no_target is another one here" in str(told)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("value", "words", "message"),
    [
        (0.7, [], "no_target is 0.7, neither true, false, 0 nor 1; no_target_threshold=… says above"),
        (2, [], "no_target is 2, neither true"),
        (-1, [], "no_target is -1, neither true"),
        ("yes", [], "no_target is 'yes', neither true"),
        ("yes", ["no_target_threshold=0.5"], "'yes', neither a label (true or false) nor a finite"),
    ],
)  # fmt: skip
def test_what_is_no_label(folder, tmp_path, capsys, suffix, value, words, message):
    rows = rows_of([value, *[None] * 5])
    path = write_table(tmp_path / f"p{suffix}", rows)
    assert main(["score", str(path), f"dataset.path={folder / 'records.jsonl'}", *words]) == 3
    told = capsys.readouterr().err
    assert message in told
    assert ("line 1" if suffix == ".jsonl" else "row 0") in told


def test_wrong_thresholds(folder, capsys):
    for wrong in ("nan", "inf"):
        words = ["score", "x.jsonl", f"no_target_threshold={wrong}"]
        assert main(words) == 2
        assert "no_target_threshold must be a finite number" in capsys.readouterr().err


# Scores -------------------------------------------------------------------------------------------


def loop(triples, *, by_label=False):
    """The scores, a prediction at a time."""
    ious, sum_i, sum_u, n_right, t_right = [], 0, 0, [], []
    for pred, true, said in triples:
        rejected = not pred.any() if said is None else said
        pred = pred & ~np.bool_(said is True)
        shared, union = int((pred & true).sum()), int((pred | true).sum())
        (t_right if true.any() else n_right).append(rejected != bool(true.any()))
        if by_label and not true.any():
            ious.append(float(rejected))
        else:
            ious.append(shared / union if union else 1.0)
        sum_i, sum_u = sum_i + shared, sum_u + union
    return {
        "miou": np.mean(ious),
        "ciou": sum_i / sum_u if sum_u else 1.0,
        "n_acc": np.mean(n_right) if n_right else np.nan,
        "t_acc": np.mean(t_right) if t_right else np.nan,
    }


def test_the_loop_by_hand():
    assert loop(zip(PRED, TRUE, SAID, strict=True)) == pytest.approx(EXPECTED)


def test_conventions_that_judge_by_the_label(store):
    result = rc.score([(range(6), PRED, SAID)], store)
    assert result.iou.tolist() == [1, 1, 1, 0, 1, 0]
    for name in ("rela", "gsva"):
        # Example 1 was not rejected, so its empty mask is no answer.
        assert result.under(name).iou == pytest.approx([1, 0, 1, 0, 1, 0])
        assert (result.under(name).n_acc, result.under(name).t_acc) == (2 / 3, 2 / 3)
        assert scores_of(result.under(name))["ciou"] == pytest.approx(EXPECTED["ciou"])
    assert result.under("lisa").iou == pytest.approx([1, 1, 1, 0, 1, 0], rel=1e-5)

    row = next(row for row in explain(result) if row.convention.name == "rela")
    told = "takes Pr@X over the 3 examples that have a target, gives 1 empty mask labelled as a target 0"
    reason = next(reason for reason in row.reasons if reason.text == told)
    assert reason.changes["mIoU"] == pytest.approx(-1 / 6)


def test_causes_go_by_the_label(store):
    result = rc.score([(range(6), PRED, SAID)], store, metrics=["causes", "boxes"])
    assert result.causes.tolist() == [
        "right rejection", "false alarm", "right rejection", "empty", "right", "empty",
    ]  # fmt: skip
    # Rejected predictions have the counts of empty masks in every column.
    masks = [NOTHING if said else mask for mask, said in zip(PRED, SAID, strict=True)]
    emptied = rc.score([(range(6), masks)], store, metrics=["causes", "boxes"])
    assert result.per_example.drop_columns(PRED_NO_TARGET).equals(emptied.per_example)
    assert emptied.causes.tolist()[:2] == ["right rejection", "right rejection"]


def test_results_are_computed_again(store, tmp_path):
    result = is_expected(rc.score([(range(6), PRED, SAID)], store))
    again = is_expected(rc.load_results(result.save(tmp_path / "new")))
    assert again.per_example.schema.field(PRED_NO_TARGET).type == pa.bool_()
    assert again.summary()["n_acc"] == 2 / 3
    # A result that was saved before there were labels.
    older = rc.Result(result.per_example.drop_columns(PRED_NO_TARGET), result.info)
    older = rc.load_results(older.save(tmp_path / "old"))
    assert (older.n_acc, older.t_acc) == (1.0, 1 / 3)


# Training -----------------------------------------------------------------------------------------


def on_device(store):
    moved = copy.copy(store)
    moved.device = "cpu:0"
    return moved


triples = st.lists(
    st.tuples(
        arrays.arrays(bool, (H, W)),
        arrays.arrays(bool, (H, W)),
        st.booleans(), st.sampled_from([None, True, False]),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=6)
@given(triples, st.data())
def test_the_metric_is_the_result(tmp_path_factory, drawn, data):
    true = [mask & ~without for mask, _, without, _ in drawn]
    pred, said = [mask for _, mask, _, _ in drawn], [label for *_, label in drawn]
    n = len(drawn)
    path = records(tmp_path_factory.mktemp("any"), true, images=1)
    store = rc.MaskStore.build(rc.load_dataset(path, cache=False), cache=False)
    result = rc.score([(range(n), pred, said)], store)
    expected = loop(zip(pred, true, said, strict=True))
    assert scores_of(result) == pytest.approx(expected, nan_ok=True)
    moved = rc.score([(range(n), pred, said)], on_device(store))
    assert moved.per_example.equals(result.per_example)
    judged = loop(zip(pred, true, said, strict=True), by_label=True)["miou"]
    assert result.under("rela").miou == pytest.approx(judged)
    # Two ranks that see some of the examples each, the second all of those again that the first one saw.
    order = data.draw(st.permutations(range(n)))
    cut = data.draw(st.integers(0, n))
    one, other = (rc.RefCOCOMMetric(store) for _ in range(2))
    for metric, examples in ((one, order[:cut]), (other, order)):
        for k in examples:
            metric.update([pred[k]], [k], no_target=[said[k]])
    one.merge_state(other)
    assert one.result().per_example.equals(result.per_example)
    found = {name: value.item() for name, value in one.compute().items()}
    assert found["refcocom/n_conflicting"] == 0
    if result.n_no_target:
        assert [found[f"refcocom/{name}"] for name in EXPECTED] == pytest.approx(
            [*scores_of(result).values()], abs=0, rel=0, nan_ok=True
        )
    else:
        assert not {"refcocom/n_acc", "refcocom/t_acc"} & {*found}


@pytest.mark.parametrize(
    "labels",
    [SCORES, torch.tensor([0.9, 0.1, 0.0, 0.6, 0.0, 0.5])[:, None]],
    ids=["list", "tensor [B, 1]"],
)
def test_scores_in_the_metric(store, tmp_path, labels):
    metric = rc.RefCOCOMMetric(store, no_target_threshold=0.5, save_predictions=tmp_path / "out")
    forwarded = metric(PRED, range(6), no_target=labels)
    assert forwarded["refcocom_partial/t_acc"] == 2 / 3
    assert metric["t_acc"].compute() == metric.compute()["refcocom/t_acc"] == 2 / 3
    saved = rc.score(next((tmp_path / "out").rglob("*.parquet")), store)
    assert saved.per_example.equals(metric.result().per_example)
    if isinstance(labels, list):
        is_expected(saved)
    metric.reset()
    metric.update(PRED, range(6))
    assert PRED_NO_TARGET not in metric.result().per_example.column_names
    assert metric.compute()["refcocom/n_acc"] == 2 / 3


def test_what_the_metric_refuses(store):
    metric = rc.RefCOCOMMetric(store)
    with pytest.raises(rc.PredictionError, match=r"row 1 of the batch: .* is 0\.5, neither"):
        metric.update(PRED[:2], [0, 1], no_target=[0.0, 0.5])
    with pytest.raises(rc.UsageError, match=r"has shape \[2, 2\]; 2 predictions have \[2\]"):
        metric.update(PRED[:2], [0, 1], no_target=np.zeros((2, 2)))
    assert (metric.counts[:-1, 0] < 0).all()
    metric.update(PRED, range(6), no_target=SAID)
    with pytest.raises(rc.PredictionError, match="seen before"):
        metric.update(PRED[:1], [0], no_target=[False])
    # What came on a device is named at the end.
    late = rc.RefCOCOMMetric(store)
    rows = late.count(PRED, range(6))
    rows[2, LABEL] = UNREADABLE
    late.add(rows)
    with pytest.raises(rc.PredictionError, match=r"index 2 .*no_target is neither true, false"):
        late.compute()


def test_the_metric_counts_on_a_device_alike(store, monkeypatch):
    monkeypatch.setattr(metric_module, "counter_on", lambda s, o, d, m: DeviceCounter(s, o, d, m))
    metric = rc.RefCOCOMMetric(store, metrics="boxes")
    metric.update([*PRED[:2], None, *PRED[3:]], torch.arange(6), no_target=SAID)
    assert isinstance(metric._counter, DeviceCounter)
    is_expected(metric.result())
    offline = rc.score([(range(6), PRED, SAID)], store, metrics="boxes")
    assert metric.result().per_example.equals(offline.per_example)


def test_a_rank_that_says_otherwise_is_told_of(store):
    one, other = (rc.RefCOCOMMetric(store) for _ in range(2))
    one.update(PRED, range(6), no_target=SAID)
    other.update(PRED[1:2], [1], no_target=[True])
    one.merge_state(other)
    is_expected(one.result())
    assert one.compute()["refcocom/n_conflicting"] == 1
    differing = rc.RefCOCOMMetric(store, no_target_threshold=0.5)
    with pytest.raises(rc.SyncError):
        one.merge_state(differing)


def test_a_subset_estimates_them(tmp_path):
    rng = np.random.default_rng(0)
    true = [block(2, 2) if k % 3 else NOTHING for k in range(60)]
    store = rc.MaskStore.build(rc.load_dataset(records(tmp_path, true, images=20)), cache=False)
    labels = rng.random(60) < 0.5
    metric = rc.RefCOCOMMetric(store, subset=20, seed=1)
    index = metric.subset.indices
    metric.update([PRED[0]] * 20, index, no_target=labels[index])
    found = metric.compute()
    # All strata are drawn at nearly one rate, so the estimate is nearly the share of what was drawn.
    without = np.array([not mask.any() for mask in true])[index]
    assert found["refcocom_estimate/n_acc"].item() == pytest.approx(labels[index][without].mean(), abs=0.1)  # fmt: skip
    assert 0 < found["refcocom_estimate/n_acc_se"].item() < 0.5
    assert metric["t_acc_se"].compute() == found["refcocom_estimate/t_acc_se"]


values = st.lists(
    st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, 0.25])), min_size=1, max_size=8
)


@given(values, st.sampled_from([None, 0.1, 0.25, 1.0]))
def test_devices_read_labels_alike(drawn, threshold):
    tensor = torch.tensor(drawn, dtype=torch.float32)
    expected = label_codes(listed_labels(tensor, len(drawn)), threshold).tolist()
    assert tensor_codes(tensor, threshold).tolist() == expected
    flags = tensor > 0
    assert tensor_codes(flags).tolist() == label_codes(flags.tolist()).tolist()
    assert NO_TARGET in tensor_codes(torch.tensor([1]), None)


def test_containers_of_labels():
    for values in (pa.array([True, False]), np.array([[True], [False]]), (np.True_, np.False_)):
        assert listed_labels(values, 2) == [True, False]
    assert listed_labels(np.bool_(1), 1) == listed_labels(True, 1) == [True]
    assert label_codes([10**400, 1j], 0.5).tolist() == [UNREADABLE, UNREADABLE]
    with pytest.raises(rc.UsageError, match="not dict"):
        listed_labels({0: True}, 1)


# Sweeps and comparisons ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(store, folder):
    (folder / "runs").mkdir()
    labelled = write_jsonl(folder / "runs" / "labelled.jsonl", rows_of(SAID))
    plain = folder / "runs" / "plain.parquet"
    with rc.PredictionWriter(plain, store.dataset) as writer:
        writer.write(range(6), PRED)
    rc.sweep([labelled, plain], store, folder / "out", engine="serial")
    return folder / "out"


def test_sweeps(swept, store):
    rows = pq.read_table(swept / "leaderboard.parquet").to_pylist()
    results = rc.load_results(swept)
    for number, row in enumerate(rows, 1):
        scored = rc.score(row["path"], store)
        assert (row["n_acc"], row["t_acc"]) == (scored.n_acc, scored.t_acc)
        assert scores_of(results[number]) == scores_of(scored)
        assert row["t_acc_se"] is None  # its images are one
    labelled = next(k for k, row in enumerate(rows, 1) if "labelled" in row["path"])
    is_expected(results[labelled])
    table = (swept / "leaderboard.md").read_text()
    assert "| N-acc | T-acc |" in table
    # A second sweep takes the labels from what was kept.
    again = rc.sweep([row["path"] for row in rows], store, swept, engine="serial")
    assert again.n_scored == 0
    is_expected(rc.load_results(swept)[labelled])


def test_a_set_of_targets_has_no_such_columns(tmp_path):
    rc.sweep(["sample"], STORE, tmp_path / "out", engine="serial")
    names = pq.read_schema(tmp_path / "out" / "leaderboard.parquet").names
    assert not {"n_acc", "t_acc"} & {*names}


def test_comparisons(tmp_path, capsys):
    true = [block(2, 2) if k % 2 else NOTHING for k in range(40)]
    path = records(tmp_path, true, images=20)
    store = rc.MaskStore.build(rc.load_dataset(path), cache=False)
    labels = np.random.default_rng(3).random((2, 40)) < 0.5
    a, b = (rc.score([(range(40), true, said)], store) for said in labels)
    compared = rc.compare(a, b)
    for name, values, k in (("n_acc", labels, slice(0, None, 2)), ("t_acc", ~labels, slice(1, None, 2))):  # fmt: skip
        found = compared.no_target[name]
        of_examples = values[0, k].astype(float) - values[1, k]
        assert found.difference == pytest.approx(of_examples.mean())
        assert (found.n_examples, found.n_images) == (20, 20)
        # One such example in each image.
        assert found.se == pytest.approx(of_examples.std(ddof=1) / np.sqrt(20))
        assert found.low < found.difference < found.high
        assert compared.summary()[name]["difference"] == found.difference
    assert "cIoU, of N-acc and of T-acc hold" in compared.summary()["uncertainty"]["meaning"]
    folders = [str(result.save(tmp_path / name)) for name, result in (("a", a), ("b", b))]
    assert main(["compare", *folders]) == 0
    heads = [line[:7].strip() for line in capsys.readouterr().out.splitlines()]
    assert heads.count("N-acc") == heads.count("T-acc") == 1
    assert rc.compare(rc.score("sample", STORE), rc.score("sample-coarse", STORE)).no_target == {}
