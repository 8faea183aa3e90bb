"""Predictions and a store in, counts or a `Result` out: the straight line through the package.

Batches are read, counted and forgotten; two integers per example stay. Mistakes are collected in one pass over all
predictions; if there is any, nothing is scored. `count` returns the integers, `score` makes a result of them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.choose import batch_counter
from refcocom_gpu.counting.doubts import doubts
from refcocom_gpu.counting.given_boxes import count_boxes, only_boxes
from refcocom_gpu.counting.mask_saver import MaskSaver
from refcocom_gpu.counting.measures import (
    CONSISTENCY,
    IOU,
    PAIRS,
    chosen_metrics,
    measured_columns,
    n_columns,
)
from refcocom_gpu.counting.pairs import pair_intersections
from refcocom_gpu.counting.readings import readings_of
from refcocom_gpu.counting.rows import N_COUNTS, TRAITS, reject
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.masks.rle import Column
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.labels import NO_TARGET
from refcocom_gpu.predictions.options import ReadOptions, refuse_boxes
from refcocom_gpu.predictions.own_columns import OwnColumns
from refcocom_gpu.predictions.read import Source, find_source, options_of, read_predictions
from refcocom_gpu.predictions.value_options import ValueOptions
from refcocom_gpu.predictions.values import judge_set
from refcocom_gpu.scores import slices as slicing
from refcocom_gpu.scores.about import about_run
from refcocom_gpu.scores.boxes import check_truth
from refcocom_gpu.scores.conventions import check_official, get_convention
from refcocom_gpu.scores.example_table import SCHEMA, per_example
from refcocom_gpu.scores.given_boxes import box_examples
from refcocom_gpu.scores.no_target import label_columns
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.thresholds import with_readings
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.utils.changes import unchanged

MISSING_POLICIES = ("error", "zero")

Progress = Callable[[int], None]


class Counted(NamedTuple):
    """Counts of one set of predictions.

    Attributes:
        counts: [N, 2] int64 intersection and predicted area; [0, 2] of predictions that are boxes.
        absent: Indices of the examples that had no prediction, int64.
        warnings: What makes the predictions look misread or made for other data.
        n_extra: Number of predictions that were left out because the dataset has no such example.
        n_repeated: Number of predictions that were left out because they repeat a mask.
        measured: [N] columns of metrics besides IoU, and of labels where predictions carry them, by name; that of pairs
            as `counting.pairs` orders them.
        masks: N masks that were counted, if they were to be saved.
        own: Columns of the predictions that were asked for.
    """

    counts: NDArray[np.int64]
    absent: NDArray[np.int64]
    warnings: tuple[str, ...] = ()
    n_extra: int = 0
    n_repeated: int = 0
    measured: dict[str, NDArray[Any]] | None = None
    masks: Column | None = None
    own: OwnColumns | None = None


def score(
    predictions: str | Path | Iterable[Any],
    store: MaskStore | Dataset | str | Path,
    *,
    missing: str = "error",
    convention: str = "official",
    precision_strict: bool | None = None,
    metrics: str | Sequence[str] = (IOU,),
    box_truth: str | None = None,
    slices: str | Sequence[str] = (),
    save_masks: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> Result:
    """Score predictions against a store, on the store's device.

    Args:
        predictions: A path, glob or list of paths in any accepted format (several are the shards of one set), one
            of the built-in sets `sample` and `sample-coarse`, an iterable of `(index, masks)`, or with labels of
            `(index, masks, no_target)`, a dict of masks by index or key, what `adapters.read` returns, or a
            `datasets.Dataset` with the native columns. A mask is anything that `PredictionWriter.write` takes.
        store: Ground truth; `store.to("cuda")` counts on a GPU. The store of a dataset, or of the name or path of
            one, is built first.
        missing: `error`, or `zero` to score examples without a prediction as empty.
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X (True) or IoU ≥ X (False); by default as the convention does.
        metrics: What is counted: `iou`, which always is, `boundary` for boundary IoU and Boundary F, `causes` for why
            each example fails, which implies `boundary`, `boxes` for box IoU and accuracy, `consistency` for the IoU
            of predictions for one object, and `thresholds` for the scores at every threshold of `thresholds`; only the
            official convention has these. `squashed`, the masks at 480², and `warped`, what CRIS makes of its logits,
            come with the conventions that compare them.
        box_truth: What boxes are compared with: `bbox`, those that the records state, or `mask`, the tight boxes of the
            true masks; by default `bbox` where every record states one.
        slices: Groupings whose slices the summary holds, as of `Result.with_slices`. Another name is that of a column
            or field of a table of predictions, by whose values they are sliced.
        save_masks: Keep the masks that are counted, as RLE strings: `Result.masks`, `Result.mask_of`, and a file beside
            the counts where the result is saved.
        progress: Called with the number of examples each batch has counted.
        reading: Fields of `ReadOptions`: `keys`, `fields`, `name`, `values`, `label`, `letterbox`, `resize`,
            `resize_masks`, `combine`, `repeats`, `extra`, `polygons`, `box_format`, `box_scale`, `no_target_threshold`,
            `batch_size`, `threads`; and of `ValueOptions`: `thresholds`, `interpolation`. For rows that call the sample
            `ann_id` and the mask `mask`:
            `fields={"sample_id": "ann_id", "segmentation": "mask"}`.

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

    Predictions that are boxes, as of referring expression comprehension, have the scores of boxes alone:

    >>> boxes = {index: store.dataset.boxes[sample] for index, sample in enumerate(store.example_sample)}
    >>> score(boxes, store, box_format="xywh", box_scale="pixels").box_iou
    1.0
    """
    start = time.perf_counter()
    needed = get_convention(convention).metric
    options = ValueOptions(**reading)
    check_missing(missing)
    chosen_metrics(metrics)  # a wrong name is told before any file is looked at
    source = find_source(predictions)
    options = options_of(source, options)
    are_boxes = options.box_format is not None
    metrics = only_boxes(metrics) if are_boxes else chosen_metrics(metrics)
    if set(metrics) - {IOU, needed}:
        check_official(convention, f"metrics={','.join(metrics)}")
    if needed is not None and not are_boxes:
        metrics = chosen_metrics([*metrics, needed])
    readings = readings_of(options, metrics)
    asked = {
        "save_masks": save_masks,
        "interpolation": readings.need_values,
        "slices": bool(slices),
    }
    for what in (name for name, is_asked in asked.items() if is_asked):
        refuse_boxes(options, what)
    if readings.others:
        check_official(convention, f"interpolation={','.join(options.interpolations)}")
    if slices:
        check_official(convention, "slices")
    columns = slicing.of_predictions(slices, metrics)
    store = as_store(store)
    check_truth(box_truth, metrics, stated=store.dataset.boxes is not None)
    with unchanged(source.files), ThreadPoolExecutor(1, "refcocom-hash") as beside:
        hashing = None if options.threads == 1 else beside.submit(source.about)
        counted = count(
            source,
            store,
            options,
            missing=missing,
            metrics=metrics,
            columns=columns,
            save_masks=save_masks,
            progress=progress,
        )
        about = source.about() if hashing is None else hashing.result()
    tags = None
    if counted.own:
        tags = slicing.tags_of(counted.own, source.name, metrics, SCHEMA.names)
    for text in counted.warnings:
        warnings.warn(f"refcocom: {text}", UserWarning, stacklevel=2)
    info = {
        **about_run(store, "cpu" if are_boxes else None),
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
    table = (
        box_examples(store, counted.absent, counted.measured or {})
        if are_boxes
        else per_example(store, counted.counts, counted.absent, counted.measured)
    )
    if readings.need_values:
        table = with_readings(table, readings, options.threshold)
    result = Result(
        table, info, convention, precision_strict, box_truth=box_truth, held_masks=counted.masks
    )
    return result.with_slices(slices, tags=tags, store=store) if slices else result


def count(
    predictions: Source | str | Path | Iterable[Any],
    store: MaskStore,
    options: ReadOptions,
    *,
    missing: str = "error",
    metrics: str | Sequence[str] = (IOU,),
    columns: Sequence[str] = (),
    save_masks: bool = False,
    progress: Progress | None = None,
) -> Counted:
    """Count predictions against a store.

    Args:
        predictions: As for `score`.
        store: As for `score`.
        options: What the predictions cannot say themselves.
        missing: As for `score`.
        metrics: As for `score`.
        columns: Further columns of the predictions that are kept.
        save_masks: As for `score`.
        progress: As for `score`.

    Raises:
        PredictionError: As `score` does.
        UsageError: As `score` does.
    """
    check_missing(missing)
    source = predictions if isinstance(predictions, Source) else find_source(predictions)
    problems = Problems()
    if options.box_format is not None:
        boxes, keys = count_boxes(source, store, options, problems, progress)
        boxes |= label_columns(keys.labels)
        _complete(source, keys, missing, problems)
        about = tuple(problems.warnings), keys.n_extra, keys.n_repeated
        return Counted(np.zeros((0, N_COUNTS), np.int64), keys.missing(), *about, boxes)
    metrics = chosen_metrics(metrics)
    batches, keys = read_predictions(source, store.dataset, options, problems, columns)
    keeps = save_masks or CONSISTENCY in metrics
    saver = MaskSaver(store, options.threads) if keeps else None
    # Apart, as batches may be counted while others are read: the order must not depend on the number of threads.
    while_counting = Problems()
    counter = batch_counter(store, options, while_counting, metrics, saver)
    for batch in batches:
        counter.add(batch)
        if progress is not None:
            progress(len(batch.index))
    rows = counter.finish()
    problems.extend(while_counting)
    reject(rows, keys.labels)
    given = np.flatnonzero(keys.given)
    for verdict in judge_set(rows[:, TRAITS], options):
        verdict.add_to(problems, source.name, keys.where)
    _complete(source, keys, missing, problems)
    found = (*problems.warnings, *doubts(rows[given], given, store))
    measured = measured_columns(rows, store.example_sample, metrics, store)
    # A row holds the blocks of the metrics, the number of the saved mask, then other readings of the values.
    at = n_columns(metrics)
    masks = None
    if saver is not None:
        rejected = np.flatnonzero(keys.labels == NO_TARGET)
        rows[rejected, at] = saver.empty(store.example_sample[rejected])
        masks = saver.strings(rows[:, at])
    others = rows[:, at + (saver is not None) :]
    measured.update(readings_of(options, metrics).columns(others))
    measured |= label_columns(keys.labels)
    if CONSISTENCY in metrics and masks is not None:
        measured[PAIRS] = pair_intersections(masks, store)
    return Counted(
        rows[:, :N_COUNTS],
        keys.missing(),
        found,
        keys.n_extra,
        keys.n_repeated,
        measured,
        masks if save_masks else None,
        keys.own,
    )


def _complete(source: Source, keys: Keys, missing: str, problems: Problems) -> None:
    """End a read: record what is missing, raise if anything is wrong, and note the answers that were not read.

    Raises:
        PredictionError: There are problems.
    """
    if missing == "error":
        for index in keys.missing().tolist():
            if unread := source.unread.get(keys.dataset.key_of(index)):
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


def check_missing(missing: str) -> None:
    """Refuse an unknown policy for missing examples.

    Raises:
        UsageError: The policy is neither `error` nor `zero`.
    """
    if missing not in MISSING_POLICIES:
        raise UsageError(f"missing must be {' or '.join(MISSING_POLICIES)}, not {missing!r}")
