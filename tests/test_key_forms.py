"""Whatever names the rows of a file, under whatever names: the counts are those of rows that are named by the key."""

import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refer_sets import facts, instances, refer_case, write_table

import refcocom_gpu as rc

FORMS = [
    ("sample", ("sample_id", "sentence_idx")),
    ("refer", ("sent_id",)),
    ("refer", ("ref_id", "sentence_idx")),
    ("refer", ("ann_id", "sentence_idx")),
    ("refer", ("ref_id", "sentence")),
    ("refer", ("ann_id", "sentence")),
    ("refer", ("ann_id", "sentence_idx", "sentence")),
    ("sentence", ("sample_id", "sentence")),
    ("sentence", ("image_id", "sentence")),
    ("sentence", ("file_name", "sentence")),
    ("order", ("image_id", "sentence")),
]
OTHERS = ["a", "b c", "é", "ID"]
TEXTS = st.lists(st.text("ab e\u0301é", min_size=1, max_size=3), min_size=1, max_size=3)
SENTENCES = st.lists(TEXTS, min_size=1, max_size=5)
IDS = st.integers(0, 2**53)


def fact(dataset, index, name):
    value = dataset.fact(index, name)
    return unicodedata.normalize("NFC", value).strip() if name == "sentence" else value


def counts(path, store, **options):
    result = rc.score(path, store, missing="zero", **options)
    columns = ("intersection", "pred_area", "status")
    return [result.per_example[name].to_pylist() for name in columns]


def renames(data, names):
    """The file's names for some of ours, which may be names of ours too."""
    theirs = data.draw(st.permutations([*names, *OTHERS]))[: len(names)]
    return {ours: name for ours, name in zip(names, theirs, strict=True) if ours != name}


@settings(max_examples=30)
@given(data=st.data())
def test_every_form_under_any_names_gives_the_same_counts(data):
    sentences = data.draw(SENTENCES)
    n = len(sentences)
    rows = instances(sentences, data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    ref_ids = data.draw(st.lists(IDS, min_size=n, max_size=n, unique=True))
    for row, ref_id in zip(rows, ref_ids, strict=True):
        row["ref_id"] = ref_id
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = refer_case(folder, rows)
        every = range(case.dataset.n_examples)
        some = data.draw(st.permutations(every))[: data.draw(st.integers(1, len(every)))]
        keys, names = data.draw(st.sampled_from(FORMS))
        if keys == "order":
            some = list(every)
        key = ("sample_id", "sentence_idx")
        expected = counts(
            write_table(folder / "expected.jsonl", facts(case, key, some)), case.store
        )
        fields = renames(data, [*names, "segmentation"])
        suffix = data.draw(st.sampled_from([".jsonl", ".json", ".parquet"]))
        table = [
            {fields.get(ours, ours): value for ours, value in row.items()}
            for row in facts(case, names, some)
        ]
        path = write_table(folder / f"p{suffix}", table)
        named = [tuple(fact(case.dataset, k, name) for name in names) for k in every]
        is_ambiguous = keys != "order" and any(named.count(named[k]) > 1 for k in some)
        if is_ambiguous:
            with pytest.raises(rc.PredictionError, match=r"names \d examples"):
                counts(path, case.store, keys=keys, fields=fields)
        else:
            assert counts(path, case.store, keys=keys, fields=fields) == expected


@settings(max_examples=20)
@given(data=st.data())
def test_names_of_arrays_give_the_same_counts(data):
    sentences = data.draw(SENTENCES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = refer_case(folder, instances(sentences))
        every = range(case.dataset.n_examples)
        some = data.draw(st.permutations(every))[: data.draw(st.integers(1, len(every)))]
        expected = counts(
            write_table(folder / "e.jsonl", facts(case, ("sample_id", "sentence_idx"), some)),
            case.store,
        )
        numbers = [
            (keys, names) for keys, names in FORMS if not {"sentence", "file_name"} & {*names, keys}
        ]
        keys, names = data.draw(st.sampled_from([form for form in numbers if form[0] != "order"]))
        beside = data.draw(st.sampled_from([(), ("image_id",)]))
        order = data.draw(st.permutations([*names, *beside]))
        template = "m".join(f"{{{name}}}" for name in order)
        members = {
            "m".join(str(case.dataset.fact(k, name)) for name in order): case.masks[k] for k in some
        }
        np.savez(folder / "p.npz", **members)
        assert counts(folder / "p.npz", case.store, keys=keys, name=template) == expected
