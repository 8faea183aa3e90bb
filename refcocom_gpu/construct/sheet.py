"""Audit tables and pictures in; one PNG out: masks before and after, side by side, with the decision and its reason."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.construct.instances import Mask
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.masks import rle

SHOWN = 12
"""Number of kept instances shown, and of removed ones: as many as fit a screen."""

PANEL, CAPTION, GAP = 168, 64, 8
"""Pixels: side of a panel, height of the text below it, gap between panels."""

COLUMNS = 4
"""Pairs in a row."""

BEFORE, AFTER = (230, 80, 50), (40, 150, 90)
"""Tints of the original and the refined mask, RGB."""

MARGIN = 0.15
"""Space shown around both masks, as a share of their larger side."""


def contact_sheet(dataset: Dataset, instances: pa.Table, images: Images | None) -> bytes:
    """Draw the kept instances that changed most, and removed ones of every cause.

    Args:
        dataset: The original set.
        instances: `Audit.instances`.
        images: The pictures; None draws on grey.

    Returns:
        A PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows = _chosen(instances.to_pylist())
    n_lines = max(1, -(-len(rows) // COLUMNS))
    width, height = 2 * PANEL + GAP, PANEL + CAPTION
    sheet = Image.new("RGB", (COLUMNS * (width + 2 * GAP), n_lines * (height + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for k, row in enumerate(rows):
        left = (k % COLUMNS) * (width + 2 * GAP) + GAP
        top = (k // COLUMNS) * (height + GAP) + GAP
        for side, panel in enumerate(_panels(dataset, row, images)):
            sheet.paste(Image.fromarray(panel), (left + side * (PANEL + GAP), top))
        draw.multiline_text((left, top + PANEL + 2), _caption(row), fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kept rows that changed most, then removed rows, one of each cause in turn."""
    # Ids break ties, so that the sheet does not depend on the order of the rows.
    kept = [row for row in rows if row["kept"]]
    kept.sort(key=lambda row: (row["original_iou"], row["sample_id"]))
    by_cause: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if not row["kept"]:
            by_cause.setdefault(row["cause"], []).append(row)
    removed = [
        of_cause[place]
        for place in range(SHOWN)
        for of_cause in by_cause.values()
        if place < len(of_cause)
    ]
    return kept[:SHOWN] + removed[:SHOWN]


def _panels(
    dataset: Dataset, row: dict[str, Any], images: Images | None
) -> list[NDArray[np.uint8]]:
    size = [row["height"], row["width"]]
    before = rle.decode({"size": size, "counts": row["original_counts"]})
    after = np.zeros_like(before)
    if row["counts"]:
        after = rle.decode({"size": size, "counts": row["counts"]})
    picture = _picture(dataset, row["image_id"], images, size)
    part = _window(before | after)
    return [
        _fitted(_tinted(picture, mask, tint)[part])
        for mask, tint in ((before, BEFORE), (after, AFTER))
    ]


def _picture(
    dataset: Dataset, image_id: int, images: Images | None, size: Sequence[int]
) -> NDArray[np.uint8]:
    grey = np.full((*size, 3), 190, np.uint8)
    if images is None:
        return grey
    try:
        picture = np.asarray(images[int(np.flatnonzero(dataset.image_ids == image_id)[0])])
    except DatasetError:
        # Nobody needed this picture, or the caption gives it as the reason for the removal.
        return grey
    return picture


def _window(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns around the set pixels; all where none is set."""
    if not mask.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    reach = max(4, round(MARGIN * max(int(last - first) for first, last in spans)))
    rows, columns = (
        slice(max(0, int(first) - reach), int(last) + 1 + reach) for first, last in spans
    )
    return rows, columns


def _tinted(
    picture: NDArray[np.uint8], mask: Mask, tint: tuple[int, int, int]
) -> NDArray[np.uint8]:
    shown = picture.copy()
    shown[mask] = (shown[mask].astype(np.uint16) + np.array(tint, np.uint16)) // 2
    return shown


def _fitted(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A part of a picture, scaled to a panel; the rest of the panel is light."""
    from PIL import Image

    height, width = part.shape[:2]
    scale = PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    panel = np.full((PANEL, PANEL, 3), 245, np.uint8)
    scaled = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BILINEAR))
    panel[: size[1], : size[0]] = scaled
    return panel


def _caption(row: dict[str, Any]) -> str:
    difference = 1 - row["original_boundary_iou"]
    head = f"{row['sample_id']} {row['category']}"
    numbers = f"IoU {row['original_iou']:.3f}, boundary difference {difference:.3f}"
    fate = (
        f"kept, confidence {row['confidence']:.3f}" if row["kept"] else f"removed: {row['reason']}"
    )
    lines = [line for text in (head, numbers, fate) for line in textwrap.wrap(text, 56)]
    return "\n".join(lines[:4])
