"""Flat columns in, the checked tables of a `Dataset` out, with a fingerprint of their content."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.dataset.records import Columns, Invalid
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

FINGERPRINT_LAYOUT = b"refcocom-dataset-1"
"""Changes whenever the order or the encoding of the hashed content changes."""


class Checked(NamedTuple):
    """The checked tables, as `Dataset` describes them, and a fingerprint of their content."""

    images: pa.Table
    samples: pa.Table
    examples: pa.Table
    fingerprint: str


def check_invalid(invalid: Invalid, policy: str, source: str) -> None:
    """Refuse references that cannot be scored, unless they are to be dropped, which is said.

    Args:
        invalid: Those of a source.
        policy: `error` or `drop`.
        source: What to call the source in a message.

    Raises:
        DatasetError: There are some, and the policy is `error`.

    Warns:
        UserWarning: Some are dropped.
    """
    if not invalid.n:
        return
    found = f"{source}: {invalid.describe()}"
    if policy == "error":
        raise DatasetError(f"{found}; invalid_references='drop' goes on without them")
    warnings.warn(f"{found}; they are dropped", UserWarning, stacklevel=3)


def check_columns(columns: Columns, unique: str, source: str) -> Checked:
    """Check what no single record shows: ids, sizes and the presence of examples.

    Args:
        columns: The flat columns of a source.
        unique: The id that must not repeat, `sample_id` or `image_id`.
        source: What to call the source in an error message.

    Raises:
        DatasetError: There is no example, an id repeats, or a mask has no pixels.

    Warns:
        UserWarning: `image_meta` states another size than the masks of its image.
    """
    images, samples, examples = columns
    if not examples.num_rows:
        raise DatasetError(
            f"{source}: {images.num_rows:,} images, {samples.num_rows:,} samples, no sentence to score"
        )
    if unique == "sample_id":
        hint = "; if ids are per image, pass key='image_position'"
        _refuse_duplicates(to_numpy(samples["sample_id"]), f"{source}: sample id", hint)
    else:
        _refuse_duplicates(to_numpy(images["image_id"]), f"{source}: image_id", "")
    _refuse_empty_sizes(samples, source)
    difference = _size_difference(images, samples)
    if difference:
        warnings.warn(f"{source}: {difference}", UserWarning, stacklevel=3)
    image = to_numpy(samples["image"])
    first_sample = np.searchsorted(image, np.arange(images.num_rows))
    position = from_numpy(np.arange(samples.num_rows) - first_sample[image])
    samples = samples.add_column(2, "position", position)
    images = images.select(["image_id", "file_name"])
    return Checked(images, samples, examples, _fingerprint(images, samples, examples))


def _refuse_duplicates(ids: NDArray[np.int64], what: str, hint: str) -> None:
    values, counts = np.unique(ids, return_counts=True)
    repeated = values[counts > 1]
    if len(repeated):
        rows = np.flatnonzero(ids == repeated[0])[:2]
        more = f" (and {len(repeated) - 1:,} more ids repeat)" if len(repeated) > 1 else ""
        raise DatasetError(
            f"{what} {repeated[0]} is not unique: rows {rows[0]} and {rows[1]}{more}{hint}"
        )


def _refuse_empty_sizes(samples: pa.Table, source: str) -> None:
    heights, widths = to_numpy(samples["height"]), to_numpy(samples["width"])
    empty = (heights < 1) | (widths < 1)
    if empty.any():
        row = int(empty.argmax())
        raise DatasetError(
            f"{source}: sample {samples['sample_id'][row]}: "
            f"mask.size [{heights[row]}, {widths[row]}] is not two positive integers"
        )


def _size_difference(images: pa.Table, samples: pa.Table) -> str | None:
    """Say where `image_meta` states another size than the masks; None if they agree."""
    image = to_numpy(samples["image"])
    heights, widths = to_numpy(samples["height"]), to_numpy(samples["width"])
    meta_heights = to_numpy(images["meta_height"])[image]
    meta_widths = to_numpy(images["meta_width"])[image]
    # 0 means not stated.
    heights_differ = (meta_heights != 0) & (meta_heights != heights)
    widths_differ = (meta_widths != 0) & (meta_widths != widths)
    differ = heights_differ | widths_differ
    if not differ.any():
        return None
    row = int(differ.argmax())
    more = len(np.unique(image[differ])) - 1
    return (
        f"image {images['image_id'][int(image[row])]}: image_meta states {meta_heights[row]} × "
        f"{meta_widths[row]} (height × width), its mask {heights[row]} × {widths[row]}, which is used"
        + (f"; likewise {more:,} more" if more else "")
    )


def _fingerprint(images: pa.Table, samples: pa.Table, examples: pa.Table) -> str:
    """Hash the columns that a score depends on, as little-endian buffers; 32 hex digits."""
    digest = xxhash.xxh3_128(FINGERPRINT_LAYOUT)
    for table, names in (
        (images, ("image_id",)),
        (samples, ("sample_id", "image", "category", "supercategory", "height", "width", "counts")),
        (examples, ("sample", "sentence_idx", "sentence")),
    ):
        for name in names:
            for buffer in _canonical(table[name]):
                digest.update(buffer)
    return digest.hexdigest()


def _canonical(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield the row count and the values of a column; for strings, their offsets from 0 and their bytes."""
    yield len(column).to_bytes(8, "little")
    if pa.types.is_int64(column.type):
        yield to_numpy(column).astype("<i8", copy=False)
        return
    array = column.cast(pa.large_binary()).combine_chunks()
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    yield (bounds - bounds[0]).astype("<i8", copy=False)
    if data is not None:
        yield memoryview(data)[bounds[0] : bounds[-1]]
