"""Other evaluators' scores: tiny cases by hand, their loops written out on real masks, and what is approximate."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import many_real_case, sample_case, true_masks
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import refcocom_gpu as rc
from refcocom_gpu.masks.squash import COLUMNS, SQUASHED
from refcocom_gpu.scores import under
from refcocom_gpu.scores.conventions import CONVENTIONS, OFFICIAL, Convention
from refcocom_gpu.scores.example_table import SCHEMA
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.no_target import no_target_scores
from refcocom_gpu.scores.result import Result

ROOT = Path(__file__).parents[1]

# (sample, sentence), text, intersection, predicted area, true area, status
TINY = [
    ((1, 0), "left man", 1, 1, 2, "scored"),  # IoU 0.5
    ((1, 1), "the man", 7, 7, 10, "scored"),  # 0.7
    ((1, 2), "Left man", 2, 2, 2, "scored"),  # 1; the first text again
    ((2, 0), "no one", 0, 0, 0, "empty"),  # both empty
    ((2, 1), "a cow", 0, 0, 4, "missing"),  # 0
    ((2, 2), "nobody", 0, 4, 0, "scored"),  # no target, missed
]


def result_of(rows, convention="official"):
    keys, texts, intersections, predicted, targets, statuses = zip(*rows, strict=True)
    n = len(rows)
    columns = {
        "index": range(n),
        "sample_id": [sample for sample, _ in keys],
        "sentence_idx": [sentence for _, sentence in keys],
        "image_id": [sample // 2 for sample, _ in keys],
        "sentence": texts,
        "category": ["c"] * n,
        "supercategory": ["s"] * n,
        "height": [100] * n,
        "width": [100] * n,
        "intersection": intersections,
        "pred_area": predicted,
        "target_area": targets,
        "status": statuses,
    }
    return Result(pa.table({k: list(v) for k, v in columns.items()}, schema=SCHEMA), {}, convention)


BY_HAND = {
    # name: mIoU, cIoU, Pr@X, examples
    "official": (3.2 / 6, 10 / 22, {0.5: 4 / 6, 0.6: 3 / 6, 0.7: 3 / 6, 0.8: 2 / 6, 0.9: 2 / 6}, 6),
    "lisa": (
        (1 / 2.00001 + 7 / 10.00001 + 2 / 2.00001 + 1) / 6.00001,
        10 / (22 + 1e-10),
        {},
        6,
    ),
    "evf_sam": (3.2 / 6.00001, 10 / (22 + 1e-10), {}, 6),
    "gsva": (3.2 / 6.00001, 10 / (22 + 1e-10), {}, 6),
    "rela": (3.2 / 6, 10 / 22, {0.7: 2 / 4, 0.8: 1 / 4, 0.9: 1 / 4}, 6),
    "lavt": (2.2 / 6, 10 / 22, {0.5: 3 / 6, 0.6: 2 / 6, 0.7: 2 / 6, 0.8: 1 / 6, 0.9: 1 / 6}, 6),
    "cris": (1 / 2.000001 / 2, 1 / 2, dict.fromkeys(PRECISION_THRESHOLDS, 0.0), 2),
    # 0.7 − 7e-8 is not above float32's 0.7, which is 0.7 − 1.2e-8.
    "cris_test": (
        (1 / 2.000001 + 7 / 10.000001 + 2 / 2.000001) / 6,
        10 / 22,
        {0.5: 2 / 6, 0.6: 2 / 6, 0.7: 1 / 6, 0.8: 1 / 6, 0.9: 1 / 6},
        6,
    ),
    "mmdet": (0.5 / 2, 1 / 2, {}, 2),
    "sa2va": ((1 / 2.00001 + 7 / 10.00001 + 2 / 2.00001 + 1) / 6, 10 / (22 + 1e-10), {}, 6),
    "x_sam": (2.2 / 4, 8 / 16, {}, 4),
}


def test_every_convention_is_computed_by_hand():
    assert set(BY_HAND) == set(CONVENTIONS)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_by_hand(name):
    miou, ciou, precision, n = BY_HAND[name]
    result = result_of(TINY).under(name)
    # Float32 IoUs are exact to 6e-8 each.
    assert result.miou == pytest.approx(miou, abs=6e-8 if CONVENTIONS[name].float32 else 1e-15)
    assert result.ciou == pytest.approx(ciou, abs=1e-15)
    assert result.precision_at == pytest.approx(precision)
    assert result.n_examples == n
    if name != "official":
        official = result_of(TINY)
        assert (result.miou, result.precision_at) != (official.miou, official.precision_at)


def test_strict_thresholds_of_cris_are_float32():
    """An IoU of exactly 0.5 is not above 0.5; one of exactly 0.7 is above 0.7, because float32 rounds 0.7 down."""
    rows = [((k, 0), "", a, a, 10**6, "scored") for k, a in enumerate((500_000, 700_000, 800_000))]
    cris = result_of(rows, "cris")
    assert cris.precision_at == {0.5: 2 / 3, 0.6: 2 / 3, 0.7: 2 / 3, 0.8: 0.0, 0.9: 0.0}
    torch_says = [
        float((torch.from_numpy(cris.iou) > x).double().mean()) for x in torch.arange(0.5, 1.0, 0.1)
    ]
    assert list(cris.precision_at.values()) == pytest.approx(torch_says)
    assert replace(cris, precision_strict=False).precision_at[0.8] == 0.0  # the epsilon remains
    assert cris.is_strict
    assert not replace(cris, precision_strict=False).is_strict
    assert not result_of(rows).is_strict


def test_all_unions_empty():
    rows = [((1, 0), "", 0, 0, 0, "empty")]
    for name, convention in CONVENTIONS.items():
        ciou = result_of(rows, name).ciou
        assert ciou == convention.empty_sum or np.isnan([ciou, convention.empty_sum]).all()
        assert result_of(rows, name).miou == pytest.approx(convention.empty, abs=2e-5)


# The loops of the evaluators, as METRICS and their sources describe them, over masks.


@pytest.fixture(scope="module")
def real():
    case = many_real_case()
    truth = true_masks(case.dataset)
    samples = [int(s) for s in case.dataset.example_sample]
    triples = [
        (s, np.asarray(mask, bool), truth[s]) for s, mask in zip(samples, case.masks, strict=True)
    ]
    assert case.dataset.n_samples >= 300
    result = rc.score(list(enumerate(case.masks)), case.store, metrics=SQUASHED)
    return result, triples


def firsts(triples):
    seen = set()
    for sample, pred, true in triples:
        if sample not in seen:
            seen.add(sample)
            yield sample, pred, true


@pytest.mark.parametrize(
    ("name", "epsilon"), [("lisa", 1e-5), ("evf_sam", 1e-10), ("gsva", 1e-8), ("sa2va", 1e-5)]
)
def test_loop_of_lisa(real, name, epsilon):
    """Float32 throughout, image by image; the sums of the whole set are rounded, the IoU of an example is not ours."""
    result, triples = real
    sums = {"i": np.float32(0), "u": np.float32(0), "iou": np.float32(0)}
    each = []
    for _, pred, true in triples:
        pred, true = torch.from_numpy(pred).int(), torch.from_numpy(true).int()
        i = (pred & true).sum().int()
        u = (pred | true).sum().int()
        iou = i / (u + epsilon)
        assert iou.dtype == torch.float32
        if u == 0:
            iou += 1.0
        each.append(iou.item())
        sums["i"] += np.float32(i)
        sums["u"] += np.float32(u)
        sums["iou"] += iou.numpy()
    count = len(triples) + (0 if name == "sa2va" else 1e-5)
    found = result.under(name)
    assert found.iou.tolist() == each
    assert found.miou == pytest.approx(sums["iou"] / count, abs=1e-5)
    assert found.ciou == pytest.approx(sums["i"] / (sums["u"] + 1e-10), abs=1e-5)
    assert CONVENTIONS[name].caveat() == "float32 sums"


@pytest.mark.parametrize("name", ["cris", "cris_test"])
def test_loop_of_cris(real, name):
    result, triples = real
    ious = [
        np.sum(pred & true) / (np.sum(pred | true) + 1e-6)
        for _, pred, true in (firsts(triples) if name == "cris" else triples)
    ]
    values = torch.from_numpy(np.stack(ious))
    shares = [(values > x).double().mean().item() for x in torch.arange(0.5, 1.0, 0.1)]
    found = result.under(name)
    assert found.n_examples == len(ious)
    assert found.miou == pytest.approx(values.mean().item(), abs=1e-12)
    assert list(found.precision_at.values()) == pytest.approx(shares, abs=1e-12)
    assert (name == "cris") == (found.n_examples < result.n_examples)


def squashed(mask):
    """As LAVT's `Resize` does with `Image.NEAREST`."""
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(picture.resize((480, 480), Image.Resampling.NEAREST), bool)


def test_loop_of_lavt(real):
    result, triples = real
    sum_i = sum_u = 0
    ious = []
    for _, pred, true in triples:
        pred, true = squashed(pred), squashed(true)
        i, u = np.sum(np.logical_and(pred, true)), np.sum(np.logical_or(pred, true))
        ious.append(0.0 if u == 0 else i * 1.0 / u)
        sum_i, sum_u = sum_i + i, sum_u + u
    found = result.under("lavt")
    assert found.iou.tolist() == ious
    assert found.miou == pytest.approx(np.mean(ious), abs=1e-12)
    assert abs(found.ciou - result.ciou) > 1e-5
    assert found.ciou == sum_i / sum_u
    assert found.precision_at == {
        x: sum(iou >= x for iou in ious) / len(ious) for x in PRECISION_THRESHOLDS
    }


def test_loop_of_rela(real):
    result, triples = real
    # As in gRefCOCO, every seventh expression has no target; every second of those is rejected.
    rows = [(squashed(p), squashed(t)) for _, p, t in triples]
    rows = [
        (np.zeros_like(p) if k % 14 == 0 else p, np.zeros_like(t)) if k % 7 == 0 else (p, t)
        for k, (p, t) in enumerate(rows)
    ]
    sum_i = sum_u = sum_iou = 0
    tally = dict.fromkeys(("TP", "FN", "FP", "TN"), 0)
    reached = dict.fromkeys((0.7, 0.8, 0.9), 0)
    for pred, true in rows:
        i, u = np.sum(pred & true), np.sum(pred | true)
        rejected = not pred.any()
        if not true.any():
            tally["TP" if rejected else "FN"] += 1
            sum_iou += 1 if rejected else 0
            sum_u += 0 if rejected else u
            continue
        tally["FP" if rejected else "TN"] += 1
        iou = 0.0 if u == 0 else i / u
        sum_iou, sum_i, sum_u = sum_iou + iou, sum_i + i, sum_u + u
        for x in reached:
            reached[x] += iou >= x
    counts = np.array([((p & t).sum(), p.sum(), t.sum()) for p, t in rows], np.int64).T
    table = with_counts(with_counts(result.per_example, counts), counts, COLUMNS)
    found = under.scores(CONVENTIONS["rela"], table)
    assert found.miou == pytest.approx(sum_iou / len(rows), abs=1e-12)
    assert found.ciou == sum_i / sum_u
    targets = tally["TN"] + tally["FP"]
    assert found.precision_at == {x: n / targets for x, n in reached.items()}
    scores = no_target_scores(*counts)
    assert (scores.miou, scores.ciou) == (pytest.approx(found.miou, abs=1e-12), found.ciou)
    assert scores.n_acc == tally["TP"] / (tally["TP"] + tally["FN"])
    assert scores.t_acc == tally["TN"] / targets
    assert 0 < scores.n_acc < 1
    assert 0 < scores.t_acc < 1


FULL_SIZE = ("intersection", "pred_area", "target_area")


def with_counts(table, counts, names=FULL_SIZE):
    for name, column in zip(names, counts, strict=True):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    return table


def test_loop_of_mmdet(real):
    result, triples = real
    sums = [0, 0, 0.0]
    n = 0
    for _, pred, true in firsts(triples):
        pred, true = torch.from_numpy(pred)[None], torch.from_numpy(true)[None]
        i, u = pred & true, pred | true
        iou = i.reshape(1, -1).sum(-1) * 1.0 / u.reshape(1, -1).sum(-1)
        iou = torch.nan_to_num_(iou, nan=0.0)
        sums = [sums[0] + i.sum(), sums[1] + u.sum(), sums[2] + iou.sum()]
        n += 1
    found = result.under("mmdet")
    assert found.n_examples == n < result.n_examples
    assert 100 * found.miou == pytest.approx((sums[2] * 100 / n).item(), abs=1e-4)
    assert 100 * found.ciou == pytest.approx((sums[0] * 100 / sums[1]).item(), abs=1e-4)


def test_another_threshold_of_logits_gives_another_number():
    """The logits are not stored, so CRIS's sigmoid > 0.35 cannot be had from counts, and its numbers are marked."""
    case = sample_case()
    truth = true_masks(case.dataset)
    rng = np.random.default_rng(0)
    logits = [
        torch.from_numpy(truth[s] * 2.0 - 1 + rng.normal(0, 0.7, truth[s].shape))
        for s in case.dataset.example_sample
    ]
    ours = rc.score(list(enumerate(logits)), case.store, values="logits")
    theirs = rc.score([(k, (x.sigmoid() > 0.35).numpy()) for k, x in enumerate(logits)], case.store)
    assert abs(ours.under("cris").miou - theirs.under("cris").miou) > 0.01
    for name in ("cris", "cris_test"):
        assert ours.under(name).summary()["approximate"].startswith("needs logits: score its 104²")
    assert "approximate" not in ours.summary()


# Properties.

pairs = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))


def like_refcoco_m(counts):
    """Every target has a pixel, every example a prediction, every instance one or two different sentences."""
    return result_of(
        [
            ((k // 2, k % 2), f"{k}", i, i + p, i + t + 1, "scored" if i + p else "empty")
            for k, (i, p, t) in enumerate((i, p, max(t, int(i > 0))) for i, p, t in counts)
        ]
    )


@given(st.lists(pairs, min_size=1, max_size=30))
def test_which_equal_official_exactly_where_no_union_is_empty(counts):
    official = like_refcoco_m(counts)
    equal = {"official", "rela", "lavt", "x_sam"}
    for name, convention in CONVENTIONS.items():
        found = under.scores(convention, official.per_example, thresholds=PRECISION_THRESHOLDS)
        if name in equal:
            assert (found.miou, found.ciou) == (official.miou, official.ciou)
            assert found.precision_at == official.precision_at
        elif convention.sentences == "all":
            # IoUs differ by 1e-5 in a union of one pixel, by no more elsewhere; and by 1e-5 in one example.
            assert found.miou == pytest.approx(official.miou, abs=3e-5)
            assert found.ciou == pytest.approx(official.ciou, abs=1e-9)


@given(st.lists(pairs, min_size=1, max_size=30), st.sampled_from(sorted(CONVENTIONS)))
def test_scores_are_means_of_their_own_ious(counts, name):
    result = like_refcoco_m(counts).under(name)
    mean = result.iou[result.is_counted].mean()
    assert result.miou == pytest.approx(mean, abs=2e-5)
    assert 0 <= result.miou <= 1
    assert result.under("official").miou == like_refcoco_m(counts).miou
    by_category = result.miou_by_category["c"]
    assert by_category == pytest.approx(mean, abs=1e-12)


# What refuses them, and what is written.


def test_where_all_examples_are_set_against_each_other_only_official_is_taken(tmp_path):
    case = sample_case()
    with pytest.raises(rc.UsageError, match="RefCOCOMMetric follows the convention official, not"):
        rc.RefCOCOMMetric(case.store, convention="cris")
    a = rc.score("sample", case.store, convention="lisa")
    with pytest.raises(rc.ComparisonError, match="convention lisa are not compared"):
        rc.compare(a, a)
    with pytest.raises(rc.UsageError, match="unknown convention 'later'; known: official, lisa"):
        a.under("later")


@pytest.mark.parametrize("name", ["lisa", "cris", "x_sam"])
def test_saved_and_read_back(tmp_path, name):
    result = rc.score("sample-coarse", sample_case().store, convention=name)
    again = rc.load_results(result.save(tmp_path / "out"))
    assert again.summary() == {**result.summary(), **again.info}
    assert (again.convention, again.miou, again.is_strict) == (name, result.miou, result.is_strict)
    assert again.under("official").miou == rc.score("sample-coarse", sample_case().store).miou


# The page of the conventions.


def documented() -> list[str]:
    """The table of docs/conventions.md, made from the data."""
    lines = [
        "| convention | read from | mIoU, cIoU | prints | examples | two empty masks | added | from counts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in CONVENTIONS.values():
        names = ", ".join(name or "–" for name in c.names)
        sign = ">" if c.strict else "≥"
        prints = "percent" if c.percent else "fractions"
        if c.thresholds:
            first, *_, last = c.thresholds
            prints += f"; Pr@{first}–{last} ({sign})" + (" of targets" if c.by_label else "")
        added = [
            f"{epsilon:g} to {what}".replace("e-0", "e-")
            for epsilon, what in (
                (c.epsilon, "U"),
                (c.sum_epsilon, "ΣU"),
                (c.count_epsilon, "N"),
            )
            if epsilon
        ]
        examples = {"all": "all", "first": "first sentence", "distinct": "distinct sentences"}
        which = examples[c.sentences] + ("" if c.counts_missing else ", missing ones left out")
        empty = f"{c.empty:g}" + (", by label" if c.by_label else "")
        exactness = c.caveat(is_counted=True) or "exact"
        exactness += "" if c.metric is None else f", `{c.metric}`"
        lines.append(
            f"| `{c.name}` | {c.source} | {names} | {prints} | {which} | {empty} | "
            f"{', '.join(added) or '–'} | {exactness} |"
        )
    return lines


def test_the_page_holds_the_data():
    page = (ROOT / "docs" / "conventions.md").read_text("utf-8")
    assert "\n".join(documented()) in page, "\n".join(documented())
    for c in CONVENTIONS.values():
        if c is OFFICIAL:
            continue
        section = re.search(rf"^- \*\*`{c.name}`\*\*(.*?)(?=^- \*\*|\Z)", page, re.M | re.S)
        assert section, c.name
        text = " ".join(section[1].split())
        for part in (*c.files, c.resolution, *c.notes):
            assert part in text, (c.name, part)


def test_the_data_names_its_sources():
    for c in CONVENTIONS.values():
        assert c is OFFICIAL or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{7}", c.source)
        assert c is OFFICIAL or c.files
        assert c.about
    assert {f.name for f in fields(Convention)} >= {"empty", "strict", "sentences", "needs"}


def test_no_target_by_hand():
    i, p, t = np.array([[0, 0, 1, 3, 0], [0, 5, 2, 3, 0], [0, 0, 4, 3, 6]])
    # Without a target: rejected, missed. With one: 1/5, 3/3, rejected.
    scores = no_target_scores(i, p, t)
    assert scores.miou == pytest.approx((1 + 0 + 0.2 + 1 + 0) / 5)
    assert scores.ciou == (1 + 3) / (0 + 5 + 5 + 3 + 6)
    assert (scores.n_acc, scores.t_acc) == (1 / 2, 2 / 3)
    # The label of the model decides, not its mask.
    told = no_target_scores(i, p, t, rejected=np.array([True, True, False, True, False]))
    assert told.miou == pytest.approx((1 + 1 + 0.2 + 0 + 0) / 5)
    assert told.ciou == 1 / (0 + 0 + 5 + 3 + 6)
    assert (told.n_acc, told.t_acc) == (1.0, 2 / 3)
    # ReLA's first version would say 1 / (1 + 1 + 1) for both.
    assert scores.t_acc != 1 / 3
    only = no_target_scores(i[2:], p[2:], t[2:])
    assert np.isnan(only.n_acc)
    assert np.isnan(no_target_scores(i[:1], p[:1], t[:1]).t_acc)
    assert np.isnan(no_target_scores(i[:1], p[:1], t[:1]).ciou)
