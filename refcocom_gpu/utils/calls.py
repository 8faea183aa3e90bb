"""A package in, the same package out, which may be called: `rc.sweep(…)` beside `from refcocom_gpu.sweep import run`.

A function cannot take the place of a package of its name, because importing anything below the package puts it back.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, module: str) -> None:
    """Let calls of a package go to the function of its name in one of its modules, imported when it is first called.

    Args:
        package: Its full name; it is being imported.
        module: The module below it.

    >>> import refcocom_gpu as rc
    >>> list(inspect.signature(rc.sweep).parameters)[:3]
    ['predictions', 'store', 'output_dir']
    """

    def function() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(
            import_module(f"{package}.{module}"), package.rpartition(".")[2]
        )
        return found

    class CallablePackage(ModuleType):
        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(function())

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return function()(*arguments, **options)

    sys.modules[package].__class__ = CallablePackage
