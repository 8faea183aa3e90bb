"""The command: what it prints, writes and returns; any path, any mistake, and nothing left behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import refcocom_gpu as rc
from refcocom_gpu import scorer
from refcocom_gpu.cli.config import VERBS, conf_dir, keys_of
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_predictions, make_records

SAMPLE = ["score", "dataset=sample"]


@pytest.fixture(scope="module")
def rows():
    return make_predictions(make_records(), "good")


@pytest.fixture
def folder(tmp_path, monkeypatch, rows):
    """A working folder with predictions for the sample: `p.jsonl`, and in halves `a.jsonl` and `b.jsonl`."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps(row) for row in rows]
    half = len(lines) // 2
    for name, part in (("p", lines), ("a", lines[:half]), ("b", lines[half:])):
        Path(f"{name}.jsonl").write_text("\n".join(part), "utf-8")
    return tmp_path


def failing(capsys, words, code=2):
    """What is said of a wrong call: short, on stderr, no traceback."""
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("refcocom: ")
    assert code != 2 or err.count("\n") == 1, err
    return err


def started(words, **options):
    return subprocess.run(
        [sys.executable, "-m", "refcocom_gpu", *words],
        capture_output=True,
        timeout=120,
        **options,
    )


def test_demo_leaves_only_its_result(tmp_path):
    """The command as a user runs it, in a process of its own, with a home of its own."""
    work, home, cache = tmp_path / "work", tmp_path / "home", tmp_path / "cache"
    work.mkdir()
    home.mkdir()
    env = os.environ | {"HOME": str(home), "REFCOCOM_CACHE": str(cache)}
    words = ["score", "dataset=sample", "predictions=sample", "output_dir=out"]
    done = started(words, cwd=work, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(
        p.relative_to(tmp_path).as_posix() for p in (*work.rglob("*"), *home.rglob("*"))
    ) == [
        "work/out",
        "work/out/config.yaml",
        "work/out/per_example.parquet",
        "work/out/summary.json",
    ]
    summary = json.loads((work / "out" / "summary.json").read_text("utf-8"))
    assert {"miou", "ciou", "precision_at", "n_examples", "n_missing"} <= summary.keys()
    assert summary["n_examples"] == 297
    assert pq.read_metadata(work / "out" / "per_example.parquet").num_rows == 297
    assert b"mIoU" in done.stdout
    assert "Wrote out/summary.json" in done.stdout.decode()
    again = started(words, cwd=work, env=env)
    assert again.returncode == 2
    assert again.stderr.decode().count("\n") == 1
    assert b"overwrite=true" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["threads=abc"],
            "threads=abc: Value 'abc' of type 'str' could not be converted to Integer",
        ),
        (["threads=["], "threads=[: "),
        (["threads="], "threads=: "),
        (["threads=-1"], "threads must be 0 (all cores) or more, not -1"),
        (["batch_size=0"], "batch_size must be at least 1, not 0"),
        (["overwrite=perhaps"], "overwrite=perhaps: Value 'perhaps' is not a valid bool"),
        (["letterbox=big"], "letterbox must be the side of the padded input or center, not big"),
        (["device=banana"], "device must be auto, cpu, cuda or cuda:i, not 'banana'"),
        (["device="], "device is given no value"),
        (["device=cuda:99"], "cuda:99 is not there"),
        (["missing=none"], "missing must be error or zero, not 'none'"),
        (["precision=eq"], "precision must be ge or gt, not 'eq'"),
        (["convention=mine"], "'mine'"),
        (["output_dir="], "output_dir is given no value; write null for none"),
        (["output_dir=p.jsonl"], "output_dir p.jsonl is a file"),
        (["dataset=cocoo"], "refcocog or sample; a file or folder goes to"),
        (["dataset.path=nowhere/at all"], "no file or folder at dataset.path=nowhere/at all"),
        (["dataset.key=name"], "dataset.key must be sample_id or image_position, not 'name'"),
        (["dataset.foo=1"], "score has no key 'dataset.foo'"),
        (["treads=1"], "score has no key 'treads'; did you mean threads?"),
        (["+threads=1"], "score has no key '+threads'; did you mean threads?"),
        (["~threads=1"], "score has no key '~threads'; did you mean threads?"),
        (["hydra.run.dir=x"], "score has no key 'hydra.run.dir'"),
        (["-m"], "-m is not supported: `refcocom sweep`"),
        (["--multirun"], "`refcocom sweep`"),
        (
            ["--device=cpu"],
            "--device=cpu; the only flags are --help, --version, --json and -q, device is written device=…",
        ),
        (["--batch-size"], "batch_size is written batch_size=…"),
        (["-x"], "unknown flag -x"),
        (["p.jsonl"], "predictions is given twice"),
        (["predictions=p.jsonl"], "predictions is given twice"),
        (["~dataset"], "predictions is given twice"),
    ],
)
def test_wrong_usage(folder, capsys, words, message):
    assert message in failing(capsys, [*SAMPLE, "predictions=p.jsonl", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scoer"], "unknown verb 'scoer'; did you mean score?"),
        (
            ["predictions=x"],
            f"unknown verb 'predictions=x'; verbs are {', '.join(VERBS)}",
        ),
        (["score"], "no predictions: refcocom score PREDS"),
        (["score", "predictions=null"], "no predictions"),
        ([*SAMPLE, "nowhere.jsonl"], "no prediction file at nowhere.jsonl"),
        ([*SAMPLE, "~nobody/p.jsonl"], "no prediction file at "),
        ([*SAMPLE, "predictions=[]"], "predictions=[] names nothing"),
        ([*SAMPLE, ""], "predictions is given no value"),
        ([*SAMPLE, "predictions=[a.jsonl,nowhere]"], "no prediction file at nowhere"),
        ([*SAMPLE, "predictions=" + "x" * 5000], "ame too long"),
        (["cache", "fly"], "action must be list, path, build or clear, not 'fly'"),
        (["cache", "list", "path"], "cache takes one action, not list path"),
        (["cache", "build", "dataset=sample", "threads=-1"], "threads must be 0"),
    ],
)
def test_wrong_calls(folder, capsys, words, message):
    assert message in failing(capsys, words)


def test_wrong_data_is_3(folder, capsys):
    with Path("p.jsonl").open("a") as file:
        file.write('\n{"sample_id": -5, "sentence_idx": 0, "segmentation": null}')
    assert "p.jsonl, line 298" in failing(capsys, [*SAMPLE, "p.jsonl", "output_dir=out"], code=3)
    assert not Path("out").exists()
    Path("set.jsonl").write_text('{"image_id": 1}')
    assert "set.jsonl" in failing(capsys, ["score", "p.jsonl", "dataset.path=set.jsonl"], code=3)


def test_no_verb_prints_the_overview(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.count("Score one set of predictions.") == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{rc.__version__}\n"


NAMES = [
    "é 漢字", "a b", "a=b", "x=1,y=2", "a,b", "(a", "a)b", "[a]", "[a", "a]b", "[a,b]", "~name", "~", "${HOME}",
    "${oc.env:HOME}", "'a'", '"a"', "it's", "a\\", "\\'", "a\nb", "#a", "100%", "{a}", "*", "?",
    "$(x)", "!x", "a;b&c|d", "@a", "+a", "null", "true", "1e10",
]  # fmt: skip


@pytest.fixture(scope="module")
def table():
    return pa.Table.from_pylist(make_records())


@pytest.mark.parametrize("name", NAMES)
def test_any_path_works(folder, capsys, table, name):
    """As a key, as a positional, as a folder of the dataset and of the result."""
    file, out = f"{name}.jsonl", f"{name}.out"
    Path("p.jsonl").rename(file)
    records = Path(f"{name}.parquet")
    pq.write_table(table, records)
    words = ["score", f"dataset.path={records}", f"output_dir={out}", "json=true", "device=cpu"]
    assert main([*words, f"predictions={file}"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (Path(out) / "summary.json").is_file()
    assert main([*words, file, "overwrite=true"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert first["n_examples"] == second["n_examples"] == 297
    assert first["miou"] == second["miou"] == rc.load_results(out).miou
    left = {p.name for p in folder.iterdir()}
    assert left == {file, "a.jsonl", "b.jsonl", records.name, out}


@pytest.mark.parametrize("name", ["[a]", "[a,b]", "~name", "-x", "a=b", "null"])
def test_names_without_an_ending(folder, capsys, rows, name):
    """A folder of PNGs whose bare name means something else to a shell or to Hydra."""
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    from PIL import Image

    folder = Path(name)
    folder.mkdir()
    for index in range(len(store)):
        sample_id, sentence_idx = store.dataset.key_of(index)
        mask = store.mask(index).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"{sample_id}_{sentence_idx}.png")
    forms = [name, f"predictions={name}", f"predictions=./{name}", f"predictions=[./{name}]"]
    if name == "null":
        forms[1:2] = []
    if "," in name:
        forms[3] = f'predictions=["{name}"]'
    for form in forms:
        assert main([*SAMPLE, "json=true", form]) == 0, form
        assert json.loads(capsys.readouterr().out)["miou"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["a.jsonl", "b.jsonl"],
        ["predictions=[a.jsonl,b.jsonl]"],
        ['predictions=[ a.jsonl , "b.jsonl" ]'],
        ["predictions=['a.jsonl',b.jsonl,]"],
        ["[a.jsonl,b.jsonl]"],
        ["[a.jsonl]", "b.jsonl"],
        ["predictions=[ab].jsonl"],
        ["predictions=[a-b].json*"],
        ["predictions=[ab]*"],
        ["predictions=[[ab]*]"],
        ["?.jsonl"],
    ],
)
def test_lists_and_globs_are_one_set(folder, capsys, words):
    Path("p.jsonl").unlink()
    assert main([*SAMPLE, "json=true", *words]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["n_missing"] == 0
    assert [Path(file).name for file in summary["predictions"]["files"]] == ["a.jsonl", "b.jsonl"]


def test_odd_names_in_lists(folder, capsys):
    Path("a.jsonl").rename("it's, a.jsonl")
    Path("b.jsonl").rename('b "x".jsonl')
    assert main([*SAMPLE, "quiet=true", 'predictions=["it\'s, a.jsonl",\'b "x".jsonl\']']) == 0
    assert main([*SAMPLE, "quiet=true", 'predictions=["it\'s, a.jsonl", b "x".jsonl]']) == 0


def test_home_is_expanded_unless_a_file_has_the_name(folder, monkeypatch, capsys):
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    Path("p.jsonl").rename("home/p.jsonl")
    words = [*SAMPLE, "quiet=true", "output_dir=~/out"]
    assert main([*words, "predictions=~/p.jsonl"]) == 0
    assert main([*words, "predictions=[~/p.jsonl]", "overwrite=true"]) == 0
    assert main([*words, "predictions=~/*.jsonl", "overwrite=true"]) == 0
    assert (folder / "home" / "out" / "summary.json").is_file()
    assert not Path("~").exists()


def test_text_is_taken_as_it_stands():
    from refcocom_gpu.cli.overrides import parse

    for value in ("1e10", "0012", "1_000", "true", "train[:10%]", "refs/pr/1", "a'b", "${x}", "é"):
        assert parse("score", [f"dataset.revision={value}"]).dataset.revision == value
    assert parse("score", ["dataset.revision=null"]).dataset.revision is None
    config = parse("score", ["device=cuda:0", "threads=3", "json=true", "dataset=sample"])
    assert (config.device, config.threads, config.json, config.dataset.name) == (
        "cuda:0",
        3,
        True,
        "sample",
    )
    assert parse("score", ["threads=1", "threads=2"]).threads == 2


def test_existing_result_is_refused_before_any_work(folder, capsys, monkeypatch):
    assert main([*SAMPLE, "a.jsonl", "b.jsonl", "output_dir=out", "quiet=true"]) == 0
    before = {p: p.read_bytes() for p in Path("out").iterdir()}
    monkeypatch.setattr(
        "refcocom_gpu.dataset.table.load_dataset", lambda *_, **__: pytest.fail("work was done")
    )
    message = failing(capsys, [*SAMPLE, "sample-coarse", "output_dir=out"])
    assert "out already holds a result" in message
    assert {p: p.read_bytes() for p in Path("out").iterdir()} == before
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert main([*SAMPLE, "sample-coarse", "output_dir=out", "overwrite=true", "quiet=true"]) == 0
    assert {p: p.read_bytes() for p in Path("out").iterdir()} != before


def test_nothing_is_written_without_output_dir(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main([*SAMPLE, "p.jsonl"]) == 0
    assert main([*SAMPLE, "p.jsonl", "output_dir=null"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("Nothing was written; output_dir=DIR") == 2
    assert sorted(folder.rglob("*")) == before


def test_json_is_all_of_stdout(folder, capsys):
    """A warning goes to stderr; `quiet` alone prints nothing at all."""
    (folder / "snapshot").mkdir()
    pq.write_table(pa.Table.from_pylist(make_records()), folder / "snapshot" / "validation.parquet")
    words = ["score", "p.jsonl", "dataset.path=snapshot"]
    assert main([*words, "json=true", "output_dir=out"]) == 0
    out, err = capsys.readouterr()
    written = json.loads((folder / "out" / "summary.json").read_text("utf-8"))
    printed = json.loads(out)
    assert {key: written[key] for key in printed} == printed
    assert err.startswith("warning: snapshot: ")
    assert "images where RefCOCO-M has 1,190" in err
    assert main([*SAMPLE, "p.jsonl", "quiet=true"]) == 0
    assert capsys.readouterr() == ("", "")


def test_missing_is_said_beside_every_score(folder, capsys):
    message = failing(capsys, [*SAMPLE, "a.jsonl"], code=3)
    assert "149 problems (149 missing)" in message
    assert "missing=zero" in message
    assert main([*SAMPLE, "a.jsonl", "missing=zero"]) == 0
    scores = [line for line in capsys.readouterr().out.splitlines() if " % " in f"{line} "]
    assert len(scores) == 8
    assert all(line.endswith("(149 missing, scored as empty)") for line in scores)


def test_precision_and_missing_in_the_table(folder, capsys):
    assert main([*SAMPLE, "sample", "precision=gt"]) == 0
    out = capsys.readouterr().out
    assert "Pr@0.5 (>)" in out
    assert not any(word in out for word in ("≥", "missing"))


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_every_key(capsys, verb):
    for words in ([verb, "--help"], [verb, "-h"], [verb, "threads=bad", "--help"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert max(map(len, out.splitlines())) <= 100
        message = " ".join(out.split())
        for key in keys_of(VERBS[verb][0]):
            assert f"{key.shown} {key.meaning}" in message
    assert (conf_dir() / f"{verb}.yaml").is_file()


@pytest.mark.parametrize("verb", VERBS)
def test_hydra_composes_the_defaults(verb):
    """Where no word is for Hydra, it is not asked: the config is that of its class."""
    config, _ = VERBS[verb]
    ConfigStore.instance().store(f"{verb}_schema", node=config)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = OmegaConf.to_object(compose(verb))
    assert type(composed) is config
    assert composed == config()


def modules_after(code, *names):
    """Which of some modules a fresh interpreter has imported after running code."""
    code += f"\nimport sys; print([n for n in {names!r} if n in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_what_is_imported(folder):
    heavy = ("torch", "numba", "hydra", "omegaconf", "datasets", "pyarrow", "numpy", "tqdm")
    code = "import refcocom_gpu\nfrom refcocom_gpu.cli.main import main\n"
    code += "main(['score', '--help']); main(['cache', '-h']); main(['-h'])"
    assert modules_after(code, *heavy) == "[]"
    words = ["score", "dataset=sample", "p.jsonl", "device=cpu"]
    code = f"from refcocom_gpu.cli.main import main\nassert main({words}) == 0"
    assert modules_after(code, "torch", "datasets", "pandas", "PIL", "huggingface_hub") == "[]"
    # Pandas is there, and pyarrow imports it when it may.
    assert "pandas" in modules_after("import pyarrow\npyarrow.array([1])", "pandas")
    # Once the kernels are kept, nothing that compiles them is needed, and where no word is for Hydra, no Hydra.
    records = folder / "set.jsonl"
    records.write_text("\n".join(map(json.dumps, make_records())))
    words = ["score", f"dataset.path={records}", "p.jsonl", "device=cpu"]
    code = f"from refcocom_gpu.cli.main import main\nassert main({words!r}) == 0"
    assert modules_after(code, "pandas") == "[]"
    unused = (
        "torch",
        "datasets",
        "huggingface_hub",
        "pandas",
        "scipy.linalg",
        "hydra",
        "omegaconf",
    )
    unused += ("pyarrow.dataset", "jinja2", "matplotlib", "PIL", "tqdm", "refcocom_gpu.report")
    assert modules_after(code, *unused) == "[]"


def test_every_public_name_is_there():
    assert all(getattr(rc, name).__name__ == name for name in rc.__all__)
    assert set(rc.__all__) <= set(dir(rc))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rc.nothing


def test_cache_verb(folder, capsys, monkeypatch):
    monkeypatch.setenv("REFCOCOM_CACHE", str(folder / "my cache"))
    fingerprint = rc.load_dataset("sample").fingerprint
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"nothing is cached in {folder / 'my cache'}\n"
    assert not (folder / "my cache").exists()
    assert main(["cache", "path"]) == 0
    assert capsys.readouterr().out == f"{folder / 'my cache'}\n"
    assert main(["cache", "build", "dataset=sample"]) == 0
    store = folder / "my cache" / "stores" / f"{fingerprint}-v2"
    assert str(store) in capsys.readouterr().out
    assert len(list(store.glob("*.safetensors"))) == 2
    assert main(["cache", "action=list"]) == 0
    assert f" MB  {store}" in capsys.readouterr().out
    (folder / "my cache" / "thesis.tex").write_text("x")
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("cleared 0.")
    assert [p.name for p in (folder / "my cache").iterdir()] == ["thesis.tex"]
    assert main(["cache", "clear", "quiet=true"]) == 0
    assert capsys.readouterr().out == ""


def test_no_terminal_breaks_the_output(folder):
    """A terminal that knows ASCII only; a file name that is not even UTF-8; output and errors closed."""
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = started([*SAMPLE, "p.jsonl"], env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Pr@0.5 (?)" in done.stdout
    Path("p.jsonl").rename("é.jsonl")
    done = started([*SAMPLE, "é.jsonl", "json=true"], env=env)
    assert json.loads(done.stdout)["predictions"]["files"] == ["é.jsonl"]
    done = started([*SAMPLE, b"gone-\xff.jsonl"], env=env)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    command = f"{shlex.quote(sys.executable)} -m refcocom_gpu score dataset=sample é.jsonl output_dir=out >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], timeout=120).returncode == 0
    assert Path("out/summary.json").is_file()


def test_reader_that_went_away(folder):
    """`refcocom … | head`: no traceback, not even the one Python prints while it shuts down."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "refcocom_gpu", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_interrupt(folder, capsys, monkeypatch):
    def interrupted(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(scorer, "score", interrupted)
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main([*SAMPLE, "p.jsonl"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "refcocom: interrupted\n")


def test_unexpected_error_is_1(folder):
    """An exception nobody foresaw keeps its traceback: it is a bug to report."""
    code = (
        "import sys\nfrom refcocom_gpu import scorer\nfrom refcocom_gpu.cli import main as cli\n"
        "def bug(*_, **__): raise RuntimeError('unforeseen')\n"
        "scorer.score = bug\nsys.exit(cli.main(['score', 'dataset=sample', 'p.jsonl']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: unforeseen\n")
