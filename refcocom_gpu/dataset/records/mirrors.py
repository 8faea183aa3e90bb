"""Rows that hold one referred instance each in, flat columns out: how copies of the original sets are shared.

Recognised by `ref_id` where image records have `samples`. Copies differ in where they put the size of the image and the
annotation; what is read is the first of several places that has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from refcocom_gpu.dataset.records.references import (
    Reference,
    checked_box,
    columns_of,
    in_split,
    mask_of,
)
from refcocom_gpu.dataset.records.tables import Columns, first_line, listed, raise_problems
from refcocom_gpu.errors import DatasetError, RLEError

MIRROR_FIELDS = (
    "ref_id", "image_id", "file_name", "split", "sentences", "raw_sentences", "segmentation", "mask", "bbox", "height",
    "width", "category", "supercategory", "category_id", "raw_anns", "raw_image_info", "image_info",
)  # fmt: skip
"""Fields that are read."""

BOM = b"\xef\xbb\xbf"


def is_mirror(fields: Iterable[str]) -> bool:
    """Whether these are the fields of an instance rather than of an image.

    >>> is_mirror(["ref_id", "sentences"]), is_mirror(["image_id", "samples"])
    (True, False)
    """
    names = set(fields)
    return "ref_id" in names and "samples" not in names


def mirror_rows(text: bytes) -> Iterator[tuple[str, Any]] | None:
    """The rows of JSON lines or of one JSON array, each with what to call its place; None where it is no mirror."""
    text = text.removeprefix(BOM)
    start = text.lstrip()
    if start.startswith(b"["):
        try:
            rows = msgspec.json.decode(text)
        except msgspec.MsgspecError:
            return None
        if rows and isinstance(rows[0], dict) and is_mirror(rows[0]):
            return ((f"entry {number}", row) for number, row in enumerate(rows))
        return None
    try:
        first = msgspec.json.decode(start.split(b"\n", 1)[0])
    except msgspec.MsgspecError:
        return None
    if not (isinstance(first, dict) and is_mirror(first)):
        return None
    lines = enumerate(text.splitlines(), start=1)
    return ((f"line {number}", line) for number, line in lines if line.strip())


def from_mirror(
    rows: Iterable[tuple[str, Any]], where: str, split: str, *, named: bool = False
) -> Columns:
    """Read instances, of one split where rows name theirs.

    Args:
        rows: Each a place and a mapping, or its JSON.
        where: What to call the file in an error message.
        split: Which rows are taken; rows without `split` are taken all.
        named: The files were chosen by the name of the split: where no row has it, all are of it.

    Returns:
        The flat columns; a sample's id is its `ref_id`.

    Raises:
        UsageError: There is no such split.
        DatasetError: Rows that lack what is needed, each with its place; the first 20 are shown, all counted.
    """
    parsed, problems = [], []
    for place, row in rows:
        try:
            row = msgspec.json.decode(row) if isinstance(row, bytes) else row
        except msgspec.MsgspecError as error:
            problems.append(f"{place}: {first_line(error)}")
            continue
        if not isinstance(row, Mapping):
            problems.append(f"{place}: not an object")
            continue
        parsed.append((place, row))
    splits = [row.get("split") for _, row in parsed]
    names = {name for name in splits if isinstance(name, str)}
    if names and not (named and split not in names):
        wanted = in_split(names, split, where)
        parsed = [entry for entry in parsed if entry[1].get("split") in wanted]
    references = []
    for place, row in parsed:
        try:
            references.append(_reference(row))
        except (RLEError, DatasetError, msgspec.MsgspecError, TypeError, ValueError) as error:
            problems.append(f"{place}: {first_line(error)}")
    raise_problems(problems, where, "instance")
    return columns_of(references)


def _reference(row: Mapping[str, Any]) -> Reference:
    annotation, image = _object(row, "raw_anns"), _object(row, "raw_image_info", "image_info")
    absent = [name for name in ("ref_id", "image_id") if row.get(name) is None]
    segmentation = next(
        (s for s in (row.get("segmentation"), row.get("mask"), annotation.get("segmentation")) if s is not None),
        None,
    )  # fmt: skip
    if segmentation is None:
        absent.append("segmentation")
    sentences = _sentences(row)
    if sentences is None:
        absent.append("sentences")
    if absent:
        raise DatasetError(f"missing {listed(absent)}; fields found: {listed(row)}")
    sizes = [_integer(row.get(name, image.get(name))) for name in ("height", "width")]
    height, width, counts = mask_of(segmentation, *sizes)
    category = row.get("category")
    return Reference(
        ref_id=_required(row["ref_id"], "ref_id"),
        image_id=_required(row["image_id"], "image_id"),
        # Rows tend to name a crop's file, the image's own description the picture's.
        file_name=str(image.get("file_name") or row.get("file_name") or ""),
        category=category if isinstance(category, str) else "",
        supercategory=str(row.get("supercategory") or ""),
        # The annotation's is COCO's x, y, w, h; some copies give corners beside it.
        bbox=checked_box(_box(annotation.get("bbox", row.get("bbox")))),
        height=height,
        width=width,
        counts=counts,
        sentences=sentences or [],
    )


def _object(row: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A nested object, which some copies keep as JSON text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str | bytes):
            value = msgspec.json.decode(value)
        if isinstance(value, Mapping):
            return value
    return {}


def _sentences(row: Mapping[str, Any]) -> list[str] | None:
    """The expressions: text, or objects that hold it as `sent`, or else as `raw`."""
    found = row.get("sentences", row.get("raw_sentences"))
    if isinstance(found, str):
        found = msgspec.json.decode(found)
    if not isinstance(found, Sequence):
        return None
    texts = []
    for k, sentence in enumerate(found):
        if isinstance(sentence, Mapping):
            sentence = sentence.get("sent", sentence.get("raw"))
        if not isinstance(sentence, str):
            raise DatasetError(f"sentence {k} is neither text nor an object with sent or raw")
        texts.append(sentence)
    return texts


def _box(value: Any) -> list[float] | None:
    return None if value is None else msgspec.convert(value, list[float], strict=False)


def _integer(value: Any) -> int | None:
    return None if value is None else msgspec.convert(value, int, strict=False)


def _required(value: Any, name: str) -> int:
    try:
        return msgspec.convert(value, int, strict=False)
    except msgspec.ValidationError:
        raise DatasetError(f"{name} is {value!r:.40}, not a whole number") from None
