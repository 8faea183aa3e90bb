"""The name of a source and one output in, its mask out; the table of all sources.

| source | output | options |
|---|---|---|
| `gemini` | boxes with maps of probabilities in base64, or with points | `points` |
| `moondream` | an SVG path in its box | `renderer` |
| `qwen` | JSON of Qwen-VL with polygons or boxes, or text of Qwen2-VL | `version`, `processed_size`, `boxes` |
| `florence` | polygons of Florence-2 | |
| `points` | point lists | `scale` |
| `svg` | SVG paths in pixels | `renderer` |
| `rle` | COCO RLE, one or several | |
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.adapters.combine import Candidate, combined
from refcocom_gpu.adapters.responses import parse_response
from refcocom_gpu.errors import AnswerError, UsageError


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
    return combined(reader_of(source, options)(output, height, width), height, width, combine)


def reader_of(source: str, options: Mapping[str, Any]) -> Callable[..., list[Candidate]]:
    """Return what reads the outputs of a source, text or JSON, with these options.

    Raises:
        UsageError: The source or an option is unknown.

    >>> reader_of("gemini", {"axis": "yx"})
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: source=gemini takes points, not axis
    """
    if source not in SOURCES:
        raise UsageError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
    adapter = SOURCES[source]
    module = import_module(f"refcocom_gpu.adapters.{adapter.module}")
    masks_of = module.masks_of
    known = options_of(source)
    for name in options:
        if name not in known:
            taken = ", ".join(known) or "no options"
            raise UsageError(f"source={source} takes {taken}, not {name}")
    if source == "qwen":
        # Before the answers are read, of which perhaps none can be.
        module.check_version(**options)

    def read(output: Any, height: int, width: int, **own: Any) -> list[Candidate]:
        if isinstance(output, str):
            output = _parsed(output, adapter)
        if output is None:
            raise AnswerError("the response is null; an object that is not there is an empty list")
        found: list[Candidate] = masks_of(output, height, width, **{**options, **own})
        return found

    return read


def options_of(source: str) -> list[str]:
    """Return the names of the options of a source.

    >>> options_of("qwen")
    ['version', 'processed_size', 'boxes']
    """
    module = import_module(f"refcocom_gpu.adapters.{SOURCES[source].module}")
    parameters = inspect.signature(module.masks_of).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _parsed(text: str, adapter: Adapter) -> Any:
    if adapter.own_text is not None and adapter.own_text.search(text):
        return text
    return parse_response(text)
