"""Audit tables and pictures in; one PNG out: masks before and after, side by side, with the decision and its reason."""

from __future__ import annotations

import io
import textwrap
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.masks import rle
from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.overlay import FIRST, SECOND, Pixels, fitted, outlined, window_of

SHOWN = 12
"""Number of kept instances shown, and of removed ones: as many as fit a screen."""

PANEL, CAPTION, GAP = 168, 64, 8
"""Pixels: side of a panel, height of the text below it, gap between panels."""

COLUMNS = 4
"""Pairs in a row."""

MARGIN, LEAST = 0.15, 0.0
"""Of the window around both masks (`overlay.window_of`): tight, because panels are small."""


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
    canvas = Canvas.grey(dataset) if images is None else Canvas(dataset, images)
    for k, row in enumerate(rows):
        left = (k % COLUMNS) * (width + 2 * GAP) + GAP
        top = (k // COLUMNS) * (height + GAP) + GAP
        for side, panel in enumerate(_panels(dataset, row, canvas)):
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


def _panels(dataset: Dataset, row: dict[str, Any], canvas: Canvas) -> list[Pixels]:
    """Draw the outline of the original mask and that of the refined one, each on a panel of its own."""
    size = [row["height"], row["width"]]
    before = rle.decode({"size": size, "counts": row["original_counts"]})
    after = np.zeros_like(before)
    if row["counts"]:
        after = rle.decode({"size": size, "counts": row["counts"]})
    picture = canvas.picture(int(np.flatnonzero(dataset.image_ids == row["image_id"])[0]))
    window = window_of(before | after, margin=MARGIN, least=LEAST)
    shown, *masks = fitted(picture, [before, after], window, PANEL)
    return [
        _padded(outlined(shown.copy(), [(mask.astype(bool), colour)], thickness=2))
        for mask, colour in zip(masks, (FIRST, SECOND), strict=True)
    ]


def _padded(part: Pixels) -> Pixels:
    """Return a part of a picture at the top left of a panel, the rest of which is light."""
    panel = np.full((PANEL, PANEL, 3), 245, np.uint8)
    panel[: part.shape[0], : part.shape[1]] = part
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
