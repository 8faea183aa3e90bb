"""The file for the Hub: read back by its own parser, and refused for what is no score of a benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from helpers import sample_case

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.scores.publish import REFCOCO_M, eval_results, write_eval_results

GOOD = rc.score("sample", sample_case().store)
COMMIT = "5503434ddd753f426f4b38109466949a1217c2bb"


def of(result=GOOD, **dataset):
    return replace(result, info={**result.info, "dataset": {**result.info["dataset"], **dataset}})


FROM_HUB = of(source=REFCOCO_M, revision=COMMIT, counts_as_published=True)


def test_the_hub_reads_it(tmp_path):
    hub = pytest.importorskip(
        "huggingface_hub", minversion="1.4", reason="its parser came with 1.4"
    )
    path = write_eval_results(FROM_HUB, tmp_path / ".eval_results" / "refcoco-m.yaml")
    assert [p.name for p in path.parent.iterdir()] == ["refcoco-m.yaml"]
    data = yaml.safe_load(path.read_text("utf-8"))
    entries = hub.parse_eval_result_entries(data)
    # Nothing is there that the format does not know, and it is written as the Hub's own client writes it.
    assert hub.eval_result_entries_to_yaml(entries) == data
    miou, ciou = entries
    assert {entry.dataset_id for entry in entries} == {REFCOCO_M}
    assert {entry.dataset_revision for entry in entries} == {COMMIT}
    assert (miou.task_id, ciou.task_id) == ("miou", "ciou")
    assert (miou.value, ciou.value) == (round(100 * GOOD.miou, 4), round(100 * GOOD.ciou, 4))
    for entry in entries:
        assert "all 297 (image, sentence) examples, none missing; split validation" in entry.notes
        assert GOOD.info["dataset"]["fingerprint"] in entry.notes
        assert entry.date is entry.source_url is entry.verify_token is None


def test_the_same_bytes_again(tmp_path):
    first = write_eval_results(FROM_HUB, tmp_path / "a.yaml").read_bytes()
    again = rc.score("sample", sample_case().store)
    again = of(again, source=REFCOCO_M, revision=COMMIT, counts_as_published=True)
    assert write_eval_results(again, tmp_path / "b.yaml").read_bytes() == first


@pytest.mark.parametrize(
    ("source", "revision", "found"),
    [
        ("me/set", COMMIT, "me/set"),
        ("/x/hub/datasets--me--my-set.v2/snapshots/" + COMMIT, COMMIT, "me/my-set.v2"),
        ("datasets--me--set", None, "me/set"),
        ("me/set", None, None),  # a relative path: what the Hub gives has a commit
        (f"snapshots/{COMMIT}", COMMIT, None),
        ("sample", None, None),
        ("set.jsonl", None, None),
    ],
)
def test_which_dataset_it_is_of(source, revision, found):
    result = of(source=source, revision=revision)
    if found is None:
        with pytest.raises(
            rc.UsageError, match=f"of {source}, which is not known to be on the Hub"
        ):
            eval_results(result)
    else:
        assert eval_results(result)[0]["dataset"]["id"] == found
    (entry, _) = eval_results(result, dataset_id="you/copy")
    assert entry["dataset"]["id"] == "you/copy"
    assert "read from a local copy" in entry["notes"]


def test_only_a_complete_official_score(tmp_path):
    table = GOOD.per_example
    status = pa.array(["missing"] * 2 + table["status"].to_pylist()[2:])
    place = table.schema.get_field_index("status")
    partial = replace(GOOD, per_example=table.set_column(place, "status", status))
    with pytest.raises(rc.UsageError, match="2 of 297 examples had no prediction"):
        write_eval_results(partial, tmp_path / "x.yaml", dataset_id="me/set")
    with pytest.raises(rc.UsageError, match="follows the convention 'mine'"):
        eval_results(replace(FROM_HUB, convention="mine"))
    with pytest.raises(rc.UsageError, match="297 of 5,598 examples were scored"):
        eval_results(of(FROM_HUB, n_examples=5598))
    with pytest.raises(
        rc.UsageError, match="which has 1,190 images, 2,080 samples, 5,598 examples"
    ):
        eval_results(GOOD, dataset_id=REFCOCO_M)
    with pytest.raises(rc.UsageError, match="'refcoco' is not the name of a dataset"):
        eval_results(GOOD, dataset_id="refcoco")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def texts():
    records = make_records()
    rows = list(map(json.dumps, make_predictions(records, "good")))
    found = {"p": rows, "part": rows[1:], "set": map(json.dumps, records)}
    # Other bytes than those whose first reading another test looks at: a dataset's columns are kept by its hash.
    return {f"{name}.jsonl": "\n".join([*lines, ""]) for name, lines in found.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch, texts):
    monkeypatch.chdir(tmp_path)
    for name, text in texts.items():
        Path(name).write_text(text, "utf-8")
    return tmp_path


LOCAL = ["score", "dataset.path=set.jsonl", "dataset.name=me/set", "quiet=true"]


def test_from_the_command_line(folder, capsys):
    words = [*LOCAL, "eval_results=hub/scores.yaml", "output_dir=out"]
    assert main([*words, "p.jsonl"]) == 0
    (entry, _) = yaml.safe_load(Path("hub/scores.yaml").read_text("utf-8"))
    assert entry["dataset"] == {"id": "me/set", "task_id": "miou"}
    assert entry["value"] == round(100 * rc.load_results("out").miou, 4)
    assert main([*words[:-1], "p.jsonl"]) == 2
    assert "already exists; pass overwrite=true" in capsys.readouterr().err
    assert main([*words, "p.jsonl", "overwrite=true", "quiet=false"]) == 0
    written = ["out/summary.json", "out/per_example.parquet", "hub/scores.yaml"]
    assert capsys.readouterr().out.endswith("Wrote " + "\n      ".join(written) + "\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["p.jsonl", "eval_results=x.yml"], "the Hub reads files named .yaml"),
        (["p.jsonl", "eval_results=d.yaml"], "d.yaml is a folder"),
        (["part.jsonl", "missing=zero"], "1 of 297 examples had no prediction"),
        (
            ["p.jsonl", "dataset=sample", "dataset.path=null"],
            "the score is of sample, which is not known",
        ),
        (
            ["p.jsonl", f"dataset.name={REFCOCO_M}"],
            "set.jsonl is not moondream/refcoco-m, which has 1,190",
        ),
    ],
)
def test_refused(folder, capsys, words, said):
    Path("d.yaml").mkdir()
    kept = [
        word for word in LOCAL if word.partition("=")[0] not in {w.partition("=")[0] for w in words}
    ]
    if "dataset=sample" in words:
        kept = ["score", "quiet=true"]
    assert main([*kept, "eval_results=x.yaml", "output_dir=out", *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("x.yaml").exists()
    # What no prediction can mend is told before anything is scored.
    assert Path("out").exists() == (words[0] == "part.jsonl")
