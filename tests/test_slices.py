"""Slices of a result: each grouping by a plain loop, scores and standard errors by their formulas, the command."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import coco_decode, real_case, sample_case, true_masks
from hypothesis import given, settings
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.config import VERBS, keys_of
from refcocom_gpu.cli.main import main
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.perimeter import perimeters
from refcocom_gpu.scores.example_table import SCHEMA
from refcocom_gpu.scores.slices import GROUPINGS, MIN_IMAGES, slicing_of
from refcocom_gpu.scores.slices.words import PLACES, RELATIONAL, SPATIAL, has_words

CASES = {"sample": sample_case, "real": real_case}


@pytest.fixture(params=CASES)
def scored(request):
    """A case and its result, with what every grouping needs."""
    case = CASES[request.param]()
    batches = enumerate(case.masks)
    return case, rc.score(batches, case.store).with_slices("all", store=case.store)


def labels_of(result, name):
    slicing = slicing_of(result.per_example, name)
    return [slicing.labels[place] for place in slicing.code.tolist()]


# Groupings ----------------------------------------------------------------------------------------


def naive_perimeter(mask):
    """Neighbours that differ, in rows and in columns, with a border of unset pixels."""
    padded = np.pad(mask, 1)
    return sum(int(np.count_nonzero(np.diff(padded, axis=axis))) for axis in (0, 1))


def fifth_or_third(values, names):
    """The rank decides; a value that is the last of a part takes its equals with it."""
    ordered = sorted(values)
    bounds = [ordered[math.ceil(len(ordered) * k / names) - 1] for k in range(1, names)]
    return [sum(value > bound for bound in bounds) for value in values]


def has_phrase(sentence, phrases, but_for=()):
    words = re.findall(r"\w+", sentence.casefold())
    for phrase in but_for:
        part = phrase.split()
        for at in range(len(words)):
            if words[at : at + len(part)] == part:
                words[at : at + len(part)] = [""] * len(part)
    return any(
        words[at : at + len(phrase.split())] == phrase.split()
        for phrase in phrases
        for at in range(len(words))
    )


def test_groupings_are_those_of_a_plain_loop(scored):
    case, result = scored
    rows = result.per_example.to_pylist()
    assert result.slices() == OF_ALL
    samples = {(row["image_id"], row["sample_id"], row["category"]) for row in rows}
    siblings = Counter((image, category) for image, _, category in samples)
    masks = true_masks(case.dataset)
    of_sample = [naive_perimeter(mask) ** 2 / (4 * math.pi * mask.sum()) for mask in masks]
    shape = [of_sample[sample] for sample in case.dataset.example_sample]
    fifths = fifth_or_third([row["target_area"] for row in rows], 5)
    thirds = fifth_or_third(shape, 3)
    for index, row in enumerate(rows):
        area, n_words = (
            int(masks[case.dataset.example_sample[index]].sum()),
            row["sentence"].split(),
        )
        n_siblings = siblings[row["image_id"], row["category"]] - 1
        spatial = has_phrase(row["sentence"], SPATIAL)
        relational = has_phrase(row["sentence"], RELATIONAL, PLACES)
        row["expected"] = {
            "category": row["category"] or "(none)",
            "supercategory": row["supercategory"] or "(none)",
            "size": "small" if area < 32**2 else "medium" if area < 96**2 else "large",
            "size_quantile": f"fifth {fifths[index] + 1}",
            "length": "1-2" if len(n_words) < 3 else "3-4" if len(n_words) < 5 else "5+",
            "spatial": "spatial" if spatial else "not spatial",
            "relational": "relational" if relational else "not relational",
            "siblings": f"{n_siblings} other" if n_siblings < 3 else "3+ others",
            "complexity": ["simple", "middling", "complex"][thirds[index]],
        }
    for name in OF_ALL:
        labels = labels_of(result, name)
        for row, label in zip(rows, labels, strict=True):
            assert label.startswith(row["expected"][name]), (name, row["sentence"])
        assert len({*labels}) > 1, name


def test_bounds_of_parts_are_said(scored):
    _, result = scored
    areas = result.per_example["target_area"].to_pylist()
    by_label = {}
    for label, area in zip(labels_of(result, "size_quantile"), areas, strict=True):
        by_label.setdefault(label, []).append(area)
    assert len(by_label) == 5
    for label, of_slice in by_label.items():
        sign, bound = re.search(r"\(([≤>]) ([\d,]+) px\)", label).groups()
        bound = int(bound.replace(",", ""))
        assert max(of_slice) == bound if sign == "≤" else min(of_slice) > bound


@pytest.mark.parametrize(
    ("sentence", "spatial", "relational"),
    [
        ("Left man", True, False),
        ("LEFT-MOST", True, False),
        ("leftover pizza", False, False),
        ("the bright one", False, False),
        ("cow in front", True, False),
        ("in  front, of the car", True, True),
        ("man on the left", True, False),
        ("man on the far right with a hat", True, True),
        ("on left on right", True, False),
        ("sitting on the bench", False, True),
        ("next to", True, True),
        ("next on the left to", True, False),
        ("the next one to come", False, False),
        ("éleft leftè left_1", False, False),
        ("", False, False),
    ],
)
def test_words(sentence, spatial, relational):
    column = pa.chunked_array([[sentence]])
    assert has_words(column, SPATIAL).tolist() == [spatial]
    assert has_words(column, RELATIONAL, PLACES).tolist() == [relational]


pieces = st.sampled_from(["on", "the", "Left", "right", "next", "to", "top", "é", "漢", "_", "9"])
gaps = st.sampled_from([" ", "  ", ", ", "-", "'", "\n", ""])


sentences = st.lists(st.tuples(pieces, gaps), max_size=8).map(lambda s: "".join(map("".join, s)))


@given(st.lists(sentences, min_size=1, max_size=50))
@settings(max_examples=20)
def test_words_are_whole(drawn):
    column = pa.chunked_array([drawn, [text.upper() for text in drawn]])
    for words, but_for in ((SPATIAL, ()), (RELATIONAL, PLACES), (["on", "next to"], ["on the"])):
        expected = [has_phrase(sentence, words, but_for) for sentence in drawn]
        assert has_words(column, words, but_for).tolist() == expected * 2


def test_word_lists_are_in_order():
    for words in (SPATIAL, RELATIONAL, PLACES):
        assert len({*words}) == len(words)
        assert all(word == " ".join(re.findall(r"[a-z]+", word)) for word in words)


@given(st.integers(0, 2**32))
@settings(max_examples=50)
def test_perimeters_are_those_of_the_pixels(seed):
    """Also of masks whose runs are split by runs of length 0."""
    rng = np.random.default_rng(seed)
    masks = [
        rng.random(rng.integers(1, 9, 2)) < rng.choice([0, 0.3, 0.7, 1])
        for _ in range(rng.integers(1, 6))
    ]
    ends = []
    for mask in masks:
        runs = []
        for run in np.diff(rle.run_ends(mask), prepend=0).tolist():
            cut = int(rng.integers(0, run + 1))
            runs += [cut, 0, run - cut] if rng.random() < 0.5 else [run]
        assert coco_decode(mask.shape, rle.encode(mask)["counts"]).sum() == sum(runs[1::2])
        ends.append(np.cumsum(runs))
    offsets = np.cumsum([0, *map(len, ends)])
    heights, widths = np.array([mask.shape for mask in masks]).T
    found = perimeters(
        np.concatenate(ends).astype(np.int32), offsets, heights.copy(), widths.copy(), threads=1
    )
    assert found.tolist() == [naive_perimeter(mask) for mask in masks]


# Scores -------------------------------------------------------------------------------------------


def table_of(rng, n_images):
    """A table of a result drawn at random: categories and sentences absent here and there, empty masks, misses."""
    rows = []
    for image in range(n_images):
        for sample in range(rng.integers(1, 4)):
            category, area = (
                str(rng.choice(["cow", "dog", ""])),
                int(rng.choice([0, 50, 2000, 9216])),
            )
            for position in range(rng.integers(1, 4)):
                pred = int(rng.integers(0, 3000)) * int(rng.integers(0, 2))
                rows.append(
                    {
                        "index": len(rows), "sample_id": 10 * image + sample, "sentence_idx": position,
                        "image_id": -image, "sentence": str(rng.choice(["left", "", "a b c", "on it"])),
                        "category": category or None, "supercategory": category, "height": 200, "width": 100,
                        "intersection": int(rng.integers(0, min(pred, area) + 1)), "pred_area": pred,
                        "target_area": area, "status": str(rng.choice(["scored", "empty", "missing"])),
                        "target_perimeter": 4 * area, "tag.x": rng.choice([None, True, False]),
                    }
                )  # fmt: skip
    extra = [("target_perimeter", pa.int64()), ("tag.x", pa.bool_())]
    return pa.Table.from_pylist(rows, pa.schema([*SCHEMA, *extra]))


@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
@settings(max_examples=15)
def test_slices_partition_the_examples(seed, n_images, strict):
    result = rc.Result(table_of(np.random.default_rng(seed), n_images), precision_strict=strict)
    union = sum(result.per_example[name].to_numpy() for name in ("pred_area", "target_area"))
    union = union - result.per_example["intersection"].to_numpy()
    for name in result.slices():
        rows = result.slices(name).to_pylist()
        labels = labels_of(result, name)
        assert {row["slice"]: row["n_examples"] for row in rows} == Counter(labels)
        assert sum(row["n_missing"] for row in rows) == result.n_missing
        mean = math.fsum(row["n_examples"] * row["miou"] for row in rows) / result.n_examples
        assert mean == pytest.approx(result.miou, rel=1e-12)
        hits = sum(round(row["n_examples"] * row["precision_at_0.5"]) for row in rows)
        assert hits == round(result.n_examples * result.precision_at[0.5])
        parts = [union[np.array(labels) == row["slice"]].sum() for row in rows]
        overlap = sum(
            row["ciou"] * part if part else 0 for row, part in zip(rows, parts, strict=True)
        )
        assert overlap == pytest.approx(result.per_example["intersection"].to_numpy().sum())


def test_standard_errors_are_those_of_the_formula(scored):
    """se² = G/(G−1) · Σ(yᵍ − r·nᵍ)² / N² over the images of the slice."""
    _, result = scored
    images = result.per_example["image_id"].to_pylist()
    n_errors = 0
    for name in result.slices():
        labels = labels_of(result, name)
        for row in result.slices(name).to_pylist():
            clusters = {}
            for image, label, iou in zip(images, labels, result.iou.tolist(), strict=True):
                if label == row["slice"]:
                    clusters.setdefault(image, []).append(iou)
            assert row["n_images"] == len(clusters)
            if len(clusters) < MIN_IMAGES:
                assert row["se"] is None
                continue
            n_errors += 1
            ious = [iou for cluster in clusters.values() for iou in cluster]
            mean, G = sum(ious) / len(ious), len(clusters)
            squares = sum((sum(c) - mean * len(c)) ** 2 for c in clusters.values())
            assert row["se"] == pytest.approx(math.sqrt(G / (G - 1) * squares) / len(ious))
    assert n_errors


def test_missing_examples_are_counted_where_they_are():
    case = sample_case()
    some = [(k, mask) for k, mask in enumerate(case.masks) if k % 3]
    result = rc.score(some, case.store, missing="zero")
    labels = labels_of(result, "category")
    absent = Counter(label for k, label in enumerate(labels) if k % 3 == 0)
    assert {r["slice"]: r["n_missing"] for r in result.slices("category").to_pylist()} == absent


def test_one_slice_is_the_whole():
    result = rc.score("sample", sample_case().store)
    place = result.per_example.schema.get_field_index("sentence")
    same = pa.array(["cow"] * result.n_examples)
    (row,) = (
        replace(result, per_example=result.per_example.set_column(place, "sentence", same))
        .slices("length")
        .to_pylist()
    )
    assert (row["miou"], row["ciou"]) == (result.miou, result.ciou)
    assert row["precision_at_0.5"] == result.precision_at[0.5]


# Requests, and results on disk --------------------------------------------------------------------


def test_unknown_names():
    result = rc.score("sample", sample_case().store)
    with pytest.raises(
        rc.UsageError, match=r"'sizes'; did you mean size.* there are category, .*all"
    ):
        result.slices("sizes")
    with pytest.raises(rc.UsageError, match="unknown slices 'zzz'; there are category,"):
        result.with_slices(["size", "zzz"])
    for ask in (result.slices, result.with_slices):
        with pytest.raises(rc.UsageError, match=r"with_slices\('complexity', store=…\)"):
            ask("complexity")
    assert "complexity" not in result.slices()


def test_a_store_of_another_dataset_is_refused(tmp_path):
    result = rc.score("sample", sample_case().store)
    other = replace(sample_case().dataset, fingerprint="0" * 32)
    with pytest.raises(rc.UsageError, match="their datasets differ"):
        result.with_slices("complexity", store=rc.MaskStore.build(other, cache=False))


def test_results_on_disk_still_slice(tmp_path):
    store = sample_case().store
    plain = rc.score("sample", store)
    result = plain.with_slices("size", store=store).with_slices(["complexity", "size"], store=store)
    assert result.sliced == ("size", "complexity")
    assert (
        plain.with_slices("size", store=store).per_example.column_names
        == plain.per_example.column_names
    )
    result.save(tmp_path)
    loaded = rc.load_results(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert written["slices"] == loaded.summary()["slices"] == result.summary()["slices"]
    assert loaded.slices("complexity").equals(result.slices("complexity"))
    assert loaded.slices("category").equals(plain.slices("category"))
    assert "slices" not in loaded.info


def test_a_comparison_has_the_same_slices():
    store = sample_case().store
    a = rc.score("sample", store).with_slices("complexity", store=store)
    b = rc.score("sample-coarse", store)
    asked = ["siblings", "complexity", "size", "supercategory"]
    for first, second in ((a, b), (b, a)):
        found = rc.compare(first, second, slices=asked).breakdowns
        assert list(found) == [
            "category",
            "size",
            "length",
            "siblings",
            "complexity",
            "supercategory",
        ]
        for name, groups in found.items():
            rows = {row["slice"]: row for row in a.slice_rows(name)}
            assert {group.label for group in groups} == {*rows}
            for group in groups:
                row = rows[group.label]
                assert (group.n_examples, group.n_images) == (row["n_examples"], row["n_images"])
                assert (group.a if first is a else group.b) == row["miou"]
    assert list(rc.compare(b, b, slices="spatial").breakdowns)[3:] == ["spatial"]
    with pytest.raises(rc.UsageError, match="score again with slices=complexity"):
        rc.compare(b, b, slices=["complexity"])


# The command --------------------------------------------------------------------------------------

OF_ALL = [name for name in GROUPINGS if name != "cause"]
"""Those that need nothing to be counted."""

SCORE = ["score", "dataset=sample", "predictions=sample"]


def test_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SCORE, "slices=[size,spatial]", "output_dir=out"]) == 0
    out = capsys.readouterr().out
    result = rc.load_results("out")
    (row,) = [row for row in result.slice_rows("spatial") if row["slice"] == "spatial"]
    numbers = [row["miou"], row["se"], row["ciou"], row["precision_at_0.5"]]
    line = next(
        line for line in out.splitlines() if line.startswith("  spatial   ") and "36" in line
    )
    assert line.split()[1:] == [
        *map(str, (row["n_examples"], row["n_images"])),
        *(f"{100 * number:.2f}" for number in numbers),
    ]
    assert "  size                 examples  images    mIoU    ± se    cIoU  Pr@0.5\n  small" in out
    assert out.index("mIoU per instance") < out.index("  size ") < out.index("  spatial ")
    assert f"·   {100 * result.slice_rows('size')[2]['ciou']:.2f}" in out
    assert f"fewer than {MIN_IMAGES} images" in out
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    assert list(summary["slices"]) == ["size", "spatial"]
    assert main([*SCORE, "slices=all", "json=true"]) == 0
    printed = json.loads(capsys.readouterr().out)["slices"]
    assert list(printed) == OF_ALL
    assert printed["size"] == summary["slices"]["size"]
    assert main([*SCORE, "slices=size", "quiet=true"]) == 0
    assert main([*SCORE]) == 0
    assert "examples  images" not in capsys.readouterr().out


def test_many_slices_are_cut(tmp_path, capsys):
    """The table has the largest slices in their order; JSON has all."""
    tags = tmp_path / "tags.csv"
    case = sample_case()
    ids = case.dataset.sample_ids.tolist()
    tags.write_text("sample_id,rank\n" + "".join(f"{i},{k // 2}\n" for k, i in enumerate(ids)))
    assert main([*SCORE, f"tags={tags}"]) == 0
    lines = capsys.readouterr().out.partition("  rank ")[2].splitlines()[1:]
    shown = [line.split() for line in lines[:10]]
    assert main([*SCORE, f"tags={tags}", "json=true"]) == 0
    rows = json.loads(capsys.readouterr().out)["slices"]["rank"]
    assert [row["slice"] for row in rows] == [str(k) for k in range((len(ids) + 1) // 2)]
    ranks = [int(words[0]) for words in shown]
    assert ranks == sorted(ranks)
    sizes = sorted((row["n_examples"] for row in rows), reverse=True)
    assert sorted((int(words[1]) for words in shown), reverse=True) == sizes[:10]
    rest = f"  … and {len(rows) - 10} more of {sum(sizes[10:])} examples (json=true)"
    assert lines[10] == rest


def test_missing_predictions_are_said_beside_slices(tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    rows = sample_case().rows()
    path.write_text("\n".join(map(json.dumps, rows[:200])))
    assert main(["score", "dataset=sample", str(path), "missing=zero", "slices=length"]) == 0
    out = capsys.readouterr().out
    assert "  length     examples  images  missing    mIoU" in out
    lines = out.partition("  length ")[2].splitlines()[1:4]
    assert sum(int(line.split()[4]) for line in lines) == len(rows) - 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*SCORE, "slices=siz"], "unknown slices 'siz'; did you mean size"),
        ([*SCORE, "slices=[size,category,tag.x]"], "unknown slices 'tag.x'"),
        ([*SCORE, "slices=[]"], "slices=[] names nothing"),
        ([*SCORE, "tags=nowhere.csv"], "tags=nowhere.csv cannot be read: No such file"),
        (
            ["compare", "sample", "sample-coarse", "dataset=sample", "slices=siz"],
            "did you mean size",
        ),
    ],
)
def test_wrong_calls(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main([*words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_compare_prints_them(capsys):
    words = ["compare", "sample", "sample-coarse", "dataset=sample"]
    assert main([*words, "slices=[complexity,supercategory]", "top=2"]) == 0
    out = capsys.readouterr().out
    assert all(label in out for label in ("simple (≤", "complex (>"))
    assert "… and 1 more with less sure differences (top=3)" in out
    assert main([*words, "json=true"]) == 0
    assert list(json.loads(capsys.readouterr().out)["breakdowns"]) == ["category", "size", "length"]


def test_help_names_every_grouping():
    for verb in ("score", "compare"):
        (meaning,) = [key.meaning for key in keys_of(VERBS[verb][0]) if key.name == "slices"]
        assert ", ".join(OF_ALL) in meaning
        assert all(name in meaning for name in GROUPINGS)


def test_slices_of_a_saved_result_need_no_torch(tmp_path):
    from test_cli import modules_after

    store = sample_case().store
    rc.score("sample", store).with_slices("all", store=store).save(tmp_path)
    code = f"import refcocom_gpu as rc\nassert len(rc.load_results({str(tmp_path)!r}).summary()['slices']) == 9"
    assert modules_after(code, "torch", "numba", "datasets", "scipy") == "[]"
