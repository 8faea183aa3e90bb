"""Everything in the README is run: Python and shell blocks in one folder, outputs compared, JSON lines scored."""

import base64
import gzip
import io
import json
import re
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

import refcocom_gpu as rc
from refcocom_gpu.adapters.sources import SOURCES
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.masks import rle

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader would stand after running the Python block: with `preds.parquet` and a snapshot beside it."""
    folder = tmp_path_factory.mktemp("reader")
    pq.write_table(
        pa.Table.from_pylist(make_records()),
        _made(folder / "snapshot" / "data") / "validation.parquet",
    )
    for name, seed in (("one", 1), ("two", 2), ("exact", None)):
        rows = make_predictions(make_records(), "good", seed or 0)
        if seed is None:
            truth = {s["id"]: s["mask"] for record in make_records() for s in record["samples"]}
            rows = [{**row, "segmentation": truth[row["sample_id"]]} for row in rows]
        lines = "\n".join(json.dumps(row) for row in rows)
        (_made(folder / "runs" / name) / "preds.jsonl").write_text(lines)
    return folder


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_python_block_then_shell_lines(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, loop, queries, _ = blocks("python")
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["result"].miou == 1.0
    assert capsys.readouterr().out.split() == ["1.0", "1.0", "1.0"]
    assert namespace["rc"].load_results("out").miou == 1.0
    exec(compile(loop, "README.md", "exec"), namespace)
    assert namespace["scores"]["refcocom/miou"] == 1.0
    lines = [line for block in blocks("bash") for line in block.splitlines() if "refcocom" in line]
    assert len(lines) == 16
    for line in lines:
        # A snapshot of the sample has the sample's counts, which is what the warning is about.
        words = shlex.split(line, comments=True)
        assert words[0] == "refcocom"
        assert main(words[1:]) == 0, line
    assert json.loads((folder / "run" / "summary.json").read_text())["miou"] == 1.0
    exec(compile(queries, "README.md", "exec"), namespace)
    best, *_ = namespace["small"].fetchall()
    assert best[0] == "exact"
    assert len(namespace["hard"].fetchall()) == 0
    assert len(namespace["split"].fetchall()) == 10


def test_the_operators():
    *_, code = blocks("python")
    *lines, call = code.rstrip().splitlines()
    expression, _, said = call.partition("  # ")
    namespace = {}
    exec(compile("\n".join(lines), "README.md", "exec"), namespace)
    assert str(eval(expression, namespace).tolist()) in said


def test_the_picture_of_the_output(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = next(block for block in blocks("text") if block.startswith("$ refcocom"))
    command, _, expected = text.partition("\n")
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(shlex.split(command)[2:]) == 0
    # device=auto takes a GPU where there is one.
    assert re.sub(r"counted on cuda:\d+", "counted on cpu", printed.getvalue()) == expected


def test_the_table_of_python(tmp_path):
    """Every expression of the first column is evaluated; the results are those that the row above names."""
    table = README.partition("| in Python or a notebook | is |\n|---|---|\n")[2].partition("\n\n")[
        0
    ]
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    manifest = tmp_path / "runs.csv"
    rows = [json.dumps(row) for row in make_predictions(make_records(), "good")]
    (tmp_path / "preds.jsonl").write_text("\n".join(rows))
    manifest.write_text("path,step\npreds.jsonl,1\n")
    outcome = rc.sweep(None, store, tmp_path / "sweep", manifest=manifest, replicates=99)
    result = rc.score("sample", store)
    names = {
        "rc": rc, "store": store, "dataset": store.dataset, "result": result, "leaderboard": outcome.leaderboard,
        "comparison": rc.compare(result, result, replicates=99),
    }  # fmt: skip
    cells = [line.split(" | ")[0] for line in table.splitlines()]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    assert len(spans) == 13
    for span in spans:
        value = eval(span, dict(names))
        if span in names:
            assert len(repr(value).splitlines()) == 1
            assert value._repr_html_().startswith("<div><table")
        assert value is not None


def test_the_make_targets_exist():
    (commands,) = [b for b in blocks("bash") if "make " in b]
    targets = re.findall(r"^make (\w+)", commands, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_prediction_format(folder, monkeypatch, capsys):
    """The three lines of the format, with real counts in place of the ellipsis, are a file that is read."""
    monkeypatch.chdir(folder)
    (block,) = blocks("json")
    rows = make_predictions(make_records(), "good")
    by_key = {(row["sample_id"], row["sentence_idx"]): row for row in rows}
    lines = []
    for line in block.splitlines():
        row = json.loads(line)
        real = by_key.pop((row.get("sample_id"), row.get("sentence_idx")), None)
        if row.get("segmentation"):
            assert row["segmentation"]["size"] == real["segmentation"]["size"]
            row["segmentation"]["counts"] = real["segmentation"]["counts"]
        lines.append(json.dumps(row))
    Path("format.jsonl").write_text("\n".join(lines))
    assert main(["score", "format.jsonl", "dataset=sample", "missing=zero"]) == 0
    out = capsys.readouterr().out
    assert f"({len(by_key)} missing, scored as empty)" in out


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A folder with predictions of every kind that the table of formats names."""
    folder = tmp_path_factory.mktemp("kinds")
    rows = make_predictions(make_records(), "good")
    text = "\n".join(json.dumps(row) for row in rows).encode()
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "preds.jsonl.gz").write_bytes(gzip.compress(text))
    for rank, part in enumerate((rows[::2], rows[1::2])):
        saved = folder / "saved" / "epoch-00000"
        saved.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), saved / f"rank-{rank}.parquet")
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "preds.parquet")
    pyarrow.feather.write_feather(table, folder / "preds.feather")
    datasets.Dataset(table).save_to_disk(folder / "saved-dataset")
    masks = {
        f"{row['sample_id']}_{row['sentence_idx']}": rle.decode(row["segmentation"]) for row in rows
    }
    (folder / "masks").mkdir()
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    shutil.make_archive(str(folder / "masks"), "zip", folder, "masks")
    np.savez_compressed(folder / "masks.npz", **masks)
    write_answers(folder)
    write_boxes(folder, masks)
    write_renamed(folder, rows)
    safetensors.numpy.save_file(masks, folder / "masks.safetensors")
    return folder


LINES = re.findall(r"^\|.*\| `(refcocom \w+ [^`]+)` \|$", README, re.MULTILINE)


def test_every_row_has_a_line():
    """Of the tables of keys, of formats, of boxes and of raw answers; a REFER release is no set made here."""
    tables = re.findall(
        r"^\| [^|\n]*(?:\| hold )?\| (?:scored|converted) by \|\n.*?\n\n", README, re.M | re.S
    )
    assert len(tables) == 4
    rows = sum(len(table.strip().splitlines()) - 2 for table in tables)
    assert len(LINES) == rows - 1
    named = re.findall(r"source=(\w+)", " ".join(LINES))
    assert set(named) == set(SOURCES)


@pytest.mark.parametrize("line", LINES)
def test_the_line_of_a_row(kinds, monkeypatch, capsys, line):
    monkeypatch.chdir(kinds)
    words = [*shlex.split(line)[1:], "dataset=sample"]
    if words[0] == "convert":
        words += ["missing=skip", "overwrite=true"]
        words[2] = "converted.parquet"
    assert main([*words, "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    if "box_format" in line:
        masks = rc.score("preds.parquet", "sample", metrics=["iou", "boxes"])
        assert found["box_iou"] == pytest.approx(masks.box_iou, abs=1e-12)
        return
    if words[0] == "score":
        assert found["miou"] == pytest.approx(0.8625, abs=1e-4)
        return
    assert (found["n_read"], found["n_written"]) == (1, 1)
    assert main(["score", "converted.parquet", "dataset=sample", "missing=zero", "json=true"]) == 0
    summary = json.loads(capsys.readouterr().out)
    if "boxes=keep" in words:
        assert summary["box_iou"] == pytest.approx(left_half_box(), rel=1e-9)
        return
    # Each answer draws the left half of the image, whose counts this computes from the records.
    assert summary["ciou"] == pytest.approx(left_half()[1], rel=0.02)


def left_half() -> tuple[dict, float]:
    """The first sample of the records, and cIoU where the left half of its image is the only mask that is not empty."""
    samples = [sample for record in make_records() for sample in record["samples"]]
    areas = [int(rle.decode(s["mask"]).sum()) for s in samples for _ in s["sentences"]]
    first = samples[0]
    mask = rle.decode(first["mask"])
    half = mask.shape[1] // 2
    intersection = int(mask[:, :half].sum())
    return first, intersection / (sum(areas) + mask.shape[0] * half - intersection)


def left_half_box() -> float:
    """Mean box IoU where the left half of the first image is the only box."""
    samples = [sample for record in make_records() for sample in record["samples"]]
    H, W = samples[0]["mask"]["size"]
    half = W // 2
    x, _, w, h = samples[0]["bbox"]
    shared = max(min(x + w, half) - x, 0) * h
    return shared / (w * h + H * half - shared) / sum(len(s["sentences"]) for s in samples)


def write_boxes(folder: Path, masks: dict[str, np.ndarray]) -> None:
    """The tight boxes of masks in the forms that the table of boxes names."""
    pixels, coco, parts = [], [], []
    for name, mask in masks.items():
        key = dict(zip(("sample_id", "sentence_idx"), map(int, name.split("_")), strict=True))
        ys, xs = np.nonzero(mask)
        H, W = mask.shape
        x0, y0, x1, y1 = (*(int(e.min()) for e in (xs, ys)), *(int(e.max()) + 1 for e in (xs, ys)))
        pixels.append({**key, "box": [x0, y0, x1, y1]})
        coco.append({**key, "bbox": [x0, y0, x1 - x0, y1 - y0]})
        share = [1000 * x0 / W, 1000 * y0 / H, 1000 * x1 / W, 1000 * y1 / H]
        parts.append({**key, "box": share})
    pq.write_table(pa.Table.from_pylist(pixels), folder / "boxes.parquet")
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "parts.jsonl").write_text("\n".join(map(json.dumps, parts)))


def write_renamed(folder: Path, rows: list[dict]) -> None:
    """The same predictions, whose rows name their examples in other ways."""
    known = {}
    for record in make_records():
        for position, sample in enumerate(record["samples"]):
            for k, sentence in enumerate(sample["sentences"]):
                known[sample["id"], k] = {
                    "image_id": record["image_id"],
                    "position": position,
                    "sample_id": sample["id"],
                    "sentence_idx": k,
                    "sentence": sentence,
                }
    masks = {(row["sample_id"], row["sentence_idx"]): row["segmentation"] for row in rows}
    for name, fields in {
        "texts": {"sample_id": "sample_id", "sentence": "sentence"},
        "positions": {f: f for f in ("image_id", "position", "sentence_idx")},
        "rows": {},
        "renamed": {"sample_id": "ann_id", "sentence_idx": "sentence_idx"},
    }.items():
        mask = "mask" if name == "renamed" else "segmentation"
        table = [
            {**{theirs: facts[ours] for ours, theirs in fields.items()}, mask: masks[key]}
            for key, facts in known.items()
        ]
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")


def write_answers(folder: Path) -> None:
    """What each model would answer that means the left half of the image."""
    sample, _ = left_half()
    H, W = sample["mask"]["size"]
    half = W // 2
    mask = np.zeros((H, W), bool)
    mask[:, :half] = True
    share = 1000 * half / W
    corners = [[0, 0], [share, 0], [share, 1000], [0, 1000]]
    turned = [[y, x] for x, y in corners]
    picture = io.BytesIO()
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(picture, "PNG")
    encoded = base64.b64encode(picture.getvalue()).decode()
    box = [0, 0, 1000, share]
    processed = [28 * round(n / 28) for n in (H, W)]
    answers = {
        "gemini": [{"box_2d": box, "mask": f"data:image/png;base64,{encoded}", "label": "it"}],
        "gemini-boxes": [{"box_2d": box, "label": "it"}],
        "gemini-points": [{"box_2d": box, "mask": turned, "label": "it"}],
        "moondream": {
            "path": "M 0 0 L 1 0 L 1 1 L 0 1 Z",
            "bbox": {"x_min": 0, "y_min": 0, "x_max": half / W, "y_max": 1},
        },
        "qwen": [{"polygon": corners}],
        "qwen25": [{"polygon": [[x * processed[1] / 1000, y * processed[0] / 1000] for x, y in corners]}],
        "florence": {"polygons": [[[0, 0, half, 0, half, H, 0, H]]], "labels": [""]},
        "points": corners,
        "svg": f"M 0 0 H {half} V {H} H 0 Z",
        "rle": rle.encode(mask),
    }  # fmt: skip
    for name, response in answers.items():
        row = {"sample_id": sample["id"], "sentence_idx": 0, "response": response}
        if name == "qwen25":
            row["processed_size"] = processed
        (folder / f"{name}.jsonl").write_text(json.dumps(row))


def test_every_example_is_listed():
    listed = re.findall(r"^- `(\w+\.(?:py|ipynb))`:", README, re.MULTILINE)
    there = [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]
    assert sorted(listed) == sorted(path.name for path in there)
    for name in re.findall(r"\]\((\w[\w/.]*)\)", README):
        assert (ROOT / name).is_file(), name
