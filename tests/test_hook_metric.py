"""The metric of a training loop: the file scorer's counts for any batches, order and form; no silent part."""

import numpy as np
import pytest
import torch
from epochs import assert_same, feed
from helpers import real_case, sample_case
from hypothesis import given, settings
from hypothesis import strategies as st
from refcocom_kernels import reference

import refcocom_gpu as rc
from refcocom_gpu.counting.rows import CONFLICT, INTERSECTION, OTHER_RANK, SAME_RANK


@pytest.fixture(scope="module")
def case():
    return sample_case()


@pytest.fixture(scope="module")
def offline(case):
    return rc.score([(k, mask) for k, mask in enumerate(case.masks)], case.store)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_masks_in_any_order(case, offline, size):
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case, np.random.default_rng(size).permutation(len(case.masks)).tolist(), size)
    assert_same(metric, offline)
    assert metric.compute()["refcocom/n_conflicting"].item() == 0


FORMS = {
    "bool": torch.from_numpy,
    "uint8 of 255": lambda mask: torch.from_numpy(mask.astype(np.uint8) * 255),
    "int64": lambda mask: torch.from_numpy(mask.astype(np.int64) * 7),
    "NumPy": lambda mask: mask,
    "[1, H, W]": lambda mask: torch.from_numpy(mask)[None],
    "float64 logits": lambda mask: torch.from_numpy(mask) * 2.0 - 1.0,
    "bfloat16 logits": lambda mask: (torch.from_numpy(mask) * 2.0 - 1.0).bfloat16(),
    "with a graph": lambda mask: (torch.from_numpy(mask) * 2.0 - 1.0).requires_grad_() * 3,
    "not contiguous": lambda mask: torch.from_numpy(np.asfortranarray(mask)),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(case, offline, form):
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case, size=50, make=FORMS[form])
    assert_same(metric, offline)


def logits_of(case, kind=torch.float32, cells=48):
    rng = torch.Generator().manual_seed(5)
    fields = []
    for mask in case.masks:
        field = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None] * 8.0 - 4, (cells, cells), mode="area"
        )
        fields.append(field[0, 0] + torch.randn(cells, cells, generator=rng))
    return torch.stack(fields).to(kind)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("letterbox", [None, 1024, "center"])
def test_logits_are_counted_as_offline(case, kind, letterbox):
    logits = logits_of(case, kind)
    offline = rc.score([(range(len(logits)), logits)], case.store, letterbox=letterbox)
    metric = rc.RefCOCOMMetric(case.store, letterbox=letterbox)
    order = torch.randperm(len(logits))
    for index in order.split(13):
        metric.update(logits[index][:, None], index)
    assert_same(metric, offline)


def test_probabilities_are_declared(case):
    probabilities = logits_of(case).sigmoid()
    index = range(len(probabilities))
    offline = rc.score([(index, probabilities)], case.store, values="probabilities")
    metric = rc.RefCOCOMMetric(case.store, values="probabilities")
    metric.update(probabilities, index)
    assert_same(metric, offline)
    undeclared = rc.RefCOCOMMetric(case.store)
    undeclared.update(probabilities, index)
    with pytest.raises(
        rc.PredictionError, match=r"(?s)undeclared values.*pass values=probabilities"
    ):
        undeclared.compute()
    declared = rc.RefCOCOMMetric(case.store, values="logits")
    declared.update(probabilities, index)
    declared.compute()


@pytest.mark.parametrize("letterbox", [None, 512, "center"])
def test_masks_of_another_size_are_resized_on_request(case, letterbox):
    masks = logits_of(case) > 0
    index = range(len(masks))
    options = {"resize_masks": "nearest", "letterbox": letterbox}
    offline = rc.score([(index, masks)], case.store, **options)
    metric = rc.RefCOCOMMetric(case.store, **options)
    metric.update(masks, index)
    assert_same(metric, offline)
    with pytest.raises(rc.PredictionError, match=r"(?s)wrong size.*pass resize_masks=nearest"):
        rc.RefCOCOMMetric(case.store, letterbox=letterbox).update(masks, index)


def test_masks_of_some_sizes_in_one_batch(case):
    """A square batch holds some images' own size: those are counted as they are, the others resized."""
    store = case.store
    heights, widths = store.dataset.heights, store.dataset.widths
    sample = int(np.flatnonzero(heights != widths)[0])
    one_example = np.flatnonzero(case.dataset.example_sample == sample)[:1]
    other = np.flatnonzero(
        (heights[case.dataset.example_sample] != heights[sample])
        & (heights[case.dataset.example_sample] != widths[sample])
    )[:2]
    index = [int(one_example[0]), *other.tolist()]
    mask = torch.from_numpy(case.masks[index[0]])
    metric = rc.RefCOCOMMetric(store, partial=True, resize_masks="nearest")
    metric.update(mask.expand(3, -1, -1), index)
    for k in index:
        true = torch.from_numpy(store.mask(k))
        resized = torch.nn.functional.interpolate(
            mask[None, None].float(), true.shape, mode="nearest-exact"
        )[0, 0]
        expected = reference.mask_counts(resized, true)
        assert torch.equal(metric.counts[k, :2], expected)


def test_real_masks(tmp_path):
    case = real_case()
    offline = rc.score([(k, mask) for k, mask in enumerate(case.masks)], case.store)
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case)
    assert_same(metric, offline)


# Incomplete and repeated ------------------------------------------------------------------------


def test_unseen_examples_raise(case):
    metric = rc.RefCOCOMMetric(case.store)
    n = len(case.masks)
    feed(metric, case, range(n - 3))
    with pytest.raises(
        rc.PredictionError, match=rf"3 problems \(3 missing\)(.|\n)*index {n - 3} \(sample_id"
    ) as caught:
        metric.compute()
    assert "partial=True" in str(caught.value)
    with pytest.raises(rc.PredictionError, match="3 missing"):
        metric.result()
    # Nothing is lost: the rest of the epoch completes it.
    feed(metric, case, range(n - 3, n))
    assert metric.compute()["refcocom/n_examples"].item() == n


def test_partial_is_labelled(case):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    feed(metric, case, range(40))
    scores = metric.compute()
    assert all(key.startswith("refcocom_partial/") for key in scores)
    assert scores["refcocom_partial/n_examples"].item() == 40
    iou = rc.score([(k, m) for k, m in enumerate(case.masks)], case.store).iou[:40]
    assert (
        scores["refcocom_partial/miou"].item() == rc.metrics.mean(iou)
        if hasattr(rc, "metrics")
        else True
    )
    metric.partial = False
    with pytest.raises(rc.PredictionError):
        metric.compute()


def test_nothing_seen(case):
    with pytest.raises(rc.PredictionError, match=f"{len(case.masks)} missing"):
        rc.RefCOCOMMetric(case.store).compute()
    scores = rc.RefCOCOMMetric(case.store, partial=True).compute()
    assert scores["refcocom_partial/n_examples"].item() == 0
    # No examples have no score: not 1, as two empty masks have.
    assert all(value.isnan() for key, value in scores.items() if "/n_" not in key)
    assert scores["refcocom_partial/miou"].isnan()


def test_repeats_count_once(case, offline):
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case)
    feed(metric, case, range(17))
    assert_same(metric, offline)
    assert metric.compute()["refcocom/n_conflicting"].item() == 0


def test_a_forgotten_reset_is_an_error(case, offline):
    """The second epoch would score as the first: `update` says so, and `compute` does until the reset."""
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case)
    assert_same(metric, offline)
    metric.compute()
    changed = [~case.masks[k] for k in range(9)]
    with pytest.raises(
        rc.PredictionError, match=r"(?s)9 seen before.*metric\.reset\(\) when an epoch"
    ):
        metric.update(changed, list(range(9)))
    with pytest.raises(rc.PredictionError, match="seen before"):
        metric.compute()
    metric.reset()
    feed(metric, case)
    assert_same(metric, offline)


def test_conflict_within_a_batch(case):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    mask = case.masks[3]
    with pytest.raises(rc.PredictionError, match="1 seen before"):
        metric.update([mask, ~mask, mask, case.masks[4]], [3, 3, 3, 4])
    assert metric.counts[3, :2].tolist() == case.expected[3].tolist()
    assert metric.counts[[3, 4], CONFLICT].tolist() == [SAME_RANK, 0]


def test_ranks_that_differ_are_counted(case, offline):
    """Rows that other ranks counted may differ in the last bit of their logits: the first are kept."""
    metric = rc.RefCOCOMMetric(case.store)
    feed(metric, case)
    other = rc.RefCOCOMMetric(case.store)
    rows = other.count([~mask for mask in case.masks[:9]], list(range(9)))
    metric.add(rows)
    assert_same(metric, offline)
    assert metric.compute()["refcocom/n_conflicting"].item() == 9
    assert metric.counts[:9, CONFLICT].tolist() == [OTHER_RANK] * 9


# Mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preds", "index", "error", "message"),
    [
        (np.zeros((2, 4, 4)), [0], rc.UsageError, "1 indices came with 2 predictions"),
        ([np.zeros((4, 4))], [0, 1], rc.UsageError, "2 indices came with 1 predictions"),
        (np.zeros((2, 3, 4, 4)), [0, 1], rc.UsageError, "one mask for each sentence"),
        (
            [np.zeros((3, 4, 4))],
            [0],
            rc.UsageError,
            "3 masks for one expression; pass combine=union",
        ),
        ([np.zeros((2, 3, 4, 4))], [0], rc.UsageError, r"\[h, w\] or \[1, h, w\]"),
        (np.zeros((1, 0, 4)), [0], rc.UsageError, "no pixels"),
        ([np.zeros((0, 4))], [0], rc.UsageError, r"not \(0, 4\)"),
        (np.zeros((1, 4, 4), complex), [0], rc.UsageError, "holds complex128"),
        (["mask.png"], [0], rc.UsageError, "a COCO RLE object .* not str"),
        ([[[1], [1, 2]]], [0], rc.UsageError, "list cannot be read"),
        (np.zeros((1, 4, 4)), [0.0], rc.UsageError, "whole numbers"),
        (np.zeros((1, 4, 4)), [True], rc.UsageError, "whole numbers"),
        (np.zeros((1, 4, 4)), [[0]], rc.UsageError, "a key has 2 numbers"),
        (np.zeros((1, 4, 4)), [-1], rc.PredictionError, "index -1 is not a row of the store"),
        (np.zeros((1, 4, 4)), torch.tensor([10**9]), rc.PredictionError, "unknown key"),
        (np.full((1, 4, 4), np.nan), [0], rc.PredictionError, "row 0 of the batch: non-finite"),
        ([np.zeros((4, 4)), np.full((4, 4), np.inf)], [0, 1], rc.PredictionError, "row 1 of"),
    ],
)
def test_mistakes_are_named_and_nothing_is_counted(case, preds, index, error, message):
    metric = rc.RefCOCOMMetric(case.store)
    with pytest.raises(error, match=message):
        metric.update(preds, index)
    assert (metric.counts[:, INTERSECTION] == -1).all()


def test_rows_of_another_form_are_refused(case):
    metric = rc.RefCOCOMMetric(case.store)
    for rows in (np.zeros((2, 7)), np.zeros((2, 6), np.int64), np.zeros((2, 1, 8, 8), np.float32)):
        with pytest.raises(rc.UsageError, match="needs preprocess_logits_for_metrics"):
            metric.add(rows)
    for index in (-1, len(case.store) + 1):
        with pytest.raises(rc.UsageError, match="an index outside 0…"):
            metric.add(np.array([[index, 0, 0, 0, 0, 0, 0]]))
    with pytest.raises(rc.UsageError, match="dense"):
        metric.update(torch.eye(4).to_sparse()[None], [0])
    with pytest.raises(rc.UsageError, match="dist_sync_on_step"):
        rc.RefCOCOMMetric(case.store, dist_sync_on_step=True)


def test_swapped_sides(case):
    sample = int(np.flatnonzero(case.dataset.heights != case.dataset.widths)[0])
    index = int(case.dataset.first_example[sample])
    metric = rc.RefCOCOMMetric(case.store)
    with pytest.raises(rc.PredictionError, match="height and width are swapped"):
        metric.update(case.masks[index].T.copy(), index)


def test_the_device_is_named(case):
    metric = rc.RefCOCOMMetric(case.store)
    metric.counts = metric.counts.to("meta")
    with pytest.raises(
        rc.UsageError, match=r"predictions are on cpu, the metric on meta; call metric.to\('cpu'\)"
    ):
        metric.update(torch.zeros(1, 4, 4), [0])


def test_an_empty_batch(case):
    metric = rc.RefCOCOMMetric(case.store, partial=True)
    metric.update(torch.zeros(0, 8, 8), torch.zeros(0, dtype=torch.int64))
    metric.update([], [])
    assert metric.compute()["refcocom_partial/n_examples"].item() == 0


@settings(max_examples=40)
@given(st.data())
def test_any_split_over_ranks_is_one_state(data):
    """Examples dealt to ranks in any number, order and repetition, then merged: the counts of one pass."""
    from refcocom_gpu.training.state import empty_state, merge, record

    n, ranks, more = 6, data.draw(st.integers(1, 4)), data.draw(st.integers(0, 1))
    truth = torch.arange(10, 10 + 2 * n).reshape(n, 2)
    sightings = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
    states = [empty_state(n, n_columns=5 + more) for _ in range(ranks)]
    odd = set()
    for place, index in enumerate(sightings):
        row = torch.zeros(1, 5 + more, dtype=torch.int64)
        row[0, :2] = truth[index]
        if data.draw(st.booleans(), label="differs"):
            row[0, 1] += 1 + place
            row[0, 5:] = 1 + place
            odd.add((index, place))
        record(states[data.draw(st.integers(0, ranks - 1))], torch.tensor([index]), row)
    merged = merge(torch.stack(states))
    for index in range(n):
        mine = [p for p, i in enumerate(sightings) if i == index]
        assert (merged[index, INTERSECTION] >= 0) == bool(mine)
        if mine:
            # Whole rows: the counts are those of one sighting.
            kinds = {int(truth[index, 1]) + (1 + p if (index, p) in odd else 0) for p in mine}
            assert int(merged[index, 1]) in kinds
            assert int(merged[index, 0]) == int(truth[index, 0])
            if more:
                assert int(merged[index, 5]) == int(merged[index, 1] - truth[index, 1])
            assert (int(merged[index, CONFLICT]) > 0) == (len(kinds) > 1)


@pytest.mark.parametrize("batch_size", [1, 50])
def test_boundaries_are_those_of_the_offline_score(case, batch_size):
    metric = rc.RefCOCOMMetric(case.store, metrics=["iou", "boundary"])
    plain = rc.RefCOCOMMetric(case.store)
    logits = (
        torch.from_numpy(np.stack([np.kron(m[:20, :20], [[1, 1]]) for m in case.masks])) * 4.0 - 1
    )
    for index in torch.arange(len(logits)).split(batch_size):
        metric.update(logits[index], index)
        plain.update(logits[index], index)
    offline = rc.score([(range(len(logits)), logits)], case.store, metrics=["iou", "boundary"])
    found = {key.partition("/")[2]: value.item() for key, value in metric.compute().items()}
    assert {name: found[name] for name in offline.boundary_scores} == offline.boundary_scores
    assert metric.result().per_example.equals(offline.per_example)
    assert metric.result().info["metrics"] == ["iou", "boundary"]
    # IoU alone has the same scores and a smaller state, which is not taken for this one.
    alone = {key.partition("/")[2]: value.item() for key, value in plain.compute().items()}
    assert alone == {name: found[name] for name in alone}
    metric.persistent(True)
    with pytest.raises(rc.UsageError, match="other options"):
        plain.load_state_dict(metric.state_dict())


def test_boundaries_of_a_subset_are_estimated(case):
    metric = rc.RefCOCOMMetric(case.store, metrics="boundary", subset=60)
    for index in metric.subset.indices:
        metric.update(torch.from_numpy(case.masks[index])[None], [int(index)])
    found = {key.partition("/")[2]: value.item() for key, value in metric.compute().items()}
    whole = rc.score([(range(len(case.masks)), case.masks)], case.store, metrics="boundary")
    for name, score in whole.boundary_scores.items():
        assert abs(found[name] - score) < 5 * found[f"{name}_se"]


def test_an_example_with_another_boundary_came_twice(case):
    """Masks of one area and intersection whose boundaries differ are two masks."""
    metric = rc.RefCOCOMMetric(case.store, metrics="boundary", partial=True)
    target = case.store.mask(0)
    rows, columns = np.nonzero(~target)
    masks = [target.copy(), target.copy()]
    # One more pixel outside the object: beside it, and far away.
    beside = np.argwhere(~target & (np.roll(target, 1, 0) | np.roll(target, -1, 0)))[0]
    far = np.argmax(np.abs(rows - beside[0]) + np.abs(columns - beside[1]))
    masks[0][tuple(beside)] = masks[1][rows[far], columns[far]] = True
    metric.update(masks[0][None], [0])
    with pytest.raises(rc.PredictionError, match="seen before"):
        metric.update(masks[1][None], [0])


def test_an_unknown_metric_is_refused(case):
    with pytest.raises(rc.UsageError, match="unknown metric 'f1'"):
        rc.RefCOCOMMetric(case.store, metrics=["f1"])
