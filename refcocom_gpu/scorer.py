"""Predictions and a store in, counts or a `Result` out: the straight line through the package.

Batches are read, counted and forgotten; two integers per example stay. Mistakes are collected in one pass over all
predictions; if there is any, nothing is scored. `count` returns the integers, `score` makes a result of them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.choose import batch_counter
from refcocom_gpu.counting.doubts import doubts
from refcocom_gpu.counting.measures import IOU, chosen_metrics, measured_columns
from refcocom_gpu.counting.rows import N_COUNTS, TRAITS
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.read import Source, find_source, read_predictions
from refcocom_gpu.predictions.values import judge_set
from refcocom_gpu.scores.about import about_run
from refcocom_gpu.scores.boxes import check_truth
from refcocom_gpu.scores.conventions import check_official, get_convention
from refcocom_gpu.scores.example_table import per_example
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.utils.changes import unchanged

MISSING_POLICIES = ("error", "zero")

Progress = Callable[[int], None]


class Counted(NamedTuple):
    """Counts of one set of predictions.

    Attributes:
        counts: [N, 2] int64 intersection and predicted area.
        absent: Indices of the examples that had no prediction, int64.
        warnings: What makes the predictions look misread or made for other data.
        n_extra: Number of predictions that were left out because the dataset has no such example.
        n_repeated: Number of predictions that were left out because they repeat a mask.
        measured: [N] columns of metrics besides IoU, by name.
    """

    counts: NDArray[np.int64]
    absent: NDArray[np.int64]
    warnings: tuple[str, ...] = ()
    n_extra: int = 0
    n_repeated: int = 0
    measured: dict[str, NDArray[Any]] | None = None


def score(
    predictions: str | Path | Iterable[Any],
    store: MaskStore | Dataset | str | Path,
    *,
    missing: str = "error",
    convention: str = "official",
    precision_strict: bool | None = None,
    metrics: str | Sequence[str] = (IOU,),
    box_truth: str | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> Result:
    """Score predictions against a store, on the store's device.

    Args:
        predictions: A path, glob or list of paths in any accepted format (several are the shards of one set), one
            of the built-in sets `sample` and `sample-coarse`, an iterable of `(index, masks)`, a dict of masks by
            index or key, what `adapters.read` returns, or a `datasets.Dataset` with the native columns. A mask is
            anything that `PredictionWriter.write` takes.
        store: Ground truth; `store.to("cuda")` counts on a GPU. The store of a dataset, or of the name or path of
            one, is built first.
        missing: `error`, or `zero` to score examples without a prediction as empty.
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X (True) or IoU ≥ X (False); by default as the convention does.
        metrics: What is counted: `iou`, which always is, `boundary` for boundary IoU and Boundary F, `causes` for why
            each example fails, which implies `boundary`, and `boxes` for box IoU and accuracy; only the official
            convention has these. `squashed`, the masks at 480², and `warped`, what CRIS makes of its logits, come with
            the conventions that compare them.
        box_truth: What boxes are compared with: `bbox`, those that the records state, or `mask`, the tight boxes of the
            true masks; by default `bbox` where every record states one.
        progress: Called with the number of examples each batch has counted.
        reading: Fields of `ReadOptions`: `keys`, `fields`, `name`, `values`, `label`, `letterbox`, `resize`,
            `resize_masks`, `combine`, `repeats`, `extra`, `polygons`, `batch_size`, `threads`. For rows that call the
            sample `ann_id` and the mask `mask`: `fields={"sample_id": "ann_id", "segmentation": "mask"}`.

    Returns:
        The result; every score is a property of it. What makes the predictions look misread is warned of, and stands
        in `result.info["warnings"]`.

    Raises:
        PredictionError: When predictions are wrong or missing; it holds every mistake of one pass over them.
        DataError: When a file changed while it was read.
        UsageError: For an option that is unknown or a file that is absent.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> result = rc.score("sample", store)
    >>> result.n_examples == len(store), 0.8 < result.miou < 0.95
    (True, True)
    """
    start = time.perf_counter()
    needed = get_convention(convention).metric
    options = ReadOptions(**reading)
    check_missing(missing)
    metrics = chosen_metrics(metrics)
    source = find_source(predictions)
    if set(metrics) - {IOU, needed}:
        check_official(convention, f"metrics={','.join(metrics)}")
    if needed is not None:
        metrics = chosen_metrics([*metrics, needed])
    store = as_store(store)
    check_truth(box_truth, metrics, stated=store.dataset.boxes is not None)
    with unchanged(source.files):
        counted = count(source, store, options, missing=missing, metrics=metrics, progress=progress)
        about = source.about()
    for text in counted.warnings:
        warnings.warn(f"refcocom: {text}", UserWarning, stacklevel=2)
    info = {
        **about_run(store),
        "predictions": {
            **about,
            "n_extra": counted.n_extra,
            "n_repeated": counted.n_repeated,
        },
        "options": {"missing": missing, **asdict(options)},
        "metrics": list(metrics),
        "warnings": list(counted.warnings),
        "wall_seconds": round(time.perf_counter() - start, 6),
    }
    table = per_example(store, counted.counts, counted.absent, counted.measured)
    return Result(table, info, convention, precision_strict, box_truth=box_truth)


def count(
    predictions: Source | str | Path | Iterable[Any],
    store: MaskStore,
    options: ReadOptions,
    *,
    missing: str = "error",
    metrics: str | Sequence[str] = (IOU,),
    progress: Progress | None = None,
) -> Counted:
    """Count predictions against a store.

    Args:
        predictions: As for `score`.
        store: As for `score`.
        options: What the predictions cannot say themselves.
        missing: As for `score`.
        metrics: As for `score`.
        progress: As for `score`.

    Raises:
        PredictionError: As `score` does.
        UsageError: As `score` does.
    """
    check_missing(missing)
    metrics = chosen_metrics(metrics)
    source = predictions if isinstance(predictions, Source) else find_source(predictions)
    problems = Problems()
    batches, keys = read_predictions(source, store.dataset, options, problems)
    counter = batch_counter(store, options, problems, metrics)
    for batch in batches:
        counter.add(batch)
        if progress is not None:
            progress(len(batch.index))
    rows = counter.finish()
    absent, given = keys.missing(), np.flatnonzero(keys.given)
    for verdict in judge_set(rows[:, TRAITS], options):
        verdict.add_to(problems, source.name, keys.where)
    if missing == "error":
        for index in absent.tolist():
            if unread := source.unread.get(store.dataset.key_of(index)):
                problems.add(unread.kind, unread.where, unread.message)
                continue
            problems.add(
                "missing",
                source.name,
                f"no prediction for {keys.describe(index)}; missing=zero scores such examples as empty",
            )
    problems.raise_if_any()
    if source.unread:
        first = next(iter(source.unread.values()))
        problems.warnings.append(
            f"{len(source.unread):,} answers could not be read and count as missing; the first is {first}"
        )
    found = (*problems.warnings, *doubts(rows[given], given, store))
    measured = measured_columns(rows, store.example_sample, metrics, store)
    return Counted(rows[:, :N_COUNTS], absent, found, keys.n_extra, keys.n_repeated, measured)


def check_missing(missing: str) -> None:
    """Refuse an unknown policy for missing examples.

    Raises:
        UsageError: The policy is neither `error` nor `zero`.
    """
    if missing not in MISSING_POLICIES:
        raise UsageError(f"missing must be {' or '.join(MISSING_POLICIES)}, not {missing!r}")
