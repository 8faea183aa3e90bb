"""The name of a source and one output in, its mask out; the table of all sources.

| source | output | options |
|---|---|---|
| `gemini` | boxes with maps of probabilities in base64, or with points | `points`, `boxes` |
| `moondream` | an SVG path in its box | `renderer` |
| `qwen` | JSON of Qwen-VL with polygons or boxes, or text of Qwen2-VL | `version`, `processed_size`, `boxes` |
| `florence` | polygons of Florence-2, or boxes | `boxes` |
| `points` | point lists | `scale` |
| `svg` | SVG paths in pixels | `renderer` |
| `rle` | COCO RLE, one or several | |

With `boxes=keep`, an answer is a box, not a mask: `to_box` instead of `to_mask`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.adapters.boxes import one_box
from refcocom_gpu.adapters.combine import combined
from refcocom_gpu.adapters.responses import parse_response
from refcocom_gpu.errors import AnswerError, UsageError
from refcocom_gpu.predictions.answers import KEEP
from refcocom_gpu.predictions.boxes import Corners


class Adapter(NamedTuple):
    """How the outputs of a source are read.

    Attributes:
        module: Its module in this package.
        own_text: A text that matches this is the output itself; in any other, the JSON is the output.
    """

    module: str
    own_text: re.Pattern[str] | None = None


SOURCES = {
    "gemini": Adapter("gemini"),
    "moondream": Adapter("moondream"),
    "qwen": Adapter("qwen", re.compile(r"<\|box_start\|>")),
    "florence": Adapter("florence"),
    "points": Adapter("points"),
    "svg": Adapter("svg", re.compile(r"\A[^\[{`]*\Z")),
    "rle": Adapter("coco"),
}


def to_mask(
    output: Any,
    height: int,
    width: int,
    *,
    source: str,
    combine: str | None = None,
    **options: Any,
) -> NDArray[np.bool_]:
    """Return the mask of one output.

    Args:
        output: What the model gave: the text of its response, or the JSON in it.
        height: H of the image.
        width: W of the image.
        source: A name of the table above.
        combine: `union` or `best`, where the output holds several masks.
        options: Those of the source.

    Returns:
        [H, W] bool, which `PredictionWriter.write` takes.

    Raises:
        AnswerError: The output holds no mask that can be read.
        UsageError: The source or an option is unknown, or an option that the output needs is missing, such as
            `combine` for several masks.

    >>> to_mask("M 0 0 h 1 v 2 h -1 z", 2, 4, source="svg").astype(int)
    array([[1, 0, 0, 0],
           [1, 0, 0, 0]])
    """
    if options.get("boxes") == KEEP:
        raise UsageError(
            f"boxes={KEEP} leaves boxes, which are no masks: adapters.to_box gives them"
        )
    return combined(reader_of(source, options)(output, height, width), height, width, combine)


def to_box(
    output: Any, height: int, width: int, *, source: str, combine: str | None = None, **options: Any
) -> Corners | None:
    """Return the box of one output.

    Args:
        output: As for `to_mask`.
        height: H of the image.
        width: W of the image.
        source: A name of the table above that takes `boxes`.
        combine: `best`, where the output holds several boxes with scores.
        options: Those of the source.

    Returns:
        x0, y0, x1, y1 in pixels, half-open; None where the output names no object.

    Raises:
        AnswerError: The output holds no box that can be read.
        UsageError: As of `to_mask`.

    >>> to_box('[{"bbox_2d": [0, 250, 500, 1000]}]', 2, 4, source="qwen", version=3)
    (0.0, 0.5, 2.0, 2.0)
    """
    read = reader_of(source, {**options, "boxes": KEEP})
    return one_box(read(output, height, width), combine)


def reader_of(source: str, options: Mapping[str, Any]) -> Callable[..., list[Any]]:
    """Return what reads the outputs of a source, text or JSON, with these options.

    Returns:
        A function that returns a `Candidate` for each mask of an output; with `boxes=keep`, a `BoxCandidate`.

    Raises:
        UsageError: The source or an option is unknown.

    >>> reader_of("gemini", {"axis": "yx"})
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: source=gemini takes points, boxes, not axis
    """
    if source not in SOURCES:
        raise UsageError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
    adapter = SOURCES[source]
    module = import_module(f"refcocom_gpu.adapters.{adapter.module}")
    kept = options.get("boxes") == KEEP
    if kept:
        options = {name: value for name, value in options.items() if name != "boxes"}
    read_output = module.boxes_of if kept and hasattr(module, "boxes_of") else module.masks_of
    known = options_of(source)
    if kept and "boxes" not in known:
        raise UsageError(f"source={source} takes {', '.join(known) or 'no options'}, not boxes")
    if not kept and options.get("boxes") is not None and "boxes" not in _parameters(read_output):
        raise UsageError(f"boxes of source={source} must be {KEEP}, not {options['boxes']!r}")
    known = _parameters(read_output) if kept else known
    for name in options:
        if name not in known:
            taken = ", ".join(known) or "no options"
            of_boxes = f" with boxes={KEEP}" if kept else ""
            raise UsageError(f"source={source} takes {taken}{of_boxes}, not {name}")
    if source == "qwen":
        # Before the answers are read, of which perhaps none can be.
        module.check_version(**options)

    def read(output: Any, height: int, width: int, **own: Any) -> list[Any]:
        if isinstance(output, str):
            output = _parsed(output, adapter)
        if output is None:
            raise AnswerError("the response is null; an object that is not there is an empty list")
        found: list[Any] = read_output(output, height, width, **{**options, **own})
        return found

    return read


def options_of(source: str) -> list[str]:
    """Return the names of the options of a source.

    >>> options_of("qwen")
    ['version', 'processed_size', 'boxes']
    """
    module = import_module(f"refcocom_gpu.adapters.{SOURCES[source].module}")
    of_boxes = ["boxes"] if hasattr(module, "boxes_of") else []
    return list(dict.fromkeys([*_parameters(module.masks_of), *of_boxes]))


def _parameters(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _parsed(text: str, adapter: Adapter) -> Any:
    if adapter.own_text is not None and adapter.own_text.search(text):
        return text
    return parse_response(text)
