"""Masks or logits with their keys in, a native prediction file out: whole or not at all, resumable, bounded memory.

Rows go to a journal beside the file, `NAME.partial`. `close` turns it into the file under a temporary name and renames
it. A run that was killed leaves the journal; the next writer of the same path goes on from it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems, RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.arguments import ABSENT, WRITE, index_and_masks
from refcocom_gpu.predictions.arrays import REFUSED, check_prediction
from refcocom_gpu.predictions.batches import row_of_batch
from refcocom_gpu.predictions.box_rows import as_box_rows, checked_boxes
from refcocom_gpu.predictions.header import make_header
from refcocom_gpu.predictions.journal import Journal
from refcocom_gpu.predictions.keys import Keys, describe_key
from refcocom_gpu.predictions.labels import FIELD, NO_TARGET, UNLABELLED, listed_labels
from refcocom_gpu.predictions.native import FILE, native_schema
from refcocom_gpu.predictions.normalise import as_rows, is_rle
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.runs import NO_RUNS, array_runs
from refcocom_gpu.predictions.values import judge_set
from refcocom_gpu.utils.files import replacing

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset


class PredictionWriter:
    """Writes `.parquet` or `.jsonl` predictions batch by batch.

    As a context manager, it makes the file when the block ends well, and keeps the journal when the block raises.

    Args:
        path: The file to make.
        dataset: What the predictions are for: its keys, sentences and image sizes.
        model: Name of the model, kept in the header.
        overwrite: Replace the file if there is one, and forget its journal.
        reading: Fields of `ReadOptions` that say what arrays and scores mean: `values`, `letterbox`, `resize`,
            `no_target_threshold`; or `box_format` and `box_scale`, with which boxes are written instead of masks, in
            pixels and with a header that says so.

    Raises:
        UsageError: For another ending, a file that is already there, or a journal that is damaged or was begun with
            another header.

    >>> import tempfile, refcocom_gpu as rc
    >>> dataset = rc.load_dataset("sample")
    >>> store = rc.MaskStore.build(dataset, cache=False)
    >>> path = Path(tempfile.mkdtemp()) / "preds.parquet"
    >>> with rc.PredictionWriter(path, dataset, model="perfect") as writer:
    ...     for index in writer.pending():
    ...         writer.write(index, store.mask(index))
    >>> rc.score(path, store).miou
    1.0
    """

    def __init__(
        self,
        path: str | Path,
        dataset: Dataset,
        *,
        model: str | None = None,
        overwrite: bool = False,
        **reading: Any,
    ) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.options = ReadOptions(**reading)
        self.are_boxes = self.options.box_format is not None
        if self.path.suffix not in {".parquet", ".jsonl"}:
            raise UsageError(f"predictions are written to .parquet or .jsonl, not {self.path.name}")
        if self.path.is_dir():
            raise UsageError(f"{self.path} is a folder")
        if self.path.exists() and not overwrite:
            raise UsageError(f"{self.path} is already there; pass overwrite=True or another path")
        self.journal = Journal(
            self.path.with_name(self.path.name + ".partial"),
            dataset,
            make_header(model, dataset, are_boxes=self.are_boxes),
            overwrite=overwrite,
        )

    def pending(self) -> NDArray[np.int64]:
        """Return the indices that have no prediction yet: all at first, the remaining ones after a resume."""
        return np.flatnonzero(~self.journal.written)

    def write(self, index: Any = ABSENT, masks: Any = ABSENT, *, no_target: Any = None) -> None:
        """Add predictions.

        Args:
            index: int or [B] ints, row numbers in the store; or [B, 2] rows `(sample_id, sentence_idx)`
                ([B, 3] `(image_id, position, sentence_idx)` where the dataset is keyed so). Or a dict of predictions by
                either, without `masks`.
            masks: One prediction, a [B, H, W] or [B, 1, H, W] array or tensor, or B predictions: arrays, tensors,
                PIL pictures, RLE objects. Bools and integers are masks of the size of the image, floats are logits or
                probabilities of any size. None is an empty mask. Of boxes: four numbers, [B, 4], or B of them or None.
            no_target: [B] whether the model says that an expression has no target: bools, or scores if
                `no_target_threshold` was given. The file holds true or false, beside the mask.

        Raises:
            PredictionError: When a key is unknown or was written before, a mask does not fit, or a label is none;
                nothing of the batch is written then.
            UsageError: When the numbers of keys and predictions differ, or the arguments are swapped.
        """
        keys, masks = index_and_masks(index, masks, WRITE)
        problems = Problems()
        checker = Keys(self.dataset, problems, no_target_threshold=self.options.no_target_threshold)
        if self.are_boxes:
            if no_target is not None:
                raise UsageError("no_target goes with masks; a box that is None says the same")
            self._write_boxes(keys, masks, checker)
            return
        rows = as_rows(keys, masks, len(checker.fields))
        numbers = self._resolve(rows.keys, checker)
        examples = numbers.tolist()
        checker.label(numbers, listed_labels(no_target, len(examples)), row_of_batch)
        runs: list[NDArray[np.int32] | None] = []
        traits = []
        for row, (example, value) in enumerate(zip(examples, rows.values, strict=True)):
            ends, trait = None, 0
            checked = check_prediction(value, self.options, row_of_batch(row), problems)
            if checked is not None and checked is not REFUSED and example >= 0:
                ends, trait = self._runs(checked, example, row_of_batch(row), problems)
            runs.append(ends)
            traits.append(trait)
        problems.raise_if_any()
        present = [k for k, ends in enumerate(runs) if ends is not None]
        segmentations: list[dict[str, Any] | None] = [None] * len(runs)
        encoded = rle.encode_ends(
            [ends for ends in runs if ends is not None],
            [self._size(examples[k]) for k in present],
        )
        for k, segmentation in zip(present, encoded, strict=True):
            segmentations[k] = segmentation
        labels = checker.labels[numbers].tolist()
        self.journal.append(list(map(self._row, examples, segmentations, labels)), traits)
        self.journal.mark(numbers, traits)

    def _write_boxes(self, keys: Any, boxes: Any, checker: Keys) -> None:
        """Add boxes, as `write` says."""
        numbers, listed = as_box_rows(keys, boxes, len(checker.fields))
        index = self._resolve(numbers, checker)
        places = [row_of_batch(row) for row in range(len(listed))]
        batch = checked_boxes(index, listed, places, checker, self.options, checker.problems)
        checker.problems.raise_if_any()
        corners = [
            None if given is None else box
            for given, box in zip(listed, batch.boxes.tolist(), strict=True)
        ]
        self.journal.append(list(map(self._row, index.tolist(), corners)))
        self.journal.mark(index, [0] * len(index))

    def _runs(
        self, value: Any, example: int, where: str, problems: Problems
    ) -> tuple[NDArray[np.int32], int]:
        """Return the runs of one prediction and its evidence, or none after recording a problem."""
        height, width = self._size(example)
        if is_rle(value):
            try:
                return rle.ends_of(value, height, width), 0
            except RLEError as error:
                problems.add("malformed mask", where, str(error))
                return NO_RUNS, 0
        return array_runs(value, height, width, self.options, where, problems)

    def close(self) -> Path:
        """Turn the journal into the file.

        Returns:
            The path of the file.

        Raises:
            PredictionError: When the predictions are wrong as a set, such as probabilities that were not
                declared.
                The journal is kept.
            UsageError: When it cannot be written; the journal is kept.
        """
        self.journal.close()
        problems = Problems()
        for verdict in judge_set(self.journal.traits, self.options):
            verdict.add_to(problems, str(self.path), self._describe)
        problems.raise_if_any()
        # Without a journal, an earlier `close` made the file; one that failed left the journal.
        if self.journal.path.exists():
            self.save()
            self.journal.delete()
        return self.path

    def save(self, keep: NDArray[np.bool_] | None = None) -> Path:
        """Make the file of what was written so far; the journal stays, and more may be written.

        Args:
            keep: [N] which examples the file holds; by default all that were written.

        Returns:
            The path of the file.

        Raises:
            UsageError: When it cannot be written.
        """
        write = _to_jsonl if self.path.suffix == ".jsonl" else _to_parquet
        try:
            with replacing(self.path) as temporary:
                write(self.journal, temporary, keep)
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from None
        return self.path

    def discard(self) -> None:
        """Delete the journal; the file that `save` made stays."""
        self.journal.delete()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.journal.close()

    def _resolve(self, keys: NDArray[np.int64], checker: Keys) -> NDArray[np.int64]:
        """Return indices, −1 where a key was recorded as a problem."""
        index = checker.resolve_any(keys, row_of_batch)
        # An index of −1 would look up the last example.
        for row in np.flatnonzero((index >= 0) & self.journal.written[index]).tolist():
            described = checker.describe(int(index[row]))
            checker.problems.add("duplicate", row_of_batch(row), f"{described} was written before")
        return index

    def _describe(self, index: int) -> str:
        return describe_key(self.dataset.example_key_fields, self.dataset.key_of(index))

    def _size(self, example: int) -> tuple[int, int]:
        sample = int(self.dataset.example_sample[example])
        return int(self.dataset.heights[sample]), int(self.dataset.widths[sample])

    def _row(self, example: int, prediction: Any, label: int = UNLABELLED) -> dict[str, Any]:
        fields = self.dataset.example_key_fields
        return {
            **dict(zip(fields, self.dataset.key_of(example), strict=True)),
            "sentence": self.dataset.examples.column("sentence")[example].as_py(),
            "box" if self.are_boxes else "segmentation": prediction,
            **({} if label == UNLABELLED else {FIELD: label == NO_TARGET}),
        }


def _to_jsonl(journal: Journal, path: Path, keep: NDArray[np.bool_] | None) -> None:
    with path.open("wb") as file:
        for rows in itertools.chain([[journal.header]], journal.groups(keep)):
            file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)


def _to_parquet(journal: Journal, path: Path, keep: NDArray[np.bool_] | None) -> None:
    schema = native_schema(
        journal.dataset.example_key_fields, journal.header, labelled=journal.labelled
    )
    with pq.ParquetWriter(path, schema, **FILE) as writer:
        for rows in journal.groups(keep):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
