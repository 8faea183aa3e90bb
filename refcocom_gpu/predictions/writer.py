"""Masks or logits with their keys in, a native prediction file out: whole or not at all, resumable, bounded memory.

Rows go to a journal beside the file, `NAME.partial`, a native JSONL that is flushed with every batch. `close` turns
it into the file under a temporary name and renames it. A run that was killed leaves the journal; the next writer of
the same path goes on from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refcocom_gpu import rle
from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.letterbox import logit_mask
from refcocom_gpu.predictions.arrays import check_array
from refcocom_gpu.predictions.batches import ReadOptions
from refcocom_gpu.predictions.header import check_header, make_header
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.memory import as_lists

if TYPE_CHECKING:
    from refcocom_gpu.dataset import Dataset

ROW_GROUP = 8192
"""Rows per Parquet row group, and the most that `close` holds in memory."""


class PredictionWriter:
    """Writes `.parquet` or `.jsonl` predictions batch by batch.

    Used as a context manager it closes the file when the block ends well and keeps the journal when it does not.

    Args:
        path: The file to make.
        dataset: What the predictions are for; gives keys, sentences and image sizes.
        model: Name kept in the header.
        values: What float predictions are: `logits` (set above 0) or `probabilities` (set above 0.5).
        letterbox: Side of the padded square input when the image fills only its top-left part.
        resize: `direct`, or `sam`.
        overwrite: Replace a file that is there, and forget a journal.

    Raises:
        UsageError: For another ending, a file that is there, or a journal made for another dataset.

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
        values: str = "logits",
        letterbox: int | None = None,
        resize: str = "direct",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.options = ReadOptions(values=values, letterbox=letterbox, resize=resize)
        self._header = make_header(model, dataset)
        self._done = np.zeros(dataset.n_examples, np.bool_)
        if self.path.suffix not in {".parquet", ".jsonl"}:
            raise UsageError(f"predictions are written to .parquet or .jsonl, not {self.path.name}")
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
        index, arrays = self._resolve(keys, predictions, problems)
        checker = Keys(self.dataset, problems)
        checker.given = self._done.copy()
        places = [f"row {row} of the batch" for row in range(len(index))]
        claimed = checker.claim(index, places.__getitem__)
        masks: list[NDArray[Any] | None] = []
        for example, array, place in zip(claimed.tolist(), arrays, places, strict=True):
            if array is None or example < 0:
                masks.append(None)
                continue
            checked = check_array(
                array if hasattr(array, "dtype") else np.asarray(array), example, place, checker, problems
            )
            masks.append(None if checked is None else self._to_mask(checked, example, place, problems))
        problems.raise_if_any()
        present = [mask for mask in masks if mask is not None]
        encoded = iter(rle.encode_all(present))
        lines = [
            self._row(example, None if mask is None else next(encoded))
            for example, mask in zip(index.tolist(), masks, strict=True)
        ]
        self._append(lines)
        self._done[index] = True

    def close(self) -> Path:
        """Turn the journal into the file.

        Returns:
            The path of the file.
        """
        if not self._file.closed:
            self._file.close()
            if self.path.suffix == ".jsonl":
                self.journal.replace(self.path)
            else:
                temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
                try:
                    _to_parquet(self.journal, temporary, self._header)
                    temporary.replace(self.path)
                finally:
                    temporary.unlink(missing_ok=True)
                self.journal.unlink()
        return self.path

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
        known = Problems()
        keys = Keys(self.dataset, known)
        length = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            length += len(line)
            if number == 1:
                header = msgspec.json.decode(line)
                if header.get("dataset") != self.dataset.fingerprint:
                    self._file.close()
                    raise UsageError(
                        f"{self.journal} was begun for another dataset; delete it or pass overwrite=True"
                    )
                check_header(line, str(self.journal), self.dataset, known)
                continue
            row = msgspec.json.decode(line)
            columns = [np.array([row[name]], np.int64) for name in keys.fields]
            self._done[keys.lookup(columns)] = True
        self._file.truncate(length)
        if length == 0:
            self._append([self._header])

    def _append(self, rows: list[dict[str, Any]]) -> None:
        self._file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        self._file.flush()

    def _resolve(self, keys: Any, predictions: Any, problems: Problems) -> tuple[NDArray[np.int64], list[Any]]:
        if hasattr(keys, "detach"):
            keys = keys.detach().cpu().numpy()
        keys = np.asarray(keys, np.int64)
        if keys.ndim != 2:
            index, arrays = as_lists(keys, predictions)
            for row in np.flatnonzero((index < 0) | (index >= self.dataset.n_examples)).tolist():
                problems.add("unknown key", f"row {row} of the batch", f"index {index[row]} is not in the store")
            problems.raise_if_any()
            return index, arrays
        checker = Keys(self.dataset, problems)
        if keys.shape[1] != len(checker.fields):
            raise UsageError(f"a key is ({', '.join(checker.fields)}), not {keys.shape[1]} numbers")
        index = checker.resolve(list(keys.T), lambda row: f"row {row} of the batch")
        problems.raise_if_any()
        return as_lists(index, predictions)

    def _to_mask(self, array: Any, example: int, place: str, problems: Problems) -> NDArray[Any] | None:
        if "float" not in str(array.dtype):
            return array if isinstance(array, np.ndarray) else np.asarray(array.detach().cpu())
        import torch

        logits = torch.as_tensor(array).detach()
        if not bool(torch.isfinite(logits).all()):
            problems.add("non-finite", place, "logits hold NaN or infinity")
            return None
        sample = int(self.dataset.example_sample[example])
        height, width = int(self.dataset.heights[sample]), int(self.dataset.widths[sample])
        return logit_mask(logits, height, width, self.options).cpu().numpy()  # type: ignore[no-any-return]

    def _row(self, example: int, segmentation: dict[str, Any] | None) -> dict[str, Any]:
        fields = self.dataset.example_key_fields
        return {
            **dict(zip(fields, self.dataset.key_of(example), strict=True)),
            "sentence": self.dataset.examples.column("sentence")[example].as_py(),
            "segmentation": segmentation,
        }


def _to_parquet(journal: Path, path: Path, header: dict[str, Any]) -> None:
    """Stream a journal into Parquet, a row group at a time."""
    with journal.open("rb") as lines:
        first = msgspec.json.decode(next(lines))
        schema = pa.schema(
            [
                *((name, pa.int64()) for name in ("sample_id", "image_id", "position")),
                ("sentence_idx", pa.int64()),
                ("sentence", pa.string()),
                (
                    "segmentation",
                    pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]),
                ),
            ],
            metadata={key: str(value) for key, value in {**header, **first}.items()},
        )
        writer = None
        for rows in _groups(lines):
            if writer is None:
                absent = [name for name in schema.names if name not in rows[0]]
                for name in absent:
                    schema = schema.remove(schema.get_field_index(name))
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        if writer is None:
            writer = pq.ParquetWriter(path, schema)
        writer.close()


def _groups(lines: Any) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for line in lines:
        rows.append(msgspec.json.decode(line))
        if len(rows) == ROW_GROUP:
            yield rows
            rows = []
    if rows:
        yield rows
