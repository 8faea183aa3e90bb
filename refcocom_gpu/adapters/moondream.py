"""Moondream: `{"path": "M 0 0.76 L …", "bbox": {"x_min": …, "y_min": …, "x_max": …, "y_max": …}}` in, a mask out.

The form is that of its `/segment` endpoint (docs.moondream.ai/skills/segment): `path` is an SVG path in 0…1 **of the
box**, and `bbox` is in 0…1 of the image. Its inference engine (m87-labs/kestrel, kestrel/seg_refiner.py) scales the
path to the box, fills it by SVG's default rule (nonzero), renders it with resvg at twice the size, averages, and sets
what is above 0.5: a pixel that is covered by more than half. So does this module, with samples of its own, or with
resvg itself where `renderer=resvg` asks for it.
The engine's own output, `{"segments": [{"svg_path": …, "bbox": …}]}`, is read too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_gpu.adapters.combine import Candidate, score_of
from refcocom_gpu.adapters.fill import fill
from refcocom_gpu.adapters.points import objects_of
from refcocom_gpu.adapters.render import check_renderer, render
from refcocom_gpu.adapters.svg import to_lines
from refcocom_gpu.errors import AnswerError
from refcocom_gpu.masks.polygons import is_number

CORNERS = ("x_min", "y_min", "x_max", "y_max")

OVERSHOOT = 1.0
"""A curve may leave its box and a box its image by less than its own size; pixels leave it by far more."""


def masks_of(
    output: Any, height: int, width: int, *, renderer: str | None = None
) -> list[Candidate]:
    """Return the mask of an answer.

    Args:
        output: See above; parsed JSON.
        height: H of the image.
        width: W of the image.
        renderer: `resvg` draws paths as the engine does; None draws them with `fill`.

    Returns:
        One mask, or one for each segment.

    Raises:
        AnswerError: There is no path, it cannot be parsed, or it or its box are not in 0…1.
        UsageError: The renderer is unknown or not installed.

    >>> box = {"x_min": 0.0, "y_min": 0.0, "x_max": 0.5, "y_max": 1.0}
    >>> masks_of({"path": "M 0 0 L 1 0 L 1 1 L 0 1 Z", "bbox": box}, 2, 4)[0].mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    check_renderer(renderer)
    if isinstance(output, dict):
        output = output.get("segments", output)
    return [_mask_of(entry, height, width, renderer) for entry in objects_of(output)]


def _mask_of(entry: dict[str, Any], height: int, width: int, renderer: str | None) -> Candidate:
    if entry.get("parse_error"):
        raise AnswerError(f"Moondream says parse_error: {entry['parse_error']!r:.60}")
    path = entry.get("path", entry.get("svg_path"))
    if not isinstance(path, str) or not path.strip():
        raise AnswerError(f"the object has {', '.join(entry) or 'nothing'}, and no path")
    box = entry.get("bbox")
    corners = [box.get(name) for name in CORNERS] if isinstance(box, dict) else []
    if not corners or not all(map(is_number, corners)):
        raise AnswerError(f"bbox is {box!r:.80}, not an object of {', '.join(CORNERS)}")
    low, high = np.array(corners[:2], np.float64), np.array(corners[2:], np.float64)
    if not (low < high).all() or low.min() < -OVERSHOOT or high.max() > 1 + OVERSHOOT:
        raise AnswerError(f"bbox {corners} is no box in 0…1 of the image")
    lines = to_lines(path)
    reach = np.concatenate(lines)
    if reach.min() < -OVERSHOOT or reach.max() > 1 + OVERSHOOT:
        raise AnswerError(
            f"the path has coordinates from {reach.min():g} to {reach.max():g}, not 0…1 of its box"
        )
    if renderer is not None:
        (x, y), (w, h) = low.tolist(), (high - low).tolist()
        return Candidate(render(path, height, width, low=(x, y), size=(w, h)), score_of(entry))
    placed = [(low + line * (high - low)) * (width, height) for line in lines]
    return Candidate(fill(placed, height, width), score_of(entry))
