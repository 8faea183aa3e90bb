"""Harnesses: what lmms-eval, Inspect and users of `evaluate` get is the score of `rc.score`, to the last bit."""

import asyncio
import importlib.util
import json
import math
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from helpers import coco_encode, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import refcocom_gpu as rc
from refcocom_gpu.dataset.sample import draw_image, encode_png, make_records
from refcocom_gpu.integrations import lmms_eval
from refcocom_gpu.integrations.__main__ import main
from refcocom_gpu.integrations.answers import PRECISIONS, SCORES, AnswerJudge, Judged, scores_of
from refcocom_gpu.integrations.prompts import split_prompt
from refcocom_gpu.integrations.truths import store_of_masks
from refcocom_gpu.scores.uncertainty.ratios import cluster_se, ratio_by_image
from refcocom_gpu.utils.cache import entries

PARQUET = "validation-00000-of-00001.parquet"
GUIDE = (Path(__file__).parents[1] / "docs" / "harnesses.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Some images of the built-in sample as the Hub holds RefCOCO-M: a row per image, with its picture."""
    folder = tmp_path_factory.mktemp("snapshot")
    rows = [
        {**row, "image": {"bytes": encode_png(draw_image(row["image_id"])), "path": None}}
        for row in make_records()[:9]
    ]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.to_parquet(str(folder / PARQUET))
    return folder


@pytest.fixture(scope="module")
def case(snapshot):
    """Their masks, and disturbed ones as predictions."""
    return make_case(rc.MaskStore.build(rc.load_dataset(snapshot / PARQUET), cache=False))


@pytest.fixture(scope="module")
def answers(case):
    """A text for each example; of the first three, no mask can be read."""
    texts = [
        f"It is here: {json.dumps(coco_encode(mask))}" if mask.any() else "[]"
        for mask in case.masks
    ]
    mask = coco_encode(case.masks[2])
    texts[:3] = ["", "I cannot see it.", json.dumps([mask, mask])]
    return texts


@pytest.fixture(scope="module")
def expected(case):
    """The score of what can be read."""
    read = {index: mask for index, mask in enumerate(case.masks) if index > 2}
    return rc.score(read, case.store, missing="zero")


def check(scores: dict[str, float], expected: rc.Result) -> None:
    assert scores["miou"] == expected.miou
    assert scores["ciou"] == expected.ciou
    assert {name: scores[name] for name in PRECISIONS} == {
        name: expected.precision_at[x] for name, x in PRECISIONS.items()
    }
    assert scores["n_examples"] == expected.n_examples


# Answers ------------------------------------------------------------------------------------------


def test_answers_judged_one_by_one_are_scored_as_a_set(case, answers, expected):
    judge = AnswerJudge("rle")
    order = np.random.default_rng(0).permutation(len(answers)).tolist()
    judged = [judge(answers[k], coco_encode(case.store.mask(k)))._asdict() for k in order]
    scores = scores_of(judged)
    check(scores, expected)
    assert tuple(scores) == SCORES
    assert scores["n_unread"] == expected.n_missing == 3
    assert {order[k]: row["unread"] for k, row in enumerate(judged) if row["unread"]} == {
        0: "there is no answer",
        1: "no JSON object or list in the answer: 'I cannot see it.'",
        2: judged[order.index(2)]["unread"],
    }
    assert "combine" in judged[order.index(2)]["unread"]
    assert [row["iou"] for row in judged] == expected.iou[order].tolist()


def test_an_empty_list_is_an_answer(case):
    truth = coco_encode(case.store.mask(0))
    assert AnswerJudge("rle")("[]", truth) == Judged(0.0, 0, 0, int(case.store.areas[0]), "")
    assert AnswerJudge("rle")(None, truth).unread


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("qwn", {}, "source must be"),
        ("qwen", {}, "version="),
        ("qwen", {"version": 2.5}, "processed_size"),
        ("qwen", {"version": 3, "scale": "pixels"}, "takes version"),
        ("points", {}, "scale"),
        ("svg", {"renderer": "cairo"}, "renderer"),
        ("rle", {"combine": "all"}, "combine"),
        ("gemini", {"boxes": "keep"}, "score masks"),
    ],
)
def test_options_are_checked_before_any_answer(source, options, reason):
    with pytest.raises(rc.UsageError, match=reason):
        AnswerJudge(source, **options)


@pytest.mark.parametrize(
    ("source", "options"),
    [("qwen", {"version": 3}), ("qwen", {"version": 2}), ("points", {"scale": "pixels"}), ("gemini", {}), ("svg", {}),
     ("moondream", {}), ("florence", {}), ("rle", {"combine": "union"})],
)  # fmt: skip
def test_options_that_suffice_are_taken(source, options):
    assert AnswerJudge(source, **options)("none", {"size": [2, 2], "counts": [0, 4]}).pred_area == 0


def test_no_scores_of_nothing():
    scores = scores_of([])
    assert np.isnan([scores["miou"], scores["ciou"]]).all()
    assert scores["n_examples"] == scores["n_unread"] == 0


@pytest.mark.parametrize("prompt", ["Where?", "{sentence} or {sentence}?"])
def test_a_prompt_holds_the_sentence_once(prompt):
    with pytest.raises(rc.UsageError, match="once"):
        split_prompt(prompt)


# evaluate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["index", "key", "rle", "bool", "uint8", "tensor"])
def test_an_evaluation_is_a_score(case, named):
    """References may name examples or be the masks; the scores are the same bits."""
    truths = [case.store.mask(k) for k in range(len(case.store))]
    references = {
        "index": list(range(len(truths))),
        "key": [case.dataset.key_of(k) for k in range(len(truths))],
        "rle": [coco_encode(mask) for mask in truths],
        "bool": truths,
        "uint8": [mask.astype(np.uint8) * 255 for mask in truths],
        "tensor": [torch.from_numpy(mask) for mask in truths],
    }[named]
    has_dataset = named in ("index", "key")
    metric = rc.integrations.MaskEvaluation(case.store if has_dataset else None)
    metric.add(prediction=case.masks[0], reference=references[0])
    metric.add_batch(predictions=case.masks[1:20], references=references[1:20])
    scores = metric.compute(predictions=case.masks[20:], references=references[20:])
    check(scores, rc.score(dict(enumerate(case.masks)), case.store))
    assert scores["n_missing"] == 0
    with pytest.raises((rc.UsageError, rc.PredictionError)):
        metric.compute()


def test_an_evaluation_with_a_dataset_is_complete_or_says_so(case):
    metric = rc.integrations.MaskEvaluation(case.store)
    with pytest.raises(rc.PredictionError, match="missing"):
        metric.compute(predictions=case.masks[:2], references=[0, 1])
    with pytest.raises(rc.PredictionError):
        metric.compute(predictions=case.masks[:2], references=[0, 0])
    lenient = rc.integrations.MaskEvaluation(case.store, missing="zero")
    scores = lenient.compute(predictions=case.masks[:2], references=[0, 1])
    assert scores["n_missing"] == len(case.store) - 2
    assert scores["n_examples"] == len(case.store)


def test_an_evaluation_takes_logits_and_empty_masks(case):
    truth = case.store.mask(0)
    metric = rc.integrations.MaskEvaluation()
    logits = np.where(truth, 5.0, -5.0)
    scores = metric.compute(predictions=[logits, None], references=[truth, truth])
    assert (scores["miou"], scores["n_examples"]) == (0.5, 2)


MASKS = st.lists(st.tuples(*[arrays(np.bool_, (3, 4))] * 2), min_size=1, max_size=4)


@settings(max_examples=12)
@given(MASKS, st.randoms(use_true_random=False))
def test_an_evaluation_is_what_numpy_counts_in_any_order(pairs, random):
    counts = [(int((p & t).sum()), int((p | t).sum())) for p, t in pairs]
    ious = [i / u if u else 1.0 for i, u in counts]
    total, union = (sum(column) for column in zip(*counts, strict=True))
    random.shuffle(pairs)
    metric = rc.integrations.MaskEvaluation()
    for prediction, reference in pairs:
        metric.add(prediction=prediction, reference=reference)
    scores = metric.compute()
    assert scores["miou"] == math.fsum(ious) / len(ious)
    assert scores["ciou"] == (total / union if union else 1.0)
    assert scores["precision_at_0.5"] == sum(iou >= 0.5 for iou in ious) / len(ious)


@pytest.mark.parametrize(
    "reference",
    [None, 7, np.zeros((2, 2, 2), bool), np.full((2, 2), 0.5), np.arange(4).reshape(2, 2), {"size": [2, 2]},
     {"size": [2, 2], "counts": [3]}, "mask"],
)  # fmt: skip
def test_a_reference_that_is_no_mask_is_named(reference):
    good = np.ones((2, 2), bool)
    with pytest.raises(rc.UsageError, match="reference 1: "):
        store_of_masks([good, reference])


def test_predictions_and_references_come_together():
    with pytest.raises(rc.UsageError, match="1 predictions came with 0 references"):
        rc.integrations.MaskEvaluation().compute(predictions=[None])


# lmms-eval ----------------------------------------------------------------------------------------


def load_yaml(path: Path) -> dict[str, Any]:
    """Load a task as `lmms_eval.utils.load_yaml_config` does: `!function` from the file beside, then `include`."""

    def function(loader: Any, node: Any) -> Any:
        module, _, name = loader.construct_scalar(node).rpartition(".")
        spec = importlib.util.spec_from_file_location(module, path.with_name(f"{module}.py"))
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return getattr(made, name)

    class Loader(yaml.FullLoader):
        pass

    Loader.add_constructor("!function", function)
    config = yaml.load(path.read_text("utf-8"), Loader)
    include = config.pop("include", None)
    return {**load_yaml(path.with_name(include)), **config} if include else config


@pytest.fixture(scope="module")
def task(snapshot, tmp_path_factory):
    folder = lmms_eval.write_task(
        "rle",
        output_dir=tmp_path_factory.mktemp("task"),
        dataset_path=str(snapshot),
        prompt="Where is {sentence}?",
    )
    return folder / "refcoco_m.yaml"


@pytest.fixture(scope="module")
def docs(snapshot, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    split = datasets.load_dataset(str(snapshot), split="validation", cache_dir=cache)
    return split, lmms_eval.process_docs(split)


def test_a_doc_for_each_pair(case, docs):
    split, pairs = docs
    assert (len(split), len(pairs)) == (case.dataset.n_images, len(case.store))
    for index in (0, 1, 17, len(pairs) - 1):
        doc, example = pairs[index], case.dataset[index]
        assert (doc["sample_id"], doc["sentence_idx"]) == example.key
        assert (doc["index"], doc["sentence"], doc["image_id"]) == (
            index, example.sentence, example.image_id,
        )  # fmt: skip
        (picture,) = lmms_eval.doc_to_visual(doc)
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(example.image()))


def test_a_malformed_mask_is_found_when_the_task_loads():
    (row,) = make_records()[:1]
    row["samples"][0]["mask"]["counts"] = "0"
    with pytest.raises(rc.DatasetError, match="sample 20002"):
        lmms_eval.process_docs(datasets.Dataset.from_list([{**row, "image": None}]))


def test_docs_of_an_image_share_its_bytes(docs):
    pairs = docs[1]
    rows = pairs["image_id"]
    assert rows[0] == rows[1]
    first, second = (pairs.data["image"].chunk(k).field("bytes").buffers()[2] for k in (0, 1))
    assert first.address == second.address


def test_the_task_of_lmms_eval_scores_every_pair(case, docs, task, answers, expected):
    config = load_yaml(task)
    pairs = docs[1].remove_columns("image")  # as lmms-eval does before it scores
    kwargs = config["lmms_eval_specific_kwargs"]["default"]
    assert config["doc_to_text"](pairs[3], kwargs) == f"Where is {case.dataset[3].sentence}?"
    items = [
        config["process_results"](doc, [text]) for doc, text in zip(pairs, answers, strict=True)
    ]
    scores = {
        entry["metric"]: entry["aggregation"]([item[entry["metric"]] for item in items])
        for entry in config["metric_list"]
    }
    assert tuple(scores) == SCORES
    check(scores, expected)
    assert scores["n_unread"] == 3
    assert [item["miou"]["score"] for item in items] == expected.iou.tolist()
    assert all("score" not in item["ciou"] for item in items)
    assert [item["miou"][config["cluster_key"]] for item in items] == pairs["image_id"][:]
    assert config["metadata"]["answers"] == {"source": "rle", "combine": None}


def test_the_command_prints_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFCOCOM_CACHE", str(tmp_path))
    (command,) = blocks("bash")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "refcocom_gpu.integrations"]
    folders = []
    for _ in range(2):
        assert main(words[3:]) == 0
        folders.append(Path(capsys.readouterr().out.rstrip("\n")))
    folder, again = folders
    assert folder == again
    assert tmp_path in folder.parents
    config = load_yaml(folder / "refcoco_m.yaml")
    assert config["dataset_path"] == "moondream/refcoco-m"
    assert config["metadata"]["answers"] == {"source": "qwen", "combine": "union", "version": 3}
    assert config["test_split"] == "validation"
    assert [p.parent.name for p in entries()] == ["lmms-eval"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "usage"),
        (["inspect"], "the one task is lmms-eval"),
        (["lmms-eval"], "source="),
        (["lmms-eval", "source=qwen"], "version="),
        (["lmms-eval", "source=rle", "combine"], "no key=value"),
        (["lmms-eval", "source=[rle"], "cannot be read"),
        (["lmms-eval", "source=rle", "prompt=Where?"], "once"),
    ],
)
def test_wrong_words_exit_with_2(words, reason, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert captured.out == ""


def test_a_task_folder_without_options_says_how_to_write_one(tmp_path):
    with pytest.raises(rc.UsageError, match=r"python -m refcocom_gpu\.integrations lmms-eval"):
        lmms_eval.judge_of(tmp_path)


def test_the_real_lmms_eval(task, answers, expected, monkeypatch):
    """Where lmms-eval is installed, its own loader and evaluator run the task with a model that knows the answers."""
    tasks = pytest.importorskip("lmms_eval.tasks")
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate

    class Model(lmms):
        def generate_until(self, requests):
            return [answers[request.args[3]] for request in requests]

        loglikelihood = generate_until_multi_round = None

    Model.__abstractmethods__ = frozenset()
    manager = tasks.TaskManager(include_path=str(task.parent), include_defaults=False)
    found = simple_evaluate(
        model=Model(), tasks=["refcoco_m"], task_manager=manager, bootstrap_iters=1
    )
    scores = {name: found["results"]["refcoco_m"][f"{name},none"] for name in SCORES}
    check(scores, expected)
    assert scores["n_unread"] == 3


# Inspect ------------------------------------------------------------------------------------------


@dataclass
class Record:
    """Stands in for the classes of Inspect that hold what they are given."""

    input: Any = None
    target: str = ""
    id: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)


def stand_in() -> dict[str, ModuleType]:
    """The documented interface of inspect_ai, as far as it is used."""

    def decorator(**_: Any) -> Any:
        return lambda function: function

    def scorer(metrics: list[Any], name: str) -> Any:
        def wrap(function: Any) -> Any:
            def make(*args: Any) -> Any:
                made = function(*args)
                made.metrics = metrics
                return made

            return make

        return wrap

    parts = {
        "dataset": {"Sample": Record, "MemoryDataset": lambda made, **_: list(made)},
        "model": dict.fromkeys(("ContentImage", "ContentText", "ChatMessageUser"), SimpleNamespace),
        "scorer": {
            "metric": decorator, "scorer": scorer, "Score": SimpleNamespace,
            "stderr": lambda cluster: cluster,
        },
        "solver": {"generate": lambda: None},
    }  # fmt: skip
    modules = {"inspect_ai": ModuleType("inspect_ai")}
    modules["inspect_ai"].task = lambda function: function
    modules["inspect_ai"].Task = SimpleNamespace
    for name, values in parts.items():
        modules[f"inspect_ai.{name}"] = ModuleType(name)
        vars(modules[f"inspect_ai.{name}"]).update(values)
    return modules


@pytest.fixture
def inspect(monkeypatch):
    from refcocom_gpu.integrations import inspect_ai

    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    inspect_ai._registered.cache_clear()
    yield inspect_ai
    inspect_ai._registered.cache_clear()


def test_inspect_scores_every_pair(case, inspect, answers, expected):
    made = inspect.samples(case.dataset, prompt="Where is {sentence}?")
    scorer = inspect.refcoco_m("rle")
    scores = []
    for sample, answer in zip(made, answers, strict=True):
        state = SimpleNamespace(output=SimpleNamespace(completion=answer))
        score = asyncio.run(scorer(state, SimpleNamespace(text=sample.target)))
        scores.append(SimpleNamespace(score=score, sample_id=sample.id))
    assert [each.score.value for each in scores] == expected.iou.tolist()
    metric, cluster = scorer.metrics
    found = metric(scores)
    check(found, expected)
    assert found["n_unread"] == 3
    assert [sample.metadata[cluster] for sample in made] == expected.per_example[
        "image_id"
    ].to_pylist()
    assert scores[1].score.explanation.startswith("no JSON")
    scores[5].score.value += 0.25  # the mean of epochs
    with pytest.raises(rc.UsageError, match="one epoch"):
        metric(scores)


def test_samples_name_their_examples(case, inspect):
    first, second, *_ = inspect.samples(case.dataset)
    image, text = first.input[0].content
    assert image.image.startswith("data:image/png;base64,")
    assert case.dataset[0].sentence in text.text
    assert first.id == "_".join(map(str, case.dataset.key_of(0)))
    assert first.metadata["sample_id"] == case.dataset.key_of(0)[0]
    assert second.input[0].content[0].image is image.image


def test_inspect_that_is_not_installed_is_named(monkeypatch):
    from refcocom_gpu.integrations import inspect_ai

    monkeypatch.setitem(sys.modules, "inspect_ai.dataset", None)
    with pytest.raises(rc.UsageError, match=r"refcocom-gpu\[inspect\]"):
        inspect_ai.samples("sample")


def test_the_real_inspect(case, answers, expected, tmp_path):
    """Where Inspect is installed, it runs the scorer; its standard error by image is ours."""
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelOutput
    from inspect_ai.solver import solver

    from refcocom_gpu.integrations.inspect_ai import refcoco_m, samples

    @solver
    def knows():
        async def solve(state, generate):
            state.output = ModelOutput.from_content("stub", answers[state.metadata["index"]])
            return state

        return solve

    task = inspect_ai.Task(dataset=samples(case.dataset), solver=knows(), scorer=refcoco_m("rle"))
    (log,) = inspect_ai.eval(task, model="mockllm/model", log_dir=str(tmp_path), display="none")
    assert log.status == "success"
    found = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    check(found, expected)
    images = expected.per_example["image_id"].to_pylist()
    (error,) = cluster_se(ratio_by_image(images, expected.iou))
    assert found["stderr"] == pytest.approx(error, rel=1e-9)


# The guide ----------------------------------------------------------------------------------------


def test_the_python_of_the_guide(inspect, capsys):
    for_inspect, for_evaluate = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(for_inspect, "harnesses.md", "exec"), names)
    assert len(names["refcoco_m_qwen"]("sample").dataset) == len(rc.load_dataset("sample"))
    exec(compile(for_evaluate, "harnesses.md", "exec"), names)
    assert capsys.readouterr().out == "1.0\n"
    assert names["scores"]["n_examples"] == 3


def test_the_parts_are_reached_from_the_package():
    assert "integrations" in dir(rc)
    assert rc.integrations.AnswerJudge is AnswerJudge
    assert set(rc.integrations.__all__) <= set(dir(rc.integrations))
    with pytest.raises(AttributeError, match="no attribute 'lm_eval'"):
        rc.integrations.lm_eval  # noqa: B018


def test_the_guide_names_the_scores():
    named = set(re.findall(r"`(\w+(?:\.\d)?)`", GUIDE))
    assert {
        "miou",
        "ciou",
        "precision_at_0.5",
        "precision_at_0.9",
        "n_examples",
        "n_unread",
    } <= named
