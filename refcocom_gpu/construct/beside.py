"""The folder of a refined set in, the folder beside it out: it holds what a construction needs to go on.

So the folder of the set holds the set, its card and its audit only, and can be uploaded as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.files import LOCK, locked
from refcocom_gpu.utils.folders import check_writable

ENDING = ".work"
PARTS, STAGE = "parts", "new"
"""The measurements of each image; where everything is written before it is moved into place."""

INSIDE = {PARTS: ".parts", STAGE: ".new"}
"""Where both were, in the folder of the set itself, before version 0.1."""


def work_folder(folder: str | Path) -> Path:
    """Return where the construction of a set keeps its work; nothing is made here.

    Args:
        folder: Of the set.

    Raises:
        UsageError: It is the root of a file system, which has nothing beside it.

    >>> work_folder("/data/refined").name
    'refined.work'
    """
    place = Path(folder).resolve()
    if not place.name:
        raise UsageError(f"output_dir {folder}: a construction needs a folder, not a whole disk")
    return place.with_name(place.name + ENDING)


def check_beside(folder: Path) -> None:
    """Refuse a folder beside which nothing can be written, or from where nothing can be moved into it.

    Raises:
        UsageError: The folder above it is read-only, or it is a mount point.
    """
    beside = work_folder(folder)
    check_writable(beside)
    if folder.is_dir() and folder.stat().st_dev != beside.parent.stat().st_dev:
        raise UsageError(
            f"output_dir {folder} is a mount point, and a construction keeps its work beside its folder, on the same "
            f"disk; choose a folder in it, such as {folder / 'refined'}"
        )


def kept_work(folder: Path) -> bool:
    """Return whether a construction has worked on a folder: in this layout or the earlier one."""
    return (work_folder(folder) / PARTS).is_dir() or (folder / INSIDE[PARTS]).is_dir()


def adopt_earlier(folder: Path) -> None:
    """Move what the earlier layout kept in the folder of the set to where it belongs now.

    Raises:
        UsageError: It cannot be moved, or an earlier version of this package is writing there.
    """
    earlier, parts = folder / INSIDE[PARTS], work_folder(folder) / PARTS
    if not earlier.is_dir():
        return
    with locked(folder, "construction"):
        try:
            parts.mkdir(parents=True, exist_ok=True)
            for part in earlier.iterdir():
                part.replace(parts / part.name)
            earlier.rmdir()
            shutil.rmtree(folder / INSIDE[STAGE], ignore_errors=True)
        except OSError as error:
            raise UsageError(
                f"cannot move {earlier} to {parts}: {error.strerror or error}"
            ) from None
    (folder / LOCK).unlink(missing_ok=True)
