"""Pipes and devices among the files of a user: named as such at every entrance, and never opened."""

import json
import os
import shutil
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sweeps import STORE, lines, made_runs, sweep

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.filter import read_words
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.sweep.manifest import read_manifest
from refcocom_gpu.utils.files import hash_file, regular

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")

SECONDS = 60
"""A pipe that is opened blocks for ever; this ends it."""


@pytest.fixture(autouse=True)
def _in_time():
    def late(*_):
        raise TimeoutError("something was opened that never ends")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    os.mkfifo(path)
    return path


def zeros(path):
    path.symlink_to("/dev/zero")
    return path


@pytest.fixture(params=[pipe, zeros], ids=["a pipe", "a link to a device"])
def never_ending(request):
    return request.param


def test_what_may_be_opened(tmp_path, never_ending):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(file)
    for path in (file, link, tmp_path, tmp_path / "absent"):
        assert regular(path) is path
    odd = never_ending(tmp_path / "odd")
    with pytest.raises(rc.UsageError, match=r"odd is a (pipe|device), not a file; copy what"):
        regular(odd)
    with pytest.raises(rc.UsageError, match="not a file"):
        hash_file(odd)


@pytest.mark.parametrize(
    "name", ["p.jsonl", "p.jsonl.gz", "p.parquet", "p.npz", "p.zip", "p.safetensors", "p.pt", "p.arrow"]
)  # fmt: skip
def test_score(tmp_path, name, never_ending, capsys):
    path = never_ending(tmp_path / name)
    assert main(["score", str(path), "dataset=sample"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{path} is a " in err


def test_score_of_shards_and_folders(tmp_path, never_ending):
    (tmp_path / "a.jsonl").write_text(lines(0))
    never_ending(tmp_path / "b.jsonl")
    for predictions in (tmp_path, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], f"{tmp_path}/*"):
        with pytest.raises(rc.UsageError, match=r"b\.jsonl is a "):
            rc.score(predictions, STORE)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    never_ending(pictures / "1_0.png")
    with pytest.raises(rc.PredictionError, match=r"1_0\.png: unknown file"):
        rc.score(pictures, STORE)


def test_a_sweep_has_a_row_for_it(tmp_path, never_ending):
    runs = made_runs(tmp_path / "runs", 2)
    odd = never_ending(tmp_path / "runs" / "odd.jsonl")
    folder = tmp_path / "runs" / "folder"
    folder.mkdir()
    shutil.copy(runs[0], folder / "a.jsonl")
    never_ending(folder / "b.jsonl")
    for _ in range(2):
        outcome = sweep([*runs, odd, folder], tmp_path / "out")
        assert [r.error is None for r in outcome.results] == [True, True, False, False]
        assert outcome.results[2].error.startswith(f"{odd} is a ")
        assert f"{folder / 'b.jsonl'} is a " in outcome.results[3].error
    # So has one that a manifest names.
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({"path": str(p)}) for p in (*runs, odd)))
    assert sweep(None, tmp_path / "out", manifest=tmp_path / "m.jsonl").n_failed == 1


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_manifests(tmp_path, name, never_ending):
    with pytest.raises(rc.UsageError, match=rf"{name} is a "):
        read_manifest(str(never_ending(tmp_path / name)))


@pytest.mark.parametrize("name", ["set.jsonl", "set.parquet", "refs(unc).p"])
def test_datasets(tmp_path, name, never_ending):
    path = never_ending(tmp_path / name)
    with pytest.raises(rc.UsageError, match=r"is a (pipe|device), not a file"):
        rc.load_dataset(path)


def test_files_of_datasets(tmp_path, never_ending):
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(make_records()), folder / "validation-a.parquet")
    never_ending(folder / "validation-b.parquet")
    with pytest.raises(rc.UsageError, match=r"validation-b\.parquet is a "):
        rc.load_dataset(folder)
    release = tmp_path / "release"
    release.mkdir()
    (release / "refs(unc).p").write_bytes(b"(lp0\n.")
    never_ending(release / "instances.json")
    with pytest.raises(rc.RefCOCOMError):
        rc.load_dataset(release, split="val")


def test_compare_and_results(tmp_path, never_ending, capsys):
    never_ending(tmp_path / "p.jsonl")
    assert main(["compare", "sample", str(tmp_path / "p.jsonl"), "dataset=sample"]) == 2
    assert "p.jsonl is a " in capsys.readouterr().err
    for name in ("summary.json", "sweep.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        never_ending(folder / name)
        with pytest.raises(rc.ResultsError, match=r"is a (pipe|device)|is missing"):
            rc.load_results(folder)


def test_construct(tmp_path, never_ending):
    odd = never_ending(tmp_path / "p.jsonl")
    with pytest.raises(rc.UsageError, match=r"p\.jsonl is a "):
        rc.construct([str(odd)], "sample", tmp_path / "out")
    with pytest.raises(rc.UsageError, match=r"words\.txt is a "):
        read_words(never_ending(tmp_path / "words.txt"))


def test_inputs_of_adapters(tmp_path, never_ending):
    with pytest.raises(rc.UsageError, match=r"responses\.jsonl is a "):
        rc.adapters.read(
            never_ending(tmp_path / "responses.jsonl"), STORE.dataset, source="moondream"
        )
    with pytest.raises(rc.UsageError, match=r"p\.pkl is a "):
        rc.adapters.pickles.load(never_ending(tmp_path / "p.pkl"))


def test_pictures(tmp_path, never_ending):
    pytest.importorskip("PIL.Image")
    from refcocom_gpu.dataset.images import Images

    dataset = rc.load_dataset("sample")
    name = dataset.images["file_name"][0].as_py()
    never_ending(tmp_path / Path(name).name)
    images = Images(dataset, tmp_path)
    for read in (images.encoded, images.__getitem__):
        with pytest.raises(rc.RefCOCOMError):
            read(0)
    assert images.problem(0)


@pytest.mark.parametrize("verb", ["sweep", "construct"])
def test_an_interrupted_run_says_how_it_goes_on(tmp_path, verb, monkeypatch, capsys):
    """Ctrl-C after the first of its results; the same command then does what is left."""
    from refcocom_gpu.construct import run as construct_run
    from refcocom_gpu.sweep import task

    runs = made_runs(tmp_path / "runs", 3)
    module, name = (task, "count") if verb == "sweep" else (construct_run, "construct_image")
    real, done = getattr(module, name), []

    def interrupted(*arguments, **options):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments, **options)

    words = [
        verb,
        *runs[: 3 if verb == "sweep" else 2],
        "dataset=sample",
        f"output_dir={tmp_path / 'out'}",
    ]
    words += ["engine=serial", *(["pictures=none"] if verb == "construct" else ["replicates=99"])]
    monkeypatch.setattr(module, name, interrupted)
    assert main(words) == 130
    err = capsys.readouterr().err
    kept = tmp_path / ("out" if verb == "sweep" else "out.work")
    assert f"What was done is kept in {kept}; the same command goes on from where it" in err
    monkeypatch.setattr(module, name, lambda *a, **o: done.append(2) or real(*a, **o))
    assert main(words) == 0
    n = 3 if verb == "sweep" else STORE.dataset.n_images
    assert done == [1, *[2] * (n - 1)]
    capsys.readouterr()
