"""Two versions of a set on a page: what stayed, what is gone and why, and no harmful text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.errors import DataError, DatasetError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.report.before_after import KEPT

WORD = "star"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of the sample, without expressions that hold a word, with a page in its audit."""
    folder = tmp_path_factory.mktemp("made")
    words = folder / "words.txt"
    words.write_text(f"{WORD}\n", "utf-8")
    arguments = [
        "construct",
        "sample",
        "sample-coarse",
        "dataset=sample",
        f"words={words}",
        "report=true",
    ]
    assert main([*arguments, f"output_dir={folder}/out", "quiet=true"]) == 0
    return folder / "out"


def examples_of(text: str) -> dict[str, Any]:
    found = re.search(r"data-examples>(.*?)</script>", text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_construction_writes_its_page(made: Path) -> None:
    text = (made / "audit" / "report.html").read_text("utf-8")
    summary = json.loads((made / "construct.json").read_text("utf-8"))
    counts = summary["counts"]
    assert f">{counts['instances']['kept']:,}<" in text
    assert f">{counts['expressions']['kept']:,}<" in text
    fates = {choice["label"]: choice for choice in examples_of(text)["choices"]}["fate"]
    names = [fates["names"][code] for code in fates["codes"]]
    assert names.count(KEPT) == counts["instances"]["kept"]
    for cause, n in counts["instances"]["removed"].items():
        assert names.count(cause) == n


def test_removed_expressions_are_listed_by_key_and_never_by_text(made: Path) -> None:
    text = (made / "audit" / "report.html").read_text("utf-8")
    dataset = rc.load_dataset("sample")
    sentences = dataset.examples["sentence"].to_pylist()
    removed = [k for k, sentence in enumerate(sentences) if WORD in sentence.split()]
    assert len(removed) > 10
    shown = " · ".join(examples_of(text)["texts"])
    for k in removed:
        assert "_".join(map(str, dataset.key_of(k))) in text
        assert sentences[k] not in shown
    assert not re.search(rf"\b{WORD}\b", shown)


def test_every_pair_of_masks_is_as_the_audit_says(made: Path) -> None:
    versions = rc.before_after("sample", made)
    dataset = rc.load_dataset("sample")
    assert versions.instances.num_rows == dataset.n_samples
    for row in versions.instances.to_pylist():
        if row["after"] is None:
            assert row["iou"] is None
            continue
        size = [int(dataset.heights[row["sample"]]), int(dataset.widths[row["sample"]])]
        before = rle.decode({"size": size, "counts": dataset.counts.row(row["sample"])})
        after = rle.decode({"size": size, "counts": row["after"]})
        assert row["iou"] == pytest.approx(
            (before & after).sum() / (before | after).sum(), abs=1e-12
        )
        assert row["after_area"] == after.sum()


def test_two_datasets_are_matched_by_masks_not_by_ids(tmp_path: Path) -> None:
    """A set of other ids, with a sample and a sentence left out, is held against the original."""
    records = make_records()
    gone = records[0]["samples"].pop()
    cut = records[1]["samples"][0]["sentences"].pop()
    for record in records:
        for sample in record["samples"]:
            sample["id"] += 1_000_000
    path = tmp_path / "refined.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    versions = rc.before_after("sample", path)
    assert versions.n_kept == 104
    assert np.all(versions.values("iou") == 1)
    rows = {row["fate"]: row for row in versions.instances.to_pylist()}
    dataset = rc.load_dataset("sample")
    assert dataset.sample_ids[rows["no mask"]["sample"]] == gone["id"]
    assert len(versions.expressions) == len(gone["sentences"]) + 1
    of_cut = next(
        row["sentences"]
        for row in versions.instances.to_pylist()
        if dataset.sample_ids[row["sample"]] == records[1]["samples"][0]["id"] - 1_000_000
    )
    assert cut not in of_cut.split(" · ")
    assert (
        main(
            [
                "report",
                str(path),
                "original=sample",
                f"page={tmp_path}/p.html",
                "pictures=none",
                "-q",
            ]
        )
        == 0
    )


def test_what_does_not_fit_is_refused(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    records = make_records(seed=5)
    other.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    with pytest.raises(DatasetError, match="was not made of"):
        rc.before_after(other, made)
    with pytest.raises(DataError, match="another size"):
        rc.before_after("sample", other)
    (tmp_path / "broken" / "audit").mkdir(parents=True)
    (tmp_path / "broken" / "construct.json").write_text("{}", "utf-8")
    with pytest.raises(DatasetError, match="cannot be read"):
        rc.before_after("sample", tmp_path / "broken")
    with pytest.raises(UsageError):
        rc.before_after("sample", tmp_path / "nowhere")
