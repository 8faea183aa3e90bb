"""One set of predictions through every accepted format gives the counts that NumPy gives on decoded masks."""

import copy
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import (
    Case,
    coco_encode,
    few_real_case,
    real_case,
    sample_case,
    table,
    write_jsonl,
    write_parquet,
)
from PIL import Image
from pycocotools import mask as coco
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

import refcocom_gpu as rc
from refcocom_gpu.predictions import text as text_module

# The masks are small; a pool of threads that waits for cores costs far more than it saves.
torch.set_num_threads(1)

FLOATS = [torch.float16, torch.float32, torch.bfloat16, torch.float64]


def header(case: Case) -> dict:
    return {
        "schema": "refcocom-predictions",
        "version": 1,
        "model": "m",
        "dataset": case.dataset.fingerprint,
    }


def with_sentences(case: Case) -> list[dict]:
    sentences = case.dataset.examples["sentence"].to_pylist()
    return [{**row, "sentence": s} for row, s in zip(case.rows(), sentences, strict=True)]


def on_torch(original: Case) -> Case:
    """The same predictions, counted as on a device: staged, by the torch operators, read back at the end."""
    store = copy.copy(original.store)
    # Any name but `cpu` takes the way of a device; torch reads this one as the CPU.
    store.device = "cpu:0"
    return Case(store, original.masks, original.expected)


@pytest.fixture(params=["real", "sample as on a device"])
def case(request) -> Case:
    """Every format on the host with real masks, and as on a device with small ones."""
    return few_real_case() if request.param == "real" else on_torch(sample_case())


@pytest.mark.parametrize("form", ["bool", "RLE", "torch bfloat16"])
def test_all_real_masks(form):
    """Every real example, by Numba; as integers equal to NumPy on masks that pycocotools decoded."""
    case = real_case()
    case.check((k, FORMS[form](mask)) for k, mask in enumerate(case.masks))


@pytest.mark.parametrize("form", ["bool", "RLE", "torch bfloat16"])
def test_torch_counts_the_real_masks(form):
    case = on_torch(real_case())
    case.check((k, FORMS[form](mask)) for k, mask in enumerate(case.masks))


def test_the_real_case_has_every_kind_of_mask():
    case = real_case()
    assert len(case.masks) == 179
    intersection, area = case.expected.T
    full = np.array([mask.all() for mask in case.masks])
    assert (area == 0).any()
    assert full.any()
    assert ((intersection == 0) & (area > 0)).any()
    assert ((intersection > 0) & (intersection < area)).any()


@pytest.mark.parametrize("form", ["compressed", "listed", "mixed", "header", "sentences"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \t\r\n"])
def test_jsonl(case, tmp_path, form, end):
    rows = with_sentences(case) if form == "sentences" else case.rows(listed=form == "listed")
    if form == "mixed":
        rows[::2] = case.rows(listed=True)[::2]
    if form == "header":
        rows.insert(0, header(case))
    case.check(write_jsonl(tmp_path / "p.jsonl", rows, end))


def test_jsonl_without_a_last_newline_and_in_tiny_blocks(case, tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 300)
    path = write_jsonl(tmp_path / "p.jsonl", [header(case), *case.rows()])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    case.check(path)


@pytest.mark.parametrize(
    "counts",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
        *(pa.binary_view(), pa.dictionary(pa.int32(), pa.string())),
        *(pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.uint32())),
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1000, 50])
def test_parquet_counts(case, tmp_path, counts, groups):
    rows = case.rows(listed=pa.types.is_list(counts))
    case.check(write_parquet(tmp_path / "p.parquet", rows, groups, counts=counts))


@pytest.mark.parametrize(
    "size",
    [
        *(pa.list_(pa.int64()), pa.list_(pa.int32(), 2), pa.list_(pa.float64())),
        *(pa.large_list(pa.int16()), pa.list_(pa.uint16(), 2)),
    ],
    ids=str,
)
def test_parquet_sizes(case, tmp_path, size):
    pq.write_table(table(case.rows(), size=size), tmp_path / "p.parquet")
    case.check(tmp_path / "p.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"])
def test_parquet_sentences_keys_and_header(case, tmp_path, kind):
    given = table(case.rows()).append_column("score", pa.array(np.ones(len(case.masks))))
    sentence = case.dataset.examples["sentence"].combine_chunks()
    sentence = sentence.dictionary_encode() if kind == "dictionary" else sentence.cast(kind)
    given = given.append_column("sentence", sentence)
    for name, width in (("sample_id", pa.uint64()), ("sentence_idx", pa.int8())):
        given = given.set_column(given.schema.get_field_index(name), name, given[name].cast(width))
    metadata = {key: str(value) for key, value in header(case).items()}
    pq.write_table(given.replace_schema_metadata(metadata), tmp_path / "p.parquet")
    case.check(tmp_path / "p.parquet")


def test_parquet_of_a_slice(case, tmp_path):
    rows = case.rows()
    padded = table([*rows[:3], *rows, *rows[:4]]).slice(3, len(rows))
    pq.write_table(padded, tmp_path / "p.parquet", row_group_size=37)
    case.check(tmp_path / "p.parquet")


@pytest.mark.parametrize("listed", [False, True])
def test_coco_results(case, tmp_path, listed):
    rows = [{**r, "score": 0.5, "category_id": 1, "image_id": 9} for r in case.rows(listed=listed)]
    (tmp_path / "p.json").write_text(json.dumps(rows, indent=1))
    case.check(tmp_path / "p.json")


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_png_folder(case, tmp_path, mode, suffix):
    for name, mask in zip(case.names(), case.masks, strict=True):
        if mode == "I;16":
            image = Image.fromarray(mask.astype(np.uint16) * 256)
            assert image.mode == mode
        else:
            image = Image.fromarray(mask.astype(np.uint8) * (1 if mode == "P" else 255))
            if mode == "P":
                image.putpalette([0, 0, 0, 255, 0, 0])
            elif mode == "1":
                image = image.convert("1")
        image.save(tmp_path / f"{name}{suffix}", format="PNG")
    (tmp_path / ".DS_Store").write_bytes(b"the file system's")
    case.check(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["?", "u1", "i8", ">i4", "u8", "f2", ">f4", "f8", "g"])
def test_npz(case, tmp_path, kind, compressed):
    arrays = {}
    for name, mask in zip(case.names(), case.masks, strict=True):
        dtype = np.dtype(kind)
        scale = {"f": 2, "b": 1}.get(dtype.kind, 255)
        arrays[name] = (mask * scale - (dtype.kind == "f")).astype(dtype)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "p.npz", **arrays)
    case.check(tmp_path / "p.npz")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, *FLOATS])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_tensors(case, tmp_path, dtype, suffix):
    tensors = {
        name: (
            torch.from_numpy(2.0 * mask - 1) if dtype.is_floating_point else torch.from_numpy(mask)
        ).to(dtype)
        for name, mask in zip(case.names(), case.masks, strict=True)
    }
    path = tmp_path / f"p{suffix}"
    if suffix == ".safetensors":
        save_torch_file(tensors, path)
    else:
        torch.save(tensors, path)
    case.check(path)


def test_safetensors_from_numpy(case, tmp_path):
    save_file(
        {n: m.astype(np.uint8) * 255 for n, m in zip(case.names(), case.masks, strict=True)},
        tmp_path / "p.safetensors",
    )
    case.check(tmp_path / "p.safetensors")


def test_shards(case, tmp_path):
    rows = case.rows()
    first = write_jsonl(tmp_path / "part-0 é[1].jsonl", [header(case), *rows[: len(rows) // 3]])
    pq.write_table(table(rows[len(rows) // 3 : len(rows) // 2]), tmp_path / "part-1.parquet")
    (tmp_path / "part-2.json").write_text(json.dumps(rows[len(rows) // 2 :]))
    case.check([first, tmp_path / "part-1.parquet", str(tmp_path / "part-2.json")])
    result = case.check(str(tmp_path / "part-*"))
    assert len(result.info["predictions"]["files"]) == 3


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_the_writer_writes(case, tmp_path, suffix):
    with rc.PredictionWriter(tmp_path / f"p{suffix}", case.dataset) as writer:
        for k in range(0, len(case.masks), 10):
            some = [m if m.any() else None for m in case.masks[k : k + 10]]
            writer.write(range(k, k + len(some)), some)
    case.check(tmp_path / f"p{suffix}")


# In memory ----------------------------------------------------------------------------------------

FORMS = {
    "bool": lambda m: m,
    "uint8": lambda m: m.astype(np.uint8) * 255,
    "int64": lambda m: m.astype(np.int64) * 3,
    "uint16": lambda m: m.astype(np.uint16) * 256,
    "fortran": np.asfortranarray,
    "reversed": lambda m: np.ascontiguousarray(m[::-1])[::-1],
    "reversed logits": lambda m: np.ascontiguousarray(2.0 * m[:, ::-1] - 1)[:, ::-1],
    "strided": lambda m: np.repeat(m, 2, axis=1)[:, ::2],
    "[1, H, W]": lambda m: m[None],
    "nested lists": lambda m: m.astype(int).tolist(),
    "read-only logits": lambda m: np.frombuffer((2.0 * m - 1).tobytes()).reshape(m.shape),
    "torch bool": torch.from_numpy,
    "torch [1, 1, H, W]": lambda m: torch.from_numpy(m)[None, None].to(torch.uint8),
    "torch transposed": lambda m: torch.from_numpy(np.ascontiguousarray(m.T)).T,
    "torch graph": lambda m: torch.from_numpy(2.0 * m - 1).requires_grad_(),
    "torch bfloat16": lambda m: torch.from_numpy(2.0 * m - 1).bfloat16(),
    "RLE": coco_encode,
    "RLE bytes": lambda m: coco.encode(np.asfortranarray(m.astype(np.uint8))),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_pairs_of_one(case, form):
    # A single mask is told from a list of masks by its dimensions, which nested lists do not show.
    wrap = (lambda m: [m]) if form == "nested lists" else (lambda m: m)
    case.check((k, wrap(FORMS[form](mask))) for k, mask in enumerate(case.masks))


@pytest.mark.parametrize("form", ["bool", "uint16", "torch graph", "RLE"])
@pytest.mark.parametrize(("batch", "batch_size", "threads"), [(7, 3, 1), (64, 256, 2), (200, 5, 8)])
def test_batches_in_any_order(case, form, batch, batch_size, threads):
    order = np.random.default_rng(batch).permutation(len(case.masks))
    pairs = [
        (order[k : k + batch], [FORMS[form](case.masks[i]) for i in order[k : k + batch]])
        for k in range(0, len(order), batch)
    ]
    case.check(pairs, batch_size=batch_size, threads=threads)


@pytest.mark.parametrize("kind", ["numpy", "torch", "logits"])
@pytest.mark.parametrize("extra", [False, True])
def test_stacked_batches_of_one_size(kind, extra):
    """[B, H, W] and [B, 1, H, W] with an index tensor; the built-in sample has few sizes."""
    case = sample_case()
    by_size: dict = {}
    for k, mask in enumerate(case.masks):
        by_size.setdefault(mask.shape, []).append(k)

    def pairs():
        for members in by_size.values():
            masks = np.stack([case.masks[k] for k in members])
            masks = masks[:, None] if extra else masks
            if kind == "numpy":
                yield np.array(members, np.int32), masks
            else:
                tensor = torch.from_numpy(masks)
                yield torch.tensor(members), tensor * 2.0 - 1 if kind == "logits" else tensor

    case.check(pairs())


def test_a_dataset_keyed_by_image_and_position(tmp_path):
    dataset = rc.load_dataset("sample", key="image_position")
    sampled = sample_case()
    case = Case(rc.MaskStore.build(dataset, cache=False), sampled.masks, sampled.expected)
    case.check(write_jsonl(tmp_path / "p.jsonl", case.rows()))
    np.savez(tmp_path / "p.npz", **dict(zip(case.names(), case.masks, strict=True)))
    case.check(tmp_path / "p.npz")
    pq.write_table(table(case.rows()), tmp_path / "p.parquet")
    case.check(tmp_path / "p.parquet")
    case.check(enumerate(coco_encode(mask) for mask in case.masks))
    with rc.PredictionWriter(tmp_path / "w.parquet", dataset) as writer:
        for k in writer.pending():
            writer.write([dataset.key_of(k)], [case.masks[k]])
    case.check(tmp_path / "w.parquet")


# Polygons -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_polygons(tmp_path, suffix):
    store = sample_case().store
    dataset = store.dataset
    rng = np.random.default_rng(1)
    pixels, normalized, masks = [], [], []
    for k, sample in enumerate(dataset.example_sample):
        h, w = int(dataset.heights[sample]), int(dataset.widths[sample])
        # Eighths of a power of two survive the division by the size without rounding; others need not.
        shapes = [(rng.integers(0, 9, 8) / 8) for _ in range(k % 3)]
        in_pixels = [[c * (w, h)[i % 2] for i, c in enumerate(p)] for p in shapes]
        key = dict(zip(dataset.example_key_fields, dataset.key_of(k), strict=True))
        pixels.append({**key, "segmentation": in_pixels or None})
        normalized.append({**key, "segmentation": [p.tolist() for p in shapes] or None})
        merged = (
            coco.merge(coco.frPyObjects(in_pixels, h, w))
            if in_pixels
            else coco_encode(np.zeros((h, w)))
        )
        masks.append(coco.decode(merged).astype(bool))
    truth = [store.mask(k) for k in range(len(store))]
    expected = [(int((m & t).sum()), int(m.sum())) for m, t in zip(masks, truth, strict=True)]
    case = Case(store, masks, np.array(expected))
    for scale, given in (("pixels", pixels), ("normalized", normalized)):
        path = tmp_path / f"{scale}.{suffix}"
        path.write_text(
            "\n".join(map(json.dumps, given)) if suffix == "jsonl" else json.dumps(given)
        )
        case.check(path, polygons=scale)
        with pytest.raises(rc.PredictionError, match="polygons=pixels or polygons=normalized"):
            rc.score(path, store)
