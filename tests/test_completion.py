"""Completion: what a shell offers is what the verbs take, and no Python is started for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from refcocom_gpu.cli.completion import SCRIPTS, verbs
from refcocom_gpu.cli.config import VERBS, conf_dir, keys_of
from refcocom_gpu.cli.main import main

BASH = shutil.which("bash")

ASK = """
source script
ask() {
    COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
    _refcocom
    printf '%s\\n' "${COMPREPLY[@]}" ---
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return tmp_path


def completed(capsys, *typed):
    """What bash offers for each list of words, split as bash splits them; nothing else can be started."""
    assert main(["completion", "bash"]) == 0
    Path("script").write_text(capsys.readouterr().out)
    quoted = "\n".join("ask " + " ".join(f"'{word}'" for word in words) for words in typed)
    done = subprocess.run(
        [BASH, "--norc", "-c", ASK + quoted], capture_output=True, text=True, timeout=60, env={"PATH": ""}
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [part.split("\n")[:-1] for part in done.stdout.split("---\n")[:-1]]


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash(capsys, folder):
    (folder / "a b.jsonl").touch()
    (folder / "preds").mkdir()
    groups = folder / "xdg" / "refcocom" / "dataset"
    groups.mkdir(parents=True)
    (groups / "mine.yaml").write_text("name: sample")
    (groups / "$(touch made).yaml").write_text("name: sample")
    packaged = [path.stem for path in (conf_dir() / "dataset").glob("*.yaml")]
    asked = {
        ("",): [*VERBS],
        ("sc",): ["score"],
        ("--v",): ["--version"],
        ("score", "--j"): ["--json"],
        ("score", "thread"): ["threads="],
        ("-q", "score", "fiel"): ["fields."],
        ("score", "dataset", "="): sorted(["mine", *packaged]),
        ("score", "dataset", "=", "sam"): ["sample"],
        ("score", "missing", "="): ["error", "zero"],
        ("sweep", "missing", "=", "x"): [],
        ("construct", "consensus", "=", "m"): ["majority", "medoid"],
        ("score", "json", "=", "t"): ["true"],
        ("score", "tags", "=", "a"): ["a b.jsonl"],
        ("score", "pre"): ["precision=", "predictions="],
        ("score", "device", "=", "cuda", ":", "0", "overw"): ["overwrite="],
        ("score", "./p"): ["./preds"],
        ("score", "threads", "=", "p"): [],
        ("cache", "b"): ["build"],
        ("cache", "./p"): [],
        ("completion", "f"): ["fish"],
    }
    found = completed(capsys, *(("refcocom", *words) for words in asked))
    assert {words: sorted(part) for words, part in zip(asked, found, strict=True)} == {
        words: sorted(part) for words, part in asked.items()
    }
    assert not (folder / "made").exists()


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_every_verb_offers_every_key(capsys):
    for (verb, (config, _)), offered in zip(
        VERBS.items(), completed(capsys, *(("refcocom", verb, "") for verb in VERBS)), strict=True
    ):
        names = {f"{key.name}{'.' if key.is_mapping else '='}" for key in keys_of(config)}
        assert names | {"config=", "config_dir="} <= set(offered), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_choice_is_in_the_meaning(verb):
    for key in keys_of(VERBS[verb][0]):
        said = f"{key.meaning} {key.default} true false"
        assert all(choice in said for choice in key.choices), key.name
    known = verbs()[verb]
    assert set(known.values) <= set(known.keys)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_syntax_of_every_script(capsys, shell, folder):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    for verb, (config, _) in VERBS.items():
        assert verb in out
        assert all(key.name in out for key in keys_of(config))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (folder / "script").write_text(out)
    done = subprocess.run([shell, "-n", "script"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell(capsys):
    for words in ([], ["powershell"]):
        assert main(["completion", *words]) == 2
        assert "completion takes a shell, bash or zsh or fish" in capsys.readouterr().err
