"""Every source and shape of the same content must give the same tables and the same fingerprint."""

import json
import random
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hub import CARD, SHA, run
from pycocotools import mask as coco_mask
from refer_sets import publish

from refcocom_gpu.dataset import sources
from refcocom_gpu.dataset.records import from_arrow
from refcocom_gpu.dataset.records.tables import compress
from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import DatasetError, UsageError

REAL = Path(__file__).parents[2] / "shared/data/real/refcoco/refcoco_m_like.jsonl"
NAME = "validation-{:05}-of-{:05}.parquet"
IMAGE_BYTES = b"\xab\xcd" * 5000


def make_records(n_images: int = 5) -> list[dict]:
    """Small records in the published shape, one image without a sample, some samples without a sentence."""
    rng = random.Random(0)
    records = []
    for i in range(n_images):
        samples = []
        for k in range(i % 4):
            height, width = rng.randrange(1, 9), rng.randrange(1, 9)
            bits = np.array(
                [[rng.random() < 0.5 for _ in range(width)] for _ in range(height)], np.uint8
            )
            rle = coco_mask.encode(np.asfortranarray(bits))
            sample = {
                "id": 1000 - 10 * i + k,
                "image_id": 7 * i,
                "category": "Zürich cow",
                "supercategory": "animal",
            }
            sample |= {
                "label": "cow",
                "sentences": [f"cow № {j} of {i}" for j in range((i + k) % 3)],
            }
            sample |= {"bbox": [0.0, 1.5, 2.0, 3.0]}
            samples.append(
                sample | {"mask": {"counts": rle["counts"].decode(), "size": rle["size"]}}
            )
        records.append({"image_id": 7 * i, "file_name": f"{i}.jpg", "samples": samples})
    return records


def prose(record: dict) -> dict:
    """The shape the card describes in words: the id and the size of the image in `image_meta`."""
    sizes = [s["mask"]["size"] for s in record["samples"]] or [[1, 1]]
    meta = {"image_id": record["image_id"]}
    if len({tuple(size) for size in sizes}) == 1:
        meta |= {"height": sizes[0][0], "width": sizes[0][1]}
    samples = [
        {k: v for k, v in s.items() if k not in ("image_id", "label")} for s in record["samples"]
    ]
    return {"image_meta": meta, "file_name": record["file_name"], "samples": samples}


def with_image(record: dict) -> dict:
    return {"image": {"bytes": IMAGE_BYTES, "path": "x.jpg"}} | record


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def write_shards(folder: Path, records: list[dict], name: str = NAME) -> Path:
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([with_image(r) for r in records])
    half = len(records) // 2
    for i, part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(part, folder / name.format(i, 2), row_group_size=2)
    return folder


def assert_same(found: Dataset, expected: Dataset, absent: tuple[str, ...] = ()) -> None:
    assert found.fingerprint == expected.fingerprint
    for name in ("images", "samples", "examples"):
        tables = [getattr(one, name) for one in (found, expected)]
        if name == "samples":
            for column in absent:
                assert set(tables[0][column].to_pylist()) <= {"", None}
            tables = [table.drop_columns(absent) for table in tables]
        assert tables[0].equals(tables[1]), name


@pytest.fixture(autouse=True)
def _published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made records count as the published ones, so that folders of them load without the warning."""
    publish(monkeypatch, "refcoco-m", 5, 6, 6)


@pytest.fixture
def records() -> list[dict]:
    return make_records()


@pytest.fixture
def expected(tmp_path: Path, records: list[dict]) -> Dataset:
    return load_dataset(write_jsonl(tmp_path / "expected.jsonl", records))


# The content itself -------------------------------------------------------------------------------


def test_tables_hold_what_the_records_say(expected: Dataset, records: list[dict]) -> None:
    flat = [(row, s) for row, r in enumerate(records) for s in r["samples"]]
    assert expected.images["image_id"].to_pylist() == [r["image_id"] for r in records]
    assert expected.images["file_name"].to_pylist() == [r["file_name"] for r in records]
    assert expected.samples["sample_id"].to_pylist() == [s["id"] for _, s in flat]
    assert expected.samples["image"].to_pylist() == [row for row, _ in flat]
    assert expected.samples["position"].to_pylist() == [
        i for r in records for i in range(len(r["samples"]))
    ]
    assert expected.samples["counts"].to_pylist() == [s["mask"]["counts"].encode() for _, s in flat]
    assert expected.heights.tolist() == [s["mask"]["size"][0] for _, s in flat]
    assert expected.widths.tolist() == [s["mask"]["size"][1] for _, s in flat]
    sentences = [
        (row, i, t) for row, (_, s) in enumerate(flat) for i, t in enumerate(s["sentences"])
    ]
    assert [tuple(e.values())[:3] for e in expected.examples.to_pylist()] == sentences
    assert expected.refer_ids == ()
    assert (expected.n_images, expected.n_samples, expected.n_examples) == (5, 6, len(sentences))
    assert (
        expected.first_example.tolist()
        == np.cumsum([0] + [len(s["sentences"]) for _, s in flat]).tolist()
    )
    assert expected.samples.schema.field("counts").type == pa.large_binary()
    assert "5 images, 6 samples" in repr(expected)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is absent")
def test_real_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "refcoco-m", 22, 42, 179)
    real = load_dataset(REAL)
    assert (real.n_images, real.n_samples, real.n_examples) == (22, 42, 179)
    assert real.counts_as_published is True
    rows = [json.loads(line) for line in REAL.read_text().splitlines()]
    for row in rows:
        row.pop("image")
        row["samples"] = [
            {k: v for k, v in s.items() if not k.startswith("_")} for s in row["samples"]
        ]
    assert_same(load_dataset(write_shards(tmp_path / "snapshot", rows)), real)
    masks = zip(real.samples["counts"].to_pylist(), real.heights, real.widths, strict=True)
    areas = [
        int(coco_mask.area({"size": [int(h), int(w)], "counts": counts})) for counts, h, w in masks
    ]
    assert min(areas) > 0


def test_sample_source() -> None:
    first, second = load_dataset("sample"), load_dataset("sample")
    assert first.fingerprint == second.fingerprint
    assert (first.source, first.revision) == ("sample", None)
    assert first.n_examples > first.n_samples > 0


# Shapes and sources -------------------------------------------------------------------------------


def test_prose_shape(tmp_path: Path, records: list[dict], expected: Dataset) -> None:
    words = [prose(r) for r in records]
    absent = ("label",)
    assert_same(load_dataset(write_jsonl(tmp_path / "prose.json", words)), expected, absent)
    assert_same(load_dataset(write_shards(tmp_path / "prose", words)), expected, absent)


def test_list_form_counts(tmp_path: Path, records: list[dict], expected: Dataset) -> None:
    for record in records:
        for sample in record["samples"]:
            bits = coco_mask.decode(sample["mask"]).ravel(order="F")
            edges = np.flatnonzero(np.diff(np.concatenate([[0], bits])))
            sample["mask"]["counts"] = np.diff([0, *edges, bits.size]).tolist()
    assert_same(load_dataset(write_jsonl(tmp_path / "runs.jsonl", records)), expected)
    assert_same(load_dataset(write_shards(tmp_path / "runs", records)), expected)


def test_compress_is_pycocotools() -> None:
    rng = random.Random(1)
    for _ in range(200):
        runs = [rng.randrange(0, 10 ** rng.randrange(1, 6)) for _ in range(rng.randrange(1, 12))]
        rle = coco_mask.frPyObjects({"size": [sum(runs), 1], "counts": runs}, sum(runs), 1)
        assert compress(runs) == rle["counts"]


def test_negative_run_names_the_sample(tmp_path: Path, records: list[dict]) -> None:
    for record in records:
        for sample in record["samples"]:
            sample["mask"]["counts"] = [3, -1]
    with pytest.raises(DatasetError, match=r"sample 990: .*run 1 is negative"):
        load_dataset(write_shards(tmp_path / "negative", records))
    with pytest.raises(DatasetError, match=r"negative.jsonl:2: sample 990: .*>= 0"):
        load_dataset(write_jsonl(tmp_path / "negative.jsonl", records))


def retyped(kind: pa.DataType, like: pa.DataType) -> pa.DataType:
    """`kind` with every string replaced by `like`."""
    if pa.types.is_string(kind):
        return like
    if pa.types.is_list(kind):
        return pa.list_(retyped(kind.value_type, like))
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, retyped(f.type, like)) for f in kind])
    return kind


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_arrow_string_types(
    tmp_path: Path, records: list[dict], expected: Dataset, kind: pa.DataType
) -> None:
    schema = pa.Table.from_pylist([with_image(r) for r in records]).schema
    schema = pa.schema(
        [(f.name, retyped(f.type, kind) if f.name != "image" else f.type) for f in schema]
    )
    table = pa.Table.from_pylist([with_image(r) for r in records], schema=schema)
    if (
        kind != pa.string_view()
    ):  # which this Arrow reads from Parquet but cannot write in row groups
        pq.write_table(table, tmp_path / "one.parquet")
        assert_same(load_dataset(tmp_path / "one.parquet"), expected)
    assert from_arrow(table, "memory").samples["counts"].equals(expected.samples["counts"])


def test_other_list_types(records: list[dict], expected: Dataset) -> None:
    plain = pa.Table.from_pylist(records).schema
    sample = plain.field("samples").type.value_type
    size = pa.struct([("counts", pa.string()), ("size", pa.list_(pa.int32(), 2))])
    fields = [(f.name, size if f.name == "mask" else f.type) for f in sample]
    schema = plain.set(
        plain.get_field_index("samples"), pa.field("samples", pa.large_list(pa.struct(fields)))
    )
    columns = from_arrow(pa.Table.from_pylist(records, schema=schema), "memory")
    assert columns.samples["height"].equals(expected.samples["height"])
    assert columns.examples.equals(expected.examples)


@pytest.mark.parametrize(
    "nested", [False, True], ids=["mask is a list", "mask is a struct of lists"]
)
def test_struct_of_lists(
    tmp_path: Path, records: list[dict], expected: Dataset, nested: bool
) -> None:
    names = list(records[1]["samples"][0])
    for record in records:
        columns = {name: [s[name] for s in record["samples"]] for name in names}
        if nested:
            columns["mask"] = {k: [m[k] for m in columns["mask"]] for k in ("counts", "size")}
        record["samples"] = columns
    assert_same(load_dataset(write_shards(tmp_path / "old", records)), expected)
    records[1]["samples"]["category"].append("one too many")
    with pytest.raises(DatasetError, match=r"image record 1: .*differ in length"):
        load_dataset(write_shards(tmp_path / "uneven", records))


def test_chunks_and_slices(records: list[dict], expected: Dataset) -> None:
    table = pa.Table.from_pylist(records)
    pieces = pa.concat_tables(
        [table.slice(3), table.slice(0, 2), table.slice(2, 2), table.slice(4)]
    )
    whole, sliced = (
        from_arrow(t, "memory") for t in (table, pieces.slice(len(records) - 3, len(records)))
    )
    assert all(a.equals(b) for a, b in zip(whole, sliced, strict=True))
    assert whole.examples.equals(expected.examples)


@pytest.mark.parametrize("place", ["data", ".", "master/validation", "parquet/default/val"])
@pytest.mark.parametrize("name", [NAME, "part{}of{}.parquet"])
def test_folder_layouts(
    tmp_path: Path, records: list[dict], expected: Dataset, place: str, name: str
) -> None:
    root = tmp_path / "root" / "snapshot"
    write_shards(root / place, records, name)
    hidden = root / ".cache" / "huggingface"
    hidden.mkdir(parents=True)
    (hidden / "validation.parquet").write_bytes(b"unfinished")
    assert_same(load_dataset(root), expected)
    assert_same(load_dataset(str(root)), expected)


def test_split_is_chosen(tmp_path: Path, records: list[dict], expected: Dataset) -> None:
    write_shards(tmp_path / "s" / "data", records)
    pq.write_table(
        pa.Table.from_pylist(records[:2]), tmp_path / "s" / "data" / "train-00000-of-00001.parquet"
    )
    assert_same(load_dataset(tmp_path / "s"), expected)
    with pytest.raises(UsageError, match=r"no split 'test'.*train, validation"):
        load_dataset(tmp_path / "s", split="test")


def test_missing_shard(tmp_path: Path, records: list[dict]) -> None:
    write_shards(tmp_path / "s", records)
    (tmp_path / "s" / NAME.format(1, 2)).unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 2 shards, first validation-00001-of-00002"):
        load_dataset(tmp_path / "s")


def test_cache_layout_records_the_commit(
    tmp_path: Path, records: list[dict], expected: Dataset
) -> None:
    repo = tmp_path / "datasets--moondream--refcoco-m"
    snapshot = repo / "snapshots" / SHA
    write_shards(snapshot / "data", records)
    for path in (repo, snapshot, snapshot / "data"):
        loaded = load_dataset(path, revision=SHA)
        assert_same(loaded, expected)
        assert loaded.revision == SHA
    with pytest.raises(UsageError, match=f"revision=main was asked for, but .* has commit {SHA}"):
        load_dataset(snapshot, revision="main")
    (repo / "snapshots" / ("f" * 40)).mkdir()
    with pytest.raises(UsageError, match=f"2 snapshots; pass one: {SHA}, ffff"):
        load_dataset(repo)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(SHA)
    assert load_dataset(repo).revision == SHA


def test_revision_of_a_plain_path(tmp_path: Path, records: list[dict]) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", records)
    with pytest.raises(UsageError, match="no recorded commit"):
        load_dataset(path, revision="main")


@pytest.mark.parametrize("as_dict", [False, True])
def test_save_to_disk(
    tmp_path: Path, records: list[dict], expected: Dataset, as_dict: bool
) -> None:
    import datasets

    saved = datasets.Dataset.from_list([with_image(r) for r in records])
    saved = saved.cast_column("image", datasets.Image())
    if as_dict:
        saved = datasets.DatasetDict({"validation": saved, "test": saved.select([1])})
    saved.save_to_disk(str(tmp_path / "saved"))
    assert_same(load_dataset(tmp_path / "saved"), expected)
    if as_dict:
        with pytest.raises(UsageError, match="no split 'train'; it holds validation, test"):
            load_dataset(tmp_path / "saved", split="train")


def test_save_to_disk_of_the_sequence_feature(
    tmp_path: Path, records: list[dict], expected: Dataset
) -> None:
    from datasets import Dataset as ArrowDataset
    from datasets import Features, Sequence, Value

    mask = {"counts": Value("large_string"), "size": Sequence(Value("int32"), length=2)}
    sample = {"id": Value("int64"), "category": Value("string"), "supercategory": Value("string")}
    sample |= {"sentences": Sequence(Value("string")), "mask": mask}
    features = Features(
        {"image_id": Value("int32"), "file_name": Value("string"), "samples": Sequence(sample)}
    )
    for record in records:
        record["samples"] = {name: [s[name] for s in record["samples"]] for name in sample}
    saved = ArrowDataset.from_list(records, features=features)
    saved.save_to_disk(str(tmp_path / "saved"))
    assert_same(load_dataset(tmp_path / "saved"), expected, ("label", "bbox"))


def test_image_bytes_are_never_touched(
    tmp_path: Path, records: list[dict], expected: Dataset
) -> None:
    folder = write_shards(tmp_path / "s", records)
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                column = file.metadata.row_group(group).column(0)
                assert column.path_in_schema == "image.bytes"
                start = column.dictionary_page_offset or column.data_page_offset
                data[start : start + column.total_compressed_size] = (
                    b"\xff" * column.total_compressed_size
                )
        path.write_bytes(data)
        with pytest.raises(OSError, match=r"(?i)thrift|corrupt|deserialize|invalid"):
            pq.read_table(path)
    assert_same(load_dataset(folder), expected)


def test_path_wins_over_a_name(
    tmp_path: Path, records: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "moondream" / "refcoco-m", records)
    monkeypatch.chdir(tmp_path)
    assert load_dataset().n_images == len(records)


# Fingerprint --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(id=1),
        lambda s: s.update(category="x"),
        lambda s: s.update(supercategory="x"),
        lambda s: s["sentences"].append("x"),
        lambda s: s["sentences"].__setitem__(0, "x"),
        lambda s: s["mask"].update(counts="x"),
        lambda s: s["mask"].update(size=s["mask"]["size"][::-1]),
    ],
)
def test_fingerprint_follows_content(
    tmp_path: Path, records: list[dict], expected: Dataset, change
) -> None:
    sample = records[4 - 1]["samples"][1]
    sample["mask"]["size"][0] += 40
    before = load_dataset(write_jsonl(tmp_path / "before.jsonl", records)).fingerprint
    change(sample)
    after = load_dataset(write_jsonl(tmp_path / "after.jsonl", records)).fingerprint
    assert len({expected.fingerprint, before, after}) == 3
    assert len(after) == 32


def test_fingerprint_tells_where_a_string_ends(tmp_path: Path, records: list[dict]) -> None:
    prints = set()
    for pair in (["ab", "c"], ["a", "bc"], ["abc", ""]):
        records[1]["samples"][0]["sentences"] = pair
        prints.add(load_dataset(write_jsonl(tmp_path / "x.jsonl", records)).fingerprint)
    assert len(prints) == 3


# Keys ---------------------------------------------------------------------------------------------


def test_index_of(expected: Dataset) -> None:
    ids = expected.sample_ids[expected.example_sample]
    order = np.random.default_rng(0).permutation(expected.n_examples)
    assert (
        expected.index_of(ids[order], expected.example_sentence_idx[order]).tolist()
        == order.tolist()
    )
    wrong_id, wrong_idx = np.array([ids[0], ids[0], -1, 10**12, 0]), np.array([-1, 99, 0, 0, 0])
    assert expected.index_of(wrong_id, wrong_idx).tolist() == [-1] * 5
    silent = expected.sample_ids[np.diff(expected.first_example) == 0]
    assert len(silent) > 0
    assert set(expected.index_of(silent, np.zeros(len(silent), np.int64))) == {-1}
    assert expected.index_of(np.array([], np.int64), np.array([], np.int64)).shape == (0,)
    assert expected.example_key_fields == ("sample_id", "sentence_idx")
    with pytest.raises(UsageError, match="index_of"):
        expected.index_of_position(ids, ids, ids)


def test_duplicate_ids_and_the_position_key(tmp_path: Path, records: list[dict]) -> None:
    for record in records:
        for k, sample in enumerate(record["samples"]):
            sample["id"] = k
    path = write_jsonl(tmp_path / "d.jsonl", records)
    with pytest.raises(
        DatasetError, match=r"sample id 0 is not unique: rows 0 and 1 .*image_position"
    ):
        load_dataset(path)
    loaded = load_dataset(path, key="image_position")
    assert loaded.example_key_fields == ("image_id", "position", "sentence_idx")
    sample = loaded.example_sample
    image_id, position = loaded.image_ids[loaded.sample_image[sample]], loaded.positions[sample]
    found = loaded.index_of_position(image_id, position, loaded.example_sentence_idx)
    assert found.tolist() == list(range(loaded.n_examples))
    unknown = loaded.index_of_position(
        np.array([-5, 7, 7, 0]), np.array([0, -1, 50, 0]), np.array([0, 0, 0, 0])
    )
    assert unknown.tolist() == [-1] * 4
    with pytest.raises(UsageError, match="index_of_position"):
        loaded.index_of(image_id, position)
    records[2]["image_id"] = records[3]["image_id"]
    with pytest.raises(DatasetError, match="image_id 21 is not unique"):
        load_dataset(write_jsonl(path, records), key="image_position")
    with pytest.raises(UsageError, match="key='id'"):
        load_dataset(path, key="id")  # type: ignore[arg-type]


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "as_json", "as_arrow"),
    [
        (
            lambda s: s.pop("id"),
            "missing.*`id`.*found: image_id, category",
            "missing id .*found: category",
        ),
        (
            lambda s: s["mask"].pop("counts"),
            "sample 980.*`counts`.*found: size",
            "missing mask.counts",
        ),
        (
            lambda s: s.update(masks=s.pop("mask")),
            "`mask`.*found: .*masks",
            "missing mask.counts.*found: .*masks",
        ),
        (
            lambda s: s.update(sentence=s.pop("sentences")),
            "`sentences`.*sentence",
            "missing sentences.*sentence",
        ),
        (lambda s: s.update(mask=None), "sample 980: .*null", "sample 980: mask"),
        (
            lambda s: s["mask"].update(size=[0, 3]),
            "sample 980: .*>= 1",
            r"sample 980: mask.size \[0, 3\]",
        ),
        (
            lambda s: s["mask"].update(size=[3]),
            "sample 980: .*length 2",
            r"sample 980: mask.size is \[3\]",
        ),
        (
            lambda s: s["mask"].update(size=None),
            "sample 980: .*null",
            "sample 980: mask.size is null",
        ),
        (
            lambda s: s["sentences"].append(None),
            "sample 980: .*null",
            "sample 980: sentence is null",
        ),
        (lambda s: s.update(sentences="a cow"), "sample 980: .*array", "sentences must be a list"),
        (lambda s: s.update(id="x7"), "Expected `int`", "(?i)failed to parse|could not convert|x7"),
    ],
)
def test_mistakes_name_the_record(
    tmp_path: Path, records: list[dict], change, as_json: str, as_arrow: str
) -> None:
    del records[3:]
    change(records[2]["samples"][0])
    with pytest.raises(DatasetError, match=r"m\.jsonl:3: .*" + as_json):
        load_dataset(write_jsonl(tmp_path / "m.jsonl", records))
    for other in (records[1]["samples"][0], records[2]["samples"][1]):
        if "null" not in as_json and "sample 980" not in as_arrow:
            change(other)
    with pytest.raises(DatasetError, match=as_arrow):
        load_dataset(write_shards(tmp_path / "m", records))


@pytest.mark.parametrize("name", ["image_id", "samples"])
def test_missing_record_fields(tmp_path: Path, records: list[dict], name: str) -> None:
    for record in records:
        del record[name]
    with pytest.raises(DatasetError, match=rf"r.jsonl:1: .*missing.*{name}.*found: .*file_name"):
        load_dataset(write_jsonl(tmp_path / "r.jsonl", records))
    with pytest.raises(
        DatasetError, match=f"missing {name} in the records; fields found: .*file_name"
    ):
        load_dataset(write_shards(tmp_path / "r", records))


def test_malformed_lines_are_all_counted(tmp_path: Path, records: list[dict]) -> None:
    good = [json.dumps(r).encode() for r in records]
    bad = [b'{"image_id": 1, "samples": [', b"[]", b'{"file_name": "\xff"}'] * 10
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([good[0], b"", *bad, *good[1:]]) + b"\n\n")
    with pytest.raises(DatasetError, match="30 malformed") as caught:
        load_dataset(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert f"{path}:3: " in lines[1]
    assert lines[-1].strip() == "… and 10 more"


def test_nothing_to_score(tmp_path: Path, records: list[dict]) -> None:
    with pytest.raises(DatasetError, match="no sentence"):
        load_dataset(write_jsonl(tmp_path / "e.jsonl", records[:1]))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DatasetError, match="0 images"):
        load_dataset(tmp_path / "empty.jsonl")
    pq.write_table(pa.Table.from_pylist(records).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DatasetError, match=r"no records|0 images"):
        load_dataset(tmp_path / "empty.parquet")


def test_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DatasetError, match=r"x\.parquet: cannot be read as Parquet"):
        load_dataset(tmp_path / "x.parquet")


def test_image_meta_disagrees(tmp_path: Path, records: list[dict]) -> None:
    words = [prose(r) for r in records]
    words[1]["image_meta"]["height"] += 1
    words[3]["image_meta"]["width"] = 1000
    path = write_jsonl(tmp_path / "w.jsonl", words)
    with pytest.warns(UserWarning, match="image 7: image_meta states .*likewise 1 more") as caught:
        loaded = load_dataset(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert loaded.heights[0] == records[1]["samples"][0]["mask"]["size"][0]


def test_published_difference(
    tmp_path: Path, records: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, "refcoco-m", 1190, 2080, 5598)
    folder = write_shards(tmp_path / "s", records)
    with pytest.warns(
        UserWarning, match="5 images where RefCOCO-M has 1,190, 6 samples where RefCOCO-M has 2,080"
    ) as caught:
        loaded = load_dataset(folder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert loaded.published_difference() == str(caught[0].message)
    assert loaded.counts_as_published is False
    # One file of a folder is not meant to be the set.
    assert load_dataset(folder / NAME.format(1, 2)).counts_as_published is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sampel", "did you mean sample"),
        ("./validaton", "did you mean .*validation"),
        ("no/such/place.jsonl", "exists and has no no"),
        ("/no-such-place/x", "exists and has no no-such-place"),
    ],
)
def test_no_such_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "validation").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_dataset(source)
    (tmp_path / "x.csv").touch()
    with pytest.raises(UsageError, match="expected a folder or a file named"):
        load_dataset("x.csv")
    with pytest.raises(UsageError, match="holds no Parquet file"):
        load_dataset("validation")


# The Hub, and what is imported --------------------------------------------------------------------


def test_local_sources_import_little(tmp_path: Path, records: list[dict]) -> None:
    paths = [write_shards(tmp_path / "s", records), write_jsonl(tmp_path / "r.jsonl", records)]
    code = "import sys, warnings; warnings.simplefilter('ignore')\n"
    code += "from refcocom_gpu.dataset.table import load_dataset\n"
    code += f"for p in {[*map(str, paths), 'sample']}: assert load_dataset(p).n_examples\n"
    code += "print([m for m in ('torch', 'datasets', 'huggingface_hub') if m in sys.modules])"
    done = run(code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


LOAD = """
import sys, warnings; warnings.simplefilter("ignore")
from refcocom_gpu.dataset.table import load_dataset
for name, revision in {wanted!r}:
    try:
        d = load_dataset(name, revision=revision)
        print("loaded", d.fingerprint, d.revision, "torch" in sys.modules)
    except ValueError as error:
        assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
        print(type(error).__name__, error)
"""


def load(*revisions: str | None, name: str = "own/name") -> str:
    """Code that loads each of some revisions and prints a line about each: one process, as its start takes longest."""
    return LOAD.format(wanted=[(name, revision) for revision in revisions])


def test_offline_without_a_cache(tmp_path: Path) -> None:
    done = run(load(None), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.stdout.strip() == (
        "DatasetError cannot reach the Hub and own/name is not in the local cache; download it elsewhere and pass "
        "dataset.path=/path/to/snapshot, or copy that cache here (HF_HOME) and set HF_HUB_OFFLINE=1"
    )


@pytest.mark.parametrize("is_listening", [True, False], ids=["never answers", "closed port"])
def test_a_hub_that_cannot_be_reached_is_one_line(
    hub, records: list[dict], expected: Dataset, tmp_path: Path, is_listening: bool
) -> None:
    """What is cached is used all the same, and the client tries nothing again."""
    root, env = hub
    write_shards(root / "data", records)
    (root / "README.md").write_text(CARD)
    assert run(load(None), **env).stdout.startswith("loaded")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_listening:
            server.listen()
        nowhere = {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
        nowhere["HF_HUB_ETAG_TIMEOUT"] = "1"
        cached = run(load(None), **env | nowhere)
        absent = run(load(None), **nowhere, HF_HOME=str(tmp_path / "empty"))
    assert cached.stdout.strip() == f"loaded {expected.fingerprint} {SHA} False"
    assert absent.stdout.startswith("DatasetError cannot reach the Hub and own/name is not in the")
    assert "HF_HUB_OFFLINE=1" in absent.stdout
    assert len(absent.stdout.splitlines()) == 1
    assert absent.stderr == ""
    assert "Retry" not in cached.stderr


@pytest.mark.parametrize("shape", ["published, card", "published, no card", "prose"])
def test_hub(hub, records: list[dict], expected: Dataset, shape: str) -> None:
    root, env = hub
    write_shards(root / "data", [prose(r) for r in records] if shape == "prose" else records)
    (root / "README.md").write_text(CARD if shape == "published, card" else "nothing")
    wanted = f"loaded {expected.fingerprint} {SHA} False"
    done = run(load(None), **env)
    assert done.stdout.strip() == wanted, done.stderr
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    *known, other = run(load(None, SHA, "main", "f" * 40), **offline).stdout.splitlines()
    assert known == [wanted] * 3
    assert other.startswith(
        f"DatasetError cannot reach the Hub and own/name at revision {'f' * 40} is not in"
    )


def test_hub_says_no(hub, records: list[dict]) -> None:
    root, env = hub
    write_shards(root / "data", records)
    assert "DatasetError own/name: Revision 'v9' doesn't exist" in run(load("v9"), **env).stdout
    absent = run(load(None, name="own/other"), **env).stdout
    assert absent.startswith("DatasetError own/other: Dataset 'own/other' doesn't exist on the Hub")


def test_only_what_is_asked_of_parquet(tmp_path: Path, records: list[dict]) -> None:
    folder = write_shards(tmp_path / "s", records)
    read = sources._project(folder / NAME.format(0, 2))
    assert read.schema.names == ["image_id", "file_name", "samples"]
    sample = read.schema.field("samples").type.value_type
    names = {"id", "category", "supercategory", "sentences", "mask", "label", "bbox"}
    assert {f.name for f in sample} == names
    assert pc.sum(pc.list_value_length(read["samples"])).as_py() == sum(
        len(r["samples"]) for r in records[:2]
    )
