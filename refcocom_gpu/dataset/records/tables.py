"""The flat tables that every reader of records makes, and what the readers share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from refcocom_gpu.errors import SHOWN, DatasetError, RLEError
from refcocom_gpu.masks.rle import check_counts


class Columns(NamedTuple):
    """Records as flat tables, before anything about them is checked across records.

    Attributes:
        images: `image_id` int64, `file_name` string, `meta_height` int64 and `meta_width` int64
            (0: not stated).
        samples: `sample_id` int64, `image` int64 (row of `images`), `category` string,
            `supercategory` string, `height` int64, `width` int64, `counts` large_binary, `label`
            string, `bbox` list<double> (x, y, w, h; null where it is not stated).
        examples: `sample` int64 (row of `samples`), `sentence_idx` int64, `sentence` string.
    """

    images: pa.Table
    samples: pa.Table
    examples: pa.Table


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Join the columns of consecutive pieces of a dataset; row references are shifted to match.

    Args:
        parts: At least one piece.
    """
    images = samples = 0
    shifted = []
    for part in parts:
        shifted.append(
            Columns(
                part.images,
                _shift(part.samples, "image", images),
                _shift(part.examples, "sample", samples),
            )
        )
        images += part.images.num_rows
        samples += part.samples.num_rows
    return Columns(
        *(pa.concat_tables(tables).combine_chunks() for tables in zip(*shifted, strict=True))
    )


def _shift(table: pa.Table, column: str, by: int) -> pa.Table:
    index = table.schema.get_field_index(column)
    return table.set_column(index, column, pc.add(table[column], pa.scalar(by, pa.int64())))


def images_table(*columns: pa.Array) -> pa.Table:
    """`Columns.images` of its columns in order."""
    return pa.table(columns, names=["image_id", "file_name", "meta_height", "meta_width"])


def samples_table(*columns: pa.Array) -> pa.Table:
    """`Columns.samples` of its columns in order."""
    names = ["sample_id", "image", "category", "supercategory", "height", "width", "counts"]
    names += ["label", "bbox"]
    return pa.table(columns, names=names)


def examples_table(*columns: pa.Array) -> pa.Table:
    """`Columns.examples` of its columns in order."""
    return pa.table(columns, names=["sample", "sentence_idx", "sentence"])


BOX = pa.list_(pa.float64())
"""The type of `samples.bbox`."""


def is_box(values: Sequence[Any]) -> bool:
    """Whether numbers can be x, y, w, h: four, and finite."""
    return len(values) == 4 and all(map(math.isfinite, values))


def compress(runs: Any) -> bytes:
    """COCO's compressed string of run lengths."""
    try:
        return check_counts(runs)
    except RLEError as error:
        raise DatasetError(f"mask.counts: {error}") from None


def listed(names: Iterable[str]) -> str:
    """Names for an error message."""
    return ", ".join(names) or "none"


def first_line(error: BaseException) -> str:
    """What an error says, without its details."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def raise_problems(problems: Sequence[str], where: str, what: str) -> None:
    """One error for all mistakes of a source.

    Args:
        problems: Each with its place.
        where: What to call the source.
        what: What is malformed, such as `record`.

    Raises:
        DatasetError: When there is any; the first 20 are shown, all counted.
    """
    if problems:
        more = f"\n  … and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        shown = "\n  ".join(problems[:SHOWN])
        raise DatasetError(f"{where}: {len(problems):,} malformed {what}(s)\n  {shown}{more}")
