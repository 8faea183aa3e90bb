"""A result in, a file for the `.eval_results` folder of a model on the Hub out; its owner uploads it.

The format is https://github.com/huggingface/hub-docs/blob/main/eval_results.yaml: a list of scores, each with its
dataset and a task. A task has one value, and there are no metrics or splits. So mIoU and cIoU are two tasks, and the
notes say the rest. The Hub shows a score if the dataset is a registered benchmark that defines the task in its
`eval.yaml`; otherwise it just keeps the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from refcocom_gpu._version import __version__
from refcocom_gpu.dataset.known import counts_of
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.conventions import OFFICIAL
from refcocom_gpu.scores.result import Result
from refcocom_gpu.utils.files import write_files
from refcocom_gpu.utils.folders import check_writable

REFCOCO_M = "moondream/refcoco-m"
DECIMALS = 4
"""Decimals of a percentage: enough to show one expression of RefCOCO-M, too few to show rounding."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_FOLDER = re.compile(r"datasets--([\w.-]+?)--([\w.-]+)")


Entries = list[dict[str, Any]]
"""Scores in the Hub's format."""


def eval_results(result: Result, *, dataset_id: str | None = None) -> Entries:
    """Return mIoU and cIoU in percent in the Hub's format, as tasks `miou` and `ciou`.

    Args:
        result: Complete, under the official convention.
        dataset_id: The `owner/name` on the Hub of which a local copy was scored; by default the result's own source.

    Returns:
        Two entries, ready for YAML.

    Raises:
        UsageError: When examples had no prediction, the convention is not the official one, or the dataset is not known
            to be on the Hub. A benchmark's score covers all of it.

    >>> import refcocom_gpu as rc
    >>> result = rc.score("sample", rc.MaskStore.build(rc.load_dataset("sample"), cache=False))
    >>> entries = eval_results(result, dataset_id="me/copy-of-the-sample")
    >>> entries[0]["dataset"], entries[0]["value"]
    ({'id': 'me/copy-of-the-sample', 'task_id': 'miou'}, 86.2577)
    """
    dataset = result.info.get("dataset", {})
    hub_id = check_target(dataset, result.convention, dataset_id)
    _check_complete(result, dataset)
    notes = (
        f"in percent, over all {result.n_examples:,} (image, sentence) examples, none missing; "
        f"split {dataset.get('split')}, fingerprint {dataset.get('fingerprint')}"
        f"{', read from a local copy' if dataset_id else ''}; scored by refcocom_gpu {__version__}"
    )
    revision = {"revision": dataset["revision"]} if dataset.get("revision") else {}
    return [
        {
            "dataset": {"id": hub_id, "task_id": task, **revision},
            "value": round(100 * score, DECIMALS),
            "notes": f"{about}, {notes}",
        }
        for task, score, about in (
            ("miou", result.miou, "mIoU, the mean IoU"),
            ("ciou", result.ciou, "cIoU, the sum of intersections over the sum of unions"),
        )
    ]


def write_eval_results(
    result: Result, path: str | Path, *, dataset_id: str | None = None, overwrite: bool = False
) -> Path:
    """Write `eval_results` as YAML, whole or not at all.

    Args:
        result: Complete, under the official convention.
        path: Ends in `.yaml`; on the Hub the file belongs in `.eval_results/` of the model's repository.
        dataset_id: As for `eval_results`.
        overwrite: Replace an existing file.

    Returns:
        The path.

    Raises:
        UsageError: As `eval_results` and `check_path` do, and when the folder cannot be written.
    """
    path = Path(path)
    check_path(path, overwrite=overwrite)
    entries = eval_results(result, dataset_id=dataset_id)
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100)
    (written,) = write_files(path.parent, {path.name: text.encode()})
    return written


def check_path(path: Path, *, overwrite: bool) -> None:
    """Refuse an output path before any work is done.

    Raises:
        UsageError: When it does not end in `.yaml`, is a folder, cannot be written, or exists and `overwrite` is False.
    """
    if path.suffix != ".yaml":
        raise UsageError(f"eval_results={path}: the Hub reads files named .yaml")
    if path.is_dir():
        raise UsageError(f"eval_results={path} is a folder, not a file")
    check_writable(path.parent)
    if path.exists() and not overwrite:
        raise UsageError(f"eval_results={path} already exists; pass overwrite=True or another name")


def hub_id_of(dataset: dict[str, Any]) -> str:
    """Return the `owner/name` on the Hub of what a summary says of a dataset.

    Raises:
        UsageError: It is not known to be there.
    """
    source = str(dataset.get("source", ""))
    if cached := _HUB_FOLDER.search(source):
        return f"{cached[1]}/{cached[2]}"
    # A relative path may look like a name of the Hub. But it has no commit, or its folder is named after the commit.
    commit = dataset.get("revision")
    if commit and _HUB_NAME.fullmatch(source) and not source.endswith(commit):
        return source
    raise UsageError(
        f"the score is of {source or 'an unknown dataset'}, which is not known to be on the Hub; "
        "if it is a copy of a dataset there, name that with dataset.name=owner/name"
    )


def check_target(dataset: dict[str, Any], convention: str, dataset_id: str | None) -> str:
    """Refuse what is known to be no score for the Hub before anything is scored.

    Args:
        dataset: What a summary says of it.
        convention: Name of the convention.
        dataset_id: As for `eval_results`.

    Returns:
        The `owner/name` of the dataset.

    Raises:
        UsageError: As of `eval_results`, but for missing examples.
    """
    hub_id = dataset_id or hub_id_of(dataset)
    if not _HUB_NAME.fullmatch(hub_id):
        raise UsageError(f"{hub_id!r} is not the name of a dataset on the Hub, owner/name")
    if convention != OFFICIAL.name:
        raise UsageError(
            f"the score follows the convention {convention!r}; a score for the Hub must follow the official one"
        )
    if hub_id == REFCOCO_M and not dataset.get("counts_as_published"):
        published = counts_of("refcoco-m", "validation", None)._asdict()
        counts = ", ".join(f"{n:,} {what}" for what, n in published.items())
        raise UsageError(
            f"{dataset.get('source')} is not {REFCOCO_M}, which has {counts}; "
            "dataset.name=owner/name must name the dataset of which it is a copy"
        )
    return hub_id


def _check_complete(result: Result, dataset: dict[str, Any]) -> None:
    if result.n_missing:
        raise UsageError(
            f"{result.n_missing:,} of {result.n_examples:,} examples had no prediction: "
            "a score for the Hub must cover all of them"
        )
    if result.n_examples != dataset.get("n_examples", result.n_examples):
        raise UsageError(
            f"{result.n_examples:,} of {dataset['n_examples']:,} examples were scored: "
            "a score for the Hub must cover all of them"
        )
