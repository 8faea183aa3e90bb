"""Masks as RLE strings in, the native table (version 1) out, and back: whole columns, no Python object per mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.masks.rle import Column, joined
from refcocom_gpu.predictions.labels import FIELD
from refcocom_gpu.utils.arrow import from_numpy
from refcocom_gpu.utils.files import PARQUET

BLOCK = 8192
"""Rows per chunk of a table: the strings of a chunk stay far below the 2 GiB that an Arrow string column holds."""


FILE = {**PARQUET, "compression": "lz4", "use_dictionary": ["sentence"]}
"""How native Parquet is written. With LZ4 a file is 1.4 times as long as with zstd, and scored in a tenth to a quarter
less time. Without compression it is twice as long and gains little more, if anything: there are more bytes to hash, to
check and to bring into the cache (`python -m benchmarks files`)."""


def native_schema(
    keys: Sequence[str], header: Mapping[str, Any], *, labelled: bool = False
) -> pa.Schema:
    """Return the schema of native Parquet: of boxes, if the header declares their form, or of masks.

    Args:
        keys: Names of its key columns.
        header: From `make_header`; the metadata.
        labelled: Whether rows say if their expression has no target.
    """
    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    are_boxes = "box_format" in header
    return pa.schema(
        [
            *((name, pa.int64()) for name in keys),
            ("sentence", pa.string()),
            ("box", pa.list_(pa.float64())) if are_boxes else ("segmentation", mask),
            *([(FIELD, pa.bool_())] if labelled else []),
        ],
        metadata={key: str(value) for key, value in header.items()},
    )


def native_table(
    keys: Mapping[str, NDArray[np.int64]],
    sentences: pa.ChunkedArray,
    sizes: NDArray[np.int32],
    strings: Column,
    header: Mapping[str, Any],
    labels: pa.Array | None = None,
) -> pa.Table:
    """Make a native table.

    Args:
        keys: [B] of each key column.
        sentences: B strings.
        sizes: [B, 2] H and W.
        strings: B compressed strings.
        header: As of `native_schema`.
        labels: B bools or nulls: whether their expressions have no target; None where no prediction says so.
    """
    schema = native_schema(tuple(keys), header, labelled=labels is not None)
    kind = schema.field("segmentation").type
    blocks = [_masks(sizes, strings, first, kind) for first in range(0, len(sizes), BLOCK)]
    columns = [
        *map(from_numpy, keys.values()),
        sentences.cast(pa.string()),
        pa.chunked_array(blocks, kind),
        *([] if labels is None else [labels]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _masks(sizes: NDArray[np.int32], strings: Column, first: int, kind: pa.StructType) -> pa.Array:
    rows = slice(first, first + BLOCK)
    n = len(sizes[rows])
    starts = strings.offsets[first : first + n + 1]
    data = np.ascontiguousarray(strings.data[starts[0] : starts[-1]])
    offsets = (starts - starts[0]).astype(np.int32)
    counts = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data))
    pairs = pa.ListArray.from_arrays(
        from_numpy(np.arange(0, 2 * n + 1, 2, dtype=np.int32)), from_numpy(sizes[rows].reshape(-1))
    )
    return pa.StructArray.from_arrays([pairs, counts], fields=list(kind))


def strings_of(masks: pa.ChunkedArray) -> Column:
    """Return the strings in the column `segmentation` of a table that `native_table` made."""
    parts = []
    for chunk in masks.chunks:
        counts = chunk.field("counts").cast(pa.large_binary())
        _, offsets, data = counts.buffers()
        starts = np.frombuffer(offsets, np.int64)[counts.offset : counts.offset + len(counts) + 1]
        held = np.frombuffer(data or b"", np.uint8)[starts[0] : starts[-1]]
        parts.append(Column(held, starts - starts[0]))
    return joined(parts)
