"""Sets by their names: each group reads its release, checks its splits and its counts, and says so in the summary."""

import json
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refer_sets import publish, write_release

import refcocom_gpu as rc
from refcocom_gpu.cli.config import VERBS, groups
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.known import KNOWN, counts_of
from refcocom_gpu.dataset.locate import SPLIT_NAMES, locate
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.errors import UsageError

PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text("utf-8")

RELEASES = [
    (name, by, split)
    for name, known in KNOWN.items()
    if known.references
    for by, splits in known.splits.items()
    for split in splits
]
"""Every split of every release."""

HELD = (2, 4, 7)
"""Images, references and expressions of a split of `write_release`."""


def file_of(name: str, split_by: str) -> str:
    return f"grefs({split_by}).json" if name == "grefcoco" else f"refs({split_by}).p"


def predictions(dataset: rc.Dataset, path: Path) -> Path:
    """The true masks as a prediction file."""
    with rc.PredictionWriter(path, dataset) as writer:
        store = rc.MaskStore.build(dataset, cache=False)
        for index in range(dataset.n_examples):
            writer.write(index, store.mask(index))
    return path


# Names and splits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "by", "split"), RELEASES)
def test_each_split_of_each_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str, split: str
) -> None:
    publish(monkeypatch, name, *HELD, split_by=by, split=split)
    folder = write_release(
        tmp_path / "data", file_of(name, by), splits=tuple(KNOWN[name].splits[by])
    )
    dataset = rc.load_dataset(name, path=folder, split=split)
    assert (dataset.n_images, dataset.n_samples, dataset.n_examples) == HELD
    assert (dataset.name, dataset.split, dataset.split_by) == (name, split, by)
    assert dataset.counts_as_published is True
    # What was read does not depend on the name, and every split is another one.
    assert rc.load_dataset(folder, split=split).fingerprint == dataset.fingerprint
    first = dataset.sample_ids[0]
    assert first == 40 + 100 * list(KNOWN[name].splits[by]).index(split)


@given(st.sampled_from(RELEASES), st.data())
def test_synonyms_and_case(which: tuple[str, str, str], data: st.DataObject) -> None:
    name, by, split = which
    words = [w for group in SPLIT_NAMES if split in group for w in group] or [split]
    word = data.draw(st.sampled_from(words))
    letters = [data.draw(st.sampled_from([c.lower(), c.upper()])) for c in word]
    assert KNOWN[name].resolve("".join(letters), by) == (split, by)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("refcoco+", {"split": "test"}, "RefCOCO+ has no split 'test'; its splits are train, val, testA, testB (unc)"),
        ("refcoco", {"split": "test", "split_by": "unc"}, "its splits are train, val, testA, testB (unc)"),
        ("refcocog", {"split": "test", "split_by": "google"}, "its splits are train, val (google)"),
        ("refcocog", {"split_by": "unc"}, "RefCOCOg is split by umd or google, not by 'unc'"),
        ("grefcoco", {"split": "test"}, "gRefCOCO has no split 'test'"),
        ("refcoco-m", {"split": "testA"}, "RefCOCO-M has no split 'testA'; its splits are validation"),
        ("refcoco-m", {"split_by": "unc"}, "RefCOCO-M is split in one way, not by 'unc'"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_told_before_a_file_is_looked_for(
    tmp_path: Path, name: str, options: dict[str, Any], said: str
) -> None:
    """An empty folder would be another error, and nothing is fetched."""
    with pytest.raises(UsageError, match=re.escape(said)):
        rc.load_dataset(name, path=tmp_path, **options)
    hub = KNOWN[name].hub
    if hub is not None:
        with pytest.raises(UsageError, match=re.escape(said)):
            rc.load_dataset(hub, **options)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("refcoco", {}, "RefCOCO is read from a folder: docs/datasets.md"),
        ("refcoco", {"path": "absent/refcoco"}, "there is no file or folder absent/refcoco"),
        ("owner/name", {"path": "."}, "'owner/name' is none: refcoco-m, refcoco"),
        ("sample", {"split_by": "unc"}, "chooses references of a release; sample is none"),
    ],
)
def test_no_such_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(said)):
        rc.load_dataset(name, **options)


def test_an_unknown_split_lists_those_of_every_way(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "d", "refs(unc).p")
    (folder / "refs(unc).p").rename(folder / "mine.p")
    said = "train, val, testA, testB (unc); train, val, test (google)"
    with pytest.raises(UsageError, match=re.escape(said)):
        rc.load_dataset("refcoco", path=folder / "mine.p", split="all")


# Which references ---------------------------------------------------------------------------------


def test_several_references_are_chosen_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for by in ("google", "umd"):
        publish(monkeypatch, "refcocog", *HELD, split_by=by, split="val")
    folder = write_release(tmp_path / "d", "refs(google).p", "refs(umd).p")
    choices = r"pass one of them as the path, or split_by='google' or split_by='umd'"
    for source, more in (("refcocog", {"path": folder}), (folder, {})):
        with pytest.raises(UsageError, match=choices):
            rc.load_dataset(source, **more)
        found = rc.load_dataset(source, split_by="umd", **more)
        assert found.sample_ids[0] == 1040
        assert found.source == str(folder / "refs(umd).p")
        # Whatever opens it again, as pages and pictures do, finds the same references.
        assert rc.load_dataset(found.source, split=found.split).fingerprint == found.fingerprint
        assert locate(found.source, None).path == folder / "refs(umd).p"
        with pytest.raises(UsageError, match=r"split_by='unc'|not by 'unc'"):
            rc.load_dataset(source, split_by="unc", **more)
    declared = rc.load_dataset("refcocog", path=folder / "refs(google).p")
    assert (declared.split_by, declared.sample_ids[0]) == ("google", 40)
    with pytest.raises(UsageError, match=r"holds refs\(google\)\.p; none is split_by='umd'"):
        rc.load_dataset("refcocog", path=folder / "refs(google).p", split_by="umd")


def test_the_release_of_another_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not of gRefCOCO, whose references are called grefs"):
        rc.load_dataset("grefcoco", path=write_release(tmp_path / "a", "refs(unc).p"))
    with pytest.raises(UsageError, match=r"is not of RefCOCO, whose references are called refs"):
        rc.load_dataset("refcoco", path=write_release(tmp_path / "b", "grefs(unc).json"))
    with pytest.raises(UsageError, match=r"is not of RefCOCO-M"):
        rc.load_dataset("refcoco-m", path=tmp_path / "a")
    with pytest.raises(UsageError, match=r"RefCOCOg is split by umd or google, not by 'unc'"):
        rc.load_dataset("refcocog", path=tmp_path / "a")


def test_a_copy_does_not_say_how_it_is_split(tmp_path: Path) -> None:
    """The files of a copy have no such name: `split_by` says it, where the split alone does not."""
    folder = write_release(tmp_path / "d", "refs(unc).p", splits=("val", "testA"))
    (folder / "refs(unc).p").rename(tmp_path / "d" / "mine.p")
    mine = folder / "mine.p"
    with pytest.raises(UsageError, match="split in several ways: pass split_by='unc' or split_by="):
        rc.load_dataset("refcoco", path=mine)
    with pytest.warns(UserWarning, match="2 images where RefCOCO testA"):
        assert rc.load_dataset("refcoco", path=mine, split="testA").split_by == "unc"
    with pytest.warns(UserWarning, match=r"RefCOCO val \(google\)"):
        assert rc.load_dataset("refcoco", path=mine, split_by="google").split_by == "google"


def test_a_folder_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`refcoco` is the folder of that name where there is one, which is checked too."""
    monkeypatch.chdir(tmp_path)
    write_release(Path("refcoco"), "refs(unc).p")
    with pytest.warns(UserWarning, match=r"RefCOCO val \(unc\) has 1,500"):
        assert rc.load_dataset("refcoco").name == "refcoco"
    # A path says nothing of what it holds.
    assert rc.load_dataset(Path("refcoco")).name is None
    assert rc.load_dataset("./refcoco").name is None


# Counts -------------------------------------------------------------------------------------------


def test_a_difference_warns_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, "refcoco", 2, 5, 8, split_by="unc", split="val")
    folder = write_release(tmp_path / "d", "refs(unc).p")
    said = r"4 samples where RefCOCO val \(unc\) has 5, 7 examples where RefCOCO val \(unc\) has 8$"
    with pytest.warns(UserWarning, match=said) as caught:
        dataset = rc.load_dataset("refcoco", path=folder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert dataset.counts_as_published is False
    assert dataset.published_difference() == str(caught[0].message)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((2, 4, 7), True),
        ((2, 4, None), True),
        ((None, None, 7), True),
        ((None, None, 8), False),
        ((3, None, None), False),
        ((None, None, None), None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_not_published_is_not_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int | None, int | None, int | None],
    expected: bool | None,
) -> None:
    publish(monkeypatch, "grefcoco", *counts, split_by="unc", split="val")
    folder = write_release(tmp_path / "d", "grefs(unc).json")
    dataset = rc.load_dataset("grefcoco", path=folder)
    assert dataset.counts_as_published is expected
    assert (dataset.published_difference() is None) is (expected is not False)
    assert pickle.loads(pickle.dumps(dataset)).counts_as_published is expected


def test_other_sets_have_no_published_counts(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "d", "refs(unc).p")
    for dataset in (rc.load_dataset("sample"), rc.load_dataset(folder)):
        assert (dataset.name, dataset.counts_as_published) == (None, None)


def test_the_counts_fit_together() -> None:
    """No number can be checked without the data, but what must hold between them does."""
    for name, by, split in [*RELEASES, ("refcoco-m", None, "validation")]:
        counts = counts_of(name, split, by)
        known = [number for number in counts if number is not None]
        assert known == sorted(known), (name, by, split)
        assert bool(known) <= bool(KNOWN[name].sources)

    def total(name: str, by: str, splits: list[str]) -> int:
        return sum(counts_of(name, split, by).examples or 0 for split in splits)

    # What the card of Ref-L4 and others state of several splits together.
    assert total("refcoco", "unc", ["val", "testA", "testB"]) == 21586
    assert total("refcocog", "umd", ["val", "test"]) == 14498
    assert total("refcocog", "umd", ["train", "val"]) == 85408
    assert total("refcocog", "umd", ["train", "val", "test"]) == 95010
    assert total("refcocog", "google", ["train", "val"]) == 95010


# The command --------------------------------------------------------------------------------------


def test_the_groups_are_those_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, (config, _) in VERBS.items():
        if "dataset" in groups(config):
            assert set(groups(config)["dataset"]) >= {*KNOWN, "sample"}
            assert main([verb, "--help"]) == 0
            text = capsys.readouterr().out
            listed = "one of grefcoco, refcoco, refcoco+, refcoco-m, refcocog, sample"
            assert listed in " ".join(text.split())
            assert "dataset.split_by=null" in text


@pytest.mark.parametrize(
    ("name", "by"), [("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd"), ("grefcoco", "unc")]
)  # fmt: skip
def test_a_group_is_scored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    by: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    publish(monkeypatch, name, *HELD, split_by=by, split="val")
    files = ["refs(google).p", file_of(name, by)] if name == "refcocog" else [file_of(name, by)]
    folder = write_release(tmp_path / "data", *files)
    made = predictions(rc.load_dataset(name, path=folder, split_by=by), tmp_path / "preds.parquet")
    words = ["score", str(made), f"dataset={name}", f"dataset.path={folder}", "output_dir=out"]
    if name == "refcocog":
        assert main(words) == 2
        assert "or dataset.split_by=google or dataset.split_by=umd" in capsys.readouterr().err
        words.append("dataset.split_by=umd")
    assert main([*words, "dataset.split=all"]) == 2
    assert f"{KNOWN[name].title} has no split 'all'; its splits are" in capsys.readouterr().err
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["miou"] == 1.0
    about = summary["dataset"]
    assert (about["name"], about["split"], about["split_by"]) == (name, "val", by)
    assert about["counts_as_published"] is True
    publish(monkeypatch, name, 2, 4, 9, split_by=by, split="val")
    assert main([*words, "overwrite=true", "quiet=true"]) == 0
    assert "7 examples where" in capsys.readouterr().err
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["dataset"]["counts_as_published"] is False


def test_a_group_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score", "sample", "dataset=refcoco+"]) == 2
    err = capsys.readouterr().err
    assert "RefCOCO+ is read from a folder" in err
    assert "pass dataset.path=FOLDER" in err
    assert main(["score", "sample", "dataset=refcoco-m", "dataset.split=testA"]) == 2
    assert "its splits are validation" in capsys.readouterr().err
    # A path without a group is what it is: nothing is compared with RefCOCO-M.
    folder = write_release(tmp_path / "d", "refs(unc).p", splits=("testA",))
    made = predictions(rc.load_dataset(folder, split="testA"), tmp_path / "preds.parquet")
    words = ["score", str(made), f"dataset.path={folder}", "dataset.split=testA"]
    assert main([*words, "json=true"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["dataset"]["counts_as_published"], err) == (None, "")


# The page -----------------------------------------------------------------------------------------


def test_the_page_shows_every_count_of_the_registry() -> None:
    for name, known in KNOWN.items():
        for by, splits in known.splits.items():
            for split, counts in splits.items():
                numbers = " | ".join("–" if n is None else f"{n:,}" for n in counts)
                assert f"| `{name}` | {by or '–'} | {split} | {numbers} |" in PAGE
        assert f"dataset={name}" in PAGE
    rows = [
        line for line in PAGE.splitlines() if re.match(r"\| `[\w+-]+` \| [\w–]+ \| \w+ \|", line)
    ]
    assert len(rows) == len(RELEASES) + 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where each folder holds a small release, as its table says."""
    monkeypatch.chdir(tmp_path)
    splits = ("val", "test", "testA", "testB")
    for name, files in {
        "refcoco": ["refs(google).p", "refs(unc).p"],
        "refcoco+": ["refs(unc).p"],
        "refcocog": ["refs(google).p", "refs(umd).p"],
        "grefcoco": ["grefs(unc).json"],
    }.items():
        assert ", ".join(f"`{file}`" for file in files) in PAGE
        write_release(Path(name), *files, splits=splits)
    Path("refcoco-m").mkdir()
    pq.write_table(pa.Table.from_pylist(make_records()), "refcoco-m/validation.parquet")
    lines = re.findall(r"^refcocom score .*$", PAGE, re.MULTILINE)
    assert len(lines) == len(KNOWN)
    for line in lines:
        _, *words = shlex.split(line, comments=True)
        given = dict(word.split("=") for word in words if "=" in word)
        options = {key.removeprefix("dataset."): given[key] for key in given if "." in key}
        dataset = rc.load_dataset(given["dataset"], **options)
        Path(words[1]).unlink(missing_ok=True)
        predictions(dataset, Path(words[1]))
        assert main([*words, "json=true"]) == 0, line
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    namespace: dict[str, Any] = {}
    exec(compile(code[1], "datasets.md", "exec"), namespace)
    assert namespace["dataset"].split_by == "umd"
