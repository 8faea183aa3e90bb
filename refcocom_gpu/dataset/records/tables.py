"""Columns in, the flat tables of a dataset out; with the small helpers that every reader of records uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from refcocom_gpu.errors import SHOWN, DatasetError, RLEError
from refcocom_gpu.masks.rle import check_counts


class Columns(NamedTuple):
    """Records as flat tables, not yet checked against each other.

    Attributes:
        images: `image_id` int64, `file_name` string, `meta_height` int64 and `meta_width` int64
            (0 where not stated).
        samples: `sample_id` int64, `image` int64 (row of `images`), `category` string,
            `supercategory` string, `height` int64, `width` int64, `counts` large_binary, `label`
            string, `bbox` list<double> (x, y, w, h; null where not stated), `ref_id` int64 and
            `ann_id` int64 (null where not stated), `no_target` bool (its expressions refer to nothing).
        examples: `sample` int64 (row of `samples`), `sentence_idx` int64, `sentence` string,
            `sent_id` int64 (null where not stated).
    """

    images: pa.Table
    samples: pa.Table
    examples: pa.Table


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Join the columns of consecutive parts of a dataset; references to rows are shifted to match.

    Args:
        parts: At least one.
    """
    n_images = n_samples = 0
    shifted = []
    for part in parts:
        shifted.append(
            Columns(
                part.images,
                _shift(part.samples, "image", n_images),
                _shift(part.examples, "sample", n_samples),
            )
        )
        n_images += part.images.num_rows
        n_samples += part.samples.num_rows
    return Columns(
        *(pa.concat_tables(tables).combine_chunks() for tables in zip(*shifted, strict=True))
    )


def _shift(table: pa.Table, column: str, by: int) -> pa.Table:
    index = table.schema.get_field_index(column)
    return table.set_column(index, column, pc.add(table[column], pa.scalar(by, pa.int64())))


def images_table(*columns: pa.Array) -> pa.Table:
    """Make `Columns.images` from its columns in order."""
    return pa.table(columns, names=["image_id", "file_name", "meta_height", "meta_width"])


def samples_table(
    *columns: pa.Array,
    no_target: pa.Array,
    ref_id: pa.Array | None = None,
    ann_id: pa.Array | None = None,
) -> pa.Table:
    """Make `Columns.samples` from its columns in order; the ids of the original sets are null where none are given."""
    names = ["sample_id", "image", "category", "supercategory", "height", "width", "counts"]
    names += ["label", "bbox", "ref_id", "ann_id", "no_target"]
    ids = [_ids(column, len(columns[0])) for column in (ref_id, ann_id)]
    return pa.table([*columns, *ids, no_target], names=names)


def examples_table(*columns: pa.Array, sent_id: pa.Array | None = None) -> pa.Table:
    """Make `Columns.examples` from its columns in order; `sent_id` is null where it is not given."""
    names = ["sample", "sentence_idx", "sentence", "sent_id"]
    return pa.table([*columns, _ids(sent_id, len(columns[0]))], names=names)


def _ids(column: pa.Array | None, length: int) -> pa.Array:
    return pa.nulls(length, pa.int64()) if column is None else column


BOX = pa.list_(pa.float64())
"""The type of `samples.bbox`."""


def is_box(values: Sequence[Any]) -> bool:
    """Tell whether numbers can be x, y, w, h: there are four, and all are finite."""
    return len(values) == 4 and all(map(math.isfinite, values))


def compress(runs: Any) -> bytes:
    """Write run lengths as COCO's compressed string."""
    try:
        return check_counts(runs)
    except RLEError as error:
        raise DatasetError(f"mask.counts: {error}") from None


def listed(names: Iterable[str]) -> str:
    """Join names for an error message."""
    return ", ".join(names) or "none"


def raise_problems(problems: Sequence[str], where: str, what: str) -> None:
    """Raise one error for all mistakes in a source, if there are any.

    Args:
        problems: One message per mistake, each beginning with its place.
        where: What to call the source.
        what: What is malformed, such as `record`.

    Raises:
        DatasetError: There are mistakes; the first 20 are shown, all are counted.
    """
    if problems:
        more = f"\n  … and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        shown = "\n  ".join(problems[:SHOWN])
        raise DatasetError(f"{where}: {len(problems):,} malformed {what}(s)\n  {shown}{more}")
