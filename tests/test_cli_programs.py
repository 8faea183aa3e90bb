"""The command as a program calls it: one JSON object on stdout, whatever happens; short forms of its keys."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import refcocom_gpu as rc
from refcocom_gpu import scorer
from refcocom_gpu.cli.config import VERBS, keys_of
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_predictions, make_records

SCORE = ["score", "dataset=sample", "sample", "device=cpu"]
COMPARE = ["compare", "sample", "sample-coarse", "dataset=sample", "replicates=99", "level=0.9"]
SWEEP = ["sweep", "sample", "dataset=sample", "engine=serial", "replicates=99", "output_dir=swept"]
CONSTRUCT = [
    "construct", "sample", "sample-coarse", "dataset=sample", "engine=serial", "pictures=none",
    "output_dir=made",
]  # fmt: skip
CONVERT = ["convert", "sample", "made.parquet", "dataset=sample"]
EXPLAIN = ["explain", "sample", "dataset=sample", "device=cpu"]
EXPORT = ["export", "sample", "output_dir=exported"]
PUBLISH = ["publish", "run", "output_dir=published", "dataset_id=me/copy"]
KNOW_JSON = [verb for verb, (config, _) in VERBS.items() if "json" in {k.name for k in keys_of(config)}]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wrong():
    """A file of predictions with a wrong key and a row that comes twice."""
    rows = make_predictions(make_records(), "good")
    rows[7]["sentence_idx"] = 99
    rows[20] = rows[19]
    Path("wrong.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return "wrong.jsonl"


def answer(capsys, words, code=0):
    """The object on stdout, and stderr."""
    assert main(words) == code
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (SCORE, "miou"),
        (COMPARE, "miou"),
        (SWEEP, "n_scored"),
        (CONSTRUCT, "counts"),
        (CONVERT, "n_written"),
        (EXPLAIN, "conventions"),
        (EXPORT, "written"),
        (PUBLISH, "written"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_json_is_printed_when_quiet_too(capsys, words, key):
    if words is PUBLISH:
        assert main([*SCORE, "output_dir=run", "quiet=true"]) == 0
    found, err = answer(capsys, [*words, "json=true", "quiet=true"])
    assert key in found
    assert err == ""
    assert words[0] in KNOW_JSON


def test_every_verb_that_knows_json_is_tried():
    tried = (SCORE, COMPARE, SWEEP, CONSTRUCT, CONVERT, EXPLAIN, EXPORT, PUBLISH)
    assert {words[0] for words in tried} == set(KNOW_JSON)


@pytest.mark.parametrize("verb", KNOW_JSON)
def test_wrong_usage_as_json(capsys, verb):
    for words in (["treads=1"], ["threads=["], ["threads=1", "seed=x=1"], ["--batch"]):
        found, err = answer(capsys, [verb, *words, "json=true"], code=2)
        assert found["exit_code"] == 2
        assert err == f"refcocom: {found['error']}\n"
        assert found["problems"] == []
        assert (found, "") == answer(capsys, [verb, *words, "json=true", "quiet=true"], code=2)
        assert main([verb, *words, "quiet=true"]) == 2
        assert capsys.readouterr() == ("", err)


def test_every_problem_of_a_file_is_in_the_json(capsys, wrong):
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    with pytest.raises(rc.PredictionError) as caught:
        rc.score(wrong, store)
    problems = [(p.kind, p.where, p.message) for p in caught.value.problems]
    found, err = answer(capsys, ["score", wrong, "dataset=sample", "--json"], code=3)
    assert [(p["kind"], p["where"], p["message"]) for p in found["problems"]] == problems
    assert found["counts"] == dict(caught.value.counts)
    assert found["kind"] == "PredictionError"
    assert found["error"] == str(caught.value)
    assert err == f"refcocom: {caught.value}\n"
    words = ["score", wrong, "dataset=sample", "--json", "-q"]
    assert answer(capsys, words, code=3) == (found, "")


def test_a_sweep_that_failed_in_part_is_one_object(capsys, wrong):
    words = [*SWEEP, wrong, "--json", "-q"]
    found, err = answer(capsys, words, code=3)
    assert (found["n_files"], found["n_failed"], found["exit_code"]) == (2, 1, 3)
    assert [Path(path).name for path in found["failed"]] == [wrong]
    assert "1 of 2 sets of predictions could not be scored" in found["error"]
    assert "refcocom:" not in err


def test_a_verb_that_does_not_exist_and_a_key_that_a_verb_lacks(capsys):
    found, _ = answer(capsys, ["scoer", "--json"], code=2)
    assert "did you mean score?" in found["error"]
    found, _ = answer(capsys, ["cache", "--json"], code=2)
    assert "cache has no key 'json'" in found["error"]


def test_json_is_read_as_the_config_reads_it(capsys):
    for value in ("true", "True", "yes", "on", "1"):
        answer(capsys, [*SCORE, "missing=none", f"json={value}"], code=2)
        answer(capsys, [*SCORE, f"json={value}"])
    for value in ("false", "no", "off", "0"):
        assert main([*SCORE, "missing=none", f"json={value}"]) == 2
        assert capsys.readouterr().out == ""
    assert main([*SCORE, "missing=none", "--json", "json=false"]) == 2
    assert capsys.readouterr().out == ""


def test_an_interrupt_and_a_bug_as_json(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scorer, "score", interrupted)
    found, err = answer(capsys, [*SCORE, "--json"], code=130)
    assert (found["error"], found["exit_code"], err) == (
        "interrupted",
        130,
        "refcocom: interrupted\n",
    )

    def bug(*_, **__):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(scorer, "score", bug)
    with pytest.raises(RuntimeError, match="unforeseen"):
        main([*SCORE, "--json", "-q"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    # The traceback is Python's own.
    assert (found["error"], found["exit_code"], err) == ("RuntimeError: unforeseen", 1, "")


def test_short_forms_stand_anywhere(capsys):
    expected, _ = answer(capsys, [*SCORE, "json=true", "quiet=true"])
    for place in range(len(SCORE) + 1):
        found, err = answer(capsys, [*SCORE[:place], "--json", "-q", *SCORE[place:]])
        assert found["miou"] == expected["miou"]
        assert err == ""
        for flag in ("-h", "--help"):
            assert main([*SCORE[:place], flag, *SCORE[place:]]) == 0
            # Before the verb, too, it is the help of the verb.
            assert capsys.readouterr().out.startswith("refcocom score [predictions…]")
        assert main([*SCORE[:place], "--version", *SCORE[place:]]) == 0
        assert capsys.readouterr().out == f"{rc.__version__}\n"
    assert main([*SCORE, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["--json"]) == 2
    assert capsys.readouterr().out.startswith("refcocom VERB")


def test_a_flag_within_a_value_is_a_value(capsys):
    rows = make_predictions(make_records(), "good")
    Path("-q").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    Path("-q").rename("-q.jsonl")
    for words in (["predictions=-q.jsonl"], ["-q.jsonl"]):
        assert main(["score", "dataset=sample", *words]) == 0
        assert "mIoU" in capsys.readouterr().out
    assert main([*SCORE, "output_dir=--json"]) == 0
    assert "Wrote --json/summary.json" in capsys.readouterr().out


def test_help_says_so_in_one_line_and_is_aligned(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    flags = "Flags, anywhere: --json for json=true, -q for quiet=true, --help or -h, --version."
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert flags in lines
    meanings = {verb: (config.__doc__ or "").strip() for verb, (config, _) in VERBS.items()}
    rows = [line for line in lines if line[:3].strip() and line.split()[0] in meanings]
    assert [row.split()[0] for row in rows] == list(meanings)
    assert all(meanings[row.split()[0]].startswith(row.split(maxsplit=1)[1]) for row in rows)
    assert len({row.index(row.split(maxsplit=1)[1]) for row in rows}) == 1
    for verb in VERBS:
        assert main([verb, "-h"]) == 0
        said = flags if verb in KNOW_JSON else flags.replace("--json for json=true, ", "")
        if "quiet" not in {key.name for key in keys_of(VERBS[verb][0])}:
            said = "Flags, anywhere: --help or -h, --version."
        assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 100, 300])
def test_help_fits_the_terminal_and_has_headings(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in ([], *([verb] for verb in VERBS)):
        assert main([*words, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= min(columns, 100)
    assert main(["score", "--help"]) == 0
    text = capsys.readouterr().out
    headings = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings[:2] == ["Which dataset is used:", "How predictions are read:"]
    assert headings[-2:] == ["What is written and printed:", "Where keys are read from:"]
    assert len(set(headings)) == len(headings)
    read = text.partition("How predictions are read:")[2].partition("\n\n")[0]
    assert "  keys=null" in read
    assert "  output_dir=" not in read


def test_json_of_a_process(wrong):
    """As a script sees it: both streams and the exit code."""
    words = [sys.executable, "-m", "refcocom_gpu", "--json", "score", wrong, "dataset=sample"]
    done = subprocess.run(words, capture_output=True, timeout=120)
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 3
    assert done.stderr.startswith(b"refcocom: 4 problems")
