"""Referred instances in, flat columns out; shared by the readers of the original release and of its copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from refcocom_gpu.dataset.locate import synonyms_of
from refcocom_gpu.dataset.records.tables import (
    BOX,
    Columns,
    examples_table,
    images_table,
    is_box,
    raise_problems,
    samples_table,
)
from refcocom_gpu.errors import DatasetError, OutsideError, RLEError, UsageError
from refcocom_gpu.masks.polygons import parse_polygons, rasterise
from refcocom_gpu.masks.rle import check, check_counts, column, parse
from refcocom_gpu.utils.text import first_line

NAMED = 5
"""Number of invalid references of a kind that a message names."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Reference:
    """One referred instance.

    Attributes:
        ref_id: The id of the instance.
        image_id: The id of its image.
        file_name: The file of the picture; may be empty.
        category: May be empty.
        supercategory: May be empty.
        bbox: x, y, w, h in pixels; None where not stated.
        height: H of the image.
        width: W of the image.
        counts: The mask, a compressed COCO string; empty where its polygons lie outside the image.
        sentences: Its referring expressions.
        ann_id: The id of its annotation; None where not one is stated. Several instances may have the same.
        sent_ids: The id of each sentence; empty where not stated.
        no_target: Its expressions refer to nothing in the image; its mask has no pixel.
    """

    ref_id: int
    image_id: int
    file_name: str
    category: str
    supercategory: str
    bbox: Sequence[float] | None
    height: int
    width: int
    counts: bytes
    sentences: Sequence[str]
    ann_id: int | None = None
    sent_ids: Sequence[int | None] = ()
    no_target: bool = False


class Invalid(NamedTuple):
    """Well-formed references that cannot be scored. They are not among the columns.

    Attributes:
        total: Number of all references that were read.
        outside: The ids of those whose polygons cover no pixel of their image.
        silent: The ids of the others that have no sentence.
    """

    total: int = 0
    outside: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Number of invalid references."""
        return len(self.outside) + len(self.silent)

    def describe(self) -> str:
        """Count them by kind, with the first ids of each.

        >>> Invalid(50, (7,), (8,)).describe()
        '2 of 50 references cannot be scored: 1 cover no pixel of their image (ref_id 7), 1 have no sentence (ref_id 8)'
        """
        kinds = (("cover no pixel of their image", self.outside), ("have no sentence", self.silent))
        parts = [f"{len(ids):,} {what} (ref_id {_first(ids)})" for what, ids in kinds if ids]
        return f"{self.n:,} of {self.total:,} references cannot be scored: {', '.join(parts)}"


def _first(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")


def read_references(
    rows: Iterable[tuple[str, Row]],
    read: Callable[[Row], Reference],
    where: str,
    problems: Sequence[str] = (),
) -> tuple[Columns, Invalid]:
    """Read all references, and sort out those that cannot be scored.

    Args:
        rows: Each the name of its place, and what `read` takes.
        read: Makes a reference of a row, or raises.
        where: What to call the source in an error message.
        problems: Mistakes that are known already.

    Returns:
        The flat columns of the valid references, and the invalid ones.

    Raises:
        DatasetError: Some rows are malformed; the first 20 are shown, all are counted.
    """
    mistakes, references = list(problems), []
    outside, silent, total = [], [], 0
    for place, row in rows:
        total += 1
        try:
            reference = read(row)
        except (RLEError, DatasetError, msgspec.MsgspecError, TypeError, ValueError) as error:
            mistakes.append(f"{place}: {first_line(error)}")
            continue
        if not reference.counts:
            outside.append(reference.ref_id)
        elif not reference.sentences:
            silent.append(reference.ref_id)
        else:
            references.append(reference)
    raise_problems(mistakes, where, "instance")
    return columns_of(references), Invalid(total, tuple(outside), tuple(silent))


def mask_of(segmentation: Any, height: int | None, width: int | None) -> tuple[int, int, bytes]:
    """Convert a COCO segmentation to (H, W, compressed counts).

    Args:
        segmentation: Polygons in pixels, one polygon, an RLE object of any form, or a list of RLE objects, whose
            union is the mask.
        height: H of the image; None where unknown.
        width: W of the image; None where unknown.

    Returns:
        H, W and the counts, which are empty where polygons cover no pixel of the image.

    Raises:
        RLEError: The segmentation is anything else, has another size than the image, or is polygons although
            the size of the image is unknown.
    """
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], Mapping):
        segmentation = _merged(segmentation)
    if isinstance(segmentation, list):
        if segmentation and not isinstance(segmentation[0], list):
            segmentation = [segmentation]
        if height is None or width is None:
            raise RLEError("its mask is polygons, and the height and width of its image are absent")
        if not segmentation:
            raise RLEError("its mask is an empty list, without a polygon")
        return _drawn(segmentation, height, width)
    mask_height, mask_width, counts = check(segmentation)
    if (height, width) not in ((None, None), (mask_height, mask_width)):
        raise RLEError(f"its mask is {mask_height}×{mask_width}, its image {height}×{width}")
    return mask_height, mask_width, counts


def no_pixel(height: int | None, width: int | None) -> tuple[int, int, bytes]:
    """Return the mask of expressions without a target, as `mask_of` does.

    Raises:
        RLEError: The size of the image is unknown.

    >>> no_pixel(2, 3)
    (2, 3, b'6')
    """
    if height is None or width is None:
        raise RLEError("it has no target, and the height and width of its image are absent")
    return height, width, check_counts([height * width])


def union_of(masks: Sequence[tuple[int, int, bytes]]) -> tuple[int, int, bytes]:
    """Return the union of masks of one size, as `mask_of` does; those that cover no pixel add nothing.

    Args:
        masks: At least one.

    >>> union_of([(2, 3, b"123"), (2, 3, b""), (2, 3, b"06")])
    (2, 3, b'06')
    """
    height, width, _ = masks[0]
    drawn = [{"size": [height, width], "counts": counts} for *_, counts in masks if counts]
    return mask_of(drawn, height, width) if drawn else masks[0]


def _drawn(polygons: list[Any], height: int, width: int) -> tuple[int, int, bytes]:
    from pycocotools import mask as coco

    try:
        _, _, counts = rasterise(parse_polygons(polygons), height, width, "pixels")
    except OutsideError:
        return height, width, b""
    is_empty = not coco.area({"size": [height, width], "counts": counts})
    return height, width, b"" if is_empty else counts


def _merged(parts: Sequence[Any]) -> dict[str, Any]:
    """Return the union of RLE objects."""
    from pycocotools import mask as coco

    checked = [check(part) for part in parts]
    if len({part[:2] for part in checked}) > 1:
        raise RLEError("the parts of its mask differ in size")
    height, width, _ = checked[0]
    # Validated first, because pycocotools accepts invalid RLE silently.
    parse(column(counts for _, _, counts in checked), np.full(len(checked), height * width))
    size = [height, width]
    merged = coco.merge([{"size": size, "counts": counts} for _, _, counts in checked])
    return {"size": size, "counts": merged["counts"]}


def in_split(present: Iterable[str], split: str, where: str) -> set[str]:
    """Choose the names of a split among those that are present: its own name, else its synonyms.

    Raises:
        UsageError: Neither is present.
    """
    names = set(present)
    if split in names:
        return {split}
    synonyms = synonyms_of(split)
    chosen = {name for name in names if name.lower() in synonyms}
    if not chosen:
        raise UsageError(
            f"{where} holds no split {split!r}; it holds {', '.join(sorted(names)) or 'none'}"
        )
    return chosen


def columns_of(references: Iterable[Reference]) -> Columns:
    """Group instances by image, in order of first appearance, and make the flat columns."""
    by_image: dict[int, list[Reference]] = {}
    for reference in references:
        by_image.setdefault(reference.image_id, []).append(reference)
    first_of_image = [group[0] for group in by_image.values()]
    samples = [(image, r) for image, group in enumerate(by_image.values()) for r in group]
    examples = [
        (sample, sentence_idx, sentence, sent_id)
        for sample, (_, r) in enumerate(samples)
        for sentence_idx, (sentence, sent_id) in enumerate(zip_longest(r.sentences, r.sent_ids))
    ]

    def ints(values: Iterable[int | None]) -> pa.Array:
        return pa.array(list(values), pa.int64())

    def texts(values: Iterable[str]) -> pa.Array:
        return pa.array(list(values), pa.string())

    return Columns(
        images_table(
            ints(by_image),
            texts(r.file_name for r in first_of_image),
            ints(r.height for r in first_of_image),
            ints(r.width for r in first_of_image),
        ),
        samples_table(
            ints(r.ref_id for _, r in samples),
            ints(image for image, _ in samples),
            texts(r.category for _, r in samples),
            texts(r.supercategory for _, r in samples),
            ints(r.height for _, r in samples),
            ints(r.width for _, r in samples),
            pa.array([r.counts for _, r in samples], pa.large_binary()),
            texts("" for _ in samples),
            pa.array([r.bbox for _, r in samples], BOX),
            ref_id=ints(r.ref_id for _, r in samples),
            ann_id=ints(r.ann_id for _, r in samples),
            no_target=pa.array([r.no_target for _, r in samples], pa.bool_()),
        ),
        examples_table(
            ints(sample for sample, _, _, _ in examples),
            ints(sentence_idx for _, sentence_idx, _, _ in examples),
            texts(sentence for _, _, sentence, _ in examples),
            sent_id=ints(sent_id for _, _, _, sent_id in examples),
        ),
    )


def checked_box(bbox: Sequence[float] | None) -> Sequence[float] | None:
    """Return the box if it is four finite numbers or None; otherwise raise.

    Raises:
        RLEError: It is anything else.
    """
    if bbox is not None and not is_box(bbox):
        raise RLEError(f"bbox is {list(bbox)}, not four numbers x, y, w, h")
    return bbox
