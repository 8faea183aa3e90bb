"""Outputs of models as they come in, masks out: one small, pure module per source.

`read` takes a file of raw responses and returns what `score` takes; `to_mask` takes one output. The module of a source
says in its docstring what the output looks like, and where that is documented. Start at `sources.py`, whose table names
the sources; `combine.py` makes one mask of several.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcocom_gpu.adapters.files import read as read
    from refcocom_gpu.adapters.sources import to_mask as to_mask

# No module is called like a function: importing it would put the module in the place of the function.
_HOMES = {"read": "files", "to_mask": "sources"}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
