"""What several test files build on: real predictions with their expected counts, and a writer per file format."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

import refcocom_gpu as rc
from refcocom_gpu.dataset.sample import encode_png
from refcocom_gpu.masks import rle

REAL = Path(__file__).parents[2] / "shared" / "data" / "real"


@dataclass(frozen=True)
class Case:
    """A store, one predicted mask per example, and [N, 2] counts that this package had no part in."""

    store: rc.MaskStore
    masks: list[np.ndarray]
    expected: np.ndarray

    @property
    def dataset(self) -> rc.Dataset:
        return self.store.dataset

    def rows(self, *, listed: bool = False) -> list[dict[str, Any]]:
        """Native rows; empty masks are null where the index is even."""
        fields = self.dataset.example_key_fields
        result = []
        for index, mask in enumerate(self.masks):
            key = dict(zip(fields, self.dataset.key_of(index), strict=True))
            segmentation = coco_encode(mask)
            if listed:
                segmentation["counts"] = np.diff(rle.run_ends(mask), prepend=0).tolist()
            if not mask.any() and index % 2 == 0:
                segmentation = None
            result.append({**key, "segmentation": segmentation})
        return result

    def names(self) -> list[str]:
        return ["_".join(map(str, self.dataset.key_of(k))) for k in range(len(self.masks))]

    def check(self, predictions: Any, **options: Any) -> rc.Result:
        """Score, and compare every count."""
        return self.compare(rc.score(predictions, self.store, **options))

    def compare(self, result: rc.Result) -> rc.Result:
        table = result.per_example
        found = np.stack([table["intersection"].to_numpy(), table["pred_area"].to_numpy()], axis=1)
        np.testing.assert_array_equal(found, self.expected)
        assert table["index"].to_pylist() == list(range(len(self.masks)))
        assert result.n_missing == 0
        assert result.n_empty == int((self.expected[:, 1] == 0).sum())
        return result


def coco_encode(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def coco_decode(size: Any, counts: Any) -> np.ndarray:
    # The runs were checked to fill the mask when the store was built; otherwise decode returns uninitialised memory.
    return coco.decode({"size": [int(x) for x in size], "counts": counts}).astype(bool)


def true_masks(dataset: rc.Dataset) -> list[np.ndarray]:
    sizes = zip(dataset.heights, dataset.widths, strict=True)
    return [coco_decode(size, dataset.counts.row(m)) for m, size in enumerate(sizes)]


def real_file(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not there; it is not shipped")
    return path


@cache
def real_case() -> Case:
    """179 examples with masks of COCO, and predictions made from them."""
    path = real_file("refcoco/refcoco_m_like.jsonl")
    return make_case(rc.MaskStore.build(rc.load_dataset(path), cache=False))


@cache
def many_real_case() -> Case:
    """479 examples of 342 masks: those above, and the first 300 fine polygons of LVIS."""
    lines = real_file("refcoco/refcoco_m_like.jsonl").read_text("utf-8").splitlines()
    lvis = json.loads(real_file("lvis/lvis_val_100.json").read_text("utf-8"))
    sizes = {image["id"]: (image["height"], image["width"]) for image in lvis["images"]}
    for annotation in lvis["annotations"][:300]:
        size = sizes[annotation["image_id"]]
        drawn = coco.merge(coco.frPyObjects(annotation["segmentation"], *size))
        sample = {
            "id": 10**9 + annotation["id"],
            "category": f"category {annotation['category_id']}",
            "sentences": ["something"],
            "mask": {"size": list(size), "counts": drawn["counts"].decode()},
        }
        image = 10**9 + annotation["image_id"] * 1000 + len(lines)
        lines.append(json.dumps({"image_id": image, "file_name": "-", "samples": [sample]}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.jsonl"
        path.write_text("\n".join(lines), "utf-8")
        return make_case(rc.MaskStore.build(rc.load_dataset(path), cache=False))


@cache
def few_real_case() -> Case:
    """The first images of the same: enough for every format, small enough to write as 64-bit arrays."""
    lines = real_file("refcoco/refcoco_m_like.jsonl").read_text("utf-8").splitlines()[:5]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "few.jsonl"
        path.write_text("\n".join(lines), "utf-8")
        return make_case(rc.MaskStore.build(rc.load_dataset(path), cache=False))


@cache
def sample_case() -> Case:
    """The built-in sample: small images, always there."""
    return make_case(rc.MaskStore.build(rc.load_dataset("sample"), cache=False))


def make_case(store: rc.MaskStore, seed: int = 0) -> Case:
    dataset = store.dataset
    truth = true_masks(dataset)
    samples = [int(s) for s in dataset.example_sample]
    rng = np.random.default_rng(seed)
    masks = [np.ascontiguousarray(disturb(truth, s, int(rng.integers(7)), rng)) for s in samples]
    expected = [
        (int((mask & truth[s]).sum()), int(mask.sum()))
        for mask, s in zip(masks, samples, strict=True)
    ]
    return Case(store, masks, np.array(expected, np.int64))


def disturb(truth: list[np.ndarray], sample: int, how: int, rng: np.random.Generator) -> np.ndarray:
    mask = truth[sample]
    dy, dx = (int(d) for d in rng.integers(-9, 10, 2))
    shifted = np.roll(mask, (dy, dx), (0, 1))
    if how == 0:
        return shifted
    if how == 1:  # eroded
        return mask & shifted & np.roll(mask, (-dy, -dx), (0, 1))
    if how == 2:  # dilated
        return mask | shifted | np.roll(mask, (-dy, -dx), (0, 1))
    if how == 3:  # another sample's
        others = [m for k, m in enumerate(truth) if k != sample and m.shape == mask.shape]
        return others[int(rng.integers(len(others)))] if others else np.zeros_like(mask)
    if how == 4:
        return np.zeros_like(mask)
    if how == 5:
        return np.ones_like(mask)
    return mask.copy()


def write_jsonl(path: Path, rows: list[Any], end: str = "\n") -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + end.encode() for row in rows))
    return path


def table(rows: list[dict[str, Any]], counts: Any = None, size: Any = None) -> pa.Table:
    """Native rows as an Arrow table with chosen types of `counts` and `size`."""
    counts = pa.string() if counts is None else counts
    size = pa.list_(pa.int32()) if size is None else size
    null = pa.array([row["segmentation"] is None for row in rows])
    masks = [row["segmentation"] or {"size": [7, 7], "counts": "rubbish"} for row in rows]
    if pa.types.is_dictionary(counts):
        strings = pa.array([m["counts"] for m in masks]).dictionary_encode()
    elif pa.types.is_list(counts):
        strings = pa.array(
            [m["counts"] if m["counts"] != "rubbish" else [1] for m in masks], counts
        )
    else:
        strings = pa.array([m["counts"] for m in masks]).cast(counts)
    # What stands under a null struct must not matter, hence the rubbish there.
    masks = pa.StructArray.from_arrays(
        [pa.array([m["size"] for m in masks], size), strings], ["size", "counts"], mask=null
    )
    keys = {name: [row[name] for row in rows] for name in rows[0] if name != "segmentation"}
    return pa.table({**keys, "segmentation": masks})


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int, **types: Any) -> Path:
    """Native rows in row groups, each made on its own: Arrow cannot slice every type."""
    tables = [table(rows[k : k + group], **types) for k in range(0, len(rows), group)]
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for part in tables:
            writer.write_table(part)
    return path


def problems_of(predictions: Any, store: rc.MaskStore, **options: Any) -> rc.PredictionError:
    with pytest.raises(rc.PredictionError) as caught:
        rc.score(predictions, store, **options)
    return caught.value


def pictured(n_images: int = 5) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Records in the published shape with PNG pictures inside, which hold noise, and their pixels.

    Each image has three samples of one, two and no sentences.
    """
    rng = np.random.default_rng(0)
    records, pictures = [], []
    for i in range(n_images):
        H, W = 20 + 3 * i, 51 - 2 * i
        pixels = rng.integers(0, 256, (H, W, 3), np.uint8)
        samples = [
            {
                "id": 100 * i + k,
                "image_id": 7 * i,
                "category": "cow",
                "supercategory": "animal",
                "label": "cow",
                "sentences": [f"cow {j} of sample {k} of image {i}" for j in range((k + 1) % 3)],
                "bbox": [0.0, 0.0, 1.0, 1.0],
                "mask": coco_encode(rng.random((H, W)) < 0.5),
            }
            for k in range(3)
        ]
        image = {"bytes": encode_png(pixels), "path": f"{i}.png"}
        record = {"image": image, "image_id": 7 * i, "file_name": f"{i}.png", "samples": samples}
        records.append(record)
        pictures.append(pixels)
    return records, pictures


def unpictured(path: Path, records: list[dict[str, Any]]) -> Path:
    """The records as JSON lines, with their pictures as files beside them."""
    for record in records:
        (path.parent / record["file_name"]).write_bytes(record["image"]["bytes"])
    return write_jsonl(path, [{k: v for k, v in r.items() if k != "image"} for r in records])
