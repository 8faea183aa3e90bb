"""What a person is told, at the command and in Python: early, in our words, about what they named."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import problems_of, sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu import errors
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.masks import rle

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset


@pytest.fixture
def no_dataset(monkeypatch):
    """Whoever asks for the dataset gets an error that no command tells."""

    def load(*_, **__):
        raise AssertionError("the dataset was asked for")

    for verb in ("score", "compare", "sweep", "construct"):
        monkeypatch.setattr(f"refcocom_gpu.cli.verbs.{verb}.load", load)


ABSENT = {
    "score": ["{0}"],
    "compare": ["{0}", "sample"],
    "sweep": ["{0}", "output_dir={1}"],
    "construct": ["predictions={0}", "output_dir={1}"],
}


@pytest.mark.parametrize("verb", ABSENT)
@pytest.mark.parametrize("name", ["no.jsonl", "no/*.npz"])
def test_a_path_that_is_absent_is_told_before_the_dataset_is_fetched(
    tmp_path, capsys, no_dataset, verb, name
):
    path = tmp_path / name
    words = [word.format(path, tmp_path / "out") for word in ABSENT[verb]]
    assert main([verb, *words]) == 2
    assert f"no prediction file at {path}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["score", "compare"])
def test_a_format_that_is_unknown_is_told_before_the_dataset_is_fetched(
    tmp_path, capsys, no_dataset, verb
):
    path = tmp_path / "p.docx"
    path.write_text("")
    assert main([verb, *(word.format(path, tmp_path / "out") for word in ABSENT[verb])]) == 2
    assert "not .docx" in capsys.readouterr().err


# Output that cannot be written --------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["score sample dataset=sample", "--help", "score --help", "--version"]
)
def test_a_full_disk_behind_stdout_is_one_line(words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "refcocom_gpu", *words.split()],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "refcocom: cannot write the output: No space left on device"
    )
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_files():
    """No file may grow beyond what is returned to set; the limit is lifted again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_a_writer_whose_disk_is_full_keeps_what_it_has(tmp_path, small_files, name):
    path = tmp_path / name
    writer = rc.PredictionWriter(path, DATASET)
    writer.write(0, CASE.masks[0])
    size = writer.journal.path.stat().st_size
    small_files(size + 50)
    with pytest.raises(rc.UsageError, match=f"cannot write {writer.journal.path}: ") as error:
        writer.write([1, 2], CASE.masks[1:3])
    assert "File too large" in str(error.value)
    # Closing it after the error must not raise another one, which would hide the first.
    writer.journal.close()
    assert writer.journal.path.stat().st_size == size
    small_files(resource.RLIM_INFINITY)
    with rc.PredictionWriter(path, DATASET) as again:
        assert again.pending().tolist() == list(range(1, len(CASE.masks)))
        for index in again.pending().tolist():
            again.write(index, CASE.masks[index])
    CASE.check(path)


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_a_file_that_does_not_fit_leaves_the_journal(tmp_path, small_files, name):
    path = tmp_path / name
    writer = rc.PredictionWriter(path, DATASET)
    for index, mask in enumerate(CASE.masks):
        writer.write(index, mask)
    small_files(100)
    with pytest.raises(rc.UsageError, match=f"cannot write {path}: .*"):
        writer.close()
    small_files(resource.RLIM_INFINITY)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.partial"]
    CASE.check(rc.PredictionWriter(path, DATASET).close())


def test_a_full_disk_while_a_block_runs_is_named(tmp_path, small_files):
    def fill() -> None:
        with rc.PredictionWriter(tmp_path / "p.jsonl", DATASET) as writer:
            small_files(400)
            for index, mask in enumerate(CASE.masks):
                writer.write(index, mask)

    with pytest.raises(rc.UsageError, match=r"cannot write .*p\.jsonl\.partial: File too large"):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl.partial"]


# Whole sets given as shards -----------------------------------------------------------------------


def test_whole_sets_in_one_score_are_pointed_to_sweep(tmp_path):
    paths = [write_jsonl(tmp_path / f"{k}.jsonl", CASE.rows()) for k in range(3)]
    error = problems_of(paths, STORE)
    lines = str(error).splitlines()
    assert error.counts == {"duplicate": 2 * len(CASE.masks)}
    assert f"{paths[1]} predicts what the files before it do" in lines[-1]
    assert "refcocom sweep" in lines[-1]
    assert len(lines) <= 2 + errors.LIKE + 1


def test_shards_with_a_few_examples_twice_are_not_pointed_to_sweep(tmp_path):
    rows = CASE.rows()
    paths = [write_jsonl(tmp_path / "a.jsonl", rows), write_jsonl(tmp_path / "b.jsonl", rows[:9])]
    assert "sweep" not in str(problems_of(paths, STORE))


# Tensors that are no predictions ------------------------------------------------------------------


class Runs:
    """Asks the reader of a pickle to call a function."""

    def __reduce__(self):
        return os.getenv, ("HOME",)


def test_code_in_a_pt_is_refused_in_our_words(tmp_path):
    name = CASE.names()[0]
    for content in ({name: Runs()}, Runs(), {name: [torch.zeros(1), Runs()]}):
        torch.save(content, tmp_path / "p.pt")
        error = problems_of(tmp_path / "p.pt", STORE, missing="zero")
        assert error.counts == {"malformed": 1}
        message = error.problems[0].message
        assert "pickles can run code and are refused" in message
        for advice in ("weights_only", "add_safe_globals", "trust", "https://"):
            assert advice not in message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.zeros(3, 3, device="meta"), "meta device"),
        (lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.quint8), "quantized"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "nested"),
        (lambda: torch.zeros(3, 3, dtype=torch.complex64), "complex64"),
    ],
)
def test_tensors_that_hold_no_plain_values_are_refused_in_our_words(tmp_path, make, says):
    torch.save({CASE.names()[0]: make()}, tmp_path / "p.pt")
    error = problems_of(tmp_path / "p.pt", STORE, missing="zero")
    assert error.counts.total() == 1
    assert says in error.problems[0].message
    assert "weights_only" not in str(error)


# Folders that cannot be written -------------------------------------------------------------------


@pytest.fixture(params=["a file", "read-only"])
def closed(tmp_path, monkeypatch, request) -> Path:
    """A folder in which nothing can be made; root may write anywhere, so the system is asked by another name."""
    path = tmp_path / "closed"
    if request.param == "a file":
        path.write_text("")
        return path
    path.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != path and real(p, mode))
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["score", "sample", "output_dir={0}/deep/out"],
        ["score", "sample", "eval_results={0}/scores.yaml"],
        ["compare", "sample", "sample-coarse", "output_dir={0}/out"],
        ["sweep", "sample", "output_dir={0}/out"],
        ["construct", "predictions=[sample,sample-coarse]", "output_dir={0}/out"],
    ],
)
def test_a_folder_that_cannot_be_written_is_named_before_any_work(
    closed, capsys, no_dataset, words
):
    assert main([word.format(closed) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"refcocom: cannot write to {closed}")
    assert line.endswith(
        (f"{closed} is read-only", f"{closed} is a file, not a folder", "it is read-only")
    )
    assert ".tmp" not in line


def test_a_writer_names_the_folder_that_cannot_be_written(closed):
    with pytest.raises(
        rc.UsageError, match=f"^cannot write to {closed}/out: {closed} is "
    ) as error:
        rc.PredictionWriter(closed / "out" / "p.jsonl", DATASET)
    assert ".partial" not in str(error.value)


# Masks in a wrong form ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda mask: [mask, None], "entry 1 of the list of masks is null"),
        (lambda mask: [mask, [[0, 0, 4, 0, 4, 4]]], "entry 1 of the list of masks is list"),
        (lambda mask: [[0, 0, 4, 0, 4, 4], mask], "entry 1 of the list is an object, as RLE is"),
        (lambda mask: [mask, mask], "2 masks for one expression; pass combine=union"),
    ],
)
def test_a_list_of_rle_is_not_called_polygons(tmp_path, make, says):
    rows = CASE.rows()
    mask = rows[1]["segmentation"]
    rows[1]["segmentation"] = make(mask)
    (problem,) = problems_of(write_jsonl(tmp_path / "p.jsonl", rows), STORE).problems
    assert (problem.kind, problem.where) == ("malformed mask", f"{tmp_path / 'p.jsonl'}, line 2")
    assert says in problem.message


def test_a_list_of_rle_where_one_is_wanted():
    mask = CASE.rows()[1]["segmentation"]
    with pytest.raises(errors.RLEError, match="mask is a list of objects"):
        rle.check([mask, mask])
    with pytest.raises(errors.RLEError, match="a polygon"):
        rle.check([[0, 0, 4, 0, 4, 4]])


# Construction -------------------------------------------------------------------------------------


TOO_FEW = [
    (["predictions=sample"], 1),
    (["grabcut=true"], 1),
    (["predictions=[sample,sample-coarse]", "min_candidates=3"], 2),
]


@pytest.mark.parametrize(("words", "n"), TOO_FEW)
def test_too_few_proposers_are_told_before_any_work(tmp_path, capsys, no_dataset, words, n):
    assert main(["construct", *words, f"output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert f"{n} proposer" in error
    assert "every instance would be removed" in error
    assert not (tmp_path / "out").exists()


def test_the_way_to_do_without_pictures_is_named(tmp_path, capsys):
    words = [
        "construct",
        "[sample,sample-coarse]",
        f"dataset.path={records(tmp_path)}",
        f"output_dir={tmp_path / 'out'}",
    ]
    assert main([*words, "pictures=embed"]) == 2
    assert "pictures=none" in capsys.readouterr().err


def test_a_card_holds_no_local_path_and_a_licence(tmp_path):
    out = tmp_path / "out"
    source = records(tmp_path)
    words = ["construct", "[sample,sample-coarse]", f"dataset.path={source}", f"output_dir={out}"]
    assert main([*words, "pictures=none", "quiet=true"]) == 0
    card = (out / "README.md").read_text("utf-8")
    for text in (card, (out / "construct.json").read_text("utf-8")):
        assert str(tmp_path) not in text
        assert source.name in text
    assert yaml.safe_load(card.split("---")[1])["license"] == "unknown"


def records(folder: Path) -> Path:
    """The sample as JSON lines, without pictures."""
    path = folder / "originals.jsonl"
    rows = [{k: v for k, v in record.items() if k != "image"} for record in make_records()]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_full_disk_for_temporary_files(tmp_path, monkeypatch, capsys):
    """The built-in sets are drawn into a temporary folder."""
    from refcocom_gpu.predictions import built_in

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = type("Folder", (), {"name": str(tmp_path)})()
    monkeypatch.setattr(built_in, "_folder", lambda: folder)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["score", "sample", "dataset=sample"]) == 2
    assert f"cannot write to {tmp_path}: No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
