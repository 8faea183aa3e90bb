"""Image records as Arrow in, flat columns out: nothing becomes a Python object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refcocom_gpu.dataset.records.tables import (
    BOX,
    Columns,
    compress,
    concatenate,
    examples_table,
    first_line,
    images_table,
    is_box,
    listed,
    samples_table,
)
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

RECORD_FIELDS = ("image_id", "file_name", "image_meta", "samples")
"""Fields of an image record that are read; the picture is not among them."""

UNREAD_SAMPLE_FIELDS = ("image_id",)
"""Published fields of a sample that nothing needs; any other is read, for errors to name."""


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
    records = {name: batch.column(name) for name in batch.schema.names}
    meta = _children(records["image_meta"]) if "image_meta" in records else {}
    image_id = records.get("image_id", meta.get("image_id"))
    missing = [
        name
        for name, found in (("image_id", image_id), ("samples", records.get("samples")))
        if found is None
    ]
    if missing:
        raise DatasetError(
            f"{where}: missing {listed(missing)} in the records; fields found: {listed(records)}"
        )
    image_id = pc.cast(image_id, pa.int64())
    _refuse_null(image_id, "image_id", lambda row: f"{where}: image record {first + row}")

    lengths, samples = _explode(records["samples"], where, first)
    mask = samples.get("mask")
    mask = mask if isinstance(mask, dict) else _children(mask) if mask is not None else {}
    found = {**samples, **{f"mask.{name}": column for name, column in mask.items()}}
    required = ("id", "sentences", "mask.counts", "mask.size")
    missing = [name for name in required if name not in found]
    if missing:
        raise DatasetError(
            f"{where}: missing {listed(missing)} in the samples; fields found: {listed(found)}"
        )

    image = np.repeat(np.arange(batch.num_rows), lengths)

    def record(row: int) -> str:
        return f"{where}: image record {first + image[row]} (image_id {image_id[int(image[row])]})"

    sample_id = samples["id"].cast(pa.int64())
    _refuse_null(sample_id, "id", lambda row: f"{record(row)}: a sample")

    def sample(row: int) -> str:
        return f"{record(row)}: sample {sample_id[row]}"

    if isinstance(samples["mask"], pa.Array):
        _refuse_null(samples["mask"], "mask", sample)
    for name in ("mask.size", "mask.counts", "sentences"):
        _refuse_null(found[name], name, sample)
    pairs = _lengths(found["mask.size"]) != 2
    if pairs.any():
        row = int(pairs.argmax())
        raise DatasetError(
            f"{sample(row)}: mask.size is {found['mask.size'][row].as_py()}, not [height, width]"
        )
    size = found["mask.size"].flatten().cast(pa.int64()).fill_null(0)

    counts = found["mask.counts"]
    if _is_list(counts.type):
        strings = []
        for row, runs in enumerate(counts):
            try:
                strings.append(compress(runs.as_py()))
            except DatasetError as error:
                raise DatasetError(f"{sample(row)}: {error}") from None
        counts = pa.array(strings, pa.large_binary())

    if not _is_list(samples["sentences"].type):
        raise DatasetError(
            f"{where}: sentences must be a list of strings, not {samples['sentences'].type}"
        )
    sentences = samples["sentences"].flatten().cast(pa.string())
    per_sample = _lengths(samples["sentences"])
    owner = np.repeat(np.arange(len(sample_id)), per_sample)
    _refuse_null(sentences, "sentence", lambda row: sample(int(owner[row])))
    starts = np.cumsum(per_sample) - per_sample

    n = len(sample_id)
    return Columns(
        images_table(
            image_id,
            _text(records.get("file_name"), batch.num_rows),
            *(
                meta[k].cast(pa.int64()).fill_null(0)
                if k in meta
                else from_numpy(np.zeros(batch.num_rows, np.int64))
                for k in _META_SIZE
            ),
        ),
        samples_table(
            sample_id,
            from_numpy(image),
            _text(samples.get("category"), n),
            _text(samples.get("supercategory"), n),
            size.take(from_numpy(np.arange(0, 2 * n, 2))),
            size.take(from_numpy(np.arange(1, 2 * n, 2))),
            counts.cast(pa.large_binary()),
            _text(samples.get("label"), n),
            _boxes(samples.get("bbox"), n, sample),
        ),
        examples_table(
            from_numpy(owner),
            from_numpy(np.arange(len(owner)) - starts[owner]),
            sentences,
        ),
    )


_META_SIZE = ("height", "width")


def _explode(samples: pa.Array, where: str, first: int) -> tuple[Any, dict[str, Any]]:
    """Samples per image, int64 [images], and a flat column (of `mask`, maybe a dict) per field."""
    if _is_list(samples.type):
        return _lengths(samples), _children(samples.flatten())
    if not pa.types.is_struct(samples.type):
        raise DatasetError(f"{where}: samples must be a list of records, not {samples.type}")
    fields = {
        name: column
        for name, column in _children(samples).items()
        if name not in UNREAD_SAMPLE_FIELDS
    }
    lists = dict(fields)
    if isinstance(fields.get("mask"), pa.StructArray):
        lists.pop("mask")
        lists.update({f"mask.{name}": column for name, column in _children(fields["mask"]).items()})
    lengths = np.zeros(len(samples), np.int64)
    for i, (name, column) in enumerate(lists.items()):
        if not _is_list(column.type):
            raise DatasetError(f"{where}: samples.{name} must be a list, not {column.type}")
        if i and not np.array_equal(_lengths(column), lengths):
            row = first + int((_lengths(column) != lengths).argmax())
            raise DatasetError(
                f"{where}: image record {row}: the lists in samples differ in length at {name}"
            )
        lengths = _lengths(column)
    flat: dict[str, Any] = {name: lists[name].flatten() for name in fields if name in lists}
    if "mask" in fields and "mask" not in flat:
        flat["mask"] = {
            name: column.flatten() for name, column in _children(fields["mask"]).items()
        }
    return lengths, flat


def _children(struct: pa.Array) -> dict[str, pa.Array]:
    if not pa.types.is_struct(struct.type):
        return {}
    return {field.name: pc.struct_field(struct, field.name) for field in struct.type}


def _is_list(kind: pa.DataType) -> bool:
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, test)(kind) for test in tests)


def _lengths(lists: pa.Array) -> Any:
    return to_numpy(pc.list_value_length(lists).fill_null(0)).astype(np.int64)


def _text(column: pa.Array | None, length: int) -> pa.Array:
    column = pa.nulls(length, pa.string()) if column is None else column.cast(pa.string())
    return column.fill_null("")


def _boxes(column: pa.Array | None, length: int, who: Any) -> pa.Array:
    if column is None or pa.types.is_null(column.type):
        return pa.nulls(length, BOX)
    if not _is_list(column.type):
        raise DatasetError(f"{who(0)}: bbox is {column.type}, not a list x, y, w, h")
    column = column.cast(BOX)
    for row, box in enumerate(column.to_pylist()):
        if box is not None and (None in box or not is_box(box)):
            raise DatasetError(f"{who(row)}: bbox is {box}, not four numbers x, y, w, h")
    return column


def _refuse_null(column: pa.Array, name: str, who: Any) -> None:
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        more = f" (and {column.null_count - 1:,} more)" if column.null_count > 1 else ""
        raise DatasetError(f"{who(row)}: {name} is null{more}")
