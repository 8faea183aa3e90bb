"""Rows of one referred instance each in, flat columns out: the form in which copies of the original sets are shared.

A row is recognised by `ref_id`, where an image record has `samples`. Copies differ in where they put the annotation and
the size of the image, so each is read from the first of several places that has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from refcocom_gpu.dataset.records.references import (
    Invalid,
    Reference,
    checked_box,
    in_split,
    mask_of,
    no_pixel,
    read_references,
)
from refcocom_gpu.dataset.records.tables import Columns, listed
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.text import first_line

MIRROR_FIELDS = (
    "ref_id", "ann_id", "image_id", "file_name", "split", "sentences", "raw_sentences", "sent_ids", "segmentation",
    "mask", "bbox", "height", "width", "category", "supercategory", "category_id", "raw_anns", "raw_image_info",
    "image_info", "no_target",
)  # fmt: skip
"""The fields that are read."""

BOM = b"\xef\xbb\xbf"


def is_mirror(fields: Iterable[str]) -> bool:
    """Tell whether these are the fields of an instance rather than of an image.

    >>> is_mirror(["ref_id", "sentences"]), is_mirror(["image_id", "samples"])
    (True, False)
    """
    names = set(fields)
    return "ref_id" in names and "samples" not in names


def mirror_rows(text: bytes) -> Iterator[tuple[str, Any]] | None:
    """Split JSON lines or a JSON array into rows, each with the name of its place; None if they are not instances."""
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
) -> tuple[Columns, Invalid]:
    """Read the instances of a split.

    Args:
        rows: Each the name of its place, and a mapping or its JSON.
        where: What to call the file in an error message.
        split: The split to read. Where no row has a `split`, all rows are read.
        named: The files are named after the split: if no row names this split, all rows belong to it.

    Returns:
        The flat columns, where a sample's id is its `ref_id`, and the instances that cannot be scored.

    Raises:
        UsageError: There is no such split.
        DatasetError: Some rows lack a field or hold a wrong value; the first 20 are shown, all are counted.
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
    if names and (split in names or not named):
        wanted = in_split(names, split, where)
        parsed = [entry for entry in parsed if entry[1].get("split") in wanted]
    return read_references(parsed, _reference, where, problems)


def _reference(row: Mapping[str, Any]) -> Reference:
    annotation = _object(row, "raw_anns")
    image = _object(row, "raw_image_info", "image_info")
    absent = [name for name in ("ref_id", "image_id") if row.get(name) is None]
    places = (row.get("segmentation"), row.get("mask"), annotation.get("segmentation"))
    segmentation = next((value for value in places if value is not None), None)
    no_target = bool(row.get("no_target"))
    if segmentation is None and not no_target:
        absent.append("segmentation")
    sentences = _sentences(row)
    if sentences is None:
        absent.append("sentences")
    if absent:
        raise DatasetError(f"missing {listed(absent)}; fields found: {listed(row)}")
    sizes = [_integer(row.get(name, image.get(name))) for name in ("height", "width")]
    height, width, counts = (
        no_pixel(*sizes) if segmentation is None else mask_of(segmentation, *sizes)
    )
    category = row.get("category")
    return Reference(
        ref_id=_required(row["ref_id"], "ref_id"),
        image_id=_required(row["image_id"], "image_id"),
        # A row tends to name the file of a crop; the description of the image names that of the picture.
        file_name=str(image.get("file_name") or row.get("file_name") or ""),
        category=category if isinstance(category, str) else "",
        supercategory=str(row.get("supercategory") or ""),
        # The annotation has COCO's x, y, w, h; some copies hold corners in the row.
        bbox=checked_box(_box(annotation.get("bbox", row.get("bbox")))),
        height=height,
        width=width,
        counts=counts,
        sentences=sentences or [],
        ann_id=_whole(row.get("ann_id", annotation.get("id"))),
        sent_ids=_sentence_ids(row, len(sentences or [])),
        no_target=no_target,
    )


def _object(row: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the first of the named fields that holds an object; some copies hold it as JSON text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str | bytes):
            value = msgspec.json.decode(value)
        if isinstance(value, Mapping):
            return value
    return {}


def _sentences(row: Mapping[str, Any]) -> list[str] | None:
    """Return the expressions, which are strings or objects with the text in `sent` or `raw`."""
    sentences = row.get("sentences", row.get("raw_sentences"))
    if isinstance(sentences, str):
        sentences = msgspec.json.decode(sentences)
    if not isinstance(sentences, Sequence):
        return None
    texts = []
    for k, sentence in enumerate(sentences):
        if isinstance(sentence, Mapping):
            sentence = sentence.get("sent", sentence.get("raw"))
        if not isinstance(sentence, str):
            raise DatasetError(f"sentence {k} is neither text nor an object with sent or raw")
        texts.append(sentence)
    return texts


def _sentence_ids(row: Mapping[str, Any], n: int) -> list[int | None]:
    """Return the id of each sentence, in the sentence or in a list beside them; a list of another length names none."""
    for value in (row.get("sentences", row.get("raw_sentences")), row.get("sent_ids")):
        if isinstance(value, str):
            value = msgspec.json.decode(value)
        if not isinstance(value, Sequence) or len(value) != n:
            continue
        ids = [_whole(v.get("sent_id") if isinstance(v, Mapping) else v) for v in value]
        if any(number is not None for number in ids):
            return ids
    return []


def _whole(value: Any) -> int | None:
    """Return an id by which predictions may name an example; None for what can be none, since no score needs it."""
    try:
        number = _integer(value)
    except msgspec.ValidationError:
        return None
    return number if number is not None and abs(number) < 2**63 else None


def _box(value: Any) -> list[float] | None:
    return None if value is None else msgspec.convert(value, list[float], strict=False)


def _integer(value: Any) -> int | None:
    return None if value is None else msgspec.convert(value, int, strict=False)


def _required(value: Any, name: str) -> int:
    try:
        return msgspec.convert(value, int, strict=False)
    except msgspec.ValidationError:
        raise DatasetError(f"{name} is {value!r:.40}, not a whole number") from None
