"""Outputs of other models and libraries in, predictions out: masks, COCO RLE objects, or None for an empty mask.

One small module per source, each of pure functions that need neither the model nor its library. `read` takes a file of
raw answers and returns what `score` takes, `to_mask` and `to_box` take one answer; the table in `sources.py` names
their sources.
Where an output holds several masks for one expression, `combine` says what becomes of them (`predictions/combine.py`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.adapters import coco as coco
    from refcocom_gpu.adapters import florence as florence
    from refcocom_gpu.adapters import gemini as gemini
    from refcocom_gpu.adapters import moondream as moondream
    from refcocom_gpu.adapters import pickles as pickles
    from refcocom_gpu.adapters import points as points
    from refcocom_gpu.adapters import qwen as qwen
    from refcocom_gpu.adapters import sa2va as sa2va
    from refcocom_gpu.adapters import sam3 as sam3
    from refcocom_gpu.adapters import segment_anything as segment_anything
    from refcocom_gpu.adapters import supervision as supervision
    from refcocom_gpu.adapters import svg as svg
    from refcocom_gpu.adapters import transformers as transformers
    from refcocom_gpu.adapters import ultralytics as ultralytics
    from refcocom_gpu.adapters.files import read as read
    from refcocom_gpu.adapters.results import read_results as read_results
    from refcocom_gpu.adapters.sources import to_box as to_box
    from refcocom_gpu.adapters.sources import to_mask as to_mask
    from refcocom_gpu.predictions.combine import combine_masks as combine_masks

# No module is called like a function: importing it would put the module in the place of the function.
_HOMES = {
    "read": "adapters.files",
    "read_results": "adapters.results",
    "to_box": "adapters.sources",
    "to_mask": "adapters.sources",
    "combine_masks": "predictions.combine",
}
_MODULES = (
    "coco", "florence", "gemini", "moondream", "pickles", "points", "qwen", "sa2va", "sam3", "segment_anything",
    "supervision", "svg", "transformers", "ultralytics",
)  # fmt: skip
__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"refcocom_gpu.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
