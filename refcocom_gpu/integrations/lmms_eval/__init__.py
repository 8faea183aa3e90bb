"""How answers are read in, a task folder for lmms-eval out; and what the task does with records and answers.

A record of the dataset holds an image with several samples, each with several sentences. `process_docs` makes a doc of
each (image, sentence) pair, so that all are scored: 5,598 in RefCOCO-M. `process_results` counts the answer to one,
`aggregate` makes scores of the counts. The folder holds the options, so that the results of a run name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from refcocom_gpu.dataset import records
from refcocom_gpu.dataset.images import PICTURE
from refcocom_gpu.errors import UsageError
from refcocom_gpu.integrations.answers import PRECISIONS, SCORES, AnswerJudge, scores_of
from refcocom_gpu.integrations.prompts import DEFAULT_PROMPT, split_prompt
from refcocom_gpu.integrations.truths import dataset_of
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.cache import cache_dir
from refcocom_gpu.utils.files import combine_hashes, write_files

TASK = "refcoco_m"
TASK_FILE = f"{TASK}.yaml"
SHIPPED = ("_refcoco_m_yaml", "utils.py")
"""The files of every task folder; lmms-eval finds tasks by the ending `.yaml`, which only the file of a user has."""

VERSION = 1.0
CLUSTER = "image_id"


def write_task(
    source: str,
    combine: str | None = None,
    *,
    output_dir: str | Path | None = None,
    dataset_path: str = "moondream/refcoco-m",
    prompt: str = DEFAULT_PROMPT,
    **options: Any,
) -> Path:
    """Write the folder of a task `refcoco_m` whose answers are read in one way.

    Args:
        source: How answers are written, as of `AnswerJudge`.
        combine: As of `AnswerJudge`.
        output_dir: The folder; by default one below the cache folder, named by its content.
        dataset_path: What lmms-eval passes to `datasets.load_dataset`: a name of the Hub, or a folder.
        prompt: What the model is asked, with `{sentence}`.
        options: As of `AnswerJudge`.

    Returns:
        The folder, for `--include_path`.

    Raises:
        UsageError: As of `AnswerJudge`; the prompt lacks `{sentence}`, or the folder cannot be written.
    """
    AnswerJudge(source, combine, **options)
    before, after = split_prompt(prompt)
    answers = {"source": source, "combine": combine, **options}
    config = {
        "include": SHIPPED[0],
        "task": TASK,
        "dataset_path": dataset_path,
        "lmms_eval_specific_kwargs": {"default": {"pre_prompt": before, "post_prompt": after}},
        "metadata": {"version": VERSION, "answers": answers},
    }
    here = Path(__file__).parent
    contents = {name: (here / name).read_bytes() for name in SHIPPED}
    contents[TASK_FILE] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()
    if output_dir is None:
        digest = combine_hashes([text.decode() for text in contents.values()])
        output_dir = cache_dir() / "lmms-eval" / digest
    return write_files(output_dir, contents)[0].parent


def judge_of(folder: Path) -> AnswerJudge:
    """Return what reads the answers as the task folder says.

    Raises:
        UsageError: The folder holds no task that `write_task` wrote.
    """
    file = folder / TASK_FILE
    try:
        answers = yaml.safe_load(file.read_text("utf-8"))["metadata"]["answers"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(
            f"{file} does not say how answers are read: write the folder with "
            f"python -m refcocom_gpu.integrations lmms-eval source=… ({type(error).__name__})"
        ) from None
    return AnswerJudge(**answers)


def process_docs(split: Any) -> Any:
    """Make a doc of each (image, sentence) pair.

    Args:
        split: A `datasets.Dataset` of image records.

    Returns:
        A `datasets.Dataset` with `image`, and what scoring needs: `counts`, `height` and `width` of the true mask, the
        fields of the key, `index`, `image_id` and `sentence`. The pictures stay where they are: docs of one image refer
        to the same bytes.

    Raises:
        DatasetError: The records or masks are malformed, or ids repeat.
    """
    import datasets

    wanted = [name for name in split.column_names if name in records.RECORD_FIELDS]
    table = split.select_columns(wanted).with_format("arrow")[:]
    dataset = dataset_of(records.from_arrow(table, TASK), TASK)
    # Checks every mask now, not when the answer to it comes.
    MaskStore.build(dataset, cache=False)
    described = dataset.described
    features = {
        "image": split.features[PICTURE],
        **{name: datasets.Value("int64") for name in ("index", "sample_id", "sentence_idx")},
        CLUSTER: datasets.Value("int64"),
        "sentence": datasets.Value("string"),
        **{name: datasets.Value("int64") for name in ("height", "width")},
        "counts": datasets.Value("string"),
    }
    pictures = split.select_columns([PICTURE]).with_format("arrow")[:][PICTURE]
    rows = dataset.sample_image[dataset.example_sample].tolist()
    chunks = [chunk for row in rows for chunk in pictures.slice(row, 1).chunks]
    counts = dataset.samples["counts"].take(pa.array(dataset.example_sample))
    columns: dict[str, Any] = {
        name: described[name] for name in features if name in described.column_names
    }
    columns |= {"image": pa.chunked_array(chunks, pictures.type), "counts": counts}
    schema = datasets.Features(features).arrow_schema
    held = [columns[name].cast(schema.field(name).type) for name in schema.names]
    # Given, the fingerprint is not made of the table, which would read every picture once for each sentence.
    return datasets.Dataset(
        pa.table(held, schema=schema),
        info=datasets.DatasetInfo(features=datasets.Features(features)),
        split=split.split,
        fingerprint=f"{dataset.fingerprint}-pairs",
    )


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """Return the picture of a doc, RGB."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Mapping[str, Any], kwargs: Mapping[str, str] | None = None) -> str:
    """Return what the model is asked; `kwargs` are those of `lmms_eval_specific_kwargs`."""
    before, after = split_prompt(DEFAULT_PROMPT)
    kwargs = kwargs or {"pre_prompt": before, "post_prompt": after}
    return f"{kwargs.get('pre_prompt', '')}{doc['sentence']}{kwargs.get('post_prompt', '')}"


def process_results(
    doc: Mapping[str, Any], results: list[Any], judge: AnswerJudge
) -> dict[str, dict[str, Any]]:
    """Count the answer to one doc.

    Args:
        doc: Of `process_docs`.
        results: The answer, in a list.
        judge: Reads it.

    Returns:
        For each metric the counts. Where the metric is a mean, `score` is what it is a mean of, of which lmms-eval
        makes standard errors by `image_id`; cIoU is none and has none.
    """
    truth = {"size": [doc["height"], doc["width"]], "counts": doc["counts"]}
    judged = judge(results[0] if results else None, truth)
    item = {CLUSTER: doc[CLUSTER], **judged._asdict()}
    means = {"miou": judged.iou}
    means |= {name: float(judged.iou >= x) for name, x in PRECISIONS.items()}
    return {
        name: {**item, "score": means[name]} if name in means else dict(item) for name in SCORES
    }


@cache
def aggregate(name: str) -> Callable[[Iterable[Mapping[str, Any]]], float]:
    """Return the aggregation of a metric: a function from the counts of all docs to the score.

    >>> aggregate("n_examples")([])
    0
    """

    def score(items: Iterable[Mapping[str, Any]]) -> float:
        return scores_of(items)[name]

    return score
