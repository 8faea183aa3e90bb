"""The examples of one dataset in another: what is matched, what is ambiguous, and that nothing is matched wrongly."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.filter import HarmFilter, Words
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.construct.run import construct
from refcocom_gpu.construct.write import Output
from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.masks import rle
from refcocom_gpu.store.match import OUTCOMES, SAMPLE_RULES, SENTENCE_RULES

H, W = 20, 30


def box(top, left, height=10, width=10, size=(H, W)):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def record(image_id, samples, file_name=""):
    """An image record; a sample is its id, its mask and its sentences."""
    return {
        "image_id": image_id,
        "file_name": file_name,
        "samples": [
            {"id": number, "image_id": image_id, "mask": rle.encode(mask), "sentences": list(texts)}
            for number, mask, texts in samples
        ],
    }


def dataset_of(records):
    with tempfile.TemporaryDirectory() as folder:
        path = write_jsonl(Path(folder) / "records.jsonl", records)
        return rc.load_dataset(path, cache=False)


def matched(source, target):
    """Match sets of records, with nothing left on disk."""
    stores = [rc.MaskStore.build(dataset_of(r), cache=False) for r in (source, target)]
    return rc.match_datasets(*stores)


def test_rules_have_an_outcome_and_a_meaning():
    for rules in (SAMPLE_RULES, SENTENCE_RULES):
        assert {rule.outcome for rule in rules.values()} == set(OUTCOMES)
        assert all(rule.meaning for rule in rules.values())


def test_samples_are_found_by_their_masks_and_sentences_by_their_text():
    """Ids are exchanged, the order is another, and two samples share a text."""
    a, b = box(0, 0), box(5, 15)
    source = [record(7, [(1, a, ["left", "thing", "old"]), (2, b, ["right", "thing"])])]
    target = [record(7, [(1, b, ["thing"]), (2, a, [" thing ", "new", "left"])])]
    match = matched(source, target)
    assert match.sample_rule == ["mask", "mask"]
    assert match.source_sample.tolist() == [1, 0]
    assert match.rule == ["text", "text", "no text", "text"]
    assert match.source_index.tolist() == [4, 1, -1, 0]
    assert match.target_index.tolist() == [3, 1, -1, -1, 0]
    assert match.counts() == {
        "samples": {"mask": 2},
        "sentences": {"text": 3, "no text": 1},
    }
    assert (match.n_matched, match.ambiguous) == (3, [])


def test_a_text_is_compared_as_elsewhere():
    source = [record(7, [(1, box(0, 0), ["cafe\u0301"])])]
    assert matched(source, [record(7, [(1, box(0, 0), ["caf\xe9 "])])]).rule == ["text"]
    assert matched(source, [record(7, [(1, box(0, 0), ["Caf\xe9"])])]).rule == ["no text"]


@pytest.mark.parametrize(
    ("texts", "others", "rules", "index"),
    [
        (["x", "y", "x"], ["x", "x"], ["order", "order"], [0, 2]),
        (["x", "y", "x"], ["x", "y"], ["repeats", "text"], [-1, 1]),
        (["x"], ["x", "x"], ["repeats", "repeats"], [-1, -1]),
    ],
)
def test_texts_that_repeat(texts, others, rules, index):
    match = matched([record(7, [(1, box(0, 0), texts)])], [record(7, [(1, box(0, 0), others)])])
    assert match.rule == rules
    assert match.source_index.tolist() == index
    assert match.ambiguous == [k for k, rule in enumerate(rules) if rule == "repeats"]


# Shares of a 10×10 square that another square of its size, moved to the right, overlaps: IoU (10 − x) / (10 + x).
@pytest.mark.parametrize(
    ("source", "target", "rule"),
    [
        ([box(0, 0)], box(0, 3), "mask"),  # 7 / 13
        ([box(0, 0)], box(0, 4), "no mask"),  # 6 / 14, boxes alike
        ([box(0, 0)], box(10, 20), "no mask"),
        ([box(0, 0), box(0, 0)], box(0, 0), "several"),
        ([box(0, 0), box(0, 0, 8)], box(0, 0), "mask"),  # 1 and 0.8
        ([box(0, 0), box(0, 0, 9, 11)], box(0, 0), "mask"),  # 1 and 90 / 109
        ([box(0, 0, 20, 10), box(0, 0, 19, 10)], box(0, 0, 20, 10), "several"),  # 1 and 0.95
    ],
)
def test_one_mask_must_fit_and_no_other_about_as_well(source, target, rule):
    samples = [(k, mask, ["x"]) for k, mask in enumerate(source)]
    match = matched([record(7, samples)], [record(7, [(5, target, ["x"])])])
    assert match.sample_rule == [rule]
    # What may be meant twice there may be meant twice here.
    back = matched([record(7, [(5, target, ["x"])])], [record(7, samples)])
    if rule == "several":
        assert set(back.sample_rule) == {"several"}
        assert match.rule == ["sample ambiguous"]
        assert match.ambiguous == [0]
    if rule == "no mask":
        assert set(back.sample_rule) == {"no mask"}
        assert match.rule == ["sample absent"]


def test_of_two_samples_that_fit_one_only_the_better_is_matched():
    source = [record(7, [(1, box(0, 0), ["x"])])]
    target = [record(7, [(1, box(0, 3), ["x"]), (2, box(0, 0), ["x"])])]
    match = matched(source, target)
    assert match.sample_rule == ["several", "mask"]
    assert match.source_index.tolist() == [-1, 0]


def test_boxes_help_masks_with_holes():
    ring = box(0, 0, 20, 20)
    ring[2:18, 2:18] = False  # 144 of 400 pixels: IoU 0.36 with the whole
    match = matched([record(7, [(1, box(0, 0, 20, 20), ["x"])])], [record(7, [(1, ring, ["x"])])])
    assert (match.sample_rule, match.rule) == (["box"], ["text"])
    thin = ring & ~box(1, 1, 18, 18)  # 76 of 400
    match = matched([record(7, [(1, box(0, 0, 20, 20), ["x"])])], [record(7, [(1, thin, ["x"])])])
    assert match.sample_rule == ["no mask"]


@pytest.mark.parametrize(
    ("source", "target", "rule"),
    [
        ([(7, "a.jpg")], (7, "other.jpg"), "mask"),
        ([(7, "a.jpg")], (8, "train2014/a.jpg"), "mask"),
        ([(7, "")], (8, ""), "no image"),
        ([(7, "a.jpg")], (8, "b.jpg"), "no image"),
        # Renumbered: by its id it is one image, by its file another.
        ([(7, "a.jpg"), (8, "b.jpg")], (7, "b.jpg"), "image conflict"),
        ([(7, "x/a.jpg"), (8, "y/a.jpg")], (9, "a.jpg"), "image conflict"),
        ([(7, "x/a.jpg"), (8, "y/a.jpg")], (8, "a.jpg"), "mask"),
    ],
)
def test_images_are_found_by_id_or_by_file(source, target, rule):
    samples = [record(i, [(k, box(0, 0), ["x"])], name) for k, (i, name) in enumerate(source)]
    match = matched(samples, [record(target[0], [(5, box(0, 0), ["x"])], target[1])])
    assert match.sample_rule == [rule]
    expected = {"matched": "text", "ambiguous": "sample ambiguous", "absent": "sample absent"}
    assert match.rule == [expected[SAMPLE_RULES[rule].outcome]]


def test_records_of_one_image_are_one_image():
    """A set may have a record for each instance; the mask is then in another record of the image."""
    source = [record(7, [(1, box(0, 0), ["x"])]), record(7, [(2, box(5, 15), ["x"])])]
    target = [record(7, [(8, box(5, 15), ["x"]), (9, box(0, 0), ["x"])])]
    assert matched(source, target).source_index.tolist() == [1, 0]
    assert matched(target, source).source_index.tolist() == [1, 0]


def test_an_image_of_another_size_is_refused():
    source = [record(7, [(1, box(0, 0), ["x"])]), record(8, [(2, box(0, 0), ["x"])])]
    target = [record(7, [(1, box(0, 0, size=(W, H)), ["x"])]), record(8, [(2, box(0, 0), ["x"])])]
    with pytest.raises(
        rc.DatasetError, match=r"1 images have another size.*image 7 is 20×30 and 30×20"
    ):
        matched(source, target)


def test_a_set_matches_itself_whole():
    store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    match = rc.match_datasets(store, "sample")
    assert match.source_index.tolist() == list(range(len(store)))
    assert match.counts()["samples"] == {"mask": store.dataset.n_samples}


# What construct makes -------------------------------------------------------------------------------


def test_a_run_follows_what_construct_removed(tmp_path, capsys):
    """The audit says where each sentence went; a run without texts is carried there, by key, image and mask alone."""
    records = make_records(n_images=6)
    path, refined = write_jsonl(tmp_path / "original.jsonl", records), tmp_path / "refined"
    original = rc.load_dataset(path)
    rows = make_predictions(records, "good")
    by_key = {(row["sample_id"], row["sentence_idx"]): row["segmentation"] for row in rows}
    pairs = list(by_key.items())
    construct(
        original,
        Output(refined, "none"),
        [FileProposer(name, pairs, original) for name in ("a", "b")],
        expression_filter=HarmFilter(Words(("red", "leftmost"))),
    )
    audit = pq.read_table(refined / "audit" / "expressions.parquet").to_pylist()
    went = {
        (row["sample_id"], row["new_sentence_idx"]): (row["sample_id"], row["sentence_idx"])
        for row in audit
        if row["kept"]
    }
    assert any(new[1] != old[1] for new, old in went.items())
    dataset = rc.load_dataset(refined)
    match = rc.match_datasets(original, dataset)
    assert set(match.rule) <= {"text", "repeats", "order"}
    run = write_jsonl(
        tmp_path / "run.jsonl", [{k: v for k, v in row.items() if k != "sentence"} for row in rows]
    )
    out = tmp_path / "out.parquet"
    assert (
        main(["convert", str(run), str(out), f"from_dataset={path}", f"dataset.path={refined}"])
        == 0
    )
    printed = capsys.readouterr().out
    assert f"  carried     {match.n_matched:>8,}" in printed
    carried = {
        (row["sample_id"], row["sentence_idx"]): row for row in pq.read_table(out).to_pylist()
    }
    assert len(carried) == match.n_matched
    texts = {dataset.key_of(i): t for i, t in enumerate(dataset.examples["sentence"].to_pylist())}
    for key, row in carried.items():
        assert row["segmentation"] == by_key[went[key]]
        assert row["sentence"] == texts[key]
    # Whatever was not carried is said to be ambiguous.
    left = set(went) - set(carried)
    assert left == {dataset.key_of(i) for i in match.ambiguous}
    direct = {dataset.index_of(*key)[0]: by_key[went[key]] for key in carried}
    assert rc.score(out, dataset, missing="zero").miou == rc.score(direct, dataset, missing="zero").miou  # fmt: skip
    # And back: what construct kept is scored on the original.
    back = tmp_path / "back.parquet"
    words = ["convert", str(out), str(back), f"from_dataset={refined}", f"dataset.path={path}"]
    assert main([*words, "missing=skip", "quiet=true"]) == 0
    returned = {(r["sample_id"], r["sentence_idx"]): r for r in pq.read_table(back).to_pylist()}
    assert returned.keys() == {went[key] for key in carried}
    assert all(row["segmentation"] == by_key[key] for key, row in returned.items())


# Any filter of any set ------------------------------------------------------------------------------

BASE = make_records(n_images=3)
TEXTS = ("one", "two", "three")


@st.composite
def filtered(draw):
    """A set with texts that repeat, another one made of it, and for each example of the other where it came from."""
    source, target, origin = [], [], []
    ids = draw(st.permutations(range(100, 100 + sum(len(r["samples"]) for r in BASE))))
    ids = iter(ids)
    index = 0
    for image in BASE:
        samples, kept = [], []
        for sample in image["samples"]:
            texts = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
            samples.append({**sample, "sentences": texts})
            places = [k for k in range(len(texts)) if draw(st.booleans())]
            own = [(texts[k], index + k) for k in places]
            own += [("new", None)] * draw(st.integers(0, 1))
            index += len(texts)
            if own and draw(st.integers(0, 4)):
                mask = rle.decode(sample["mask"])
                mask = mask ^ (
                    np.roll(mask, 1, draw(st.sampled_from((0, 1)))) & mask & draw(_pixels(mask))
                )
                changed = {**sample, "id": next(ids), "mask": rle.encode(mask), "bbox": None}
                kept.append(({**changed, "sentences": [text for text, _ in own]}, own))
        source.append({**image, "samples": samples})
        kept = draw(st.permutations(kept))
        if kept:
            target.append({**image, "samples": [sample for sample, _ in kept]})
            origin += [came_from for _, own in kept for _, came_from in own]
    return source, target, origin


def _pixels(mask):
    """Some of every twenty pixels."""
    return st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).random(mask.shape) < 0.05
    )


# An example writes five files.
@settings(max_examples=settings.default.max_examples // 4)
@given(filtered())
def test_nothing_is_carried_wrongly(drawn):
    source, target, origin = drawn
    if not target:
        return
    first, second = dataset_of(source), dataset_of(target)
    stores = [rc.MaskStore.build(dataset, cache=False) for dataset in (first, second)]
    match = rc.match_datasets(*stores)
    assert set(match.sample_rule) == {"mask"}
    texts, others = (d.examples["sentence"].to_pylist() for d in (first, second))
    for i, came_from in enumerate(origin):
        sample = int(second.example_sample[i])
        own = others[slice(*second.first_example[sample : sample + 2])]
        if came_from is None:
            assert match.rule[i] == "no text"
            continue
        there = int(first.example_sample[came_from])
        found = texts[slice(*first.first_example[there : there + 2])]
        if own.count(others[i]) == found.count(others[i]):
            assert match.source_index[i] == came_from
        else:
            assert match.rule[i] == "repeats"
    if not match.n_matched:
        return
    masks = [rle.encode(np.roll(stores[0].mask(i), i % 3, 0)) for i in range(first.n_examples)]
    known = {i: masks[came] for i, came in enumerate(origin) if match.source_index[i] >= 0}
    with tempfile.TemporaryDirectory() as folder:
        run = write_jsonl(
            Path(folder) / "run.jsonl",
            [
                {"sample_id": s, "sentence_idx": k, "segmentation": mask}
                for (s, k), mask in zip(map(first.key_of, range(len(masks))), masks, strict=True)
            ],
        )
        made = rc.convert(run, Path(folder) / "out.parquet", second, from_dataset=first)
        assert (made.n_written, made.n_left) == (len(known), len(masks) - len(known))
        result = rc.score(made.path, stores[1], missing="zero")
    expected = rc.score(known, stores[1], missing="zero")
    assert result.per_example.equals(expected.per_example)


def test_the_sets_are_named(tmp_path):
    match = matched([record(7, [(1, box(0, 0), ["x"])])], [record(7, [(1, box(0, 0), ["x", "y"])])])
    assert repr(match).startswith("DatasetMatch(1 of 2 examples of ")
    assert json.dumps(match.counts())
