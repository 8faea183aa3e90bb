"""Image records as Arrow in, flat columns out; no record becomes a Python object."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refcocom_gpu.dataset.records.tables import (
    BOX,
    Columns,
    compress,
    concatenate,
    examples_table,
    images_table,
    is_box,
    listed,
    samples_table,
)
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.arrow import from_numpy, to_numpy
from refcocom_gpu.utils.text import first_line

RECORD_FIELDS = ("image_id", "file_name", "image_meta", "samples")
"""The fields of an image record that are read; the picture is not among them."""

UNREAD_SAMPLE_FIELDS = ("image_id",)
"""The published field of a sample that nothing needs. Others are read, so that error messages can list them."""

Ints = NDArray[np.int64]
NameOf = Callable[[int], str]
"""From a row number to the name of the row in an error message."""


def from_arrow(table: pa.Table, where: str) -> Columns:
    """Flatten image records held by Arrow.

    `samples` may be a list of structs or, as older versions of `datasets` stored it, a struct of
    lists. Strings may be of any Arrow string, binary or dictionary type; `mask.counts` may also be
    a list of runs.

    Args:
        table: Image records, one per row; any chunking, any slice.
        where: What to call the table in an error message, such as its path.

    Returns:
        The flat columns.

    Raises:
        DatasetError: A required field is absent or null, or has a type that cannot be read.
    """
    batches = table.to_batches()
    if not batches:
        raise DatasetError(f"{where}: no records")
    parts = []
    first = 0
    for batch in batches:
        try:
            parts.append(_from_batch(batch, where, first))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise DatasetError(f"{where}: {first_line(error)} (in {table.schema.names})") from None
        first += batch.num_rows
    return concatenate(parts)


def _from_batch(batch: pa.RecordBatch, where: str, first: int) -> Columns:
    """Flatten one batch, whose first record is record `first` of the table."""
    record = {name: batch.column(name) for name in batch.schema.names}
    meta = _children(record["image_meta"]) if "image_meta" in record else {}
    if "image_id" in meta:
        record.setdefault("image_id", meta["image_id"])
    _require(("image_id", "samples"), record, where, "records")
    image_id = record["image_id"].cast(pa.int64())
    _refuse_null(image_id, "image_id", lambda row: f"{where}: image record {first + row}")

    lengths, sample = _explode(record["samples"], where, first)
    _require(("id", "sentences", "mask.counts", "mask.size"), sample, where, "samples")
    image = np.repeat(np.arange(batch.num_rows), lengths)
    sample_id = sample["id"].cast(pa.int64())

    def image_name(row: int) -> str:
        return f"{where}: image record {first + image[row]} (image_id {image_id[int(image[row])]})"

    def sample_name(row: int) -> str:
        return f"{image_name(row)}: sample {sample_id[row]}"

    _refuse_null(sample_id, "id", lambda row: f"{image_name(row)}: a sample")
    for name in ("mask", "mask.size", "mask.counts", "sentences"):
        if name in sample:
            _refuse_null(sample[name], name, sample_name)
    return Columns(
        images_table(
            image_id,
            _text(record.get("file_name"), batch.num_rows),
            _meta_size(meta.get("height"), batch.num_rows),
            _meta_size(meta.get("width"), batch.num_rows),
        ),
        samples_table(
            sample_id,
            from_numpy(image),
            _text(sample.get("category"), len(image)),
            _text(sample.get("supercategory"), len(image)),
            *_sizes(sample["mask.size"], sample_name),
            _counts(sample["mask.counts"], sample_name),
            _text(sample.get("label"), len(image)),
            _boxes(sample.get("bbox"), len(image), sample_name),
            no_target=_flags(sample.get("no_target"), len(image)),
        ),
        _examples(sample["sentences"], where, sample_name),
    )


def _explode(samples: pa.Array, where: str, first: int) -> tuple[Ints, dict[str, pa.Array]]:
    """Flatten the samples of each image.

    Args:
        samples: A list of structs, or a struct of lists, per image.
        where: What to call the table in an error message.
        first: The number of the first image record.

    Returns:
        Samples per image, int64 [images], and a flat column per field, such as `id` and `mask.size`.

    Raises:
        DatasetError: The samples have another type, or their lists differ in length.
    """
    if _is_list(samples.type):
        return _lengths(samples), _with_mask_fields(_children(samples.flatten()))
    if not pa.types.is_struct(samples.type):
        raise DatasetError(f"{where}: samples must be a list of records, not {samples.type}")
    lists = {
        name: column
        for name, column in _children(samples).items()
        if name not in UNREAD_SAMPLE_FIELDS
    }
    if isinstance(lists.get("mask"), pa.StructArray):
        lists = _with_mask_fields(lists)
        del lists["mask"]
    lengths = np.zeros(len(samples), np.int64)
    for i, (name, column) in enumerate(lists.items()):
        if not _is_list(column.type):
            raise DatasetError(f"{where}: samples.{name} must be a list, not {column.type}")
        previous, lengths = lengths, _lengths(column)
        if i and not np.array_equal(lengths, previous):
            row = first + int((lengths != previous).argmax())
            raise DatasetError(
                f"{where}: image record {row}: the lists in samples differ in length at {name}"
            )
    return lengths, _with_mask_fields({name: column.flatten() for name, column in lists.items()})


def _with_mask_fields(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Add the fields of `mask` as columns of their own, such as `mask.size`."""
    mask = _children(columns["mask"]) if "mask" in columns else {}
    return {**columns, **{f"mask.{name}": column for name, column in mask.items()}}


def _children(struct: pa.Array) -> dict[str, pa.Array]:
    if not pa.types.is_struct(struct.type):
        return {}
    return {field.name: pc.struct_field(struct, field.name) for field in struct.type}


def _require(
    names: tuple[str, ...], columns: Mapping[str, pa.Array], where: str, what: str
) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DatasetError(
            f"{where}: missing {listed(missing)} in the {what}; fields found: {listed(columns)}"
        )


def _refuse_null(column: pa.Array, name: str, name_of: NameOf) -> None:
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        more = f" (and {column.null_count - 1:,} more)" if column.null_count > 1 else ""
        raise DatasetError(f"{name_of(row)}: {name} is null{more}")


def _is_list(kind: pa.DataType) -> bool:
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, test)(kind) for test in tests)


def _lengths(lists: pa.Array) -> Ints:
    return to_numpy(pc.list_value_length(lists).fill_null(0)).astype(np.int64)


def _text(column: pa.Array | None, length: int) -> pa.Array:
    column = pa.nulls(length, pa.string()) if column is None else column.cast(pa.string())
    return column.fill_null("")


def _flags(column: pa.Array | None, length: int) -> pa.Array:
    column = pa.nulls(length, pa.bool_()) if column is None else column.cast(pa.bool_())
    return column.fill_null(False)


def _meta_size(column: pa.Array | None, length: int) -> pa.Array:
    """Return a side of each image from `image_meta`; 0 where it is not stated."""
    if column is None:
        return from_numpy(np.zeros(length, np.int64))
    return column.cast(pa.int64()).fill_null(0)


def _sizes(sizes: pa.Array, name_of: NameOf) -> tuple[pa.Array, pa.Array]:
    """Split the sizes into heights and widths, int64; 0 where a number is null."""
    wrong = _lengths(sizes) != 2
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(
            f"{name_of(row)}: mask.size is {sizes[row].as_py()}, not [height, width]"
        )
    numbers = sizes.flatten().cast(pa.int64()).fill_null(0)
    height_at = np.arange(0, len(numbers), 2)
    return numbers.take(from_numpy(height_at)), numbers.take(from_numpy(height_at + 1))


def _counts(counts: pa.Array, name_of: NameOf) -> pa.Array:
    """Convert counts to compressed strings, large_binary."""
    if not _is_list(counts.type):
        return counts.cast(pa.large_binary())
    strings = []
    for row, runs in enumerate(counts):
        try:
            strings.append(compress(runs.as_py()))
        except DatasetError as error:
            raise DatasetError(f"{name_of(row)}: {error}") from None
    return pa.array(strings, pa.large_binary())


def _boxes(boxes: pa.Array | None, length: int, name_of: NameOf) -> pa.Array:
    if boxes is None or pa.types.is_null(boxes.type):
        return pa.nulls(length, BOX)
    if not _is_list(boxes.type):
        raise DatasetError(f"{name_of(0)}: bbox is {boxes.type}, not a list x, y, w, h")
    boxes = boxes.cast(BOX)
    for row, box in enumerate(boxes.to_pylist()):
        if box is not None and (None in box or not is_box(box)):
            raise DatasetError(f"{name_of(row)}: bbox is {box}, not four numbers x, y, w, h")
    return boxes


def _examples(sentences: pa.Array, where: str, name_of: NameOf) -> pa.Table:
    """Make the table of examples from the sentences of each sample."""
    if not _is_list(sentences.type):
        raise DatasetError(f"{where}: sentences must be a list of strings, not {sentences.type}")
    per_sample = _lengths(sentences)
    sample = np.repeat(np.arange(len(sentences)), per_sample)
    texts = sentences.flatten().cast(pa.string())
    _refuse_null(texts, "sentence", lambda row: name_of(int(sample[row])))
    first_example = np.cumsum(per_sample) - per_sample
    sentence_idx = np.arange(len(sample)) - first_example[sample]
    return examples_table(from_numpy(sample), from_numpy(sentence_idx), texts)
