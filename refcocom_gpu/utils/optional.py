"""The name of an optional module in, the imported module out."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from refcocom_gpu.errors import UsageError


def require(module: str, need: str, extra: str) -> ModuleType:
    """Import a module that only an extra of this package installs.

    Args:
        module: Dotted name of the module.
        need: A clause that says what needs which library; it begins the error message.
        extra: The extra that installs the library.

    Raises:
        UsageError: The module cannot be imported; the message says what to install.

    >>> require("math", "areas need math", "images").sqrt(4)
    2.0
    >>> require("no_such_module", "reading pictures needs Pillow", "images")
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: reading pictures needs Pillow: pip install 'refcocom-gpu[images]'
    """
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(f"{need}: pip install 'refcocom-gpu[{extra}]'") from None
