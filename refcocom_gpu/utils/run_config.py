"""The keys of a run as YAML in, a file beside its result out; a file of that name that no run wrote is left alone.

It is written with the result, before the file that completes it, so no folder holds the keys of another run.
"""

from __future__ import annotations

import re
from pathlib import Path

from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.files import regular

CONFIG = "config.yaml"
"""The file of keys in the folder of a result."""

HEAD = b"# Every key of this run of refcocom "
"""How each of these files begins, and no other."""


def config_file(folder: str | Path, config: bytes | None) -> dict[str, bytes]:
    """Return the file to write with a result, by name; without keys there is none, and that of an earlier run goes.

    Args:
        folder: Where the result is written.
        config: The content, which begins with `HEAD`; None for a result that no run of the command makes.

    Raises:
        UsageError: As `check_config` does.

    >>> config_file("nowhere", HEAD)
    {'config.yaml': b'# Every key of this run of refcocom '}
    """
    path = Path(folder) / CONFIG
    if config is not None:
        check_config(folder, _verb_of(config))
        return {CONFIG: config}
    if _is_ours(path):
        path.unlink(missing_ok=True)
    return {}


def check_config(folder: str | Path, verb: str) -> None:
    """Refuse a folder whose `config.yaml` no run wrote, or a run of another verb, whose result is beside it.

    Args:
        folder: Where a result is to be written.
        verb: What writes it.

    Raises:
        UsageError: There is such a file, which would be replaced.
    """
    path = Path(folder) / CONFIG
    if _is_ours(path) and (before := _verb_of(path.read_bytes())) != verb:
        raise UsageError(f"{folder} holds what refcocom {before} wrote; choose another output_dir")
    if path.exists() and not _is_ours(path):
        raise UsageError(
            f"{path} was not written by refcocom, which would replace it by the keys of this run; rename it, or "
            "choose another output_dir"
        )


def _verb_of(content: bytes) -> str:
    """Return the verb that the first line of a file of keys names."""
    found = re.search(rb"\A[^\n]*; refcocom (\w+) ", content)
    return found[1].decode() if found else ""


def _is_ours(path: Path) -> bool:
    try:
        with regular(path).open("rb") as file:
            return file.read(len(HEAD)) == HEAD
    except (OSError, UsageError):
        return False
