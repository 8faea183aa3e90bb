"""A folder in, an error out if no file can be written there: told before the work whose result it is for."""

from __future__ import annotations

import os
from pathlib import Path

from refcocom_gpu.errors import UsageError


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made; it need not exist, and nothing is made here.

    Raises:
        UsageError: It, or the nearest folder above it that exists, is a file or read-only.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     check_writable(Path(file.name) / "out")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: cannot write to /.../out: /... is a file, not a folder
    """
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(f"cannot write to {folder}: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        where = "it" if nearest == folder else str(nearest)
        raise UsageError(f"cannot write to {folder}: {where} is read-only")
