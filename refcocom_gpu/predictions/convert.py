"""Predictions of any accepted form in, a native file out: as they are, or carried from one dataset to another.

Masks are written as RLE at the size of their images, boxes in pixels with a header that says so, so that no option is
needed to read them again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError, Problem, Problems, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.boxes import judge_boxes
from refcocom_gpu.predictions.header import NATIVE_BOXES, model_of
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.labels import NO_TARGET, UNLABELLED
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.read import (
    Source,
    find_source,
    options_of,
    read_boxes,
    read_predictions,
)
from refcocom_gpu.predictions.runs import batch_runs
from refcocom_gpu.predictions.shards import JOURNAL
from refcocom_gpu.predictions.values import judge_set
from refcocom_gpu.predictions.writer import PredictionWriter
from refcocom_gpu.store.match import DatasetMatch, match_datasets

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

Ints = NDArray[np.int64]

MISSING_POLICIES = ("error", "skip")


@dataclass(frozen=True)
class Conversion:
    """What became of a set of predictions.

    Attributes:
        path: The file that was written.
        n_read: Predictions that were read.
        n_written: Predictions in the file, each of another example.
        n_missing: Examples that could be in the file and have no prediction, those of `unread` among them.
        unread: What is wrong with each answer of a model that could not be read.
        match: How the two datasets were matched; None for predictions that stay on theirs.
        n_extra: Predictions that were left out because the dataset of the run has no such example.
        n_repeated: Predictions that were left out because they repeat a mask.
    """

    path: Path
    n_read: int
    n_written: int
    n_missing: int
    unread: tuple[Problem, ...]
    match: DatasetMatch | None
    n_extra: int = 0
    n_repeated: int = 0

    @property
    def n_left(self) -> int:
        """Number of predictions that were read and have no counterpart in the other dataset."""
        return self.n_read - self.n_written

    def summary(self) -> dict[str, Any]:
        """Return all numbers, for JSON."""
        about: dict[str, Any] = {
            "path": str(self.path),
            "n_read": self.n_read,
            "n_written": self.n_written,
            "n_left": self.n_left,
            "n_missing": self.n_missing,
            "n_extra": self.n_extra,
            "n_repeated": self.n_repeated,
            "unread": [str(problem) for problem in self.unread],
        }
        if self.match is not None:
            match = self.match
            about["match"] = {
                "source": {"name": match.source.source, "fingerprint": match.source.fingerprint},
                "target": {"name": match.target.source, "fingerprint": match.target.fingerprint},
                **match.counts(),
                "ambiguous": [
                    {
                        **dict(
                            zip(
                                match.target.example_key_fields, match.target.key_of(i), strict=True
                            )
                        ),
                        "rule": match.rule[i],
                    }
                    for i in match.ambiguous
                ],
            }
        return about


def convert(
    predictions: str | Path | Iterable[Any],
    path: str | Path,
    dataset: Dataset,
    *,
    from_dataset: Dataset | None = None,
    missing: str = "error",
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    **reading: Any,
) -> Conversion:
    """Write predictions as a native file.

    With `from_dataset`, they are predictions for that dataset, and the file is for `dataset`: each is carried to the
    example of the same image, object and text, as `match_datasets` finds it. Nobody has to run a model again because a
    set has new masks or fewer sentences.

    Args:
        predictions: As for `score`, also what `adapters.read` returns.
        path: The file to make, `.parquet` or `.jsonl`.
        dataset: What the file is for.
        from_dataset: What the predictions are for; `dataset` itself by default.
        missing: For examples that could be in the file and have no prediction, or only an answer that cannot be read:
            `error`, or `skip` to leave them out.
        overwrite: Replace the file if there is one.
        progress: Called with the number of predictions each batch has read.
        reading: Fields of `ReadOptions`, as for `score`.

    Raises:
        PredictionError: The predictions have mistakes, or some are missing; nothing is written.
        DataError: The two datasets have no example in common, an image has two sizes, or there is no prediction.
        UsageError: For an unknown option, a file that is absent, or one that is there already.

    >>> import tempfile, refcocom_gpu as rc
    >>> dataset = rc.load_dataset("sample")
    >>> made = convert("sample", Path(tempfile.mkdtemp()) / "preds.parquet", dataset, from_dataset=dataset)
    >>> made.n_written == dataset.n_examples, rc.score(made.path, dataset).miou == rc.score("sample", dataset).miou
    (True, True)
    """
    if missing not in MISSING_POLICIES:
        raise UsageError(f"missing must be {' or '.join(MISSING_POLICIES)}, not {missing!r}")
    path, source = Path(path), find_source(predictions)
    options = options_of(source, ReadOptions(**reading))
    _check_output(path, source, overwrite=overwrite)
    match = None if from_dataset is None else match_datasets(from_dataset, dataset)
    if match is not None:
        match.check_common()
    problems = Problems()
    of_run = dataset if from_dataset is None else from_dataset
    are_boxes = options.box_format is not None
    read: Any = read_boxes if are_boxes else read_predictions
    batches, keys = read(source, of_run, options, problems)
    boxes = np.zeros((of_run.n_examples, 4))
    target = np.arange(dataset.n_examples) if match is None else match.target_index
    traits = np.zeros(of_run.n_examples, np.int64)
    model = next(filter(None, map(model_of, source.files)), None)
    form = NATIVE_BOXES if are_boxes else {}
    writer = PredictionWriter(path, dataset, model=model, overwrite=overwrite, **form)
    try:
        for batch in batches:
            # The rows of a set with mistakes are read on, to find them all, and not written.
            if are_boxes:
                boxes[batch.index] = batch.boxes
                if not problems:
                    _write_boxes(writer, target[batch.index], batch.boxes)
            else:
                ends, offsets, traits[batch.index] = batch_runs(batch, of_run, options, problems)
                if not problems:
                    _write(writer, target[batch.index], ends, offsets, keys.labels[batch.index])
            if progress is not None:
                progress(len(batch.index))
        for verdict in judge_set(traits, options):
            verdict.add_to(problems, source.name, keys.where)
        if are_boxes:
            judge_boxes(boxes, of_run, options, source.name, problems)
        absent = keys.missing()
        absent = absent[target[absent] >= 0]
        if missing == "error":
            _add_missing(absent, source, keys, problems)
        problems.raise_if_any()
        if not keys.given.any():
            raise DataError(
                f"{source.name} holds no prediction that could be read; nothing was written"
            )
        n_written = int(writer.journal.written.sum())
        writer.close()
    finally:
        # What a conversion has written so far is of no use to the next one.
        writer.discard()
    for text in problems.warnings:
        warnings.warn(f"refcocom: {text}", UserWarning, stacklevel=2)
    n_read = int(np.count_nonzero(keys.given))
    return Conversion(
        path,
        n_read,
        n_written,
        len(absent),
        (*source.unread.values(),),
        match,
        keys.n_extra,
        keys.n_repeated,
    )


def _check_output(path: Path, source: Source, *, overwrite: bool) -> None:
    if any(file.exists() and path.exists() and file.samefile(path) for file in source.files):
        raise UsageError(f"{path} is the file that is read; write another one")
    journal = path.with_name(path.name + JOURNAL)
    if journal.exists() and not overwrite:
        raise UsageError(
            f"{journal} is the journal of a run that has not ended; choose another file, or pass overwrite=True to "
            "delete it"
        )


def _write(
    writer: PredictionWriter, index: Ints, ends: NDArray[np.int32], offsets: Ints, codes: Ints
) -> None:
    """Write the predictions of a batch that have an index, with what they say in `no_target`."""
    kept = np.flatnonzero(index >= 0)
    if not len(kept):
        return
    samples = writer.dataset.example_sample[index[kept]]
    sizes = np.stack([writer.dataset.heights[samples], writer.dataset.widths[samples]], axis=1)
    rows = [ends[offsets[row] : offsets[row + 1]] for row in kept.tolist()]
    labels = [None if code == UNLABELLED else code == NO_TARGET for code in codes[kept].tolist()]
    writer.write(index[kept], rle.encode_ends(rows, sizes.tolist()), no_target=labels)


def _write_boxes(writer: PredictionWriter, index: Ints, boxes: NDArray[np.float64]) -> None:
    """Write the boxes of a batch that have an index."""
    kept = np.flatnonzero(index >= 0)
    listed = [box if any(box) else None for box in boxes[kept].tolist()]
    writer.write(index[kept], listed)


def _add_missing(absent: Ints, source: Source, keys: Keys, problems: Problems) -> None:
    for index in absent.tolist():
        if unread := source.unread.get(keys.dataset.key_of(index)):
            problems.add(unread.kind, unread.where, f"{unread.message}; missing=skip leaves it out")
            continue
        problems.add(
            "missing",
            source.name,
            f"no prediction for {keys.describe(index)}; missing=skip leaves such examples out",
        )
