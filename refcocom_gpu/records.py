"""Image records in either published shape in, flat columns of images, samples and sentences out.

Arrow input never becomes Python objects; JSON lines are decoded into typed structs, whose mistakes
are collected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refcocom_gpu.columns import from_numpy, to_numpy
from refcocom_gpu.errors import SHOWN, DatasetError, RLEError
from refcocom_gpu.rle import check_counts

RECORD_FIELDS = ("image_id", "file_name", "image_meta", "samples")
"""Fields of an image record that are read; the picture is not among them."""

UNREAD_SAMPLE_FIELDS = ("image_id", "label", "bbox")
"""Published fields of a sample that scoring does without; any other is read, for errors to name."""


class Columns(NamedTuple):
    """Records as flat tables, before anything about them is checked across records.

    Attributes:
        images: `image_id` int64, `file_name` string, `meta_height` int64 and `meta_width` int64
            (0: not stated).
        samples: `sample_id` int64, `image` int64 (row of `images`), `category` string,
            `supercategory` string, `height` int64, `width` int64, `counts` large_binary.
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


# Arrow --------------------------------------------------------------------------------------------


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
            raise DatasetError(f"{where}: {_first_line(error)} (in {table.schema.names})") from None
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
            f"{where}: missing {_listed(missing)} in the records; fields found: {_listed(records)}"
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
            f"{where}: missing {_listed(missing)} in the samples; fields found: {_listed(found)}"
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
                strings.append(_compress(runs.as_py()))
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
        _images(
            image_id,
            _text(records.get("file_name"), batch.num_rows),
            *(
                meta[k].cast(pa.int64()).fill_null(0)
                if k in meta
                else from_numpy(np.zeros(batch.num_rows, np.int64))
                for k in _META_SIZE
            ),
        ),
        _samples(
            sample_id,
            from_numpy(image),
            _text(samples.get("category"), n),
            _text(samples.get("supercategory"), n),
            size.take(from_numpy(np.arange(0, 2 * n, 2))),
            size.take(from_numpy(np.arange(1, 2 * n, 2))),
            counts.cast(pa.large_binary()),
        ),
        _examples(
            from_numpy(owner),
            from_numpy(np.arange(len(owner)) - starts[owner]),
            sentences,
        ),
    )


_META_SIZE = ("height", "width")


def _images(*columns: pa.Array) -> pa.Table:
    return pa.table(columns, names=["image_id", "file_name", "meta_height", "meta_width"])


def _samples(*columns: pa.Array) -> pa.Table:
    names = ["sample_id", "image", "category", "supercategory", "height", "width", "counts"]
    return pa.table(columns, names=names)


def _examples(*columns: pa.Array) -> pa.Table:
    return pa.table(columns, names=["sample", "sentence_idx", "sentence"])


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


def _refuse_null(column: pa.Array, name: str, who: Any) -> None:
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        more = f" (and {column.null_count - 1:,} more)" if column.null_count > 1 else ""
        raise DatasetError(f"{who(row)}: {name} is null{more}")


def _compress(runs: Any) -> bytes:
    """COCO's compressed string of run lengths."""
    try:
        return check_counts(runs)
    except RLEError as error:
        raise DatasetError(f"mask.counts: {error}") from None


# JSON ---------------------------------------------------------------------------------------------

_Side = Annotated[int, msgspec.Meta(ge=1)]
_Run = Annotated[int, msgspec.Meta(ge=0)]


class _Mask(msgspec.Struct):
    size: tuple[_Side, _Side]
    counts: str | list[_Run]


class _Sample(msgspec.Struct):
    id: int
    sentences: list[str]
    mask: _Mask
    category: str | None = None
    supercategory: str | None = None


class _Meta(msgspec.Struct):
    image_id: int | None = None
    height: int | None = None
    width: int | None = None


class _Record(msgspec.Struct):
    samples: list[_Sample]
    image_id: int | None = None
    file_name: str | None = None
    image_meta: _Meta | None = None


def from_jsonl(text: bytes, where: str) -> Columns:
    """Flatten image records held by JSON lines.

    Args:
        text: One image record per line, in either shape; empty lines are skipped, unknown fields
            ignored.
        where: What to call the file in an error message.

    Returns:
        The flat columns.

    Raises:
        DatasetError: Lines that are no JSON or no record, each with its number; the first 20 are
            shown, all counted.
    """
    decode = msgspec.json.Decoder(_Record, strict=False).decode
    lines = enumerate(text.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1)
    return _from_structs(
        ((f"{where}:{number}", line) for number, line in lines if line.strip()),
        decode,
        lambda line: msgspec.json.decode(line),
        where,
    )


def from_records(records: Sequence[Mapping[str, Any]], where: str) -> Columns:
    """Flatten image records held by Python.

    Args:
        records: Image records in either shape.
        where: What to call them in an error message.

    Returns:
        The flat columns.

    Raises:
        DatasetError: Records that lack a field or hold a wrong type; the first 20 are shown, all
            counted.

    Examples:
        >>> mask = {"size": [2, 3], "counts": [1, 2, 3]}
        >>> record = {"image_id": 7, "samples": [{"id": 1, "sentences": ["the dog"], "mask": mask}]}
        >>> from_records([record], "here").samples["counts"][0].as_py()
        b'123'
    """
    return _from_structs(
        ((f"{where}: record {row}", record) for row, record in enumerate(records)),
        lambda record: msgspec.convert(record, _Record, strict=False),
        lambda record: record,
        where,
    )


def _from_structs(items: Iterable[tuple[str, Any]], decode: Any, raw: Any, where: str) -> Columns:
    images: list[tuple[int, str, int | None, int | None]] = []
    samples: list[tuple[int, int, str, str, int, int, bytes]] = []
    examples: list[tuple[int, int, str]] = []
    problems: list[str] = []
    for place, item in items:
        try:
            record: _Record = decode(item)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            problems.append(f"{place}: {_explain(error, item, raw)}")
            continue
        meta = record.image_meta or _Meta()
        image_id = record.image_id if record.image_id is not None else meta.image_id
        if image_id is None:
            problems.append(f"{place}: missing image_id; fields found: {_listed(raw(item))}")
            continue
        for sample in record.samples:
            examples += [(len(samples), i, sentence) for i, sentence in enumerate(sample.sentences)]
            runs = sample.mask.counts
            samples.append((
                sample.id,
                len(images),
                sample.category or "",
                sample.supercategory or "",
                *sample.mask.size,
                runs.encode() if isinstance(runs, str) else _compress(runs),
            ))  # fmt: skip
        images.append((image_id, record.file_name or "", meta.height or 0, meta.width or 0))
    if problems:
        more = f"\n  … and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        shown = "\n  ".join(problems[:SHOWN])
        raise DatasetError(f"{where}: {len(problems):,} malformed record(s)\n  {shown}{more}")
    i, s, b = pa.int64(), pa.string(), pa.large_binary()
    try:
        return Columns(
            _images(*_transpose(images, (i, s, i, i))),
            _samples(*_transpose(samples, (i, i, s, s, i, i, b))),
            _examples(*_transpose(examples, (i, i, s))),
        )
    except (OverflowError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{where}: {_first_line(error)}") from None


def _transpose(
    rows: Sequence[tuple[Any, ...]], kinds: tuple[pa.DataType, ...]
) -> Iterator[pa.Array]:
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [[]] * len(kinds)
    return (pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True))


def _explain(error: Exception, item: Any, raw: Any) -> str:
    """The decoder's message, its sample and, for an absent field, the fields that are there."""
    message = _first_line(error)
    if not isinstance(error, msgspec.ValidationError):
        return message
    node = raw(item)
    for name, position in re.findall(r"\.(\w+)|\[(\d+)\]", message.partition("`$")[2]):
        node = node[int(position)] if position else node.get(name)
        if isinstance(node, Mapping) and "id" in node:
            message = f"sample {node['id']}: {message}"
    if "missing required field" in message and isinstance(node, Mapping):
        message += f"; fields found: {_listed(node)}"
    return message


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
