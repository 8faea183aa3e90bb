"""Everything in the README is run: Python and shell blocks in one folder, outputs compared, JSON lines scored."""

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
    assert len(lines) == 15
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
    safetensors.numpy.save_file(masks, folder / "masks.safetensors")
    return folder


SCORED_BY = re.findall(r"^\|.*\| `(refcocom score [^`]+)` \|$", README, re.MULTILINE)


def test_every_format_has_a_line():
    (table,) = re.findall(r"^\| predictions \| hold .*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert len(SCORED_BY) == len(table.strip().splitlines()) - 2


@pytest.mark.parametrize("line", SCORED_BY)
def test_the_line_of_a_format(kinds, monkeypatch, capsys, line):
    monkeypatch.chdir(kinds)
    assert main([*shlex.split(line)[1:], "dataset=sample", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] == pytest.approx(0.8625, abs=1e-4)


def test_every_example_is_listed():
    listed = re.findall(r"^- `(\w+\.py)`:", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    for name in re.findall(r"\]\((\w[\w/.]*)\)", README):
        assert (ROOT / name).is_file(), name
