"""Rows of predictions in, a journal on disk out: native JSONL that the next writer of the same file goes on from.

The first line is the header of the file that the journal becomes. Every batch is written as it comes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.labels import FIELD
from refcocom_gpu.utils.folders import check_writable

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

ROW_GROUP = 8192
"""Rows per Parquet row group, and the most that are held in memory while a journal becomes a file."""

_TRAIT = "trait"

_DAMAGED = (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError, OverflowError)
"""What reading a journal raises if its lines are not the rows that were written."""


class Journal:
    """The rows that were written so far.

    Args:
        path: Of the journal.
        dataset: What the predictions are for.
        header: The first line.
        overwrite: Forget the rows of an earlier writer.

    Attributes:
        written: [N] bool, which examples have a row.
        traits: [N] int64, what each prediction tells about the set, as `predictions.values` says.
        labelled: Whether a row says whether its expression has a target.

    Raises:
        UsageError: The journal cannot be written, is damaged, or was begun with another header.
    """

    def __init__(
        self, path: Path, dataset: Dataset, header: dict[str, Any], *, overwrite: bool
    ) -> None:
        self.path, self.dataset, self.header = path, dataset, header
        self.labelled = False
        check_writable(path.parent)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                path.unlink(missing_ok=True)
            # Unbuffered: what could not be written must not be tried again when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"cannot write to {path.parent}: {error.strerror}") from None
        # A writer that is forgotten, after an error or with the metric that used it, leaves no file open.
        weakref.finalize(self, self._file.close)
        try:
            self.written = self._resume()
        except UsageError:
            self._file.close()
            raise
        except _DAMAGED as error:
            self._file.close()
            reason = str(error).splitlines()[-1].strip()
            raise UsageError(
                f"{path} is not the journal of a writer ({reason}); delete it or pass overwrite=True"
            ) from None

    def _resume(self) -> NDArray[np.bool_]:
        """Read the rows of an earlier writer; drop a line that a kill cut."""
        self.traits = np.zeros(self.dataset.n_examples, np.int64)
        problems = Problems()
        keys = Keys(self.dataset, problems)
        length = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                length += len(line)
                row = msgspec.json.decode(line, type=dict[str, Any])
                if number > 1:
                    columns = [np.array([row[name]], np.int64) for name in keys.fields]
                    index = keys.resolve(columns, partial("line {}".format, number))
                    self.traits[index] = int(row.get(_TRAIT, 0))
                    self.labelled |= FIELD in row
                elif row != self.header:
                    # Otherwise the masks of two models would stand in one file under one name.
                    raise UsageError(
                        f"{self.path} was begun for {_described(row)}, not {_described(self.header)}; "
                        "delete it or pass overwrite=True"
                    )
        problems.raise_if_any()
        self._file.truncate(length)
        if length == 0:
            self.append([self.header])
        return keys.given

    def mark(self, index: NDArray[np.int64], traits: Sequence[int]) -> None:
        """Note that examples were written, and what their predictions tell."""
        self.written[index] = True
        self.traits[index] = traits

    def append(self, rows: list[dict[str, Any]], traits: Sequence[int] = ()) -> None:
        """Add rows to the end.

        Args:
            rows: The rows of the file.
            traits: What each tells about the set; it stands in the journal but not in the file.

        Raises:
            UsageError: They cannot be written; none of them is kept.
        """
        self.labelled |= any(FIELD in row for row in rows)
        if any(traits):
            rows = [{**row, _TRAIT: trait} for row, trait in zip(rows, traits, strict=True)]
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        try:
            while left:
                # A disk that is almost full takes a part.
                left = left[self._file.write(left) :]
        except OSError as error:
            # The next batch must not follow half a line.
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from None

    def groups(self, keep: NDArray[np.bool_] | None) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows, `ROW_GROUP` at a time, without those whose examples are not kept.

        Args:
            keep: [N] which examples are kept; None for all.
        """
        fields = self.dataset.example_key_fields
        with self.path.open("rb") as lines:
            next(lines)
            while rows := [msgspec.json.decode(row) for row in itertools.islice(lines, ROW_GROUP)]:
                for row in rows:
                    row.pop(_TRAIT, None)
                if keep is not None:
                    columns = [np.array([row[name] for row in rows], np.int64) for name in fields]
                    kept = keep[self.dataset.index_of_key(columns)]
                    rows = list(itertools.compress(rows, kept))
                yield rows

    def close(self) -> None:
        """Close the file; the journal stays on disk."""
        self._file.close()

    def delete(self) -> None:
        """Close the file and delete it."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _described(header: dict[str, Any]) -> str:
    return f"model {header.get('model')!r} on dataset {header.get('dataset')}"
