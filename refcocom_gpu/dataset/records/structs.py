"""Image records as JSON lines or Python objects in, flat columns out; the mistakes of all records are collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from refcocom_gpu.dataset.records.tables import (
    BOX,
    Columns,
    compress,
    examples_table,
    images_table,
    is_box,
    listed,
    raise_problems,
    samples_table,
)
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.arrow import from_list
from refcocom_gpu.utils.text import first_line

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
    label: str | None = None
    bbox: list[float] | None = None
    no_target: bool | None = None


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
        text: One image record per line, in either shape. Empty lines and unknown fields are ignored.
        where: What to call the file in an error message.

    Returns:
        The flat columns.

    Raises:
        DatasetError: Some lines are not JSON or not a record. The first 20 are shown with their
            numbers, all are counted.
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
        DatasetError: Some records lack a field or hold a wrong type. The first 20 are shown, all
            are counted.

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


def _from_structs(
    items: Iterable[tuple[str, Any]],
    decode: Callable[[Any], _Record],
    raw: Callable[[Any], Any],
    where: str,
) -> Columns:
    """Flatten records.

    Args:
        items: Each record with its place.
        decode: Makes a typed record of an item.
        raw: Makes plain Python objects of an item, for error messages.
        where: What to call the source in an error message.
    """
    images: list[tuple[int, str, int | None, int | None]] = []
    samples: list[tuple[Any, ...]] = []
    examples: list[tuple[int, int, str]] = []
    problems: list[str] = []
    for place, item in items:
        try:
            record = decode(item)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            problems.append(f"{place}: {_explain(error, item, raw)}")
            continue
        meta = record.image_meta or _Meta()
        image_id = record.image_id if record.image_id is not None else meta.image_id
        if image_id is None:
            problems.append(f"{place}: missing image_id; fields found: {listed(raw(item))}")
            continue
        for sample in record.samples:
            examples += [(len(samples), i, sentence) for i, sentence in enumerate(sample.sentences)]
            if sample.bbox is not None and not is_box(sample.bbox):
                problems.append(
                    f"{place}: sample {sample.id}: bbox is {sample.bbox}, not four numbers x, y, w, h"
                )
            runs = sample.mask.counts
            samples.append((
                sample.id,
                len(images),
                sample.category or "",
                sample.supercategory or "",
                *sample.mask.size,
                runs.encode() if isinstance(runs, str) else compress(runs),
                sample.label or "",
                sample.bbox,
                bool(sample.no_target),
            ))  # fmt: skip
        images.append((image_id, record.file_name or "", meta.height or 0, meta.width or 0))
    raise_problems(problems, where, "record")
    number, text, binary = pa.int64(), pa.string(), pa.large_binary()
    sample_types = (number, number, text, text, number, number, binary, text, BOX, pa.bool_())
    try:
        *described, no_target = _transpose(samples, sample_types)
        return Columns(
            images_table(*_transpose(images, (number, text, number, number))),
            samples_table(*described, no_target=no_target),
            examples_table(*_transpose(examples, (number, number, text))),
        )
    except (OverflowError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{where}: {first_line(error)}") from None


def _transpose(
    rows: Sequence[tuple[Any, ...]], types: tuple[pa.DataType, ...]
) -> Iterator[pa.Array]:
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [[]] * len(types)
    return (from_list(column, kind) for column, kind in zip(columns, types, strict=True))


def _explain(error: Exception, item: Any, raw: Callable[[Any], Any]) -> str:
    """Add to the decoder's message the sample and, for an absent field, the fields that are present."""
    message = first_line(error)
    if not isinstance(error, msgspec.ValidationError):
        return message
    node = raw(item)
    # The message ends in the path of the value, such as `$.samples[0].mask`.
    for name, position in re.findall(r"\.(\w+)|\[(\d+)\]", message.partition("`$")[2]):
        node = node[int(position)] if position else node.get(name)
        if isinstance(node, Mapping) and "id" in node:
            message = f"sample {node['id']}: {message}"
    if "missing required field" in message and isinstance(node, Mapping):
        message += f"; fields found: {listed(node)}"
    return message
