"""Results of the same examples and the true masks in, a way to draw any example of each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from refcocom_gpu.report.overlay import LIGHT, Pixels, fitted, outlined, scored, window_of
from refcocom_gpu.report.thumbnails import SIDE, Sketch
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore

LEGEND = (
    ("truth", "outline of the true mask"),
    ("hit", "predicted and true"),
    ("extra", "predicted only"),
    ("missed", "true only (striped)"),
)
"""Names of colours in the style sheet, and what they mean on an overlay."""


def sketcher(
    results: Sequence[Result], store: MaskStore, suffixes: Sequence[str]
) -> Callable[[int, int], Sketch]:
    """Return what draws an example of one of the results; all of an example show the same part of its picture.

    Args:
        results: Of the same examples. One without masks is drawn as its true mask alone.
        store: The true masks.
        suffixes: One of each result, which ends the name of its pictures.

    Returns:
        From the index of an example and the place of a result to a sketch.
    """
    image_of = store.dataset.sample_image

    def sketch(index: int, side: int) -> Sketch:
        def draw(picture: Pixels) -> Pixels:
            true = store.mask(index)
            said = [None if r.masks is None else r.mask_of(index) for r in results]
            shown = [true, *(mask for mask in said if mask is not None)]
            window, own = window_of(np.logical_or.reduce(shown)), said[side]
            if own is None:
                part, outline = fitted(picture, [true], window, SIDE)
                return outlined(part.copy(), [(outline.astype(bool), LIGHT)])
            return scored(*fitted(picture, [true, own], window, SIDE))

        image = int(image_of[store.example_sample[index]])
        return Sketch(f"{index}{suffixes[side]}", image, draw)

    return sketch
