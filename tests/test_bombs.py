"""Small files that declare, or inflate to, far more than any prediction: refused by their headers, in little memory."""

import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from helpers import problems_of, sample_case
from PIL import Image
from safetensors.numpy import save_file

import refcocom_gpu as rc
from refcocom_gpu.predictions import limits

CASE = sample_case()
STORE = CASE.store
NAMES = CASE.names()
SIDE = 60_000
ALLOWED = 2**25
"""Bytes of memory that refusing a file may take; the bombs inflate to more, or declare a hundred times as many."""


def peak_of(path, **options) -> tuple[int, rc.PredictionError]:
    """Memory that Python, NumPy and zlib's callers took, and the error."""
    tracemalloc.start()
    try:
        error = problems_of(path, STORE, missing="zero", **options)
        return tracemalloc.get_traced_memory()[1], error
    finally:
        tracemalloc.stop()


def refused(path, says: str, **options) -> None:
    peak, error = peak_of(path, **options)
    assert error.counts == {"malformed mask": 1}
    assert says in error.problems[0].message
    assert peak < ALLOWED


def npy_header(shape, dtype="|b1") -> bytes:
    file = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def npz_of(path, content: bytes, name=NAMES[0]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", content)
    return path


def sparse_zip(path, shape, name=NAMES[0]):
    """A member that inflates to `shape`, in a few megabytes: one block of zeros, deflated again and again."""
    header = npy_header(shape)
    n_bytes = int(np.prod(shape)) + len(header)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as member,
    ):
        member.write(header)
        left, block = n_bytes - len(header), bytes(2**24)
        while left:
            left -= member.write(block[: min(left, len(block))])
    return path


@pytest.mark.parametrize("suffix", [".npz", ".zip"])
def test_a_member_that_inflates_to_more_than_is_allowed(tmp_path, suffix):
    """The bomb is real, so that what is held shows if it is inflated."""
    path = sparse_zip(tmp_path / f"p{suffix}", (9_000, 9_000))
    assert path.stat().st_size < 4e6
    refused(path, "9000×9000 pixels, more than 4,194,304: 4 times the largest image")


@pytest.mark.parametrize("suffix", [".npz", ".zip"])
def test_a_member_that_declares_gigabytes(tmp_path, suffix):
    path = npz_of(tmp_path / f"p{suffix}", npy_header((SIDE, SIDE)))
    refused(path, "60000×60000 pixels")
    size = SIDE * SIDE
    # The directory of the archive says so already.
    content = path.read_bytes()
    held = struct.pack("<L", len(npy_header((SIDE, SIDE))))
    path.write_bytes(content.replace(held, struct.pack("<L", size)))
    refused(path, f"declares {size:,} bytes")


def test_a_bomb_under_an_unknown_key_is_never_opened(tmp_path):
    path = npz_of(tmp_path / "p.npz", npy_header((SIDE, SIDE)), name="999999999_0")
    peak, error = peak_of(path)
    assert error.counts == {"unknown key": 1}
    assert peak < ALLOWED


@pytest.mark.parametrize("suffix", [".npz", ".zip"])
@pytest.mark.parametrize("times", [0.5, 0.99, 1.01, 3])
def test_a_header_that_declares_more_or_less_than_there_is(tmp_path, suffix, times):
    height, width = CASE.masks[0].shape
    declared = npy_header((int(height * times) or 1, width))
    path = npz_of(tmp_path / f"p{suffix}", declared + bytes(height * width))
    refused(path, f"but holds {height * width:,} bytes")


def test_an_npy_header_without_end(tmp_path):
    content = b"\x93NUMPY\x02\0" + struct.pack("<L", 2**26) + b" " * 2**26
    refused(npz_of(tmp_path / "p.npz", content), "EOF: reading array header")


def test_values_wider_than_any_number(tmp_path):
    content = npy_header((1, 1), "<U9000000")
    refused(npz_of(tmp_path / "p.npz", content), "values of 36,000,000 bytes")


def png_of(shape, twice=False) -> bytes:
    """A PNG that declares a shape and holds no pixel; `twice` puts a small header before the large one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
        )

    def header(height: int, width: int) -> bytes:
        return chunk(b"IHDR", struct.pack(">2L5B", width, height, 1, 0, 0, 0, 0))

    small = header(3, 4) if twice else b""
    data = zlib.compress(bytes(shape[0]))
    return (
        b"\x89PNG\r\n\x1a\n" + small + header(*shape) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("shape", [(2049, 2049), (12_000, 12_000), (SIDE, SIDE)])
@pytest.mark.parametrize("where", ["folder", "zip"])
def test_a_png_that_declares_too_much(tmp_path, shape, where, twice):
    if where == "zip":
        path = tmp_path / "p.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{NAMES[0]}.png", png_of(shape, twice))
    else:
        path = tmp_path / "masks"
        path.mkdir()
        (path / f"{NAMES[0]}.png").write_bytes(png_of(shape, twice))
    is_beyond_all = shape[0] == SIDE
    refused(
        path, "too many pixels" if is_beyond_all else f"{shape[0]}×{shape[1]} pixels, more than"
    )


def test_a_tensor_that_repeats_one_value(tmp_path):
    path = tmp_path / "p.pt"
    torch.save({NAMES[0]: torch.zeros(1, dtype=torch.bool).expand(SIDE, SIDE)}, path)
    assert path.stat().st_size < 10_000
    refused(path, "60000×60000 pixels")
    torch.save({NAMES[0]: torch.zeros(1, dtype=torch.bool).expand(900, 300, 300)}, path)
    refused(path, "900×300×300 pixels", combine="union")


def test_a_large_tensor_of_safetensors(tmp_path):
    save_file({NAMES[0]: np.zeros((5000, 1000), np.uint8)}, tmp_path / "p.safetensors")
    refused(tmp_path / "p.safetensors", "5000×1000 pixels")


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt", "zip"])
def test_logits_of_any_usual_size_are_read(tmp_path, suffix):
    """SAM's padded input, a quarter of it, and a grid that is larger than the image."""
    path = tmp_path / f"p.{suffix}"
    logits = {
        name: np.full((side, side), -1, np.float16)
        for name, side in zip(NAMES, (1024, 256, 64, 2048), strict=False)
    }
    if suffix == "npz":
        np.savez(path, **logits)
    elif suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in logits.items():
                file = io.BytesIO()
                np.save(file, array)
                archive.writestr(f"{name}.npy", file.getvalue())
    elif suffix == "safetensors":
        save_file(logits, path)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in logits.items()}, path)
    result = rc.score(path, STORE, missing="zero")
    assert result.n_missing == len(NAMES) - 4


def test_several_masks_of_one_expression_are_read(tmp_path):
    """Together they have more pixels than one mask may have."""
    mask = CASE.masks[0]
    n = limits.LEAST_PIXELS // mask.size + 2
    np.savez_compressed(tmp_path / "p.npz", **{NAMES[0]: np.repeat(mask[None], n, 0)})
    result = rc.score(tmp_path / "p.npz", STORE, missing="zero", combine="union")
    assert result.per_example["intersection"][0].as_py() == CASE.expected[0, 0]


def test_a_png_within_bounds_is_read(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, mask in zip(NAMES, CASE.masks, strict=True):
        Image.fromarray(mask).save(folder / f"{name}.png")
    CASE.check(folder)
