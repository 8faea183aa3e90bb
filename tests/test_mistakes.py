"""Every mistake of a prediction file in one run: all listed, all counted, each with its line."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import (
    coco_encode,
    problems_of,
    sample_case,
    table,
    write_jsonl,
)
from PIL import Image
from sweeps import sweep

import refcocom_gpu as rc
from refcocom_gpu import errors
from refcocom_gpu.cli.main import main
from refcocom_gpu.predictions import parquet as parquet_module
from refcocom_gpu.predictions import rows as rows_module
from refcocom_gpu.predictions import text as text_module

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset
HUGE = 2**63


def mask_of(k: int, **changes) -> dict:
    return {**coco_encode(CASE.masks[k]), **changes}


def sides(k: int) -> tuple[int, int]:
    return CASE.masks[k].shape


def mistakes(in_json: bool) -> list[tuple[str, int | None, dict, str, str]]:
    """(what, the example it is about, changes to its row, kind, what the message says)."""
    h, w = sides(0)
    cases = [
        ("unknown sample", 0, {"sample_id": 10**9}, "unknown key", "is not in the dataset"),
        ("no such sentence", 1, {"sentence_idx": 99}, "unknown key", "that sample has sentences 0 to"),
        ("negative sentence", 2, {"sentence_idx": -1}, "unknown key", "sentence_idx -1"),
        ("negative sample", 3, {"sample_id": -1}, "unknown key", "sample_id -1"),
        ("wrong size", 4, {"segmentation": mask_of(4, size=[h + 1, w])}, "wrong size", "the image is"),
        ("swapped", 5, {"segmentation": mask_of(5, size=list(sides(5)[::-1]))}, "wrong size", "are swapped"),
        ("foreign", 6, {"segmentation": mask_of(6, counts="0~")}, "malformed mask", "of counts is outside"),
        ("truncated", 7, {"segmentation": mask_of(7, counts="0o")}, "malformed mask", "in the middle of a number"),
        ("negative run", 8, {"segmentation": mask_of(8, counts="O")}, "malformed mask", "run 0 is negative"),
        ("huge run", 9, {"segmentation": mask_of(9, counts="o" * 8 + "0")}, "malformed mask", "longer than"),
        ("short", 10, {"segmentation": mask_of(10, counts="11")}, "malformed mask", "runs total 2 pixels"),
        ("empty string", 11, {"segmentation": mask_of(11, counts="")}, "malformed mask", "runs total 0 pixels"),
        ("long", 12, {"segmentation": mask_of(12, counts="ooo01")}, "malformed mask", "size needs"),
        ("wrong sentence", 13, {"sentence": "another"}, "wrong sentence", "'another' here"),
        ("zero size", 14, {"segmentation": mask_of(14, size=[0, w])}, "malformed mask", "positive whole numbers"),
        ("null counts", 15, {"segmentation": mask_of(15, counts=None)}, "malformed mask", "counts"),
        ("null size", 16, {"segmentation": mask_of(16, size=None)}, "malformed mask", "size"),
        ("null key", None, {"sample_id": None}, "bad key", "sample_id"),
        ("not ASCII", 17, {"segmentation": mask_of(17, counts="0é")}, "malformed mask", "of counts is outside"),
    ]  # fmt: skip
    if not in_json:
        return cases
    for value in (1.5, True, "1e3", HUGE, -HUGE * 4, [1], {}):
        cases.append((f"id {value!r}", None, {"sample_id": value}, "bad key", "sample_id is"))
    for value in ("0.5", 1.5, False):
        cases.append(
            (f"idx {value!r}", None, {"sentence_idx": value}, "bad key", "sentence_idx is")
        )
    for k, (value, says) in enumerate([
        ("a string", "mask is a string"),
        (7, "not an object with size and counts"),
        ([[1, 2, 3, 4, 5, 6]], "polygons=pixels"),
        ({}, "lacks size and counts; it has nothing"),
        ({"counts": "0"}, "lacks size; it has counts"),
        (mask_of(22, size=[1, 2, 3]), "height, width"),
        (mask_of(23, size=[1.5, 2]), "positive whole numbers"),
        (mask_of(24, size=[2**31, 2**31]), "exceeds the cap"),
        (mask_of(25, size=[True, 3]), "positive whole numbers"),
        (mask_of(26, counts=[5, -1]), "run 1 is negative"),
        (mask_of(27, counts=[1.5]), "run 0 is 1.5"),
        (mask_of(28, counts=[2**70]), "more than any mask"),
        (mask_of(29, counts=7), "counts must be"),
        (mask_of(30, counts=[]), "runs total 0"),
    ], 18):  # fmt: skip
        cases.append((f"mask {k}", k, {"segmentation": value}, "malformed mask", says))
    cases.append(
        (
            "absent",
            32,
            {"segmentation": ...},
            "no segmentation",
            "the row has sample_id, sentence_idx;",
        )
    )
    cases.append(
        (
            "misspelt",
            33,
            {"segmentation": ..., "segmentations": mask_of(33)},
            "no segmentation",
            "segmentations",
        )
    )
    cases.append(("sentence is a number", 34, {"sentence": 5}, "wrong sentence", "5 here"))
    return cases


def broken_rows(in_json: bool) -> tuple[list[dict], list[tuple[str, str, str, int]], int]:
    """All rows with one of each mistake; (what, kind, says, row number) of each; how many examples are missing."""
    rows = CASE.rows()
    expected = []
    missing = 0
    extra = []
    for what, k, changes, kind, says in mistakes(in_json):
        target = rows[k] if k is not None else dict(rows[-1])
        if k is None:
            extra.append(target)
        target.update(changes)
        for name in [name for name, value in target.items() if value is ...]:
            del target[name]
        row = len(rows) + len(extra) - 1 if k is None else k
        expected.append((what, kind, says, row))
        # A row whose key is wrong leaves its example without a prediction; one whose mask is wrong does not.
        missing += kind == "unknown key"
    rows += extra
    rows.append(dict(rows[40]))
    expected.append(("duplicate", "duplicate", "was already predicted at", len(rows) - 1))
    del rows[41]
    missing += 1
    expected = [(w, kind, says, row - (row > 41)) for w, kind, says, row in expected]
    return rows, expected, missing


def assert_all_found(error, expected, missing, place) -> None:
    counts = Counter(kind for _, kind, _, _ in expected)
    counts["missing"] += missing
    assert error.counts == counts
    for what, kind, says, row in expected:
        at_row = [p for p in error.problems if p.where == place(row)]
        assert [p.kind for p in at_row] == [kind], (what, at_row)
        assert says in at_row[0].message, (what, at_row)
    lines = str(error).splitlines()
    assert lines[0].startswith(f"{counts.total()} problems (")
    # The causes that are listed, each with a few examples and their number, and what is missing.
    assert errors.CAUSES + 2 <= len(lines) <= errors.CAUSES * (errors.LIKE + 1) + 3
    assert lines[-2].startswith("  … and ")
    assert " more causes" in lines[-2]
    assert lines[-1].startswith(f"  missing: {missing} ")


@pytest.mark.parametrize("block", [1, 500, 2**22])
@pytest.mark.parametrize("with_header", [False, True])
def test_every_mistake_of_a_jsonl_file(tmp_path, monkeypatch, block, with_header):
    assert len(STORE) > 50
    monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
    rows, expected, missing = broken_rows(in_json=True)
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    lines = path.read_bytes().splitlines()
    bad = [
        b"{",
        b"nonsense",
        b"[1]",
        b"null",
        b'"\xff"',
        b"[" * 100_000,
        b"1" * 5000,
        b'{"sample_id": ' + b"9" * 5000 + b"}",
    ]
    expected += [("not JSON", "malformed", "", len(lines) + k) for k in range(len(bad))]
    lines += bad
    if with_header:
        lines.insert(0, json.dumps({"schema": "refcocom-predictions", "version": 1}).encode())
    path.write_bytes(b"\n".join(lines))
    error = problems_of(path, STORE)
    first = 2 if with_header else 1
    assert_all_found(error, expected, missing, lambda row: f"{path}, line {row + first}")
    assert list(tmp_path.iterdir()) == [path]


def test_every_mistake_of_coco_results(tmp_path):
    rows, expected, missing = broken_rows(in_json=True)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rows))
    assert_all_found(
        problems_of(path, STORE), expected, missing, lambda k: f"{path}, entry {k + 1}"
    )


@pytest.mark.parametrize("group", [7, 1000])
def test_every_mistake_of_a_parquet_file(tmp_path, group):
    rows, expected, missing = broken_rows(in_json=False)
    rows = [{"sentence": None, **row} for row in rows]
    path = tmp_path / "p.parquet"
    pq.write_table(table(rows), path, row_group_size=group)
    assert_all_found(problems_of(path, STORE), expected, missing, lambda k: f"{path}, row {k}")


@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_the_order_of_mistakes_does_not_depend_on_who_is_faster(tmp_path, monkeypatch, batch):
    rows = [{"sentence": None, **row} for row in broken_rows(in_json=False)[0]]
    path = tmp_path / "p.parquet"
    pq.write_table(table(rows), path)
    monkeypatch.setattr(parquet_module, "BATCH_ROWS", batch)
    monkeypatch.setattr(parquet_module, "BATCH_ROWS_BESIDE", batch)
    found = [problems_of(path, STORE, threads=threads).problems for threads in (1, 2, 3, 2)]
    assert len(found[0]) > 15
    assert all(problems == found[0] for problems in found)


def test_two_mistakes_of_one_row_are_two_problems(tmp_path):
    rows = CASE.rows()
    rows[3].update(sentence="another", segmentation=mask_of(3, size=[1, 1]))
    error = problems_of(write_jsonl(tmp_path / "p.jsonl", rows), STORE)
    assert error.counts == {"wrong sentence": 1, "wrong size": 1}


def test_what_is_only_unusual_is_accepted(tmp_path):
    rows = CASE.rows()
    for k, row in enumerate(rows):
        if row["segmentation"]:
            row["segmentation"]["size"] = [float(x) for x in sides(k)]
        row["sentence"] = None
        row["id"] = "x"
    CASE.check(write_jsonl(tmp_path / "p.jsonl", rows))


REPEATED = {
    "mask first": ('"segmentation": null, ', "", ["segmentation"]),
    "mask last": ("", ', "segmentation": null', ["segmentation"]),
    "spaces": ("", ', "segmentation" \t: null', ["segmentation"]),
    "escapes": ("", r', "se\u0067mentation": null', ["segmentation"]),
    "sentence": ("", ', "sentence": null, "sentence": null', ["sentence"]),
    "unknown": ("", ', "note": 1, "note": {"a": 2}', ["note"]),
    "nested": ("", ', "notes": [{"a": {"b": "c", "b": 1}}]', ["b"]),
    "two": ('"a": 1, "segmentation": null, ', ', "a": 1', ["a", "segmentation"]),
    "sentence_idx": ('"sentence_idx": 0, ', "", ["sentence_idx"]),
    "size": '"size": [1, 1], "size"',
    "counts": '"counts": "0", "counts"',
}


def repeating(name) -> tuple[list[str], list[str]]:
    """The text of all rows, of which the sixth repeats keys, and these keys."""
    texts = [json.dumps(row) for row in CASE.rows()]
    change = REPEATED[name]
    if isinstance(change, str):
        texts[5] = texts[5].replace(f'"{name}"', change)
        return texts, [name]
    before, after, keys = change
    texts[5] = "{" + before + texts[5][1:-1] + after + "}"
    return texts, keys


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json"])
@pytest.mark.parametrize("name", REPEATED)
def test_a_key_that_stands_there_twice(tmp_path, name, suffix):
    assert CASE.rows()[5]["segmentation"] is not None
    texts, keys = repeating(name)
    path = tmp_path / f"p.{suffix}"
    path.write_text("[" + ",\n".join(texts) + "]" if suffix == "json" else "\n".join(texts))
    error = problems_of(path, STORE)
    # A row whose key is in doubt leaves its example without a prediction.
    missing = {"missing": 1} if name == "sentence_idx" else {}
    assert error.counts == {"duplicate": 1, **missing}
    assert error.problems[0].where == f"{path}, {'entry' if suffix == 'json' else 'line'} 6"
    assert f"the row has {', '.join(keys)} more than once" in error.problems[0].message


@pytest.mark.parametrize("name", ["sentence", "sample_id", "counts"])
def test_what_one_row_lacks_does_not_hide_that_another_has_it_twice(tmp_path, name):
    rows = CASE.rows()
    sentences = DATASET.examples.column("sentence").to_pylist()
    for row, sentence in zip(rows, sentences, strict=True):
        row["sentence"] = sentence
    texts = [json.dumps(row) for row in rows]
    value = json.dumps(rows[5].get(name, "0"))
    texts[5] = texts[5].replace(f'"{name}"', f'"{name}": {value}, "{name}"')
    del (rows[6]["segmentation"] if name == "counts" else rows[6])[name]
    texts[6] = json.dumps(rows[6])
    (tmp_path / "p.jsonl").write_text("\n".join(texts))
    found = problems_of(tmp_path / "p.jsonl", STORE).problems
    assert ("duplicate", f"{tmp_path / 'p.jsonl'}, line 6") in [(p.kind, p.where) for p in found]


def test_runs_as_a_list_do_not_hide_a_key_that_stands_there_twice(tmp_path):
    texts, _ = repeating("mask first")
    texts[6] = json.dumps(CASE.rows(listed=True)[6])
    (tmp_path / "p.jsonl").write_text("\n".join(texts))
    assert problems_of(tmp_path / "p.jsonl", STORE).counts == {"duplicate": 1}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"image_id": 9, "category_id": 1, "score": 0.5},
        {"sentence": None},
        {"note": 'a "b" \\ "c\\"', "size": {"size": "size", "counts": ["sentence"]}},
        {"number": 10**4000},
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_other_fields_and_quotes_are_read_at_once(tmp_path, monkeypatch, more, suffix):
    """Rows that repeat nothing are not read one by one, which is slow."""
    monkeypatch.delattr(rows_module._Rows, "_row_by_row")
    rows = [{**row, **more} for row in CASE.rows()]
    path = tmp_path / f"p.{suffix}"
    path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    CASE.check(path)


def test_a_key_twice_fails_a_sweep_and_the_command(tmp_path, capsys):
    texts, _ = repeating("mask last")
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(texts))
    message = f"{path}, line 6: duplicate: the row has segmentation more than once"
    assert message in sweep([str(path)], tmp_path / "out").results[0].error
    assert main(["score", "dataset=sample", "output_dir=null", str(path)]) == 3
    assert message in capsys.readouterr().err


def test_a_header_may_repeat_its_keys(tmp_path):
    head = '{"schema": "refcocom-predictions", "version": 1, "model": "a", "model": "b"}'
    path = write_jsonl(tmp_path / "p.jsonl", CASE.rows())
    path.write_text(f"{head}\n{path.read_text()}")
    CASE.check(path)


@pytest.mark.parametrize("version", [2, "2", None, 0])
def test_a_header_of_another_version_is_an_error(tmp_path, version):
    head = {"schema": "refcocom-predictions", "version": version}
    error = problems_of(write_jsonl(tmp_path / "p.jsonl", [head, *CASE.rows()]), STORE)
    assert error.counts == {"header": 1}
    metadata = {key: str(value) for key, value in head.items()}
    pq.write_table(table(CASE.rows()).replace_schema_metadata(metadata), tmp_path / "p.parquet")
    assert problems_of(tmp_path / "p.parquet", STORE).counts == {"header": 1}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_header_for_another_dataset_is_a_warning(tmp_path, suffix):
    head = {"schema": "refcocom-predictions", "version": "1", "dataset": "f" * 32}
    path = tmp_path / f"p.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, [head, *CASE.rows()])
    else:
        pq.write_table(table(CASE.rows()).replace_schema_metadata(head), path)
    with pytest.warns(UserWarning, match="was made for dataset ffff"):
        CASE.check(path)


def typed(**columns) -> pa.Table:
    good = table(CASE.rows())
    for name, column in columns.items():
        place = good.schema.get_field_index(name)
        good = good.remove_column(place) if column is None else good.set_column(place, name, column)
    return good


N = len(CASE.masks)


@pytest.mark.parametrize(
    ("columns", "kind", "says"),
    [
        ({"segmentation": None}, "no column", "the file has sample_id, sentence_idx"),
        ({"sentence_idx": None}, "no column", "sentence_idx not found"),
        ({"sample_id": pa.array([True] * N)}, "bad key", "sample_id is bool"),
        ({"sample_id": pa.array([[1]] * N)}, "bad key", "sample_id is list"),
        ({"segmentation": pa.array(["{}"] * N)}, "no column", "segmentation is string"),
        ({"segmentation": pa.array([[1, 2]] * N)}, "no column", "segmentation is list"),
        ({"segmentation": pa.nulls(N)}, "no column", "segmentation is null"),
        ({"segmentation": pa.array([{"size": [1, 1]}] * N)}, "no column", "not a struct with size"),
        ({"segmentation": pa.array([{"size": "1x1", "counts": "1"}] * N)}, "no column", "segmentation.size is string"),
        ({"segmentation": pa.array([{"size": [True, True], "counts": "1"}] * N)}, "no column", "segmentation.size"),
        ({"segmentation": pa.array([{"size": [1, 1], "counts": 1}] * N)}, "no column", "segmentation.counts is int64"),
    ],
)  # fmt: skip
def test_a_wrong_column_is_one_error(tmp_path, columns, kind, says):
    pq.write_table(typed(**columns), tmp_path / "p.parquet")
    error = problems_of(tmp_path / "p.parquet", STORE)
    assert error.counts == {kind: 1, "missing": N}
    assert says in error.problems[0].message


def test_unsigned_ids_beyond_int64_are_no_ids(tmp_path):
    ids = [row["sample_id"] for row in CASE.rows()]
    ids[4] = HUGE + 5
    pq.write_table(typed(sample_id=pa.array(ids, pa.uint64())), tmp_path / "p.parquet")
    error = problems_of(tmp_path / "p.parquet", STORE)
    assert error.counts == {"bad key": 1, "missing": 1}
    assert str(HUGE + 5) in error.problems[0].message
    assert error.problems[0].where.endswith("row 4")


def test_a_column_that_stands_there_twice_is_refused(tmp_path):
    twice = table(CASE.rows())
    pq.write_table(twice.append_column("sample_id", twice["sample_id"]), tmp_path / "p.parquet")
    assert problems_of(tmp_path / "p.parquet", STORE).counts["no column"] == 1


# Arrays -------------------------------------------------------------------------------------------


def arrays() -> dict[str, np.ndarray]:
    return dict(zip(CASE.names(), CASE.masks, strict=True))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_mistake_of_an_archive(tmp_path, kind):
    names = CASE.names()
    members = arrays()
    h, w = sides(2)
    for k, bad in enumerate([np.nan, np.inf, -np.inf]):
        members[names[k]] = np.zeros((4, 4), kind)
        members[names[k]][1, 2] = bad
    members[names[3]] = np.full((2, 2), 1e300)
    members[names[4]] = np.zeros((h + 1, w), bool)
    members[names[5]] = np.zeros((2, h, w), bool)
    members[names[6]] = np.zeros(5, bool)
    members[names[7]] = np.zeros((0, 3), bool)
    members[names[8]] = np.zeros((h, w), complex)
    members[names[9]] = np.zeros((h, w), "U1")
    members[names[10]] = np.zeros((h, w), [("int_float", "i4")])
    members[names[11]] = np.array([{"an": "object"}])
    members["0" + names[12]] = members[names[12]]
    members["mask_1"] = members.pop(names[13])
    members["999999_0"] = members.pop(names[14])
    np.savez(tmp_path / "p.npz", **members)
    error = problems_of(tmp_path / "p.npz", STORE)
    assert error.counts == {
        "non-finite": 4, "wrong size": 1, "malformed mask": 7, "duplicate": 1,
        "bad key": 1, "unknown key": 1, "missing": 2,
    }  # fmt: skip
    at = {p.where.rpartition(" ")[2]: p for p in error.problems}
    assert all(at[names[k]].kind == "non-finite" for k in range(4))
    assert "pickles" in at[names[11]].message
    assert at[f"0{names[12]}"].kind == "duplicate"


def test_damaged_members_and_files_are_named(tmp_path):
    np.savez_compressed(tmp_path / "p.npz", **arrays())
    whole = (tmp_path / "p.npz").read_bytes()
    refused = 0
    for cut in range(40, 2000, 97):
        damaged = bytearray(whole)
        damaged[cut : cut + 8] = b"\x99" * 8
        (tmp_path / "p.npz").write_bytes(damaged)
        # Some bytes of an archive mean nothing; what is read in spite of them must be right.
        try:
            CASE.check(tmp_path / "p.npz")
        except rc.PredictionError as error:
            refused += error.counts.total()
    assert refused > 0


@pytest.mark.parametrize(
    "suffix", [".npz", ".pt", ".pth", ".safetensors", ".json", ".jsonl", ".parquet"]
)
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 64, b"PK\x03\x04 no archive", b"\x80\x04N.", b"\x93NUMPY", b"[]", b"{}"],
)
def test_files_that_are_something_else(tmp_path, suffix, content):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(content)
    error = problems_of(path, STORE)
    assert error.counts["missing"] == N
    # An empty file and an empty list say nothing wrong but that all is missing.
    other = error.counts.total() - N
    says_nothing = {(".jsonl", b""), (".jsonl", b"[]"), (".json", b"[]")}
    assert other == (0 if (suffix, content) in says_nothing else 1)


def test_pickles_are_refused_with_a_way_out(tmp_path):
    for name in ("p.pkl", "p.pickle", "p.joblib"):
        (tmp_path / name).write_bytes(b"\x80\x04N.")
        with pytest.raises(rc.UsageError, match="PredictionWriter"):
            rc.score(tmp_path / name, STORE)
    for content in (
        {"1_0": object()},
        [torch.zeros(1)],
        {"a": {"1_0": torch.zeros(1)}},
        torch.nn.Linear(1, 1),
    ):
        torch.save(content, tmp_path / "p.pt")
        assert problems_of(tmp_path / "p.pt", STORE).counts == {"malformed": 1, "missing": N}
    torch.save({"1_0": object()}, tmp_path / "p.pt")
    assert "PredictionWriter" in problems_of(tmp_path / "p.pt", STORE).problems[0].message
    np.save(tmp_path / "one.npy", np.zeros((3, 3)))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert ".npy" in problems_of(tmp_path / "one.npz", STORE).problems[0].message


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "EPS", "TIFF"])
def test_another_format_under_the_name_of_a_png(tmp_path, kind):
    """Its pixels may be those of a lossy format, so it is refused and not opened as what it is."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, mask in arrays().items():
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")
    path = folder / f"{CASE.names()[3]}.png"
    with path.open("wb") as file:
        Image.fromarray(CASE.masks[3].astype(np.uint8) * 255).save(file, kind)
    (problem,) = problems_of(folder, STORE, missing="zero").problems
    assert (problem.kind, problem.where) == ("malformed mask", str(path))
    assert "not a PNG image, whatever its name says" in problem.message


def test_every_mistake_of_a_folder(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, mask in arrays().items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    names = CASE.names()
    Image.new("RGB", (4, 4), "red").save(folder / f"{names[0]}.png")
    (folder / f"{names[1]}.png").write_bytes(b"no picture")
    whole = (folder / f"{names[2]}.png").read_bytes()
    (folder / f"{names[2]}.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(CASE.masks[3]).save(folder / f"{names[3]}.PNG")
    Image.fromarray(CASE.masks[4].T.copy()).resize((5, 9)).save(folder / f"{names[4]}.png")
    (folder / "notes.txt").write_text("")
    (folder / "more").mkdir()
    (folder / "broken.png").symlink_to(folder / "nothing")
    (folder / f"{names[5]}.png").rename(folder / "cat.png")
    error = problems_of(folder, STORE)
    assert error.counts == {
        "malformed mask": 3, "unknown file": 3, "duplicate": 1, "wrong size": 1, "bad key": 1, "missing": 1,
    }  # fmt: skip
    assert {p.where for p in error.problems} >= {str(folder / "notes.txt"), str(folder / "more")}
    assert any("image is RGB" in p.message for p in error.problems)
    assert any(p.where == str(folder / f"{names[1]}.png") for p in error.problems)


def test_reading_ends_where_there_is_nothing_but_mistakes(tmp_path, monkeypatch):
    """A small compressed file may hold mistakes for hours; not all of them are looked at."""
    monkeypatch.setattr(errors, "KEPT", 10)
    monkeypatch.setattr(errors, "MOST", 50)
    (tmp_path / "p.jsonl").write_text("{}\n" * 99)
    error = problems_of(tmp_path / "p.jsonl", STORE)
    assert error.counts == {"bad key": 50}
    assert str(error).endswith("Reading ended here")


# What a person sees -------------------------------------------------------------------------------


def message_of(path, rows) -> list[str]:
    return str(problems_of(write_jsonl(path, rows), STORE)).splitlines()


def test_many_equal_mistakes_are_a_few_lines_with_their_number(tmp_path):
    rows = CASE.rows()
    for k in range(40):
        h, w = sides(k)
        rows[k]["segmentation"] = mask_of(k, size=[h + 1, w])
    rows[50]["sentence"] = "another"
    lines = message_of(tmp_path / "p.jsonl", rows)
    assert lines[0] == "41 problems (40 wrong size, 1 wrong sentence); nothing was scored"
    assert [line.split(": ")[0] for line in lines[1:4]] == [
        f"  {tmp_path / 'p.jsonl'}, line {k}" for k in (1, 2, 3)
    ]
    assert lines[4] == "  … and 37 more like these"
    assert "wrong sentence" in lines[5]
    assert len(lines) == 6


def test_swapped_sides_and_wrong_sides_are_two_causes(tmp_path):
    rows = CASE.rows()
    uneven = [k for k in range(N) if sides(k)[0] != sides(k)[1]][:12]
    for k in uneven:
        h, w = sides(k)
        rows[k]["segmentation"] = mask_of(k, size=[w, h] if k % 2 else [h + 1, w])
    lines = message_of(tmp_path / "p.jsonl", rows)
    assert sum("are swapped" in line for line in lines) in (3, 4)
    assert sum(line.startswith("  … and") for line in lines) == 2


@pytest.mark.parametrize("n", [1, 3, 20])
def test_unknown_keys_explain_what_is_missing(tmp_path, n):
    rows = CASE.rows()
    for k in range(n):
        rows[k]["sample_id"] = 10**9 + k
    lines = message_of(tmp_path / "p.jsonl", rows)
    assert "unknown key" in lines[1]
    assert "10000000" in lines[1]
    have = "1 example has" if n == 1 else f"{n} examples have"
    assert lines[-1] == f"  missing: {have} no prediction; the mistakes above may be why"
    assert len(lines) == 2 + min(n, errors.LIKE) + (n > errors.LIKE + 1)


def test_three_wrong_ids_are_not_buried_below_what_is_missing(tmp_path):
    rows = CASE.rows()[: N // 2]
    for k in range(3):
        rows[k]["sample_id"] = 10**9 + k
    lines = message_of(tmp_path / "p.jsonl", rows)
    assert ["unknown key" in line for line in lines[1:4]] == [True] * 3
    n_missing = N - N // 2 + 3
    # Three cannot explain all of them.
    assert len(lines) == 5
    assert lines[4].endswith(f"scores such examples as empty (and {n_missing - 1} more)")


def test_what_is_missing_alone_is_named(tmp_path):
    lines = message_of(tmp_path / "p.jsonl", CASE.rows()[:-9])
    assert sum("no prediction for" in line for line in lines) == errors.LIKE
    assert lines[-1] == "  … and 6 more like these"


def test_masks_of_a_wrong_size_do_not_explain_what_is_missing(tmp_path):
    rows = CASE.rows()[:-2]
    rows[0]["segmentation"] = mask_of(0, size=[1, 1])
    lines = message_of(tmp_path / "p.jsonl", rows)
    assert lines[-1].endswith("scores such examples as empty (and 1 more)")


@pytest.mark.parametrize("suffix", ["npz", "zip", "tar", "pt", "safetensors", "parquet", "json"])
def test_a_file_that_cannot_be_read_is_its_error_and_one_line(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(b"nothing" * 100)
    lines = str(problems_of(path, STORE)).splitlines()
    assert lines[0].endswith(f"(1 malformed, {N} missing); nothing was scored")
    assert lines[1].startswith(f"  {path}: malformed: ")
    assert lines[2:] == [
        f"  missing: {N} examples have no prediction; the mistakes above may be why"
    ]


def test_one_bad_shard_does_not_hide_behind_the_others(tmp_path):
    """It is named first, whatever else is wrong."""
    rows = CASE.rows()
    for k in range(10):
        rows[k]["segmentation"] = mask_of(k, size=[1, 1])
    write_jsonl(tmp_path / "a.jsonl", rows[:-9])
    (tmp_path / "b.npz").write_bytes(b"nothing")
    error = problems_of([tmp_path / "a.jsonl", tmp_path / "b.npz"], STORE)
    lines = str(error).splitlines()
    assert "b.npz: malformed" in lines[1]
    assert "wrong size" in lines[2]
    assert error.problems[0].kind == "wrong size"


def test_more_mistakes_than_are_kept_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "KEPT", 5)
    rows = CASE.rows()
    for k in range(20):
        rows[k]["segmentation"] = mask_of(k, size=[1, 1])
    lines = message_of(tmp_path / "p.jsonl", rows[:-1])
    assert lines[-3:-1] == [
        "  … and 2 more like these",
        "  … and 15 more after these, not told apart",
    ]
    assert lines[-1] == "  missing: 1 example has no prediction"
