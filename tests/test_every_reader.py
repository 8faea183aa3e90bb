"""What is written in any container, under any form of keys, in any type, is read back as the same masks.

Tables hold RLE under every form of keys; arrays lie under the name of their example in every type. Counts are compared
with those of NumPy on the masks themselves.
"""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from helpers import coco_encode, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import refcocom_gpu as rc
from refcocom_gpu.masks import rle

few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXTS = [
    "left cow",
    "the café",
    "cow  on grass",
    "牛",
    "'quoted', \"twice\"",
    "a{b}",
    "x" * 99,
    "é",
]


def records() -> list[dict]:
    """Three images of other sizes, two samples each, one to three sentences; a text stands once in an image."""
    rng = np.random.default_rng(5)
    made = []
    for image in range(3):
        H, W = 9 + 5 * image, 21 - 4 * image
        texts = iter(rng.permutation(TEXTS).tolist())
        samples = [
            {
                "id": 2**40 + 10 * image + k,
                "sentences": [next(texts) for _ in range(1 + (image + k) % 3)],
                "mask": coco_encode(rng.random((H, W)) < 0.4),
            }
            for k in range(2)
        ]
        made.append({"image_id": 7 * image, "file_name": f"{image}.jpg", "samples": samples})
    return made


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, rc.MaskStore]:
    """The set, keyed by sample and by position."""
    path = write_jsonl(tmp_path_factory.mktemp("set") / "set.jsonl", records())
    return {
        key: rc.MaskStore.build(rc.load_dataset(path, key=key), cache=False)
        for key in ("sample_id", "image_position")
    }


# What a row says of its example, by the form of keys ----------------------------------------------

FORMS = {
    "sample": ("sample_id", "sentence_idx"),
    "sentence": ("image_id", "sentence"),
    "position": ("image_id", "position", "sentence_idx"),
    "order": (),
}


def named(store: rc.MaskStore, index: int) -> dict:
    """All that is known of an example."""
    dataset = store.dataset
    sample = int(dataset.example_sample[index])
    return {
        "sample_id": int(dataset.sample_ids[sample]),
        "image_id": int(dataset.image_ids[dataset.sample_image[sample]]),
        "position": int(dataset.positions[sample]),
        "sentence_idx": int(dataset.example_sentence_idx[index]),
        "sentence": dataset.examples["sentence"][index].as_py(),
    }


def listed(mask: np.ndarray) -> dict:
    runs = np.diff(rle.run_ends(mask), prepend=0).tolist()
    return {"size": list(mask.shape), "counts": runs}


# Containers of tables -----------------------------------------------------------------------------


def jsonl(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def save_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)


def save_feather(path, rows):
    pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path, compression="lz4")


def save_dataset(path, rows):
    datasets.Dataset.from_list(rows).save_to_disk(path)


def save_shards(path, rows):
    path.mkdir()
    for k, first in enumerate(range(0, len(rows), 4)):
        write_jsonl(path / f"rank-{k}.jsonl", rows[first : first + 4])


TABLES = {
    "p.jsonl": lambda path, rows: path.write_bytes(jsonl(rows)),
    "p.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "p.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(jsonl(rows))),
    "p.ndjson.bz2": lambda path, rows: path.write_bytes(bz2.compress(jsonl(rows))),
    "p.json.xz": lambda path, rows: path.write_bytes(lzma.compress(json.dumps(rows).encode())),
    "p.jsonl.zst": lambda path, rows: path.write_bytes(
        pa.Codec("zstd").compress(jsonl(rows), asbytes=True)
    ),
    "p.parquet": save_parquet,
    "p.feather": save_feather,
    "saved": save_dataset,
    "shards": save_shards,
    "memory": None,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("container", TABLES)
@few
@given(data=st.data())
def test_tables(stores, tmp_path_factory, container, form, data):
    store = stores["image_position" if form == "position" else "sample_id"]
    n = len(store)
    order = list(range(n)) if form == "order" else data.draw(st.permutations(range(n)))
    masks = drawn_masks(store, data)
    encode = data.draw(st.sampled_from([coco_encode, listed]))
    rows = [
        {
            **{name: named(store, index)[name] for name in FORMS[form]},
            "segmentation": None
            if not masks[index].any() and data.draw(st.booleans())
            else encode(masks[index]),
        }
        for index in order
    ]
    if container == "memory":
        predictions = datasets.Dataset.from_list(rows)
    else:
        predictions = tmp_path_factory.mktemp("rows") / container
        TABLES[container](predictions, rows)
    check(rc.score(predictions, store, keys=form), store, masks)


# Containers of arrays -----------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def save_pngs(path, arrays):
    path.mkdir()
    for name, array in arrays.items():
        (path / f"{name}.png").write_bytes(png(array))


def save_zip(path, arrays):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            archive.writestr(f"masks/{name}.npy", npy(array))


def save_tar(path, arrays):
    with tarfile.open(path, "w:gz") as archive:
        for name, array in arrays.items():
            content = npy(array)
            info = tarfile.TarInfo(f"masks/{name}.npy")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def save_tensors(path, arrays):
    tensors = {name: torch.as_tensor(array).clone() for name, array in arrays.items()}
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        safetensors.torch.save_file(tensors, path)


ARRAYS = {
    "masks": save_pngs,
    "p.npz": lambda path, arrays: np.savez_compressed(path, **arrays),
    "p.zip": save_zip,
    "p.tar.gz": save_tar,
    "p.safetensors": save_tensors,
    "p.pt": save_tensors,
    "memory": None,
}
MASK_TYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64"]
LOGIT_TYPES = ["float16", "float32", "float64", "bfloat16"]
PNG_TYPES = ["bool", "uint8", "uint16"]


def typed(mask: np.ndarray, dtype: str, high: int):
    """A mask in a type: 0 and one other value, or logits at the size of the image."""
    if dtype == "bfloat16":
        return torch.from_numpy(mask * np.float32(8) - 4).bfloat16()
    if dtype.startswith("float"):
        return mask.astype(dtype) * 8 - 4
    return mask if dtype == "bool" else mask.astype(dtype) * high


def types_of(container: str) -> list[str]:
    if container == "masks":
        return PNG_TYPES
    # NumPy has no bfloat16.
    numpy_only = container in ("p.npz", "p.zip", "p.tar.gz")
    return MASK_TYPES + (LOGIT_TYPES[:3] if numpy_only else LOGIT_TYPES)


@pytest.mark.parametrize("key", ["sample_id", "image_position"])
@pytest.mark.parametrize("container", ARRAYS)
@few
@given(data=st.data())
def test_arrays(stores, tmp_path_factory, container, key, data):
    store = stores[key]
    masks = drawn_masks(store, data)
    dtype = data.draw(st.sampled_from(types_of(container)), label="dtype")
    # A set of masks in which one holds {0, 1} and another {0, 255} is a set of masks all the same.
    highs = [1] if dtype == "bool" else [1, 127] if dtype == "int8" else [1, 255]
    order = data.draw(st.permutations(range(len(store))))
    arrays = {
        "_".join(map(str, store.dataset.key_of(index))): typed(
            masks[index], dtype, data.draw(st.sampled_from(highs))
        )
        for index in order
    }
    if container == "memory":
        predictions = list(zip(order, arrays.values(), strict=True))
    else:
        predictions = tmp_path_factory.mktemp("arrays") / container
        ARRAYS[container](predictions, arrays)
    check(rc.score(predictions, store), store, masks)


# The masks, and what comes of them ----------------------------------------------------------------


def drawn_masks(store: rc.MaskStore, data) -> list[np.ndarray]:
    """A mask for each example: noise of any density, also nothing and everything."""
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    rng = np.random.default_rng(seed)
    dataset = store.dataset
    return [
        rng.random((dataset.heights[sample], dataset.widths[sample])) < rng.choice([0, 0.1, 0.5, 1])
        for sample in dataset.example_sample
    ]


def check(result: rc.Result, store: rc.MaskStore, masks: list[np.ndarray]) -> None:
    expected = [
        (int((mask & store.mask(index)).sum()), int(mask.sum())) for index, mask in enumerate(masks)
    ]
    table = result.per_example
    found = zip(table["intersection"].to_pylist(), table["pred_area"].to_pylist(), strict=True)
    assert list(found) == expected
