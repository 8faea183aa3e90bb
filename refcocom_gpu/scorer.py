"""Predictions and a store in, counts or a `Result` out: the straight line through the package.

Batches are read, counted and forgotten; two integers per example stay. Mistakes are collected while everything is
read once; if there is any, nothing is scored. `count` gives the integers, `score` makes a result of them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.counting.counter import counter_for
from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.memory import read_pairs
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.read import expand_paths, read_predictions
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.scores.result import Result, about_run, per_example
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

MISSING_POLICIES = ("error", "zero")
SAMPLE_PREDICTIONS = {"sample": "good", "sample-coarse": "coarse"}
"""Names of the built-in predictions and the kind each is."""

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Counted:
    """What is known of one set of predictions once all of it was read.

    Attributes:
        counts: [N, 2] int64 intersection and predicted area.
        absent: Indices of the examples that had no prediction, int64.
        about: What a summary says of the predictions.
    """

    counts: NDArray[np.int64]
    absent: NDArray[np.int64]
    about: dict[str, Any]


def score(
    predictions: str | Path | Iterable[Any],
    store: MaskStore,
    *,
    missing: str = "error",
    convention: str = "official",
    precision_strict: bool = False,
    values: str = "logits",
    letterbox: int | None = None,
    resize: str = "direct",
    polygons: str | None = None,
    batch_size: int = 256,
    threads: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Score predictions against a store, on the store's device.

    Args:
        predictions: A path, glob or list of paths in any accepted format (several are the shards of one set), one
            of the built-in sets `sample` and `sample-coarse`, or an iterable of `(index, masks)`.
        store: Ground truth; `store.to("cuda")` counts on a GPU.
        missing: `error`, or `zero` to score examples without a prediction as empty.
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X instead of IoU ≥ X.
        values: What float arrays are: `logits` (set above 0) or `probabilities` (set above 0.5).
        letterbox: Side of the padded square input when the image fills only its top-left part.
        resize: `direct`, or `sam` for SAM's resize through the padded input.
        polygons: Scale of polygon coordinates, `pixels` or `normalized`; None refuses polygons.
        batch_size: Predictions held in memory at a time.
        threads: CPU threads; 0 for all cores.
        progress: Called with the number of examples each batch has counted.

    Returns:
        The result; every score is a property of it.

    Raises:
        PredictionError: Naming every mistake of one pass over the predictions.
        UsageError: For an option or a file that is not known.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> result = rc.score("sample", store)
    >>> result.n_examples == len(store), 0.8 < result.miou < 0.95
    (True, True)
    """
    start = time.perf_counter()
    get_convention(convention)
    options = ReadOptions(values, letterbox, resize, polygons, batch_size)
    counted = count(
        predictions, store, options, missing=missing, threads=threads, progress=progress
    )
    info = {
        **about_run(store),
        "predictions": counted.about,
        "options": {"missing": missing, "values": values, "letterbox": letterbox, "resize": resize},
        "wall_seconds": round(time.perf_counter() - start, 6),
    }
    table = per_example(store, counted.counts, counted.absent)
    return Result(table, info, convention, precision_strict)


def count(
    predictions: str | Path | Iterable[Any],
    store: MaskStore,
    options: ReadOptions,
    *,
    missing: str = "error",
    threads: int = 0,
    progress: Progress | None = None,
) -> Counted:
    """Count predictions against a store: what `score` does before there is a score.

    Args:
        predictions: As for `score`.
        store: As for `score`.
        options: What the predictions cannot say of themselves.
        missing: As for `score`.
        threads: As for `score`.
        progress: As for `score`.

    Raises:
        PredictionError: As `score` does.
        UsageError: As `score` does.
    """
    check_missing(missing)
    problems = Problems()
    # One thread means one: a reader beside it would take a core from another file of a sweep.
    options = replace(options, read_ahead=threads != 1)
    batches, keys, about = open_predictions(predictions, store.dataset, options, problems)
    counter = counter_for(store, options, problems, threads)
    for batch in batches:
        counter.add(batch)
        if progress is not None:
            progress(len(batch.index))
    counts = counter.finish()
    absent = keys.missing()
    if missing == "error":
        for index in absent.tolist():
            problems.add(
                "missing",
                about["source"],
                f"no prediction for {keys.describe(index)}; missing=zero scores such examples as empty",
            )
    problems.raise_if_any()
    if counter.only_unit_range and options.values == "logits":
        warnings.warn(
            "refcocom: all logits lie in 0…1; if they are probabilities, pass values=probabilities",
            UserWarning,
            stacklevel=3,
        )
    return Counted(counts, absent, about)


def check_missing(missing: str) -> None:
    """Refuse a policy that is not known.

    Raises:
        UsageError: For an unknown one.
    """
    if missing not in MISSING_POLICIES:
        raise UsageError(f"missing must be {' or '.join(MISSING_POLICIES)}, not {missing!r}")


def is_built_in(predictions: Any) -> bool:
    """Whether predictions are the name of a built-in set; a file of that name comes first."""
    named = isinstance(predictions, str) and predictions in SAMPLE_PREDICTIONS
    return named and not Path(predictions).exists()


def open_predictions(
    predictions: Any, dataset: Dataset, options: ReadOptions, problems: Problems
) -> tuple[Batches, Keys, dict[str, Any]]:
    """Begin to read predictions, wherever they are.

    Args:
        predictions: As for `score`.
        dataset: What they are predictions for.
        options: What they cannot say of themselves.
        problems: Collects every mistake; check it when the batches are exhausted.

    Returns:
        The batches, the keys that know which examples were given, and what a summary says of the predictions:
        `source`, and of files `files` and `xxh3_128`.

    Raises:
        UsageError: When nothing is there, or of no known format.
    """
    if is_built_in(predictions):
        from refcocom_gpu.dataset import sample

        keys = Keys(dataset, problems)
        rows = sample.make_predictions(sample.make_records(), SAMPLE_PREDICTIONS[predictions])  # type: ignore[arg-type]
        return _built_in(rows, keys, options, problems), keys, {"source": predictions}
    if isinstance(predictions, str | Path) or _is_paths(predictions):
        paths = expand_paths(predictions)
        batches, keys = read_predictions(paths, dataset, options, problems)
        source = ", ".join(map(str, paths))
        try:
            digest = hash_files(paths)
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from None
        about = {"source": source, "files": [str(p) for p in paths], "xxh3_128": digest}
        return batches, keys, about
    keys = Keys(dataset, problems)
    return read_pairs(predictions, keys, options, problems), keys, {"source": "memory"}


def _is_paths(predictions: Any) -> bool:
    return (
        # An empty list is no prediction file, not predictions that are all missing.
        isinstance(predictions, list | tuple)
        and all(isinstance(p, str | Path) for p in predictions)
    )


def _built_in(
    rows: list[dict[str, Any]], keys: Keys, options: ReadOptions, problems: Problems
) -> Batches:
    """The built-in predictions take the way of every other set: through the native JSONL rows."""
    import msgspec

    from refcocom_gpu.predictions.rows import read_lines

    lines = b"\n".join(msgspec.json.encode(row) for row in rows)
    yield from read_lines([lines], "sample", keys, options, problems)


def hash_files(paths: Iterable[Path]) -> str:
    """xxh3 of the files' bytes; of a folder, its files' names and bytes in order of name."""
    digest = xxhash.xxh3_128()
    for path in paths:
        folder = path.is_dir()
        for file in sorted(p for p in path.iterdir() if p.is_file()) if folder else [path]:
            if folder:
                digest.update(file.name.encode())
            with file.open("rb") as opened:
                while chunk := opened.read(2**22):
                    digest.update(chunk)
    return digest.hexdigest()
