"""Examples and a way to draw them in, small encoded overlays out: drawn image by image, on all cores.

A picture is decoded once for all examples of its image and forgotten with them, so that memory holds one picture for
each core.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.overlay import Pixels

SIDE = 320
"""Pixels of the longer side: a card of the page is as wide, and on a phone the whole page is little more."""

QUALITY, EFFORT = 70, 0
"""Of WebP. With an effort of 4, Pillow's default, a file is 8 % smaller and takes 3 times as long."""

Draw = Callable[[Pixels], Pixels]


class Sketch(NamedTuple):
    """What is drawn for one example.

    Attributes:
        name: Of the thumbnail, such as `17` or `17a`.
        image: The row of its image.
        draw: Draws on a copy of the picture of the image, [H, W, 3], and returns what is encoded.
    """

    name: str
    image: int
    draw: Draw


def thumbnails(
    canvas: Canvas, sketches: Iterable[Sketch], progress: Callable[[int], None] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Draw sketches and yield each name with a WebP file.

    Args:
        canvas: Gives the pictures.
        sketches: In any order.
        progress: Called with the number of sketches that are drawn since.

    Yields:
        Name and bytes; those of an image together, images in their order.
    """
    by_image: dict[int, list[Sketch]] = {}
    for sketch in sketches:
        by_image.setdefault(sketch.image, []).append(sketch)

    def drawn(image: int) -> list[tuple[str, bytes]]:
        picture = canvas.picture(image)
        return [(s.name, encoded(s.draw(picture.copy()))) for s in by_image[image]]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for files in pool.map(drawn, sorted(by_image)):
            yield from files
            if progress is not None:
                progress(len(files))


def encoded(pixels: Pixels) -> bytes:
    """Return pixels [h, w, 3] as a WebP file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, method=EFFORT)
    return buffer.getvalue()
