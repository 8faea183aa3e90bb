"""Every batch says which examples it holds, whatever a transform, collator, sampler or worker does to the rest."""

import functools
import pickle
from collections import UserDict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from helpers import pictured, real_file, unpictured
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, DistributedSampler, Subset, default_collate

import refcocom_gpu as rc
from refcocom_gpu.dataset.images import Images

RECORDS, PIXELS = pictured()
N = 15
SENTENCES = [text for r in RECORDS for sample in r["samples"] for text in sample["sentences"]]
PICTURE = [image for image in range(5) for _ in range(3)]
"""Of each example."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return unpictured(tmp_path / "r.jsonl", RECORDS)


@pytest.fixture
def dataset(path: Path) -> rc.Dataset:
    return rc.load_dataset(path)


@pytest.fixture
def examples(dataset: rc.Dataset, path: Path) -> rc.ExpressionDataset:
    return rc.ExpressionDataset(dataset, images=path.parent)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the pictures that are decoded, as they are."""
    rows: list[int] = []
    decode = Images.__getitem__

    def counted(images: Images, row: int):
        rows.append(row)
        return decode(images, row)

    monkeypatch.setattr(Images, "__getitem__", counted)
    return rows


def assert_batch(batch, indices) -> None:
    """Pictures and sentences are those of the examples that `index` names, and these are the expected ones."""
    assert batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == list(indices)
    assert batch["sentence"] == [SENTENCES[i] for i in indices]
    for i, picture in zip(indices, batch["image"], strict=True):
        np.testing.assert_array_equal(np.asarray(picture), PIXELS[PICTURE[i]])


def resized(item: dict) -> dict:
    """What users do: pixels of one size, tokens of any length, and not a word of the index."""
    pixels = torch.from_numpy(np.array(item["image"].resize((8, 8))))
    return {"pixel_values": pixels, "input_ids": torch.arange(len(item["sentence"]))}


# Items --------------------------------------------------------------------------------------------


def test_items(examples: rc.ExpressionDataset, dataset: rc.Dataset) -> None:
    assert len(examples) == N == dataset.n_examples
    for i in (3, 0, N - 1, -1, -N, np.int64(7), torch.tensor(7)):
        item = examples[i]
        assert set(item) == {"image", "sentence", "index"}
        assert type(item["index"]) is int
        assert_batch(rc.collate([item]), [int(i) % N])
    for i in (N, -N - 1):
        with pytest.raises(IndexError):
            examples[i]
    with pytest.raises(TypeError):
        examples[0:2]
    assert [item["index"] for item in examples] == list(range(N))


def test_the_sample_has_pictures() -> None:
    examples = rc.ExpressionDataset(rc.load_dataset("sample"), indices=[5, 50])
    for item in examples:
        assert item["image"].size[::-1] == (
            examples.dataset.described["height"][item["index"]].as_py(),
            examples.dataset.described["width"][item["index"]].as_py(),
        )


def test_real_pictures() -> None:
    dataset = rc.load_dataset(real_file("refcoco/refcoco_m_like.jsonl"))
    folder = real_file("refcoco/images")
    names = dataset.images["file_name"].to_pylist()
    images = dataset.sample_image[dataset.example_sample]
    there = [i for i, image in enumerate(images) if (folder / names[image]).exists()]
    examples = rc.ExpressionDataset(dataset, images=folder, indices=there)
    assert 7 < len(examples) < dataset.n_examples
    seen = [i for batch in DataLoader(examples, 8, collate_fn=rc.collate) for i in batch["index"]]
    assert seen == there


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, lambda x: np.uint8(x)])
def test_indices(dataset: rc.Dataset, path: Path, make) -> None:
    wanted = [9, 2, 14, 0]
    examples = rc.ExpressionDataset(dataset, images=path.parent, indices=make(wanted))
    assert len(examples) == 4
    assert (examples.indices.dtype, examples.indices.tolist()) == (np.int64, wanted)
    assert_batch(rc.collate(list(examples)), wanted)
    assert examples[-1]["index"] == 0


def test_no_indices(dataset: rc.Dataset, path: Path) -> None:
    assert len(rc.ExpressionDataset(dataset, images=path.parent, indices=[])) == 0


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 15, 16], r"15 is no row number of the 15 examples \(0…14\); 2 such"),
        ([-1], "-1 is no row number"),
        ([3, 1, 3], "3 is repeated; 1 such"),
        ([0.0, 1.0], "row numbers, not float64"),
        ([True] * N, "row numbers, not bool"),
        ([[0, 1]], r"of shape \(1, 2\)"),
        (["a"], "row numbers, not <U1"),
    ],
)
def test_wrong_indices(dataset: rc.Dataset, path: Path, indices, message: str) -> None:
    with pytest.raises(rc.UsageError, match=message):
        rc.ExpressionDataset(dataset, images=path.parent, indices=indices)


def test_no_pictures(dataset: rc.Dataset) -> None:
    with pytest.raises(rc.UsageError, match="holds no pictures; pass the folder"):
        rc.ExpressionDataset(dataset)


# Each picture once --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 2, 4, N])
def test_a_pass_in_order_decodes_each_picture_once(dataset, path, decoded, batch_size) -> None:
    for indices in (None, range(N - 1, -1, -1)):
        decoded.clear()
        examples = rc.ExpressionDataset(dataset, images=path.parent, indices=indices)
        collate = rc.collate if batch_size else None
        assert len(list(DataLoader(examples, batch_size, collate_fn=collate))) > 0
        assert sorted(decoded) == [0, 1, 2, 3, 4]


def test_a_batch_decodes_each_picture_once(tmp_path: Path, decoded) -> None:
    records, pixels = pictured(12)
    path = unpictured(tmp_path / "many.jsonl", records)
    examples = rc.ExpressionDataset(rc.load_dataset(path), images=tmp_path)
    positions = np.random.default_rng(0).permutation(36).tolist()
    items = examples.__getitems__(positions)
    assert sorted(decoded) == list(range(12))
    assert [item["index"] for item in items] == positions
    for item in items:
        np.testing.assert_array_equal(np.asarray(item["image"]), pixels[item["index"] // 3])


def test_a_transform_cannot_spoil_another_s_picture(dataset, path, decoded) -> None:
    def scribble(item: dict) -> dict:
        np.testing.assert_array_equal(np.asarray(item["image"]), PIXELS[PICTURE[item["index"]]])
        ImageDraw.Draw(item["image"]).rectangle((0, 0, 9, 9), fill="red")
        item["image"].thumbnail((4, 4))
        item["image"].info["exif"] = b""
        return item

    examples = rc.ExpressionDataset(dataset, images=path.parent, transform=scribble)
    for _ in range(2):
        assert len(examples.__getitems__(range(N))) == N
    assert len(decoded) == 2 * 5


# Transforms ---------------------------------------------------------------------------------------


def transformed(dataset, path, transform):
    return rc.ExpressionDataset(dataset, images=path.parent, transform=transform)[5]


def test_index_is_put_back(dataset: rc.Dataset, path: Path) -> None:
    item = transformed(dataset, path, resized)
    assert list(item) == ["pixel_values", "input_ids", "index"]
    assert item["index"] == 5


@pytest.mark.parametrize(
    "keep",
    [
        lambda item: item,
        lambda item: UserDict(item),
        lambda item: MappingProxyType(item),
        lambda item: {**item, "index": torch.tensor(item["index"])},
        lambda item: {**item, "index": np.array(item["index"])},
    ],
)
def test_index_is_kept(dataset: rc.Dataset, path: Path, keep) -> None:
    item = transformed(dataset, path, keep)
    assert isinstance(item, dict)
    assert type(item["index"]) is int
    assert_batch(rc.collate([item]), [5])


@pytest.mark.parametrize("index", [4, -10, 5.0, "5", None, torch.tensor([5, 5])])
def test_a_changed_index_is_refused(dataset: rc.Dataset, path: Path, index) -> None:
    with pytest.raises(rc.UsageError, match=r"returned index .* for example 5; it should leave"):
        transformed(dataset, path, lambda item: {**item, "index": index})


@pytest.mark.parametrize("result", [None, 3, [1, 2]])
def test_a_transform_that_returns_no_mapping(dataset: rc.Dataset, path: Path, result) -> None:
    message = f"transform returned {type(result).__name__} for example 5"
    with pytest.raises(rc.UsageError, match=message):
        transformed(dataset, path, lambda item: result)


# Batches ------------------------------------------------------------------------------------------


def batch_of(*values, **options):
    return rc.collate([{"x": x, "index": i} for i, x in enumerate(values)], **options)["x"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], torch.tensor([1, 2])),
        ([True, False], torch.tensor([True, False])),
        ([0.1, 1], torch.tensor([0.1, 1], dtype=torch.float64)),
        ([np.float32(0.1), np.float32(2)], torch.tensor([0.1, 2])),
        ([torch.ones(2, 3), torch.zeros(2, 3)], torch.stack([torch.ones(2, 3), torch.zeros(2, 3)])),
        ([torch.tensor(3), torch.tensor(4)], torch.tensor([3, 4])),
        ([np.ones((2, 1), np.uint8)] * 2, torch.ones(2, 2, 1, dtype=torch.uint8)),
    ],
)
def test_what_becomes_a_tensor(values, expected: torch.Tensor) -> None:
    found = batch_of(*values)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    if isinstance(values[0], int | float):
        assert found.dtype == default_collate(values).dtype


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        [torch.ones(2), torch.ones(3)],
        [torch.ones(2), 1],
        [np.ones(2), np.ones((2, 1))],
        [np.ones(2), 1.0],
        [np.array(["a"]), np.array(["b"])],
        [np.str_("a"), 1],
        [2**80, 1],
        [None, 1],
        [(1, 2), (3, 4)],
        [{"a": 1}, {"a": 2}],
        [Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2))],
    ],
)
def test_what_stays_a_list(values) -> None:
    found = batch_of(*values)
    assert isinstance(found, list)
    assert all(a is b for a, b in zip(found, values, strict=True))


def test_read_only_pixels_make_a_tensor_of_their_own() -> None:
    picture = Image.new("RGB", (3, 2), (1, 2, 3))
    found = batch_of(np.asarray(picture), np.asarray(picture))
    found.zero_()
    assert picture.getpixel((0, 0)) == (1, 2, 3)


class Encoding(UserDict):
    """A mapping that moves its tensors, as those of Transformers do."""

    def moved(self) -> "Encoding":
        return Encoding({name: value.to("meta") for name, value in self.items()})


def padded(items: list[dict]) -> Encoding:
    assert not any("index" in item for item in items)
    ids = torch.nn.utils.rnn.pad_sequence([item["input_ids"] for item in items], batch_first=True)
    return Encoding({"input_ids": ids, "labels": torch.ones(len(items))})


def test_collate_with_another(dataset: rc.Dataset, path: Path) -> None:
    examples = rc.ExpressionDataset(dataset, images=path.parent, transform=resized)
    collate = functools.partial(rc.collate, collate_fn=padded)
    items = [examples[i] for i in (7, 2)]
    batch = pickle.loads(pickle.dumps(collate))(items)
    assert isinstance(batch, Encoding)
    assert batch["index"].tolist() == [7, 2]
    assert batch["input_ids"].shape == (2, len(SENTENCES[7]))
    assert batch.moved()["index"].device.type == "meta"
    assert all("index" in item for item in items)
    frozen = rc.collate(items, collate_fn=lambda items: MappingProxyType({"n": len(items)}))
    assert (frozen["n"], frozen["index"].tolist()) == (2, [7, 2])
    same = [{"x": torch.ones(3), "index": i} for i in (1, 0)]
    batch = rc.collate(same, collate_fn=default_collate)
    assert batch["index"].tolist() == [1, 0]
    assert batch["x"].shape == (2, 3)


def test_collate_with_a_data_collator_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    items = [{"input_ids": [1, 2], "label": n, "index": 10 - n} for n in (2, 3)]
    batch = rc.collate(items, transformers.default_data_collator)
    assert batch["index"].tolist() == [8, 7]
    assert batch["labels"].tolist() == [2, 3]


def test_collate_mistakes() -> None:
    with pytest.raises(rc.UsageError, match="no index, only image, sentence"):
        rc.collate([{"image": 1, "sentence": "a"}])
    with pytest.raises(rc.UsageError, match="some items of the batch lack x, y"):
        rc.collate([{"index": 0, "x": 1}, {"index": 1, "y": 2}])
    with pytest.raises(rc.UsageError, match="collate_fn returned list; it should return a dict"):
        rc.collate([{"index": 0}], collate_fn=list)


# Loaders ------------------------------------------------------------------------------------------


def test_shuffled(examples: rc.ExpressionDataset) -> None:
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(examples, 4, shuffle=True, collate_fn=rc.collate, generator=generator)
    seen = []
    for batch in loader:
        assert_batch(batch, batch["index"].tolist())
        seen += batch["index"].tolist()
    assert seen != sorted(seen) == list(range(N))


def test_subset(examples: rc.ExpressionDataset) -> None:
    loader = DataLoader(Subset(examples, [3, 14, 1]), 3, collate_fn=rc.collate)
    assert_batch(next(iter(loader)), [3, 14, 1])


def test_distributed(examples: rc.ExpressionDataset) -> None:
    seen = []
    for rank in range(2):
        sampler = DistributedSampler(examples, 2, rank, shuffle=False)
        for batch in DataLoader(examples, 4, sampler=sampler, collate_fn=rc.collate):
            assert_batch(batch, batch["index"].tolist())
            seen += batch["index"].tolist()
    assert sorted(seen) == [0, *range(N)]  # padded to equal shares


# From Python 3.12 on a fork of a process with threads is warned of; torch forks all the same.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("method", "source"), [("fork", "a folder"), ("fork", "Parquet"), ("spawn", "Parquet")]
)
def test_workers(tmp_path, path, monkeypatch, method: str, source: str) -> None:
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {method}")
    if source == "Parquet":
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
        written = datasets.Dataset.from_list(RECORDS).cast_column("image", datasets.Image())
        written.to_parquet(tmp_path / "r.parquet")
        examples = rc.ExpressionDataset(rc.load_dataset(tmp_path / "r.parquet"))
    else:
        examples = rc.ExpressionDataset(rc.load_dataset(path), images=path.parent)
    assert examples[0]["index"] == 0  # opened, and a picture kept, before the workers are made
    loader = DataLoader(
        examples, 4, num_workers=2, collate_fn=rc.collate, multiprocessing_context=method
    )
    for first, batch in zip(range(0, N, 4), loader, strict=True):
        assert_batch(batch, range(first, min(first + 4, N)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_an_error_in_a_worker_keeps_its_kind(dataset: rc.Dataset, path: Path) -> None:
    (path.parent / "1.png").unlink()
    examples = rc.ExpressionDataset(dataset, images=path.parent)
    with pytest.raises(rc.DatasetError, match=r"1\.png: image 7: there is no file"):
        list(DataLoader(examples, 4, num_workers=1, collate_fn=rc.collate))


def test_transform_and_collator_travel_to_workers(dataset: rc.Dataset, path: Path) -> None:
    examples = rc.ExpressionDataset(dataset, images=path.parent, transform=resized)
    assert examples[3]["index"] == 3
    sent = pickle.dumps(examples)
    received = pickle.loads(sent)
    assert torch.equal(received[4]["pixel_values"], examples[4]["pixel_values"])
    assert PIXELS[1].tobytes()[:60] not in sent
