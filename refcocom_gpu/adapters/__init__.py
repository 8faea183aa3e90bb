"""Outputs of models as they come in, masks out: one small, pure module per source.

`read` takes a file of raw responses and returns what `score` takes; `to_mask` takes one output. The module of a source
says in its docstring what the output looks like, and where that is documented. Start at `sources.py`, whose table names
the sources; `combine.py` makes one mask of several.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.adapters import coco as coco
    from refcocom_gpu.adapters import florence as florence
    from refcocom_gpu.adapters import gemini as gemini
    from refcocom_gpu.adapters import moondream as moondream
    from refcocom_gpu.adapters import points as points
    from refcocom_gpu.adapters import qwen as qwen
    from refcocom_gpu.adapters import svg as svg
    from refcocom_gpu.adapters.files import read as read
    from refcocom_gpu.adapters.sources import to_mask as to_mask

# No module is called like a function: importing it would put the module in the place of the function.
_HOMES = {"read": "files", "to_mask": "sources"}
_MODULES = ("coco", "florence", "gemini", "moondream", "points", "qwen", "svg")
__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
