"""Keys from files: `config=run.yaml`, a user's own groups, and the `config.yaml` that repeats a result."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.config import VERBS, conf_dir
from refcocom_gpu.cli.main import main
from refcocom_gpu.cli.overrides import parse
from refcocom_gpu.cli.resolved import resolved
from refcocom_gpu.utils.run_config import CONFIG, HEAD


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder and, below it, the folder of the user's own files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return tmp_path


def written(text, name="run.yaml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return f"config={name}"


def refused(verb, *words):
    with pytest.raises(rc.UsageError) as caught:
        parse(verb, words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("threads: 3\ndataset:\n  path: a/b\n  split: test", ["threads=3", "dataset.path=a/b", "dataset.split=test"]),
        ("dataset.path: a/b\ndataset: sample", ["dataset=sample", "dataset.path=a/b"]),
        ("dataset:\n  revision: 1e10", ["dataset.revision=1e10"]),
        ("dataset: {revision: 0012, key: image_position}", ["dataset.revision=0012", "dataset.key=image_position"]),
        ("predictions: [a, 'b, c', ~/x]", ["predictions=[a,'b, c',~/x]"]),
        ("predictions: ~/x\noutput_dir: ~/y", ["~/x", "output_dir=~/y"]),
        ("metrics: [iou, boxes]\nslices: size", ["metrics=[iou,boxes]", "slices=size"]),
        ("thresholds: [-1, 0.5]", ["thresholds=[-1,0.5]"]),
        ("fields: {sample_id: a}\nfields.sentence: b", ["fields.sample_id=a", "fields.sentence=b"]),
        ("fields: null\nlabel:\npredictions: null", []),
        ("json: yes\nno_target_threshold: 0.25", ["json=yes", "no_target_threshold=0.25"]),
        ("letterbox: center\nquiet: true", ["letterbox=center", "quiet=true"]),
        ("verb: score\n# nothing else", []),
        ("", []),
        ("\ufeff{threads: 1}", ["threads=1"]),
    ],
)  # fmt: skip
def test_a_file_means_what_the_command_line_means(text, words):
    assert parse("score", [written(text)]) == parse("score", words)


def test_a_sweep_takes_lists_in_lists_and_an_engine():
    text = "predictions: [[a, b], c]\nengine: {name: ray, workers: 2}"
    config = parse("sweep", [written(text)])
    assert config.predictions == [["a", "b"], "c"]
    assert (config.engine.name, config.engine.workers) == ("ray", 2)
    assert parse("sweep", [written("engine: serial")]).engine.name == "serial"


def test_the_command_line_wins():
    run = written(
        "predictions: a\nthreads: 3\nmissing: zero\ndataset: {path: p, split: s}\n"
        "fields: {sample_id: x, sentence_idx: y}"
    )
    config = parse("score", ["b", "threads=1", "fields.sample_id=z", "dataset.split=t", run])
    assert (config.predictions, config.threads, config.missing) == ("b", 1, "zero")
    assert config.fields == {"sample_id": "z", "sentence_idx": "y"}
    assert (config.dataset.path, config.dataset.split) == ("p", "t")
    # A group that is typed replaces the file's, and not its name alone.
    assert (
        parse("score", [run, "dataset=sample"]).dataset
        == parse("score", ["dataset=sample"]).dataset
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1", "run.yaml, line 2: this is not YAML: "),
        ("threads: 1\n--- \nthreads: 2", "run.yaml, line 2: this is not YAML: but found another document"),
        ("\n- a", "run.yaml, line 2: this is not a mapping"),
        ("just text", "run.yaml, line 1: this is not a mapping"),
        ("\nthreads: many", "run.yaml, line 2: threads=many: Value 'many' of type 'str' could not be"),
        ("threads: [1, 2]", "run.yaml, line 1: threads=[1,2]: "),
        ("missing: [a]", "run.yaml, line 1: missing takes one value, not a list"),
        ("missing: {a: b}", "run.yaml, line 1: missing takes one value, not a mapping"),
        ("missing:", "run.yaml, line 1: missing is given no value"),
        ("predictions: []", "run.yaml, line 1: predictions names nothing"),
        ("predictions: [[a, b]]", "run.yaml, line 1: predictions takes text or a number here, not sequence"),
        ("fields: mask", "run.yaml, line 1: fields is a mapping"),
        ("\n\ntreads: 1", "run.yaml, line 3: score has no key 'treads'; did you mean threads?"),
        ("manifest: x", "run.yaml, line 1: score has no key 'manifest'; it is a key of sweep"),
        ("dataset:\n  pth: x", "run.yaml, line 2: score has no key 'dataset.pth'; did you mean dataset.path?"),
        ("engine: {name: ray}", "run.yaml, line 1: there is no group 'engine', not a mapping"),
        ("verb: sweep", "run.yaml, line 1: these are keys of refcocom sweep, not of score"),
        ("threads: 1\nthreads: 2", "run.yaml, line 2: threads is given in line 1 too"),
        ("dataset: {path: a}\ndataset.path: b", "run.yaml, line 2: dataset.path is given in line 1 too"),
        ("dataset: mine", "run.yaml, line 1: dataset=mine: choose "),
        ("config: a", "run.yaml, line 1: config= stands on the command line"),
        ("<<: {threads: 1}", "run.yaml, line 1: there is no group '<<'"),
        ("a: &a\n  b: *a", "there is no group 'a'"),
        ("missing: ${oc.env:NOT_THERE}", "run.yaml, line 1: missing=${oc.env:NOT_THERE}: "),
        ("missing: '${oc.env:'", "run.yaml, line 1: missing=${oc.env:"),
        ("missing: ${threads}", "run.yaml, line 1: missing=${threads}: of interpolations, ${oc.env:NAME}"),
        ("threads: ${oc.decode:1}", "of interpolations"),
        ("missing: !!python/object/apply:os.system [touch x]", "missing takes one value, not a list"),
        ("missing: !!python/name:os.system", "missing has the tag python/name:os.system"),
        ("missing: !mine a", "missing has the tag !mine"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(text, message):
    assert message in refused("score", written(text))
    assert not Path("x").exists()


def test_files_that_are_none(folder, capsys):
    (folder / "binary.yaml").write_bytes(b"PAR1\x00\xff")
    os.mkfifo(folder / "pipe.yaml")
    for name, message in (
        ("nowhere.yaml", "no keys can be read from nowhere.yaml: No such file"),
        (".", "Is a directory"),
        ("binary.yaml", "binary.yaml: this is not YAML: "),
        ("pipe.yaml", "pipe.yaml is a pipe"),
    ):
        assert message in refused("score", f"config={name}")
    assert "config is given twice" in refused("score", written("threads: 1"), "config=other.yaml")
    assert main(["score", "config=nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("refcocom: no keys can be read")


def test_the_environment(monkeypatch):
    monkeypatch.setenv("PREDS", "my ${HOME} preds")
    monkeypatch.setenv("N", "3")
    text = (
        "predictions: ${oc.env:PREDS}/a\nthreads: ${oc.env:N}\nmissing: ${oc.env:NOT_THERE,zero}\n"
        "output_dir: ${oc.env:NOT_THERE,null}\nname: a\\${b}"
    )
    config = parse("score", [written(text)])
    assert (config.predictions, config.threads, config.missing, config.name) == (
        "my ${HOME} preds/a", 3, "zero", "a${b}",
    )  # fmt: skip
    # What a variable holds is text: nothing in it is resolved.
    monkeypatch.setenv("N", "${oc.env:HOME}")
    assert "threads=${oc.env:HOME} is not resolved" in refused("score", "config=run.yaml")


texts = st.text(min_size=1).filter(lambda text: "\x00" not in text and not text.startswith("~"))


@settings(max_examples=8)
@given(texts, st.lists(texts, min_size=1, max_size=3), st.dictionaries(texts, texts, max_size=2))
def test_what_is_written_is_read_back(tmp_path_factory, text, listed, mapping):
    config = VERBS["score"][0](predictions=listed)
    config.name, config.fields, config.dataset.revision = text, mapping or None, text
    path = tmp_path_factory.mktemp("c") / CONFIG
    path.write_bytes(resolved(config))
    again = parse("score", [f"config={path}"])
    # Paths are the same files, perhaps written in another way.
    assert {**asdict(again), "predictions": None} == {**asdict(config), "predictions": None}
    assert len(again.predictions) == len(listed)


@pytest.mark.parametrize("text", ["a\x85b", "\u2028", "\u2029 x", "\ufeff", "é \t", "'\"", "\x85"])
def test_line_breaks_of_yaml_are_read_back(tmp_path, text):
    config = VERBS["score"][0](predictions=["p"])
    config.fields = {"segmentation": text}
    (tmp_path / CONFIG).write_bytes(resolved(config))
    assert parse("score", [f"config={tmp_path / CONFIG}"]).fields == {"segmentation": text}


@pytest.mark.parametrize("verb", VERBS)
def test_the_defaults_of_every_verb_are_read_back(verb):
    config = parse(verb, [])
    Path("all.yaml").write_bytes(resolved(config))
    assert parse(verb, ["config=all.yaml"]) == config
    assert yaml.safe_load(Path("all.yaml").read_text("utf-8")) == {"verb": verb, **asdict(config)}


def comparable(folder):
    summary = json.loads((Path(folder) / "summary.json").read_text("utf-8"))
    del summary["wall_seconds"]
    return summary, (Path(folder) / "per_example.parquet").read_bytes()


def test_the_config_of_a_result_repeats_it(capsys):
    run = written("predictions: sample\nmetrics: [iou, boxes]\nprecision: gt\ndataset: sample")
    words = ["slices=[size,category]", "device=cpu", "threads=1", "quiet=true"]
    assert main(["score", run, *words, "output_dir=a/b"]) == 0
    assert main(["score", f"config=a/b/{CONFIG}", "output_dir=c"]) == 0
    assert comparable("a/b") == comparable("c")
    first, second = (yaml.safe_load(Path(f"{d}/{CONFIG}").read_text()) for d in ("a/b", "c"))
    assert {**first, "output_dir": "c"} == second
    assert first["slices"] == ["size", "category"]
    assert first["dataset"]["name"] == "sample"


@pytest.mark.parametrize(
    ("verb", "more", "files"),
    [
        ("compare", ["replicates=99"], ["comparison.json", "comparison.parquet"]),
        ("sweep", ["replicates=99", "engine=serial"], ["leaderboard.json", "leaderboard.csv"]),
        ("construct", ["pictures=none", "engine=serial"], ["construct.json", "audit/instances.parquet"]),
    ],
)  # fmt: skip
def test_other_verbs_write_theirs(capsys, verb, more, files):
    words = [verb, "sample", "sample-coarse", "dataset=sample", "quiet=true", *more]
    assert main([*words, "output_dir=first"]) == 0
    assert main([verb, f"config=first/{CONFIG}", "output_dir=again"]) == 0
    for file in files:
        assert (Path("again") / file).read_bytes() == (Path("first") / file).read_bytes(), file
    configs = [yaml.safe_load(Path(folder, CONFIG).read_text()) for folder in ("first", "again")]
    assert {**configs[0], "output_dir": "again"} == configs[1]


def test_a_folder_never_holds_the_keys_of_another_run(monkeypatch, capsys):
    words = ["score", "dataset=sample", "device=cpu", "quiet=true", "output_dir=out"]
    assert main([*words, "sample"]) == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    # Refused, nothing changes.
    assert main([*words, "sample-coarse"]) == 2
    # Interrupted while the files are written, nothing changes either.
    with monkeypatch.context() as patch:
        patch.setattr(
            "refcocom_gpu.utils.files.sync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert main([*words, "sample-coarse", "overwrite=true"]) == 130
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
    assert main([*words, "sample-coarse", "overwrite=true"]) == 0
    assert yaml.safe_load(Path("out", CONFIG).read_text())["predictions"] == "sample-coarse"
    # A result of Python has no keys.
    rc.score("sample", "sample").save("out", overwrite=True)
    assert not Path("out", CONFIG).exists()


def test_a_config_of_the_user_is_never_replaced(capsys):
    written("predictions: sample\ndataset: sample", f"out/{CONFIG}")
    before = Path("out", CONFIG).read_bytes()
    for words in (
        ["score", "overwrite=true"],
        ["sweep"],
        ["compare", "sample-coarse"],
        ["construct"],
    ):
        verb, *more = words
        assert main([verb, "sample", *more, "dataset=sample", "output_dir=out"]) == 2
        assert f"out/{CONFIG} was not written by refcocom" in capsys.readouterr().err
    rc.score("sample", "sample").save("out")
    assert Path("out", CONFIG).read_bytes() == before


def test_own_groups(capsys):
    written("# mine\nname: sample\nsplit: mini\n", "xdg/refcocom/dataset/mine.yaml")
    written("path: ${oc.env:HOME}/data", "dir/dataset/theirs.yml")
    config = parse("score", ["dataset=mine", "dataset.split=x"])
    assert (config.dataset.name, config.dataset.split) == ("sample", "x")
    theirs = parse("score", ["dataset=theirs", "config_dir=dir"]).dataset.path
    assert theirs == os.environ["HOME"] + "/data"
    assert parse("score", [written("dataset: mine\ndataset.key: k")]).dataset.key == "k"
    message = refused("score", "dataset=theirs")
    assert message.startswith("dataset=theirs: choose ")
    assert {"mine", "sample"} <= set(message.replace(";", "").split())
    assert main(["score", "config_dir=dir", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split()).partition("dataset=NAME one of ")[2]
    assert {"mine", "theirs", "sample"} <= set(said.partition(": the keys")[0].split(", "))
    # Nothing but keys of the group stands in such a file.
    written("split: a\nthreads: 1", "dir/dataset/wrong.yaml")
    message = refused("score", "dataset=wrong", "config_dir=dir")
    assert "dir/dataset/wrong.yaml, line 2: score has no key 'dataset.threads'" in message
    assert "no folder at config_dir=nowhere" in refused("score", "config_dir=nowhere")
    assert parse("score", ["sample", "dataset=mine"]).predictions == "sample"


def test_own_groups_hide_nothing():
    written("name: sample", "xdg/refcocom/dataset/refcoco-m.yaml")
    message = refused("score", "sample")
    assert f"dataset=refcoco-m names two files, {conf_dir()}/dataset/refcoco-m.yaml and " in message
    assert message.endswith("xdg/refcocom/dataset/refcoco-m.yaml; rename the second")
    Path("xdg/refcocom/dataset/refcoco-m.yaml").rename("xdg/refcocom/dataset/mine.yaml")
    written("name: sample", "dir/dataset/mine.yaml")
    assert "dataset=mine names two files" in refused("score", "config_dir=dir")


def test_a_failure_is_told_as_the_file_asks(capsys):
    run = written("json: true\nquiet: true\ndataset: sample\npredictions: nowhere.jsonl")
    assert main(["score", run]) == 2
    out, err = capsys.readouterr()
    assert "no prediction file at nowhere.jsonl" in json.loads(out)["error"]
    assert err == ""


def test_the_head_is_that_of_the_file():
    assert resolved(VERBS["cache"][0]()).startswith(HEAD)
