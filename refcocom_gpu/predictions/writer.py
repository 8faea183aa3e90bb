"""Masks or logits with their keys in, a native prediction file out: whole or not at all, resumable, bounded memory.

Rows go to a journal beside the file, `NAME.partial`, a native JSONL that is flushed with every batch. `close` turns
it into the file under a temporary name and renames it. A run that was killed leaves the journal; the next writer of
the same path goes on from it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.arrays import check_array
from refcocom_gpu.predictions.header import make_header
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.memory import as_ints, as_lists
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.runs import array_runs
from refcocom_gpu.utils.files import replacing

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

ROW_GROUP = 8192
"""Rows per Parquet row group, and the most that `close` holds in memory."""


_DAMAGED = (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError, OverflowError)
"""What reading a journal raises where its lines are not the rows that were written."""


class PredictionWriter:
    """Writes `.parquet` or `.jsonl` predictions batch by batch.

    Used as a context manager it closes the file when the block ends well and keeps the journal when it does not.

    Args:
        path: The file to make.
        dataset: What the predictions are for; gives keys, sentences and image sizes.
        model: Name kept in the header.
        overwrite: Replace a file that is there, and forget a journal.
        reading: Fields of `ReadOptions` that say what arrays mean: `values`, `letterbox`, `resize`.

    Raises:
        UsageError: For another ending, a file that is there, or a journal that is damaged or was begun with another
            header.

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
        self._header = make_header(model, dataset)
        self._done = np.zeros(dataset.n_examples, np.bool_)
        if self.path.suffix not in {".parquet", ".jsonl"}:
            raise UsageError(f"predictions are written to .parquet or .jsonl, not {self.path.name}")
        if self.path.is_dir():
            raise UsageError(f"{self.path} is a folder")
        if self.path.exists() and not overwrite:
            raise UsageError(f"{self.path} is already there; pass overwrite=True or another path")
        self.journal = self.path.with_name(self.path.name + ".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self.journal.unlink(missing_ok=True)
            self._file = self.journal.open("a+b")
        except OSError as error:
            raise UsageError(f"cannot write {self.journal}: {error.strerror}") from None
        # One that is forgotten, by an error or with the metric it served, leaves no file open.
        weakref.finalize(self, self._file.close)
        self._resume()

    def pending(self) -> NDArray[np.int64]:
        """Indices that have no prediction yet: all at first, what is left after a resume."""
        return np.flatnonzero(~self._done)

    def write(self, keys: Any, predictions: Any) -> None:
        """Add predictions.

        Args:
            keys: int or [B] ints, row numbers in the store; or [B, 2] rows `(sample_id, sentence_idx)`
                ([B, 3] `(image_id, position, sentence_idx)` where the dataset is keyed so).
            predictions: One [H, W], a [B, H, W] or [B, 1, H, W] array or tensor, or a list. Bools and integers are
                masks at the image's size, floats logits or probabilities at any size. None in a list is an empty mask.

        Raises:
            PredictionError: When a key is unknown or was written before, or a mask does not fit; nothing of the
                batch is written then.
            UsageError: When there are not as many keys as predictions.
        """
        problems = Problems()
        checker = Keys(self.dataset, problems)
        index, arrays = self._resolve(keys, predictions, checker)
        runs: list[NDArray[np.int32] | None] = []
        for row, (example, array) in enumerate(zip(index.tolist(), arrays, strict=True)):
            if array is None or example < 0:
                runs.append(None)
                continue
            place = _place(row)
            checked = check_array(array, example, place, checker, problems)
            runs.append(
                None
                if checked is None
                else array_runs(checked, *self._size(example), self.options, place, problems)
            )
        problems.raise_if_any()
        present = [
            (ends, self._size(e))
            for e, ends in zip(index.tolist(), runs, strict=True)
            if ends is not None
        ]
        encoded = iter(
            rle.encode_ends([ends for ends, _ in present], [size for _, size in present])
        )
        lines = [
            self._row(example, None if ends is None else next(encoded))
            for example, ends in zip(index.tolist(), runs, strict=True)
        ]
        self._append(lines)
        self._done[index] = True

    def close(self) -> Path:
        """Turn the journal into the file.

        Returns:
            The path of the file.

        Raises:
            UsageError: When it cannot be written; the journal is kept.
        """
        self._file.close()
        # Without a journal the file was made before; with one an earlier close may have failed.
        if self.journal.exists():
            self.save()
            self.journal.unlink()
        return self.path

    def save(self, keep: NDArray[np.bool_] | None = None) -> Path:
        """Make the file of what was written so far; the journal stays, and writing may go on.

        Args:
            keep: [N] which examples the file holds; all that were written by default.

        Returns:
            The path of the file.

        Raises:
            UsageError: When it cannot be written.
        """
        write = _to_jsonl if self.path.suffix == ".jsonl" else _to_parquet
        try:
            with replacing(self.path) as temporary:
                write(self.journal, temporary, self.dataset, keep)
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from None
        return self.path

    def discard(self) -> None:
        """Forget the journal; what `save` made stays."""
        self._file.close()
        self.journal.unlink(missing_ok=True)

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
            self._file.close()

    def _resume(self) -> None:
        """Read back what a journal holds; a line cut by a kill is dropped."""
        self._file.seek(0)
        problems = Problems()
        keys = Keys(self.dataset, problems)
        length = 0
        try:
            for number, line in enumerate(self._file, 1):
                if not line.endswith(b"\n"):
                    break
                length += len(line)
                row = msgspec.json.decode(line, type=dict[str, Any])
                if number > 1:
                    columns = [np.array([row[name]], np.int64) for name in keys.fields]
                    keys.resolve(columns, partial("line {}".format, number))
                elif row != self._header:
                    # Two models' masks in one file would have one name.
                    raise UsageError(
                        f"{self.journal} was begun for {_named(row)}, not {_named(self._header)}; "
                        "delete it or pass overwrite=True"
                    )
            problems.raise_if_any()
        except UsageError:
            self._file.close()
            raise
        except _DAMAGED as error:
            self._file.close()
            reason = str(error).splitlines()[-1].strip()
            raise UsageError(
                f"{self.journal} is not the journal of a writer ({reason}); delete it or pass overwrite=True"
            ) from None
        self._done = keys.given
        self._file.truncate(length)
        if length == 0:
            self._append([self._header])

    def _append(self, rows: list[dict[str, Any]]) -> None:
        whole = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
            self._file.flush()
        except OSError as error:
            # Half a line, behind which the next batch would be written.
            with contextlib.suppress(OSError):
                self._file.truncate(whole)
            raise UsageError(f"cannot write {self.journal}: {error.strerror or error}") from None

    def _resolve(
        self, keys: Any, predictions: Any, checker: Keys
    ) -> tuple[NDArray[np.int64], list[Any]]:
        """Indices, −1 where a key was recorded as a problem, and as many predictions."""
        keys = as_ints(keys)
        if keys.ndim == 2:
            if keys.shape[1] != len(checker.fields):
                raise UsageError(
                    f"a key is ({', '.join(checker.fields)}), not {keys.shape[1]} numbers"
                )
            index, arrays = as_lists(checker.resolve(list(keys.T), _place), predictions)
        else:
            index, arrays = as_lists(keys, predictions)
            unknown = (index < 0) | (index >= self.dataset.n_examples)
            for row in np.flatnonzero(unknown).tolist():
                checker.problems.add(
                    "unknown key", _place(row), f"index {index[row]} is not a row of the store"
                )
            index = checker.claim(np.where(unknown, -1, index), _place)
        # −1 would look up the last example.
        for row in np.flatnonzero((index >= 0) & self._done[index]).tolist():
            described = checker.describe(int(index[row]))
            checker.problems.add("duplicate", _place(row), f"{described} was written before")
        return index, arrays

    def _size(self, example: int) -> tuple[int, int]:
        sample = int(self.dataset.example_sample[example])
        return int(self.dataset.heights[sample]), int(self.dataset.widths[sample])

    def _row(self, example: int, segmentation: dict[str, Any] | None) -> dict[str, Any]:
        fields = self.dataset.example_key_fields
        return {
            **dict(zip(fields, self.dataset.key_of(example), strict=True)),
            "sentence": self.dataset.examples.column("sentence")[example].as_py(),
            "segmentation": segmentation,
        }


def _place(row: int) -> str:
    return f"row {row} of the batch"


def _named(header: dict[str, Any]) -> str:
    return f"model {header.get('model')!r} on dataset {header.get('dataset')}"


def _to_jsonl(journal: Path, path: Path, dataset: Dataset, keep: NDArray[np.bool_] | None) -> None:
    with journal.open("rb") as lines, path.open("wb") as file:
        file.write(next(lines))
        for rows in _groups(lines, dataset, keep):
            file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)


def _to_parquet(
    journal: Path, path: Path, dataset: Dataset, keep: NDArray[np.bool_] | None
) -> None:
    """Stream a journal into Parquet, a row group at a time."""
    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    with journal.open("rb") as lines:
        header = msgspec.json.decode(next(lines))
        schema = pa.schema(
            [
                *((name, pa.int64()) for name in dataset.example_key_fields),
                ("sentence", pa.string()),
                ("segmentation", mask),
            ],
            metadata={key: str(value) for key, value in header.items()},
        )
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for rows in _groups(lines, dataset, keep):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _groups(
    lines: Any, dataset: Dataset, keep: NDArray[np.bool_] | None
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a journal, `ROW_GROUP` at a time, less those whose examples are not kept."""
    while rows := [msgspec.json.decode(line) for line in itertools.islice(lines, ROW_GROUP)]:
        if keep is not None:
            fields = dataset.example_key_fields
            columns = [np.array([row[name] for row in rows], np.int64) for name in fields]
            kept = keep[dataset.index_of_key(columns)]
            rows = list(itertools.compress(rows, kept))
        yield rows
