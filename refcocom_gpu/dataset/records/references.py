"""Instances one by one in, flat columns out: what the release of the original sets and its mirrors have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.dataset.locate import SPLIT_NAMES
from refcocom_gpu.dataset.records.tables import (
    BOX,
    Columns,
    examples_table,
    images_table,
    is_box,
    samples_table,
)
from refcocom_gpu.errors import RLEError, UsageError
from refcocom_gpu.masks.polygons import rasterise
from refcocom_gpu.masks.rle import check, column, parse


@dataclass(frozen=True, slots=True)
class Reference:
    """One referred instance.

    Attributes:
        ref_id: Its id.
        image_id: Of its image.
        file_name: Of the picture, maybe empty.
        category: Maybe empty.
        supercategory: Maybe empty.
        bbox: x, y, w, h in pixels; None where it is not stated.
        height: H.
        width: W.
        counts: The mask, a compressed COCO string.
        sentences: Its expressions.
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


def mask_of(segmentation: Any, height: int | None, width: int | None) -> tuple[int, int, bytes]:
    """A COCO segmentation to (H, W, compressed counts).

    Args:
        segmentation: Polygons in pixels, one polygon, an RLE object of any form, or a list of such, its parts.
        height: H of the image, None where it is not known.
        width: W.

    Raises:
        RLEError: It is none of these, of another size, or polygons whose image has no known size.
    """
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], Mapping):
        segmentation = _merged(segmentation)
    if isinstance(segmentation, list):
        if segmentation and not isinstance(segmentation[0], list):
            segmentation = [segmentation]
        if height is None or width is None:
            raise RLEError("its mask is polygons, and the height and width of its image are absent")
        if not segmentation:
            raise RLEError("its mask is a list without a polygon")
        return rasterise(segmentation, height, width, "pixels")
    found = check(segmentation)
    if (height, width) not in ((None, None), found[:2]):
        raise RLEError(f"its mask is {found[0]}×{found[1]}, its image {height}×{width}")
    return found


def _merged(parts: Sequence[Any]) -> dict[str, Any]:
    from pycocotools import mask as coco

    checked = [check(part) for part in parts]
    if len({part[:2] for part in checked}) > 1:
        raise RLEError("the parts of its mask differ in size")
    height, width, _ = checked[0]
    # Parsed first: what is not valid RLE, pycocotools reads as it likes.
    parse(column(counts for _, _, counts in checked), np.full(len(checked), height * width))
    size = [height, width]
    merged = coco.merge([{"size": size, "counts": counts} for _, _, counts in checked])
    return {"size": size, "counts": merged["counts"]}


def in_split(found: Iterable[str], split: str, where: str) -> set[str]:
    """The names of a split among those that are there: its own, else its synonyms.

    Raises:
        UsageError: It is not there.
    """
    names = set(found)
    synonyms = next((known for known in SPLIT_NAMES if split.lower() in known), {split})
    chosen = {split} & names or {name for name in names if name.lower() in synonyms}
    if not chosen:
        raise UsageError(
            f"{where} holds no split {split!r}; it holds {', '.join(sorted(names)) or 'none'}"
        )
    return chosen


def columns_of(references: Iterable[Reference]) -> Columns:
    """Group instances by image, in order of first appearance, and lay them out."""
    by_image: dict[int, list[Reference]] = {}
    for reference in references:
        by_image.setdefault(reference.image_id, []).append(reference)
    samples = [(image, r) for image, of in enumerate(by_image.values()) for r in of]
    sentences = [
        (sample, k, text) for sample, (_, r) in enumerate(samples) for k, text in enumerate(r.sentences)
    ]  # fmt: skip
    first = [of[0] for of in by_image.values()]

    def ints(values: Iterable[int]) -> pa.Array:
        return pa.array(list(values), pa.int64())

    def texts(values: Iterable[str]) -> pa.Array:
        return pa.array(list(values), pa.string())

    return Columns(
        images_table(
            ints(by_image),
            texts(r.file_name for r in first),
            ints(r.height for r in first),
            ints(r.width for r in first),
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
        ),
        examples_table(
            ints(sample for sample, _, _ in sentences),
            ints(k for _, k, _ in sentences),
            texts(text for _, _, text in sentences),
        ),
    )


def checked_box(bbox: Sequence[float] | None) -> Sequence[float] | None:
    """A box, checked.

    Raises:
        RLEError: It is not four numbers.
    """
    if bbox is not None and not is_box(bbox):
        raise RLEError(f"bbox is {list(bbox)}, not four numbers x, y, w, h")
    return bbox
