"""Reading options: declared once, taken by every verb that reads predictions, written whole into every result."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from helpers import sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu.cli.config import VERBS, keys_of
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.predictions.options import WITHOUT_EFFECT, ReadOptions
from refcocom_gpu.predictions.value_options import ValueOptions
from refcocom_gpu.utils.options import part_of

CHANGED = {
    "keys": "sample",
    "fields": {"sentence_idx": "sentence_idx"},
    "name": "{}_{sample_id}_{sentence_idx}",
    "values": "probabilities",
    "label": 3,
    "resize_masks": "nearest",
    "combine": "union",
    "letterbox": 512,
    "resize": "sam",
    "repeats": "identical",
    "extra": "ignore",
    "polygons": "normalized",
    "box_format": "xywh",
    "box_scale": "pixels",
    "no_target_threshold": 0.25,
    "batch_size": 7,
    "threads": 1,
}
"""Another value than the default for each option."""

BOXES = ("box_format", "box_scale")
"""Options that are declared together."""

NAMES = [entry.name for entry in fields(ReadOptions)]


@pytest.fixture(scope="module")
def case():
    return sample_case()


def test_every_option_has_another_value_here():
    assert sorted(CHANGED) == sorted(NAMES)
    assert all(asdict(ReadOptions())[name] != value for name, value in CHANGED.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_names_every_option(case, tmp_path, name, capsys):
    """Whatever can change a mask is in `summary.json`, as it was given, with what else decides the score."""
    changed = {name: CHANGED[name]}
    if name == "resize":
        changed["letterbox"] = CHANGED["letterbox"]
    if name in BOXES:
        changed = {one: CHANGED[one] for one in BOXES}
    expected = asdict(replace(ValueOptions(), **changed))
    sentences = case.dataset.examples["sentence"].to_pylist()
    rows = [
        {**row, "sentence": s, "box": [1, 2, 30, 40]}
        for row, s in zip(case.rows(), sentences, strict=True)
    ]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    words = [
        word
        for key, value in changed.items()
        for word in (
            [f"{key}.{entry}={text}" for entry, text in value.items()]
            if isinstance(value, dict)
            else [f"{key}={value}"]
        )
    ]
    command = [
        "score",
        str(path),
        "dataset=sample",
        "missing=zero",
        f"output_dir={tmp_path / 'out'}",
    ]
    assert main([*command, "precision=gt", *words]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["options"] == {"missing": "zero", **expected}
    assert (summary["convention"], summary["precision"]) == ("official", ">")
    assert summary["predictions"]["xxh3_128"]
    capsys.readouterr()


def test_the_metric_names_every_option(case):
    metric = rc.RefCOCOMMetric(case.store, letterbox=512)
    index = np.arange(len(case.masks))
    metric.update(list(case.masks), index)
    options = metric.result().info["options"]
    assert options == {"missing": "error", **asdict(ReadOptions(letterbox=512))}


@pytest.mark.parametrize("verb", ["score", "compare", "sweep", "construct", "convert"])
def test_every_verb_that_reads_predictions_takes_them(verb):
    config = VERBS[verb][0]
    assert issubclass(config, ReadOptions)
    assert set(NAMES) <= {key.name for key in keys_of(config)}
    assert part_of(config(), ReadOptions) == ReadOptions(threads=config().threads)


def test_rules_of_construct_are_its_keys():
    config = VERBS["construct"][0]
    assert part_of(config(), Rules) == Rules()
    assert {entry.name for entry in fields(Rules)} <= {key.name for key in keys_of(config)}


def test_only_options_without_effect_are_left_out_of_what_decides_counts():
    assert {*ReadOptions().deciding(), *WITHOUT_EFFECT} == set(NAMES)


def test_an_unknown_option_is_refused(case):
    with pytest.raises(TypeError, match="value"):
        rc.score("sample", case.store, value="logits")
    for wrong in ({"threads": -1}, {"letterbox": 0}, {"resize": "sam"}):
        with pytest.raises(rc.UsageError, match=next(iter(wrong))):
            rc.score("sample", case.store, **wrong)
