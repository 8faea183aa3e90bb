"""Arrow and Feather files and `datasets.Dataset`s, in memory or saved, in; RLE batches of their native table out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from refcocom_gpu.errors import ContentError, Problems, UsageError
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.parquet import BATCH_ROWS_BESIDE as BATCH_ROWS
from refcocom_gpu.predictions.parquet import read_table
from refcocom_gpu.utils.arrow import open_ipc
from refcocom_gpu.utils.files import regular

STATE = "state.json"
"""The file by which a folder is known that `datasets.Dataset.save_to_disk` wrote."""


def read_arrow(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a file of Arrow's IPC format, of random access (Feather) or a stream, with the columns of native Parquet.

    Raises:
        ContentError: It is neither.
    """
    try:
        with open_ipc(path) as reader:
            schema = reader.schema
    except (pa.ArrowException, OSError) as error:
        # An error of the system has a number, one of Arrow has none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ContentError(f"not an Arrow file: {error}") from None

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        # A stream goes forward only, and rows of it may be looked at again.
        with open_ipc(path) as reader:
            yield from _sliced(_stored(reader), columns)

    yield from read_table(schema, batches, str(path), keys, options, problems)


def saved_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a folder that `datasets.Dataset.save_to_disk` wrote, in their order.

    Raises:
        ContentError: The folder is not whole.
    """
    try:
        state = msgspec.json.decode(regular(folder / STATE).read_bytes())
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ContentError(f"its {STATE} is not that of a saved dataset") from None
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise ContentError(f"its {STATE} names {name!r}, which is no file of the folder")
    return [folder / name for name in names]


def is_dataset(value: Any) -> bool:
    """Return whether a value is a `datasets.Dataset`.

    Raises:
        UsageError: It is a dict of them; each split is a set of its own.
    """
    # Whoever holds one has imported the library, which takes long.
    datasets = sys.modules.get("datasets")
    if datasets is None:
        return False
    if isinstance(value, datasets.DatasetDict | datasets.IterableDatasetDict):
        splits = ", ".join(map(repr, value)) or "none"
        raise UsageError(
            f"a {type(value).__name__} is a dict of splits ({splits}); pass one of them: predictions[split]"
        )
    return isinstance(value, datasets.Dataset)


def read_dataset(dataset: Any, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a `datasets.Dataset` with the columns of native Parquet; rows that were selected count, in their order."""

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        rows = dataset.select_columns(columns).with_format("arrow")
        parts = (table.to_batches() for table in rows.iter(BATCH_ROWS))
        return _sliced((batch for part in parts for batch in part), columns)

    schema = dataset.features.arrow_schema
    yield from read_table(schema, batches, "dataset", keys, options, problems)


def _stored(reader: Any) -> Iterable[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(k) for k in range(reader.num_record_batches))
    return reader  # type: ignore[no-any-return]


def _sliced(batches: Iterable[pa.RecordBatch], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for whole in batches:
        batch = whole.select(columns)
        # The offsets of a damaged file would lead outside of its memory.
        batch.validate(full=True)
        for first in range(0, len(batch), BATCH_ROWS):
            yield batch.slice(first, BATCH_ROWS)
