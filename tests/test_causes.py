"""Pictures, counts, columns and tensors that are refused: the message names the cause."""

import base64
import copy
import json
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from helpers import problems_of, table, write_jsonl
from PIL import Image
from prediction_files import (
    CASE,
    MASKS,
    STORE,
    N,
    only_problem,
)


def folder_of(tmp_path, picture: Image.Image, **save):
    """A folder of masks of which the one of `VARIED` is this picture."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, mask in MASKS.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    picture.save(folder / f"{CASE.names()[VARIED]}.png", **save)
    return folder


VARIED = next(k for k, mask in enumerate(CASE.masks) if mask.any() and not mask.all())
GREY = CASE.masks[VARIED].astype(np.uint8) * 255
FULL = np.full_like(GREY, 255)


@pytest.mark.parametrize(
    "channels", [[GREY] * 3, [GREY, GREY, GREY, FULL], [GREY, FULL]], ids=["RGB", "RGBA", "LA"]
)
def test_pictures_whose_channels_agree_are_grey(tmp_path, channels):
    picture = Image.fromarray(np.stack(channels, axis=-1))
    CASE.check(folder_of(tmp_path, picture))
    CASE.check({k: picture if k == VARIED else mask for k, mask in enumerate(CASE.masks)})


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        ([GREY, GREY, FULL], "this image is RGB and its colours differ"),
        ([GREY, FULL, GREY, FULL], "this image is RGBA and its colours differ"),
        ([FULL, FULL, FULL, GREY], "RGBA and its alpha channel varies"),
        ([GREY, GREY], "LA and its alpha channel varies"),
        ([GREY, GREY, GREY, FULL // 2], "RGBA and its alpha channel is 127 throughout"),
    ],
)
def test_pictures_whose_channels_differ_are_refused(tmp_path, channels, says):
    picture = Image.fromarray(np.stack(channels, axis=-1))
    problem = only_problem(folder_of(tmp_path, picture))
    assert problem.kind == "malformed mask"
    assert says in problem.message


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_that_exif_data_turn_is_refused(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = folder_of(tmp_path, Image.fromarray(CASE.masks[VARIED]), exif=exif)
    if orientation == 1:
        CASE.check(folder)
    else:
        assert f"its EXIF orientation is {orientation}" in only_problem(folder).message


def test_exif_data_that_are_damaged_are_refused(tmp_path):
    folder = folder_of(tmp_path, Image.fromarray(CASE.masks[VARIED]), exif=b"Exif\0\0rubbish")
    assert "its EXIF data cannot be read" in only_problem(folder).message


def test_colours_of_16_bits_are_refused(tmp_path):
    """Pillow would cut them to 8, and a mask of 0 and 1 to nothing."""
    h, w = GREY.shape
    pixels = np.repeat((CASE.masks[VARIED] * 1).astype(">u2")[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">LLBBBBB", w, h, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    folder = folder_of(tmp_path, Image.fromarray(GREY))
    (folder / f"{CASE.names()[VARIED]}.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    assert "RGB of 16 bits; save one channel" in only_problem(folder).message


def test_the_cause_of_malformed_counts_is_named(tmp_path):
    rows = CASE.rows()
    slashed = next(k for k in range(N) if "\\" in (rows[k]["segmentation"] or {}).get("counts", ""))
    first, second = [k for k in range(N) if rows[k]["segmentation"] and k != slashed][:2]

    def counts(k):
        return rows[k]["segmentation"]["counts"]

    rows[first]["segmentation"]["counts"] = str(counts(first).encode())
    rows[second]["segmentation"]["counts"] = base64.b64encode(
        b"\xfb\xef" + counts(second).encode()
    ).decode()
    rows[slashed]["segmentation"]["counts"] = counts(slashed).replace("\\", "\\\\")
    expected = {
        first: "it is the text of Python bytes",
        second: "it looks like base64",
        slashed: "its backslashes are doubled",
    }
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    on_torch = copy.copy(STORE)
    # Any name but `cpu` takes the way of a device; torch reads this one as the CPU.
    on_torch.device = "cpu:0"
    for store in (STORE, on_torch):
        error = problems_of(path, store)
        assert error.counts == {"malformed mask": 3}
        said = {p.where: p.message for p in error.problems}
        for k, says in expected.items():
            assert says in said[f"{path}, line {k + 1}"]


def test_json_text_in_a_column_is_named(tmp_path):
    given = table(CASE.rows()).drop(["segmentation"])
    text = pa.array([json.dumps(row["segmentation"]) for row in CASE.rows()])
    pq.write_table(given.append_column("segmentation", text), tmp_path / "p.parquet")
    problem = only_problem(tmp_path / "p.parquet")
    assert "segmentation is string" in problem.message
    assert "json.loads" in problem.message


def test_a_last_axis_of_one_is_named(tmp_path):
    np.savez(tmp_path / "p.npz", **{**MASKS, CASE.names()[0]: CASE.masks[0][..., None]})
    assert "drop its last axis: mask[..., 0]" in only_problem(tmp_path / "p.npz").message


def test_what_torch_refuses_is_named_without_its_advice(tmp_path):
    path = tmp_path / "p.pt"
    masks = {name: torch.from_numpy(mask) for name, mask in MASKS.items()}
    torch.save(masks, path, _use_new_zipfile_serialization=False)
    said = [only_problem(path).message]
    torch.save(MASKS, path)
    said.append(only_problem(path).message)
    torch.save({"1_0": object()}, path)
    said.append(only_problem(path).message)
    for message, says in zip(said, ("before version 1.6", "NumPy arrays", "object"), strict=True):
        assert says in message
        assert "\x1b" not in message
        assert "weights_only" not in message
        assert "mmap" not in message
