"""The store: equal from cache and anew, packed bits equal NumPy's; bad ground truth is named."""

import copy
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.masks import rle
from refcocom_gpu.store import store as store_module
from refcocom_gpu.utils.devices import resolve_device


@pytest.fixture(scope="module")
def sample():
    return rc.load_dataset("sample")


def masks_dataset(folder, images):
    """A dataset with these masks: a list of images, each a list of [H, W] masks or RLE objects."""
    lines, sample_id = [], 7
    for image_id, masks in enumerate(images):
        samples = []
        for mask in masks:
            encoded = rle.encode(mask) if isinstance(mask, np.ndarray) else mask
            sample = {"id": sample_id, "sentences": ["one", "two"], "mask": encoded}
            if isinstance(mask, np.ndarray) and not mask.any():
                sample["no_target"] = True
            samples.append(sample)
            sample_id += 3
        lines.append(json.dumps({"image_id": image_id, "samples": samples}))
    path = folder / "masks.jsonl"
    path.write_text("\n".join(lines))
    return rc.load_dataset(path)


def random_images(seed=0, n=9):
    """Images of odd sizes, 1 to 3 masks each: noise, empty, full."""
    random = np.random.default_rng(seed)
    sizes = [(1, 1), (1, 63), (65, 1), (8, 8), (7, 9), (13, 31), (64, 64), (33, 127), (101, 3)]
    images = []
    for height, width in sizes[:n]:
        masks = [random.random((height, width)) < share for share in (0.5, 0.0, 1.0)]
        images.append(masks[: random.integers(1, 4)])
    return images


def all_words(store):
    """The packed bits of every sample as one vector each."""
    offsets = store.word_offsets
    assert len(store.words) == offsets[-1]
    return [store.words[start:stop] for start, stop in pairwise(offsets.tolist())]


def assert_is_truth(store, images):
    """Every form of every mask equals the mask it was made from."""
    masks = [mask for image in images for mask in image]
    assert store.areas.tolist() == [int(mask.sum()) for mask in masks]
    for mask, words in zip(masks, all_words(store), strict=True):
        bits = np.packbits(mask.reshape(-1), bitorder="little")
        assert words.tobytes() == bits.tobytes().ljust(8 * len(words), b"\0")
        assert len(words) == -(-mask.size // 64)
    for index, row in enumerate(store.example_sample):
        assert np.array_equal(store.mask(index), masks[row])


@pytest.mark.parametrize("cache", [True, False])
def test_every_form_is_the_mask(tmp_path, cache):
    images = random_images()
    assert_is_truth(
        rc.MaskStore.build(masks_dataset(tmp_path, images), cache=cache and tmp_path), images
    )


@given(st.data())
def test_any_masks(tmp_path_factory, data):
    size = st.tuples(st.integers(1, 40), st.integers(1, 40))
    images = []
    for height, width in data.draw(st.lists(size, min_size=1, max_size=4)):
        bits = data.draw(st.binary(min_size=height * width, max_size=height * width))
        images.append([(np.frombuffer(bits, np.uint8) & 1).reshape(height, width).astype(bool)])
    dataset = masks_dataset(tmp_path_factory.mktemp("any"), images)
    assert_is_truth(rc.MaskStore.build(dataset, cache=False), images)


def test_warm_equals_cold(sample, tmp_path):
    cold = rc.MaskStore.build(sample, cache=tmp_path)
    cold.pack()
    written = {path: path.stat().st_mtime_ns for path in cold.folder.iterdir()}
    warm = rc.MaskStore.build(sample, cache=tmp_path)
    memory = rc.MaskStore.build(sample, cache=False)
    for other in (warm, memory):
        for name in ("ends", "run_offsets", "areas", "heights", "widths", "pixels"):
            assert np.array_equal(getattr(cold, name), getattr(other, name)), name
        assert all(map(np.array_equal, all_words(cold), all_words(other)))
    assert {path: path.stat().st_mtime_ns for path in cold.folder.iterdir()} == written
    assert isinstance(warm.ends.base, np.ndarray)  # mapped


def test_files_are_made_when_needed(sample, tmp_path):
    store = rc.MaskStore.build(sample, cache=tmp_path)
    assert [p.name for p in store.folder.glob("*.safetensors")] == ["runs.safetensors"]
    store.pack()
    assert (store.folder / "bits.safetensors").is_file()
    assert store.folder == tmp_path / "stores" / f"{sample.fingerprint}-v2"
    # Runs are opened without the bits, and bits that are damaged do not matter to them.
    (store.folder / "bits.safetensors").write_bytes(b"damaged")
    again = rc.MaskStore.build(sample, cache=tmp_path)
    assert np.array_equal(again.ends, store.ends)
    assert all(
        map(np.array_equal, all_words(again), all_words(rc.MaskStore.build(sample, cache=False)))
    )


@pytest.mark.parametrize("name", ["runs", "bits", "boundaries"])
@pytest.mark.parametrize("at", [0, 9, 60, 400, -1])
def test_damage_is_mended(sample, tmp_path, name, at):
    store = rc.MaskStore.build(sample, cache=tmp_path)
    metrics = ["iou", "boundary"]
    first = rc.score("sample", store, metrics=metrics)
    store.pack()
    path = store.folder / f"{name}.safetensors"
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[at] ^= 4
    path.unlink()
    path.write_bytes(changed)
    mended = rc.MaskStore.build(sample, cache=tmp_path)
    mended.pack()
    again = rc.score("sample", mended, metrics=metrics)
    assert path.read_bytes() == whole
    assert again.per_example.equals(first.per_example)


def test_cache_false_writes_nothing(sample, tmp_path, monkeypatch):
    monkeypatch.setenv("REFCOCOM_CACHE", str(tmp_path / "cache"))
    store = rc.MaskStore.build(sample, cache=False)
    store.pack()
    assert store.folder is None
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(sample, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REFCOCOM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="REFCOCOM_CACHE"):
        store = rc.MaskStore.build(sample)
    with pytest.warns(RuntimeWarning, match="bits"):
        store.pack()
    assert rc.score("sample", store).n_examples == len(store)


@pytest.mark.parametrize("cache", [True, False])
def test_nobody_writes_into_a_store(sample, tmp_path, cache):
    store = rc.MaskStore.build(sample, cache=cache and tmp_path)
    for array in (store.ends, store.run_offsets, store.areas, *all_words(store)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("piece_words", [1, 2, 3, 50, 2**19])
def test_pieces_do_not_change_bits(tmp_path, monkeypatch, piece_words):
    """Bits are packed and written a piece at a time; masks are as large as a piece, smaller and larger."""
    images = random_images()
    dataset = masks_dataset(tmp_path, images)
    monkeypatch.setattr(store_module, "PIECE_WORDS", piece_words)
    store = rc.MaskStore.build(dataset, cache=tmp_path / "cache")
    store.pack()
    assert [path.name for path in store.folder.glob("bits*.safetensors")] == ["bits.safetensors"]
    assert_is_truth(store, images)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ("04", r"runs total 4 pixels, size needs 9"),
        ("0" * 4 + "\x7f", "outside the RLE alphabet"),
        ("T", "in the middle of a number"),
        ("", "runs total 0 pixels"),
        ("09n0", "runs total|negative"),
    ],
)
def test_bad_ground_truth_is_named(tmp_path, counts, reason):
    good = np.eye(3, dtype=bool)
    bad = {"size": [3, 3], "counts": counts}
    dataset = masks_dataset(tmp_path, [[good, bad], [good], [bad]])
    with pytest.raises(rc.DatasetError, match=reason) as raised:
        rc.MaskStore.build(dataset, cache=tmp_path)
    message = str(raised.value)
    assert "2 masks" in message
    assert "sample 10: " in message
    assert "sample 16: " in message
    assert not list(tmp_path.glob("stores/*/*.safetensors"))


def test_many_bad_masks_are_counted(tmp_path):
    dataset = masks_dataset(tmp_path, [[{"size": [3, 3], "counts": "04"}] * 2] * 30)
    with pytest.raises(rc.DatasetError, match=r"^60 masks .*; and 40 more$"):
        rc.MaskStore.build(dataset, cache=False)


@pytest.mark.parametrize("size", [[2**16, 2**16], [2**31, 2**31], [2**32, 2**32], [2**30 + 1, 1]])
def test_sizes_that_overflow_are_refused(tmp_path, size):
    with pytest.raises(rc.DatasetError, match=r"sample 7: size \d+×\d+ exceeds the cap"):
        rc.MaskStore.build(masks_dataset(tmp_path, [[{"size": size, "counts": "0"}]]), cache=False)


def test_devices(sample):
    store = rc.MaskStore.build(sample, cache=False)
    assert store.to("cpu").device == "cpu"
    assert store.to("cpu") is not store
    moved = store.to("auto")
    assert moved.ends is store.ends
    for name in ("banana", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "CPU", "", "cpu:0"):
        with pytest.raises(rc.UsageError, match="device must be auto, cpu, cuda or cuda:i"):
            store.to(name)
    with pytest.raises(rc.UsageError, match=r"cuda:999 is not there: .+; use cpu, or auto"):
        store.to("cuda:999")


def test_cuda_says_why_it_is_not_there(monkeypatch):
    import torch

    from refcocom_gpu.utils import devices

    if not torch.cuda.is_available():
        with pytest.raises(
            rc.UsageError, match=r"no CUDA driver|without CUDA|finds no CUDA device"
        ):
            resolve_device("cuda")
        assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(devices, "_has_driver", lambda: False)
    with pytest.raises(rc.UsageError, match="this machine has no CUDA driver"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    monkeypatch.setattr(devices, "_cuda_devices", lambda: 2)
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1")] == [
        "cuda:0",
        "cuda",
        "cuda:1",
    ]
    with pytest.raises(rc.UsageError, match="finds 2 CUDA devices, numbered from 0"):
        resolve_device("cuda:2")


def test_tensors_of_a_device_are_shared(sample):
    store = rc.MaskStore.build(sample, cache=False)
    words = store.tensors().words
    # Host memory is not copied.
    assert words.data_ptr() == store.words.ctypes.data
    assert store.tensors().word_offsets.tolist() == store.word_offsets.tolist()
    again = store.to("cpu").tensors()
    assert again.words is words
    assert again.ends is store.tensors().ends
    for sample_row, area in enumerate(store.areas):
        last = store.run_offsets[sample_row + 1] - 1
        assert again.ranks[last] == area


@pytest.mark.parametrize("kept", [False, True])
def test_a_store_is_pickled(sample, tmp_path, kept):
    store = rc.MaskStore.build(sample, cache=tmp_path if kept else False)
    store.pack()
    again = pickle.loads(pickle.dumps(store))
    for name in ("ends", "run_offsets", "areas"):
        assert np.array_equal(getattr(again, name), getattr(store, name))
    assert torch.equal(again.tensors().words, store.tensors().words)
    # Where there is a cache the arrays are mapped, not sent.
    size = len(pickle.dumps(store)) - len(pickle.dumps(sample))
    assert (size < 4096) == kept
    assert copy.deepcopy([store])[0] is store


def test_repr_and_length(sample):
    store = rc.MaskStore.build(sample, cache=False)
    assert len(store) == sample.n_examples
    assert (
        repr(store)
        == f"MaskStore('sample', {len(store.areas)} masks, {len(store)} examples, device='cpu')"
    )


@pytest.mark.parametrize("index", [-1, 10**6])
def test_no_mask_of_an_unknown_row(sample, index):
    with pytest.raises(IndexError, match="not a row number"):
        rc.MaskStore.build(sample, cache=False).mask(index)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_matter(sample, threads):
    one = rc.MaskStore.build(sample, cache=False, threads=1)
    other = rc.MaskStore.build(sample, cache=False, threads=threads)
    assert np.array_equal(one.ends, other.ends)
    assert all(map(np.array_equal, all_words(one), all_words(other)))
