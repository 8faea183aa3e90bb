"""Folders of YAML files in; the groups of a verb with all their names, packaged and the user's own, out.

A user's files lie in `config_dir=DIR` or in `~/.config/refcocom`, below a folder of the group's name. A name belongs to
one file: a second of the same name is an error, so that none hides another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from refcocom_gpu.cli.config import conf_dir, groups
from refcocom_gpu.errors import UsageError


def user_dir() -> Path:
    """Return the folder of the user's own group files: `$XDG_CONFIG_HOME/refcocom`, or `~/.config/refcocom`."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification has relative paths ignored.
    if not os.path.isabs(home):  # noqa: PTH117 (an empty text is no path)
        home = os.path.expanduser("~/.config")  # noqa: PTH111 (Path's raises for a user without a home)
    return Path(home) / "refcocom"


def group_files(config: type, config_dir: str | None = None) -> dict[str, dict[str, list[Path]]]:
    """Return every group of a verb, the names in it, and for each name the files that have it, packaged ones first.

    Args:
        config: The config class of the verb.
        config_dir: The user's folder beside the usual one.

    Raises:
        UsageError: There is no such folder.
    """
    if config_dir is not None and not os.path.isdir(config_dir):  # noqa: PTH112 (Path's raises for a name too long)
        raise UsageError(f"no folder at config_dir={config_dir}")
    folders = [conf_dir(), *([Path(config_dir)] if config_dir is not None else []), user_dir()]
    found: dict[str, dict[str, list[Path]]] = {}
    for group in groups(config):
        names = found.setdefault(group, {})
        for folder in dict.fromkeys(folder.absolute() for folder in folders):
            for path in _yaml_files(folder / group):
                names.setdefault(path.stem, []).append(path)
    return {group: dict(sorted(names.items())) for group, names in found.items()}


def _yaml_files(folder: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"})
    except OSError:
        return []  # most users have no such folder


def own_files(group: str, files: dict[str, list[Path]]) -> dict[str, Path]:
    """Return the user's own file of each name in a group.

    Raises:
        UsageError: Two files have one name.
    """
    own = {}
    for name, paths in files.items():
        if len(paths) > 1:
            raise UsageError(
                f"{group}={name} names two files, {paths[0]} and {paths[1]}; rename the second"
            )
        if paths[0].parent.parent != conf_dir().absolute():
            own[name] = paths[0]
    return own
