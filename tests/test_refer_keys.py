"""Rows that carry the ids of the original sets, `keys=refer`: found, compared, never guessed."""

import json

import pytest
from helpers import coco_encode, problems_of, sample_case
from refer_sets import TABLES, facts, instances, refer_case, write_table

import refcocom_gpu as rc
from refcocom_gpu.cli.failures import as_typed
from refcocom_gpu.cli.main import main

SENTENCES = [["left one", "the left"], ["left one"], ["dog", "the dog", "a dog"], ["cat"]]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return refer_case(tmp_path_factory.mktemp("refer"), instances(SENTENCES))


WAYS = [
    ("sent_id",),
    ("ref_id", "sentence_idx"),
    ("ann_id", "sentence_idx"),
    ("ref_id", "sentence"),
    ("ann_id", "sentence"),
    ("ann_id", "sent_id", "ref_id", "sentence_idx", "sentence"),
]


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("names", WAYS, ids="-".join)
def test_every_way_finds_every_example(case, tmp_path, suffix, names):
    case.check(write_table(tmp_path / f"p{suffix}", facts(case, names)), keys="refer")


def changed(case, k, names, **change):
    rows = facts(case, names)
    rows[k] |= change
    return rows


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        (("sent_id",), {"sent_id": 1}, "sent_id 1 is not in the dataset"),
        (("sent_id",), {"sent_id": None}, "keys=refer needs sent_id, or ref_id or ann_id with"),
        (("ann_id",), {}, "keys=refer needs sent_id, or ref_id or ann_id with"),
        (("sent_id", "ann_id"), {"ann_id": 899}, "ann_id is 899, not 900, that of sample_id 40, sentence_idx 1"),
        (("sent_id", "ref_id"), {"ref_id": 43}, "ref_id is 43, not 40"),
        (("sent_id", "sentence_idx"), {"sentence_idx": 0}, "sentence_idx is 0, not 1"),
        (("ref_id", "sentence_idx"), {"sentence_idx": 2}, "fits no example of ref_id 40; it has sample_id 40"),
        (("ref_id", "sentence"), {"sentence": "left two"}, "'left two' fits no example of ref_id 40"),
        (("ref_id", "sentence_idx"), {"ref_id": 41}, "ref_id 41 is not in the dataset"),
        (("ref_id", "ann_id", "sentence_idx"), {"ann_id": 899}, "ann_id is 899, not 900"),
    ],
)  # fmt: skip
def test_what_names_no_example(case, tmp_path, suffix, names, change, message):
    path = write_table(tmp_path / f"p{suffix}", changed(case, 1, names, **change))
    error = problems_of(path, case.store, keys="refer", missing="zero")
    assert set(error.counts) == {"unknown key"}
    assert message in str(error)


def test_ids_that_became_text(case, tmp_path):
    rows = [{**row, "sent_id": str(row["sent_id"])} for row in facts(case, ["sent_id"])]
    case.check(write_table(tmp_path / "p.jsonl", rows), keys="refer")
    rows[2]["sent_id"] = "5e3"
    error = problems_of(write_table(tmp_path / "w.jsonl", rows), case.store, keys="refer")
    assert "sent_id is '5e3', not a whole number" in str(error)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_fits_several_examples_is_listed(tmp_path, suffix):
    """Two references of one annotation, and a text that a reference has twice."""
    shared = refer_case(tmp_path, instances([["one", "two"], ["two"], ["dog", "dog"]], [5, 5, 6]))

    def error_of(names, indices, **options):
        path = write_table(tmp_path / f"p{suffix}", facts(shared, names, indices))
        return str(problems_of(path, shared.store, keys="refer", missing="zero", **options))

    first_two = "sample_id 40, sentence_idx 0; sample_id 43, sentence_idx 0"
    assert f"sentence_idx 0 names 2 examples of ann_id 5: {first_two}" in error_of(
        ["ann_id", "sentence_idx"], [0]
    )
    two = "sample_id 40, sentence_idx 1; sample_id 43, sentence_idx 0"
    assert f"'two' names 2 examples of ann_id 5: {two}" in error_of(["ann_id", "sentence"], [1])
    assert "'dog' names 2 examples of ref_id 46" in error_of(["ref_id", "sentence"], [3])
    # The number and the text together leave one, and so does a text that only one of the references has.
    all_three = ["ann_id", "sentence_idx", "sentence"]
    for names, indices in ((all_three, range(3)), (all_three[::2], [0])):
        path = write_table(tmp_path / f"q{suffix}", facts(shared, names, indices))
        result = rc.score(path, shared.store, keys="refer", missing="zero")
        assert result.n_missing == 5 - len(indices)


def test_a_sentence_id_that_repeats(tmp_path):
    rows = instances([["one"], ["two"]])
    rows[1]["sent_ids"] = rows[0]["sent_ids"]
    repeated = refer_case(tmp_path, rows)
    path = write_table(tmp_path / "p.jsonl", facts(repeated, ["sent_id"], [0]))
    error = problems_of(path, repeated.store, keys="refer", missing="zero")
    assert "sent_id 5000 names 2 examples: sample_id 40, sentence_idx 0; sample_id 43" in str(error)


def test_the_most_exact_id_that_the_dataset_carries(tmp_path):
    """A copy without sentence ids: `ann_id` finds, and a `sent_id` in the rows has nothing to be compared with."""
    rows = [{k: v for k, v in row.items() if k != "sent_ids"} for row in instances(SENTENCES)]
    few = refer_case(tmp_path, rows)
    assert few.dataset.refer_ids == ("ref_id", "ann_id")
    table = [{**row, "sent_id": 1} for row in facts(few, ["ann_id", "sentence_idx"])]
    few.check(write_table(tmp_path / "p.jsonl", table), keys="refer")
    error = problems_of(
        write_table(tmp_path / "q.jsonl", [{"sent_id": 1, "segmentation": None}]),
        few.store,
        keys="refer",
        missing="zero",
    )
    assert "the dataset carries ref_id, ann_id, the row has sent_id" in str(error)


def test_a_set_without_these_ids_is_refused_before_reading(tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    path.write_text("not read")
    sample = sample_case()
    with pytest.raises(
        rc.UsageError, match=r"carries no sent_id.*refcocom convert RUN OUT from_da"
    ):
        rc.score(path, sample.store, keys="refer")
    assert main(["score", str(path), "dataset=sample", "keys=refer"]) == 2
    assert "from_dataset=" in capsys.readouterr().err
    rows = [{"ann_id": 1, "sent_id": 2, "segmentation": None}]
    for suffix in (".jsonl", ".parquet"):
        rows[0]["segmentation"] = coco_encode(sample.masks[0])
        error = problems_of(
            write_table(tmp_path / f"r{suffix}", rows), sample.store, missing="zero"
        )
        assert "refcocom convert" in str(error)


def test_responses(case, tmp_path):
    rows = [
        {"sent_id": row["sent_id"], "response": row["segmentation"]}
        for row in facts(case, ["sent_id"])
    ]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    case.check(rc.adapters.read(path, case.dataset, source="rle", keys="refer"))


# Hints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", TABLES)
def test_the_error_prints_the_words_that_fit_and_they_score(case, tmp_path, suffix):
    """The usual rows of a REFER evaluation."""
    table = write_table(tmp_path / f"p{suffix}", facts(case, ["ann_id", "sent_id"]))
    assert "try keys=refer" in str(problems_of(table, case.store, missing="zero"))
    case.check(table, keys="refer")


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("own", [False, True], ids=["absent", "unknown"])
def test_a_column_is_suggested_if_its_values_fit(case, tmp_path, suffix, own):
    """`id` holds what the dataset calls `sample_id`, `number` only looks so."""
    rows = [
        {
            "number": k,
            "id": case.dataset.fact(k, "sample_id"),
            **({"sample_id": 10**6 + k} if own else {}),
            "sentence_idx": case.dataset.fact(k, "sentence_idx"),
            "segmentation": row["segmentation"],
        }
        for k, row in enumerate(facts(case, []))
    ]
    table = write_table(tmp_path / f"p{suffix}", rows)
    text = str(problems_of(table, case.store, missing="zero"))
    assert "; try fields={'sample_id': 'id'}" in text
    assert "number" not in text.partition("; try ")[2].partition("\n")[0]
    case.check(table, fields={"sample_id": "id"})


def test_two_columns_are_suggested(case, tmp_path):
    """A set whose sample ids are annotation ids elsewhere, and sentence numbers are called ids."""
    rows = [
        {
            "ann_id": row["sample_id"],
            "sent_id": row["sentence_idx"],
            "segmentation": row["segmentation"],
        }
        for row in facts(case, ["sample_id", "sentence_idx"])
    ]
    for suffix in (".jsonl", ".parquet"):
        table = write_table(tmp_path / f"p{suffix}", rows)
        text = str(problems_of(table, case.store, missing="zero"))
        assert "try fields.sample_id=ann_id fields.sentence_idx=sent_id" in as_typed(text)
        case.check(table, fields={"sample_id": "ann_id", "sentence_idx": "sent_id"})


def test_nothing_is_suggested_for_one_wrong_row(case, tmp_path):
    rows = facts(case, ["sample_id", "sentence_idx", "image_id"])
    rows[3]["sample_id"] = 1
    for suffix in (".jsonl", ".parquet"):
        error = problems_of(write_table(tmp_path / f"p{suffix}", rows), case.store, missing="zero")
        assert error.counts == {"unknown key": 1}
        assert "keys=" not in str(error)
        assert "fields." not in str(error)


@pytest.mark.parametrize("suffix", TABLES)
def test_a_column_of_masks_is_suggested(case, tmp_path, suffix):
    rows = facts(case, ["sample_id", "sentence_idx"])
    rows = [{"mask": row.pop("segmentation"), **row} for row in rows]
    table = write_table(tmp_path / f"p{suffix}", rows)
    assert "; try fields={'segmentation': 'mask'}" in str(
        problems_of(table, case.store, missing="zero")
    )
    case.check(table, fields={"segmentation": "mask"})
