"""Sweeps: every set of predictions once, on any engine, from any kind of place, through kills at any moment."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sweeps import STORE, contents, lines, made_runs, rows_of, sweep

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.predictions.header import SCHEMA, VERSION
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.sweep import run as run_module
from refcocom_gpu.sweep import task as task_module
from refcocom_gpu.sweep.inputs import distinguish, read_inputs
from refcocom_gpu.sweep.per_example import partition
from refcocom_gpu.sweep.run import Ranking, run_sweep
from refcocom_gpu.sweep.task import Options
from refcocom_gpu.utils.files import hash_file


@pytest.fixture
def counted(monkeypatch):
    """Paths in the order they are counted."""
    seen = []
    real = task_module.count

    def counting(predictions, *arguments, **options):
        seen.append(str(predictions.files[0]))
        return real(predictions, *arguments, **options)

    monkeypatch.setattr(task_module, "count", counting)
    return seen


def options_with(missing="error", **reading):
    return Options(ReadOptions(**{"threads": 1, **reading}), missing)


@pytest.fixture
def runs(tmp_path):
    return made_runs(tmp_path / "runs", 4)


def test_counts_are_those_of_scoring_each_file(runs, tmp_path):
    outcome = sweep(runs, tmp_path / "out")
    assert (outcome.n_scored, outcome.n_failed) == (4, 0)
    assert [result.path for result in outcome.results] == runs
    for result in outcome.results:
        scored = rc.score(result.path, STORE)
        for k, column in enumerate(("intersection", "pred_area")):
            assert np.array_equal(result.counts[:, k], scored.per_example[column])
        assert result.digest == scored.info["predictions"]["xxh3_128"]
    backwards = sweep(runs[::-1], tmp_path / "backwards")
    assert [result.path for result in backwards.results] == runs[::-1]
    # Only the leaderboard may know in which order the files were named.
    mine, theirs = contents(tmp_path / "out"), contents(tmp_path / "backwards")
    kept = [name for name in mine if name.startswith(("results/", "per_example/"))]
    assert len(kept) == 8
    assert all(mine[name] == theirs[name] for name in kept)


def test_nothing_is_scored_twice(runs, tmp_path, counted):
    first = sweep(runs, tmp_path / "out")
    assert sorted(counted) == runs
    before = contents(tmp_path / "out")
    counted.clear()
    again = sweep(runs, tmp_path / "out")
    assert (counted, again.n_scored, first.n_scored) == ([], 0, 4)
    assert contents(tmp_path / "out") == before
    # Without the index of hashes everything is hashed again, and nothing scored.
    (tmp_path / "out" / ".known.jsonl").write_text('["torn')
    sweep(runs, tmp_path / "out")
    assert counted == []
    assert contents(tmp_path / "out") == before


def test_a_changed_file_is_scored_anew(runs, tmp_path, counted):
    old = time.time() - 1000
    for file in runs:
        os.utime(file, (old, old))
    sweep(runs, tmp_path / "out")
    counted.clear()
    # Of the same size and time of change, as rsync --times makes them; that it was replaced shows all the same.
    changed = Path(runs[1])
    text = changed.read_text()
    other = text.replace('"sentence_idx": 0, "sentence": "', '"sentence_idx": 0, "Sentence": "', 1)
    assert len(other) == len(text)
    changed.write_text(other)
    os.utime(changed, (old, old))
    sweep(runs, tmp_path / "out")
    assert counted == [runs[1]]
    counted.clear()
    changed.write_text(text)
    sweep(runs, tmp_path / "out")
    assert counted == []


@pytest.mark.parametrize(
    "changed", [{"missing": "zero"}, {"values": "probabilities"}, {"polygons": "pixels"}]
)
def test_a_changed_option_scores_anew(runs, tmp_path, counted, changed):
    sweep(runs, tmp_path / "out")
    counted.clear()
    sweep(runs, tmp_path / "out", options=options_with(**changed))
    assert sorted(counted) == runs
    counted.clear()
    # What changes no count scores nothing anew, and the former results are still there.
    for options in ({"batch_size": 3}, {"threads": 2}, {}):
        sweep(
            runs,
            tmp_path / "out",
            options=options_with(**options),
            ranking=Ranking(precision_strict=True),
        )
    assert counted == []


def test_other_code_and_another_dataset_score_anew(runs, tmp_path, counted, monkeypatch):
    sweep(runs, tmp_path / "out")
    counted.clear()
    monkeypatch.setattr("refcocom_gpu.sweep.run.code_version", lambda: "0.0.0-0")
    with pytest.raises(rc.UsageError, match=r"a worker runs refcocom-gpu .*, the sweep 0\.0\.0-0"):
        sweep(runs, tmp_path / "out")
    monkeypatch.undo()
    records = tmp_path / "set.jsonl"
    records.write_text("\n".join(map(json.dumps, make_records()[:-1])))
    store = rc.MaskStore.build(rc.load_dataset(records), cache=False)
    outcome = run_sweep(read_inputs(runs), store, tmp_path / "out")
    # Predictions for an image that is not in it: read, and refused.
    assert outcome.n_failed == 4


def test_one_content_is_scored_once_and_listed_twice(runs, tmp_path, counted):
    twin = tmp_path / "twin.jsonl"
    twin.write_bytes(Path(runs[2]).read_bytes())
    outcome = sweep([*runs, twin], tmp_path / "out")
    assert len(counted) == 4
    assert np.array_equal(outcome.results[2].counts, outcome.results[4].counts)
    assert outcome.results[4].path == str(twin)
    # The same bytes under another ending are other predictions.
    counted.clear()
    other = tmp_path / "twin.npz"
    other.write_bytes(twin.read_bytes())
    outcome = sweep([twin, other], tmp_path / "out")
    assert outcome.results[0].error is None
    assert "not an .npz archive" in outcome.results[1].error


def test_a_broken_file_is_a_row_with_its_error(runs, tmp_path, counted):
    Path(runs[1]).write_text('{"sample_id": 1}')
    Path(runs[2]).write_bytes(Path(runs[1]).read_bytes())
    odd = tmp_path / "preds.txt"
    odd.write_text("x")
    seen = []
    outcome = sweep([*runs, odd], tmp_path / "out", settled=seen.append)
    assert [result.error is None for result in outcome.results] == [True, False, False, True, False]
    assert outcome.n_failed == 3
    # Each error names its own file, also where two files are equal.
    for k in (1, 2):
        assert f"{runs[k]}, line 1" in outcome.results[k].error
        assert outcome.results[k].counts is None
    assert "not .txt" in outcome.results[4].error
    assert len(seen) == 5
    # Errors are not kept: a mended file is scored, one that is not mended is tried again.
    Path(runs[1]).write_text(lines(99))
    counted.clear()
    outcome = sweep([*runs, odd], tmp_path / "out")
    assert outcome.n_failed == 2
    assert sorted(counted) == sorted([runs[1], runs[2], str(odd)])


def test_an_unforeseen_error_stops_nothing(runs, tmp_path, monkeypatch):
    real = task_module.count

    def bug(predictions, *arguments, **options):
        if "step-02" in predictions.name:
            raise ZeroDivisionError("unforeseen")
        return real(predictions, *arguments, **options)

    monkeypatch.setattr(task_module, "count", bug)
    outcome = sweep(runs, tmp_path / "out")
    assert outcome.results[2].error == "unexpected ZeroDivisionError: unforeseen"
    assert outcome.n_scored == 3


def test_a_file_that_changes_while_it_is_read(runs, tmp_path, monkeypatch):
    real = task_module.count

    def changing(predictions, *arguments, **options):
        counted = real(predictions, *arguments, **options)
        if "step-01" in predictions.name:
            predictions.files[0].write_text(lines(77))
        return counted

    monkeypatch.setattr(task_module, "count", changing)
    outcome = sweep(runs, tmp_path / "out")
    assert "changed while it was read" in outcome.results[1].error
    monkeypatch.undo()
    outcome = sweep(runs, tmp_path / "out")
    assert outcome.n_failed == 0
    assert np.array_equal(
        outcome.results[1].counts[:, 0], rc.score(runs[1], STORE).per_example["intersection"]
    )


def test_a_new_file_is_hashed_once(runs, tmp_path, monkeypatch):
    hashed = []

    def hashing(path):
        hashed.append(str(path))
        return hash_file(path)

    for module in (run_module, task_module):
        monkeypatch.setattr(module, "hash_file", hashing)
    outcome = sweep(runs, tmp_path / "out")
    assert outcome.n_scored == len(runs)
    assert sorted(hashed) == runs


def test_damaged_results_are_scored_anew(runs, tmp_path, counted):
    sweep(runs, tmp_path / "out")
    before = contents(tmp_path / "out")
    counted.clear()
    results = sorted((tmp_path / "out" / "results").iterdir())
    flipped = bytearray(results[0].read_bytes())
    flipped[-5] ^= 4
    results[0].write_bytes(flipped)
    results[1].write_bytes(b"")
    results[2].rename(results[3])
    (tmp_path / "out" / "results" / "x.123.tmp").write_text("left by a kill")
    sweep(runs, tmp_path / "out")
    assert len(counted) == 4
    assert contents(tmp_path / "out") == before


# ---------------------------------------------------------------- inputs


def test_kinds_of_inputs(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = "runs/step-0?/preds.jsonl"
    assert [i.path for i in read_inputs(folder)] == [
        f"runs/step-0{k}/preds.jsonl" for k in range(4)
    ]
    assert [i.place for i in read_inputs(folder)] == [f"step-0{k}" for k in range(4)]
    # A name in a glob, or twice, is one set.
    assert len(read_inputs([folder, "runs/step-01/preds.jsonl", "runs/*/*"])) == 4
    shards = read_inputs([["runs/step-00/*", "runs/step-01/*"], "runs/step-02/preds.jsonl"])
    assert [len(item.files) for item in shards] == [2, 1]
    for wrong in ("nowhere/*.jsonl", ["runs/step-00/preds.jsonl", "nowhere"], []):
        with pytest.raises(rc.UsageError, match="no prediction file"):
            read_inputs(wrong)
    with pytest.raises(rc.UsageError, match="a sweep needs predictions"):
        read_inputs(None)
    with pytest.raises(rc.UsageError, match="named twice"):
        read_inputs(folder, "m.csv")
    Path("m.csv").write_text("path\n")
    with pytest.raises(rc.UsageError, match=r"manifest=m\.csv"):
        read_inputs("m.csv")


def test_shards_are_one_set(tmp_path):
    whole = lines(0).splitlines()
    for name, part in (("a", whole[:100]), ("b", whole[100:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part))
    shards = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    outcome = sweep([shards, *shards], tmp_path / "out")
    assert [result.error is None for result in outcome.results] == [True, False, False]
    assert outcome.results[0].path == ", ".join(shards)
    (tmp_path / "whole.jsonl").write_text(lines(0))
    whole_set = sweep([tmp_path / "whole.jsonl"], tmp_path / "out").results[0]
    assert np.array_equal(outcome.results[0].counts, whole_set.counts)
    outcome = sweep(shards, tmp_path / "out", options=Options(missing="zero"))
    assert [len(result.absent) for result in outcome.results] == [197, 100]


def manifest_rows(folder):
    return [
        {"path": "step-00/preds.jsonl", "model": "007", "step": 100, "lr": 0.1},
        {"path": str(folder / "step-01" / "preds.jsonl"), "model": None, "step": 200, "lr": 0.2},
        {"path": "gone.jsonl", "model": "gone", "step": 300, "lr": None},
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests(runs, tmp_path, kind):
    folder = tmp_path / "runs"
    manifest = folder / f"manifest.{kind}"
    rows = manifest_rows(folder)
    if kind == "csv":
        table = [["path", "model", "step", "lr"], *(row.values() for row in rows)]
        text = "\n".join(",".join("" if v is None else str(v) for v in row) for row in table)
        manifest.write_text(text, "utf-8-sig")
    elif kind == "jsonl":
        manifest.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), manifest)
    outcome = sweep(None, tmp_path / "out", manifest=manifest)
    assert [result.path for result in outcome.results] == [row["path"] for row in rows]
    assert [result.model for result in outcome.results][::2] == ["007", "gone"]
    assert [result.columns["step"] for result in outcome.results] == [100, 200, 300]
    assert outcome.results[1].columns == {"step": 200, "lr": 0.2}
    assert [result.error is None for result in outcome.results] == [True, True, False]
    assert "gone.jsonl cannot be read: No such file" in outcome.results[2].error


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,model\na,b\n", "m.csv, row 1: no column path; the row has file, model"),
        ("m.csv", "path,model\n,b\n", "row 1: path is None, not a file name"),
        ("m.jsonl", '{"path": 3}', "row 1: path is 3, not a file name"),
        ("m.jsonl", "[1]", "m.jsonl cannot be read"),
        ("m.parquet", "x", "m.parquet cannot be read"),
        ("m.txt", "x", "a manifest ends in .csv"),
        ("m.csv", "path\n", "no prediction file was given"),
    ],
)
def test_wrong_manifests(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(rc.UsageError, match=message.replace(".", r"\.")):
        read_inputs(None, tmp_path / name)


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(rc.UsageError, match=r"gone\.csv cannot be read: No such file"):
        read_inputs(None, tmp_path / "gone.csv")


def test_models(tmp_path):
    """From the manifest, else the header, else the path."""
    header = {"schema": SCHEMA, "version": VERSION, "model": "LISA 7B"}
    (tmp_path / "a.jsonl").write_text(json.dumps(header) + "\n" + lines(0))
    table = pa.Table.from_pylist(rows_of(1))
    named = table.replace_schema_metadata({k: str(v) for k, v in (header | {"model": "é"}).items()})
    pq.write_table(named, tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text(lines(2))
    files = [tmp_path / "a.jsonl", tmp_path / "b.parquet", tmp_path / "c.jsonl"]
    for _ in range(2):  # counted, then kept
        outcome = sweep(files, tmp_path / "out")
        assert [result.model for result in outcome.results] == ["LISA 7B", "é", "c"]
    (tmp_path / "m.csv").write_text("path,model\na.jsonl,mine\nb.parquet,\n")
    outcome = sweep(None, tmp_path / "out", manifest=tmp_path / "m.csv")
    assert [result.model for result in outcome.results] == ["mine", "é"]


def test_what_distinguishes_paths():
    assert distinguish(["a/p.jsonl", "a/b/p.jsonl"]) == ["p", "b/p"]
    assert distinguish(["p.jsonl", "p.parquet"]) == ["p.jsonl", "p.parquet"]
    assert distinguish(["s3://b/x/1.npz?v=1", "s3://b/x/2.npz?v=1"]) == ["1", "2"]
    assert distinguish(["a/same.jsonl", "a/same.jsonl"]) == ["same", "same"]
    assert distinguish(["/r/x/é/p.json", "/r/y/漢/p.json"]) == ["x/é", "y/漢"]
    assert distinguish(["masks"]) == ["masks"]


def test_the_built_in_predictions(tmp_path):
    for scored in (2, 0):
        outcome = sweep(["sample", "sample-coarse"], tmp_path / "out")
        assert [result.model for result in outcome.results] == ["sample", "sample-coarse"]
        assert outcome.n_scored == scored
    assert np.array_equal(
        outcome.results[0].counts[:, 0], rc.score("sample", STORE).per_example["intersection"]
    )


# ---------------------------------------------------------------- addresses


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/sweep", recursive=True)


def test_addresses_of_memory(tmp_path, memory, counted):
    for k in range(3):
        memory.pipe(f"/sweep/{k}/preds.jsonl", lines(k).encode())
    for scored in (3, 0):
        outcome = sweep("memory://sweep/*/preds.jsonl", tmp_path / "out")
        assert outcome.n_scored == scored
    assert [result.model for result in outcome.results] == ["0", "1", "2"]
    assert outcome.results[1].path == "memory:///sweep/1/preds.jsonl"
    memory.pipe("/sweep/1/preds.jsonl", lines(50).encode())
    memory.pipe("/sweep/2/preds.jsonl", b"{}")
    outcome = sweep("memory://sweep/*/preds.jsonl", tmp_path / "out")
    assert outcome.n_scored == 1
    # The error names the address, not the temporary file.
    assert "memory:///sweep/2/preds.jsonl, line 1" in outcome.results[2].error
    assert tmp_path.anchor + "tmp" not in outcome.results[2].error
    memory.pipe("/sweep/m.jsonl", b'{"path": "0/preds.jsonl", "model": "zero"}')
    outcome = sweep(None, tmp_path / "out", manifest="memory://sweep/m.jsonl")
    assert (outcome.results[0].model, outcome.n_scored) == ("zero", 0)
    with pytest.raises(rc.UsageError, match="no prediction file at memory://sweep/nothing"):
        read_inputs("memory://sweep/nothing*")
    with pytest.raises(rc.UsageError, match="cannot be opened"):
        read_inputs("nosuchsystem://x/p.jsonl")


class _Served(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    handler = functools.partial(_Served, directory=tmp_path / "runs")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses_of_http(runs, tmp_path, site, counted):
    pytest.importorskip("aiohttp")
    urls = [f"{site}/step-0{k}/preds.jsonl?key=a/b" for k in (0, 1, 7)]
    for scored in (2, 0):
        outcome = sweep(urls, tmp_path / "out")
        assert outcome.n_scored == scored
    assert [result.error is None for result in outcome.results] == [True, True, False]
    assert outcome.results[2].error.startswith(f"{urls[2]} cannot be fetched: ")
    assert [result.model for result in outcome.results] == ["step-00", "step-01", "step-07"]
    counted.clear()
    # The same content at hand is known already.
    assert sweep(runs[:2], tmp_path / "out").n_scored == 0
    assert counted == []


# ---------------------------------------------------------------- what is written

MODELS = ["é 漢字", "a/b\\c", "a=b", "..", "%41", "x" * 300, "漢" * 200, "a'b\"c", "{a}*?[b]"]


def test_per_example_rows_are_one_table(runs, tmp_path):
    manifest = tmp_path / "m.jsonl"
    rows = [{"path": runs[k % 4], "model": model} for k, model in enumerate(MODELS)]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    outcome = sweep(None, tmp_path / "out", manifest=manifest)
    assert outcome.n_failed == 0
    folder = tmp_path / "out" / "per_example"
    readable = [model for model in MODELS if len(model) < 200]
    expected = {}
    for k, model in enumerate(MODELS):
        expected[model] = rc.score(runs[k % 4], STORE)
    query = f"SELECT * FROM read_parquet('{folder}/*/*.parquet', hive_partitioning=true)"
    found = duckdb.sql(query).pl()
    lazily = polars.scan_parquet(folder, hive_partitioning=True).collect()
    for table in (found, lazily):
        assert len(table) == len(MODELS) * len(STORE)
        assert set(readable) < set(table["model"].unique())
        for model in readable:
            of_model = table.filter(polars.col("model") == model).sort("index")
            scored = expected[model]
            assert of_model["iou"].to_list() == scored.iou.tolist()
            for name in (
                "index", "sample_id", "sentence_idx", "image_id", "intersection", "pred_area", "target_area", "status",
            ):  # fmt: skip
                assert of_model[name].to_list() == scored.per_example[name].to_pylist()
            assert set(of_model["path"]) == {runs[MODELS.index(model) % 4]}
    # A sweep of fewer files leaves no row of the others.
    sweep(runs[:1], tmp_path / "out")
    assert len(duckdb.sql(query).pl()) == len(STORE)


@pytest.mark.parametrize("model", MODELS)
def test_partitions_are_names_that_file_systems_take(model):
    name = partition(model)
    assert len(name.encode()) <= 255
    assert name.isascii()
    assert not set(name) & set("/\\*?[]{}'\"")


def test_missing_examples_are_rows_too(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n".join(lines(0).splitlines()[:100]))
    sweep(tmp_path / "p.jsonl", tmp_path / "out", options=Options(missing="zero"))
    table = pq.read_table(tmp_path / "out" / "per_example")
    assert table["status"].to_pylist().count("missing") == 197


def test_two_sweeps_do_not_share_a_folder(runs, tmp_path):
    at_work, may_end = threading.Event(), threading.Event()

    def settled(_):
        at_work.set()
        assert may_end.wait(30)

    first = threading.Thread(
        target=sweep, args=(runs, tmp_path / "out"), kwargs={"settled": settled}
    )
    first.start()
    try:
        assert at_work.wait(30)
        with pytest.raises(rc.UsageError, match="another sweep is writing to"):
            sweep(runs, tmp_path / "out")
    finally:
        may_end.set()
        first.join()
    assert sweep(runs, tmp_path / "out").n_scored == 0
    with pytest.raises(rc.UsageError, match="is a file, not a folder"):
        sweep(runs, runs[0])


# ---------------------------------------------------------------- kills

# Sweeps in forks of one process, which has imported and compiled everything, so that a kill meets a sweep at work and
# not Python at its start. Slowed down, or it would be over before the signal came: some files wait first, some last.
DRIVER = """
import os, random, signal, sys, time
from refcocom_gpu.cli.main import main
from refcocom_gpu.sweep import task
import refcocom_gpu.scores.leaderboard
from refcocom_kernels.cpu.numba import boundary, contours, jit, rle

for kernel in {**vars(rle), **vars(boundary), **vars(contours)}.values():
    if isinstance(kernel, jit.Kernel):
        kernel.compile()

metrics, kills = sys.argv[1:]
words = ["sweep", "dataset=sample", "predictions=runs/*/preds.jsonl", "engine.workers=2", "quiet=true", metrics]
real, draws = task.count, random.Random(0)
for _ in range(int(kills)):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        def slow(predictions, *arguments, **options):
            os.write(write, b".")
            early = "step-0" in str(predictions[0])
            time.sleep(0.06 * early)
            found = real(predictions, *arguments, **options)
            time.sleep(0.06 * (not early))
            return found
        task.count = slow
        os._exit(main([*words, "output_dir=killed"]))
    os.close(write)
    os.read(read, 1)  # the first file is under way, or everything is done
    os.close(read)
    time.sleep(draws.uniform(0, 0.25))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(len([name for name in os.listdir("killed/results") if name.endswith(".safetensors")]))
assert main([*words, "output_dir=killed"]) == main([*words, "output_dir=whole"]) == 0
"""


@pytest.mark.parametrize(
    ("metrics", "kills"),
    [("iou", 10), pytest.param("[iou,boundary]", 5, marks=pytest.mark.slow)],
)
def test_killed_at_any_moment(tmp_path, metrics, kills):
    """SIGKILL, several times: what the last run leaves is what a run that nobody killed leaves, byte for byte."""
    made_runs(tmp_path / "runs", 20)
    command = [sys.executable, "-c", DRIVER, f"metrics={metrics}", str(kills)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kept = [int(line) for line in done.stdout.split()]
    # Nothing that was kept is lost, and the kills met the sweep at its work.
    assert len(kept) == kills
    assert kept == sorted(kept)
    assert len(set(kept)) > kills // 3, kept
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.tmp"))


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_runs(Path("runs"), 3)
    return tmp_path


SWEEP = ["sweep", "dataset=sample", "output_dir=out"]


def test_command(folder, capsys):
    assert main([*SWEEP, "runs/*/preds.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("3 sets of predictions: 3 scored in ")
    assert "out/per_example\n" in out
    assert main([*SWEEP, "runs/*/preds.jsonl", "engine=serial", "json=true"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["n_files"], printed["n_scored"], printed["failed"]) == (3, 0, {})
    assert all(Path(path).exists() for path in printed["written"])
    Path("runs/step-01/preds.jsonl").write_text('{"sample_id": 1}')
    written = contents("out")
    assert main([*SWEEP, "runs/*/preds.jsonl", "quiet=true"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    message = err.splitlines()
    assert len(message) == 2
    assert message[0].startswith("failed: runs/step-01/preds.jsonl: 298 problems ")
    assert "line 1: bad key: no sentence_idx" in message[0]
    assert message[1].startswith("refcocom: 1 of 3 sets of predictions could not be scored")
    # The leaderboard is written all the same.
    assert contents("out") != written


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["predictions=[[a.jsonl,b.jsonl],c.jsonl]"], [2, 1]),
        (["predictions=[c.jsonl, [a.jsonl, b.jsonl]]"], [1, 2]),
        (["[[a.jsonl,b.jsonl]]", "c.jsonl"], [2, 1]),
        (["predictions=[a.jsonl,b.jsonl]"], [1, 1]),
        (["predictions=[[ab].jsonl,c.jsonl]"], [1, 1, 1]),
        (["a.jsonl", "b.jsonl", "c.jsonl"], [1, 1, 1]),
    ],
)
def test_lists_in_lists_are_shards(folder, words, files):
    from refcocom_gpu.cli.overrides import parse

    for name in "abc":
        Path(f"{name}.jsonl").write_text(lines(0))
    config = parse("sweep", words)
    assert [len(item.files) for item in read_inputs(config.predictions)] == files


@pytest.mark.parametrize(
    "name", ["é 漢字", "a=b", "x=1,y=2", "(a", "[a]", "[a,b]", "~", "${HOME}", "*", "a\nb"]
)
def test_odd_paths(folder, capsys, name):
    file, out = f"{name}.jsonl", f"{name}.out"
    Path(file).write_text(lines(3))
    assert main(["sweep", "dataset=sample", f"output_dir={out}", f"predictions={file}"]) == 0
    assert main(["sweep", "dataset=sample", f"output_dir={out}", file, "json=true"]) == 0
    capsys.readouterr()
    table = pq.ParquetFile(next(Path(out).absolute().glob("per_example/*/*.parquet"))).read()
    # What begins with `~` was made absolute.
    assert [Path(path).name for path in set(table["path"].to_pylist())] == [file]


def test_a_name_that_is_not_unicode(folder):
    file = os.fsdecode(b"p-\xff.jsonl")
    Path(file).write_text(lines(3))
    assert main([*SWEEP, file, "quiet=true"]) == 0
    table = pq.read_table("out/per_example")
    assert set(table["path"].to_pylist()) == {"p-\\udcff.jsonl"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/*/preds.jsonl", "output_dir=null"], "pass output_dir=DIR"),
        (["output_dir=out"], "a sweep needs predictions"),
        (["runs/*/gone.jsonl", "output_dir=out"], "no prediction file at runs/*/gone.jsonl"),
        (["sample", "output_dir=out", "missing=none"], "missing must be error or zero"),
        (["sample", "output_dir=out", "precision=eq"], "precision must be ge or gt"),
        (["sample", "output_dir=out", "convention=mine"], "'mine'"),
        (
            ["sample", "output_dir=out", "engine=slurm"],
            "engine=slurm: choose ray or serial or threads",
        ),
        (["sample", "output_dir=out", "engine.name=slurm"], "engine must be serial, threads, ray"),
        (["sample", "output_dir=out", "engine.workers=-1"], "engine.workers must be 0"),
        (["sample", "output_dir=out", "engine.address=auto"], "engine.address is for engine=ray"),
        (["sample", "output_dir=out", "device=cuda:99"], "cuda:99 is not there"),
        (["sample", "output_dir=out", "threads=-1"], "threads must be 0"),
        (["sample", "manifest=m.csv", "output_dir=out"], "named twice"),
    ],
)
def test_wrong_usage(folder, capsys, words, message):
    assert main(["sweep", "dataset=sample", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not Path("out/results").exists() or not list(Path("out/results").iterdir())


def test_a_log_gets_a_line_now_and_then(folder, capsys, monkeypatch):
    monkeypatch.setattr("refcocom_gpu.cli.verbs.sweep.SECONDS_A_LINE", 0.0)
    assert main([*SWEEP, "runs/*/preds.jsonl"]) == 0
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 2
    assert message[0].startswith("1 of 3 files, ")
    assert message[0].endswith(" s left")


def test_what_is_imported(folder):
    code = (
        "import sys\nfrom refcocom_gpu.cli.main import main\n"
        "assert main(['sweep', '--help']) == 0\n"
        "assert not {'torch', 'ray', 'numpy', 'pyarrow', 'hydra', 'fsspec'} & set(sys.modules)\n"
        "assert main(['sweep', 'dataset=sample', 'runs/step-00/preds.jsonl', 'output_dir=out', 'device=cpu']) == 0\n"
        "assert not {'torch', 'ray', 'datasets'} & set(sys.modules), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
