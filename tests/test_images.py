"""The pictures of every kind of source are the pixels that were written, and nothing else passes for them."""

import hashlib
import io
import json
import pickle
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import pictured, real_file, unpictured
from hub import CARD, SHA, run
from PIL import Image, ImageOps
from refer_sets import publish

import refcocom_gpu as rc
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.sample import draw_image, encode_png

RECORDS, PIXELS = pictured()
NAME = "validation-{:05}-of-{:05}.parquet"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that `datasets` keeps go elsewhere, and the made records count as the published ones."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    publish(monkeypatch, "refcoco-m", 5, 15, 15)


def saved(records=RECORDS) -> datasets.Dataset:
    return datasets.Dataset.from_list(records).cast_column("image", datasets.Image())


def shards(folder: Path, records=RECORDS) -> Path:
    folder.mkdir(parents=True)
    for i, part in enumerate((records[:2], records[2:])):
        saved(part).to_parquet(folder / NAME.format(i, 2))
    return folder


def parquet(path: Path, images, **columns) -> Path:
    """One Parquet file, whose schema says nothing of `datasets`."""
    table = pa.Table.from_pylist([{k: v for k, v in r.items() if k != "image"} for r in RECORDS])
    for name, column in {"image": images, **columns}.items():
        table = table.append_column(name, column)
    pq.write_table(table, path, row_group_size=2)
    return path


def contents() -> list[bytes]:
    return [r["image"]["bytes"] for r in RECORDS]


def structs(images=None) -> pa.Array:
    return pa.array([{"bytes": b, "path": None} for b in images or contents()])


def assert_pictures(images: Images, expected=PIXELS) -> None:
    assert len(images) == len(expected)
    for row in (3, 0, 4, -1, 1, 2):
        assert images[row].mode == "RGB"
        np.testing.assert_array_equal(np.asarray(images[row]), expected[row])
    with pytest.raises(IndexError):
        images[len(expected)]


def make_source(kind: str, tmp_path: Path) -> Path:
    if kind == "snapshot":
        return shards(tmp_path / SHA / "data").parent
    if kind == "cache of the Hub's client":
        shards(tmp_path / "datasets--own--name" / "snapshots" / SHA / "data")
        return tmp_path / "datasets--own--name"
    if kind == "among other splits":
        folder = shards(tmp_path / "s" / "data")
        saved(RECORDS[:1]).to_parquet(folder / "test-00000-of-00001.parquet")
        return folder.parent
    if kind == "a name that is also a pattern":
        return shards(tmp_path / "é a[b]=,{x}*(1)~?$ data:files")
    if kind == "saved":
        saved().save_to_disk(str(tmp_path / "saved"), num_shards=2)
        return tmp_path / "saved"
    if kind == "saved splits":
        both = {"test": saved().select([1]), "validation": saved()}
        datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"
    path = tmp_path / "one.parquet"
    if kind == "struct":
        return parquet(path, structs())
    if kind == "bytes":
        return parquet(path, pa.array(contents()))
    if kind == "large bytes":
        return parquet(path, pa.array(contents(), pa.large_binary()), extra=pa.array([0.5] * 5))
    if kind == "paths":
        unpictured(tmp_path / "r.jsonl", RECORDS)
        return parquet(path, pa.array([str(tmp_path / r["file_name"]) for r in RECORDS]))
    assert kind == "prose"
    meta = pa.array([{"image_id": r["image_id"]} for r in RECORDS])
    parquet(path, structs(), image_meta=meta)
    pq.write_table(pq.read_table(path).drop_columns(["image_id"]), path)
    return path


KINDS = ["snapshot", "cache of the Hub's client", "among other splits", "saved", "saved splits"]
KINDS += ["a name that is also a pattern", "struct", "bytes", "large bytes", "paths", "prose"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source(tmp_path: Path, kind: str) -> None:
    images = Images(rc.load_dataset(make_source(kind, tmp_path)))
    assert_pictures(images)
    sent = pickle.dumps(images)
    assert not any(content[:40] in sent for content in contents())
    assert_pictures(pickle.loads(sent))


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(tmp_path / "s")
    saved().save_to_disk(str(tmp_path / "saved"))
    monkeypatch.chdir(tmp_path)
    opened = [Images(rc.load_dataset(name)) for name in ("s", "saved")]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for images in opened:
        assert_pictures(pickle.loads(pickle.dumps(images)))


def test_folder(tmp_path: Path) -> None:
    dataset = rc.load_dataset(unpictured(tmp_path / "r.jsonl", RECORDS))
    assert_pictures(Images(dataset, tmp_path))
    assert_pictures(pickle.loads(pickle.dumps(Images(dataset, str(tmp_path)))))


@pytest.mark.parametrize("kind", ["snapshot", "saved"])
def test_a_folder_wins(tmp_path: Path, kind: str) -> None:
    dataset = rc.load_dataset(make_source(kind, tmp_path))
    (tmp_path / "negatives").mkdir()
    for record, pixels in zip(RECORDS, PIXELS, strict=True):
        (tmp_path / "negatives" / record["file_name"]).write_bytes(encode_png(255 - pixels))
    assert_pictures(Images(dataset, tmp_path / "negatives"), [255 - pixels for pixels in PIXELS])


def test_sample() -> None:
    dataset = rc.load_dataset("sample")
    images = Images(dataset)
    for row in (0, 20):
        expected = draw_image(int(dataset.image_ids[row]))
        np.testing.assert_array_equal(np.asarray(images[row]), expected)


def test_real_pictures() -> None:
    dataset = rc.load_dataset(real_file("refcoco/refcoco_m_like.jsonl"))
    folder = real_file("refcoco/images")
    images = Images(dataset, folder)
    found = 0
    for row, name in enumerate(dataset.images["file_name"].to_pylist()):
        if (folder / name).exists():
            with Image.open(folder / name) as file:
                np.testing.assert_array_equal(
                    np.asarray(images[row]), np.asarray(file.convert("RGB"))
                )
            found += 1
        else:
            with pytest.raises(rc.DatasetError, match=f"{name}: image .*there is no file"):
                images[row]
    assert found == 7


HUB = """
import hashlib, warnings; warnings.simplefilter("ignore")
import numpy as np
from refcocom_gpu.dataset.table import load_dataset
from refcocom_gpu.dataset.images import Images
images = Images(load_dataset("own/name"))
for row in range(len(images)):
    print(hashlib.sha256(np.asarray(images[row]).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("shape", ["published", "prose"])
def test_hub(hub, shape: str) -> None:
    root, env = hub
    records = RECORDS
    if shape == "prose":
        names = ("image", "file_name", "samples")
        records = [
            {"image_meta": {"image_id": r["image_id"]}, **{k: r[k] for k in names}} for r in RECORDS
        ]
    shards(root / "data", records)
    (root / "README.md").write_text(CARD if shape == "published" else "nothing")
    online = run(HUB, **env)
    expected = [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in PIXELS]
    assert online.stdout.split() == expected, online.stderr
    if shape == "published":
        assert run(HUB, **env, HF_HUB_OFFLINE="1").stdout.split() == expected


# As seen ------------------------------------------------------------------------------------------


def with_first(tmp_path: Path, content: bytes) -> Images:
    """Pictures of which the first file holds this."""
    dataset = rc.load_dataset(unpictured(tmp_path / "r.jsonl", RECORDS))
    (tmp_path / "0.png").write_bytes(content)
    return Images(dataset, tmp_path)


def encoded(picture: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def oriented(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels), format="PNG", exif=exif)


TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: np.rot90,
}
"""What a viewer does to stored pixels of each orientation."""

STORED_OF = TURNS | {6: TURNS[8], 8: TURNS[6]}
"""The inverse: a turn one way is undone by the other way, all else by itself."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("embedded", [False, True])
def test_an_orientation_is_applied_and_not_passed_on(
    tmp_path: Path, orientation: int, embedded: bool
) -> None:
    """Masks are drawn on what a viewer shows; pixels of noise show any other turn."""
    content = oriented(np.ascontiguousarray(STORED_OF[orientation](PIXELS[0])), orientation)
    if embedded:
        path = parquet(tmp_path / "one.parquet", structs([content, *contents()[1:]]))
        images = Images(rc.load_dataset(path))
    else:
        images = with_first(tmp_path, content)
    assert images.problem(0) == ""
    np.testing.assert_array_equal(np.asarray(images[0]), PIXELS[0])
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(images[0])), PIXELS[0])
    examples = rc.ExpressionDataset(images.dataset, images=images.folder)
    np.testing.assert_array_equal(np.asarray(examples[0]["image"]), PIXELS[0])


def test_an_orientation_that_contradicts_the_masks_is_not_applied(tmp_path: Path) -> None:
    images = with_first(tmp_path, oriented(PIXELS[0], 6))
    np.testing.assert_array_equal(np.asarray(images[0]), PIXELS[0])
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(images[0])), PIXELS[0])


def test_an_orientation_that_fits_no_mask_is_named(tmp_path: Path) -> None:
    images = with_first(tmp_path, oriented(PIXELS[1], 8))
    message = r"picture is 23 × 49 \(height × width\), by its EXIF orientation 8 49 × 23, its mask 20 × 51"
    with pytest.raises(rc.DatasetError, match=message) as caught:
        images[0]
    assert images.problem(0) == str(caught.value)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0"])
def test_damaged_exif_data_is_ignored(tmp_path: Path, exif: bytes) -> None:
    content = encoded(Image.fromarray(PIXELS[0]), format="PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(with_first(tmp_path, content)[0]), PIXELS[0])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    stored = Image.fromarray(PIXELS[0]).convert(mode)
    content = encoded(stored, format="TIFF" if mode == "CMYK" else "PNG")
    picture = with_first(tmp_path, content)[0]
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(stored.convert("RGB")))


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["train2014/0.png", r"train2014\0.png", r"C:\coco\train2014\0.png"]
)
@pytest.mark.parametrize("place", ["0.png", "train2014/0.png"])
def test_a_name_with_folders(tmp_path: Path, name: str, place: str) -> None:
    records = [dict(r) for r in RECORDS]
    path = unpictured(tmp_path / "r.jsonl", records)
    path.write_text(path.read_text().replace('"0.png"', json.dumps(name)))
    (tmp_path / "train2014").mkdir()
    (tmp_path / "0.png").rename(tmp_path / place)
    images = Images(rc.load_dataset(path), tmp_path)
    if name.startswith("C:") and place != "0.png":
        with pytest.raises(rc.DatasetError, match="image 0: there is no file"):
            images[0]
        return
    assert images.path(0) == tmp_path / place
    np.testing.assert_array_equal(np.asarray(images[0]), PIXELS[0])


def test_a_base_name_of_two_files_finds_neither(tmp_path: Path) -> None:
    path = unpictured(tmp_path / "r.jsonl", RECORDS)
    text = path.read_text().replace('"0.png"', '"a/0.png"').replace('"1.png"', r'"b\\0.png"')
    path.write_text(text)
    images = Images(rc.load_dataset(path), tmp_path)
    for row in (0, 1):
        with pytest.raises(rc.DatasetError, match="there is no file"):
            images[row]
    (tmp_path / "b").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "b" / "0.png")
    np.testing.assert_array_equal(np.asarray(images[1]), PIXELS[1])


# Mistakes -----------------------------------------------------------------------------------------


def test_no_pictures(tmp_path: Path) -> None:
    path = parquet(tmp_path / "one.parquet", structs())
    pq.write_table(pq.read_table(path).drop_columns(["image"]), path)
    saved().remove_columns("image").save_to_disk(str(tmp_path / "saved"))
    sources = [unpictured(tmp_path / "r.jsonl", RECORDS), path, tmp_path / "saved"]
    for source in sources:
        dataset = rc.load_dataset(source)
        with pytest.raises(rc.UsageError, match=r"holds no pictures; pass the folder"):
            Images(dataset)
        assert_pictures(Images(dataset, tmp_path))
    with pytest.raises(rc.UsageError, match="nowhere is not a folder"):
        Images(dataset, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image 0: the picture does not decode: cannot identify"),
        (b"\xff\xd8 no JPEG", "image 0: the picture does not decode: cannot identify"),
        (contents()[0][:-900], "image 0: the picture does not decode: .*truncated"),
        (
            contents()[1],
            r"image 0: the picture is 23 × 49 \(height × width\), its mask 20 × 51",
        ),
        (encode_png(PIXELS[0].transpose(1, 0, 2)), "image 0: the picture is 51 × 20"),
    ],
)
@pytest.mark.parametrize("embedded", [False, True])
def test_a_wrong_picture(tmp_path: Path, content: bytes, message: str, embedded: bool) -> None:
    if embedded:
        path = parquet(tmp_path / "one.parquet", structs([content, *contents()[1:]]))
        images = Images(rc.load_dataset(path))
        message = message if content else "one.parquet: image 0: the picture is null"
    else:
        images = with_first(tmp_path, content)
        message = r"0\.png: " + message
    with pytest.raises(rc.DatasetError, match=message) as caught:
        images[0]
    # Only the pixels show that a file is cut.
    assert images.problem(0) == ("" if "truncated" in message else str(caught.value))
    assert images.problem(1) == ""
    np.testing.assert_array_equal(np.asarray(images[1]), PIXELS[1])


def test_an_absent_picture(tmp_path: Path) -> None:
    paths = pa.array([None, "no/such.png", None, None, None], pa.string())
    path = parquet(tmp_path / "one.parquet", paths)
    images = Images(rc.load_dataset(path))
    with pytest.raises(rc.DatasetError, match=r"one.parquet: image 0: the picture is null"):
        images[0]
    with pytest.raises(rc.DatasetError, match=r"image 7: there is no file no/such.png"):
        images[1]


def test_an_absent_file(tmp_path: Path) -> None:
    records = [dict(r) for r in RECORDS]
    path = unpictured(tmp_path / "r.jsonl", records)
    (tmp_path / "1.png").unlink()
    images = Images(rc.load_dataset(path), tmp_path)
    with pytest.raises(rc.DatasetError, match=r"1\.png: image 7: there is no file .*1\.png"):
        images[1]
    path.write_text(path.read_text().replace('"file_name": "0.png"', '"file_name": ""'))
    with pytest.raises(rc.DatasetError, match=r"r\.jsonl: image 0: file_name is absent"):
        Images(rc.load_dataset(path), tmp_path)[0]


def test_a_source_that_changed(tmp_path: Path) -> None:
    path = parquet(tmp_path / "one.parquet", structs())
    dataset = rc.load_dataset(path)
    table = pq.read_table(path)
    pq.write_table(table.take([0, 2, 1, 3, 4]), path)
    with pytest.raises(rc.DatasetError, match=r"record 1 is now image_id 14, where 7 .*\(2 differ"):
        Images(dataset)
    pq.write_table(table.slice(0, 4), path)
    with pytest.raises(rc.DatasetError, match=r"now holds 4 images where 5 were loaded"):
        Images(dataset)
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(rc.DatasetError, match="pictures cannot be read"):
        Images(dataset)


def test_a_damaged_column(tmp_path: Path) -> None:
    path = parquet(tmp_path / "one.parquet", structs())
    dataset = rc.load_dataset(path)
    data = path.read_bytes()
    with pq.ParquetFile(path) as file:
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        column = file.metadata.row_group(1).column(leaves.index("image.bytes"))
    start, size = column.data_page_offset, column.total_compressed_size
    start = column.dictionary_page_offset or start
    path.write_bytes(data[:start] + b"\xff" * size + data[start + size :])
    with pytest.raises(rc.DatasetError, match="pictures cannot be read"):
        Images(dataset)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = rc.load_dataset("sample")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(rc.UsageError, match=r"pip install 'refcocom-gpu\[images\]'"):
        Images(dataset)
