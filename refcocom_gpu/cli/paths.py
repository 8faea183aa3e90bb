"""Words that may be file names in, paths with `~` expanded out."""

from __future__ import annotations

import os
from pathlib import Path


def home(path: str) -> str:
    """Expand `~`, which the shell leaves alone after `key=`, unless a file has that very name."""
    if path.startswith("~") and not exists(path):
        path = os.path.expanduser(path)  # noqa: PTH111 (Path's raises for an unknown user)
    # A path that still begins with `~` is made absolute, so that it is not expanded again; Path drops a leading `./`.
    return str(Path(path).absolute()) if str(Path(path)).startswith("~") else path


def exists(path: str) -> bool:
    """Return whether there is a file or folder of this name."""
    return os.path.exists(path)  # noqa: PTH110 (Path's raises for a name that is too long or a folder that is closed)
