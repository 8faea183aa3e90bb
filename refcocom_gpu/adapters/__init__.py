"""One output of another model or library in; a mask, a COCO RLE object, or None for an empty mask out.

One small module per source, each a pure function that needs neither the model nor its library. What it returns is what
`score` and `PredictionWriter.write` take. Where an output holds several masks for one expression, `combine` says what
becomes of them (`predictions/combine.py`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.adapters import pickles as pickles
    from refcocom_gpu.adapters import sa2va as sa2va
    from refcocom_gpu.adapters import sam3 as sam3
    from refcocom_gpu.adapters import segment_anything as segment_anything
    from refcocom_gpu.adapters import supervision as supervision
    from refcocom_gpu.adapters import transformers as transformers
    from refcocom_gpu.adapters import ultralytics as ultralytics
    from refcocom_gpu.predictions.combine import combine_masks as combine_masks

_MODULES = (
    "pickles", "sa2va", "sam3", "segment_anything", "supervision", "transformers", "ultralytics",
)  # fmt: skip
__all__ = ["combine_masks", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "combine_masks":
        return import_module("refcocom_gpu.predictions.combine").combine_masks
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
