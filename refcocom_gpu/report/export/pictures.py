"""A dataset in, a name for each of its pictures and the files of those at hand out."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.text import base_name

ORIENTATION = 0x0112
"""The tag of EXIF data that says how a picture is turned; 1 is upright."""


@dataclass(frozen=True, eq=False)
class Found:
    """The pictures of a dataset.

    Attributes:
        names: The name of a file for each row of `dataset.images`, all different.
        images: To read them from; None where there are none.
        reason: Why there are none, for a message.
    """

    names: list[str]
    images: Images | None
    reason: str = ""


def find_pictures(dataset: Dataset, folder: str | Path | None) -> Found:
    """Name the pictures of a dataset and open them where they are at hand.

    Args:
        dataset: Their dataset.
        folder: That holds them by `file_name`; None for those that the dataset holds.

    Raises:
        UsageError: `folder` is not a folder.
    """
    names = picture_names(dataset)
    try:
        return Found(names, Images(dataset, folder))
    except UsageError as error:
        if folder is not None:
            raise
        return Found(names, None, f" ({error})")


def picture_names(dataset: Dataset) -> list[str]:
    """Return a name for each picture: the base name of `file_name`, with the row before it where that repeats."""
    given = dataset.images["file_name"].to_pylist()
    names = [base_name(name) if name else "" for name in given]
    # As file systems compare them that know no case.
    times = Counter(name.lower() for name in names)
    return [
        name
        if name not in ("", "..") and times[name.lower()] == 1
        else f"{row:06}_{name or 'picture.png'}"
        for row, name in enumerate(names)
    ]


def write_pictures(found: Found, folder: Path) -> int:
    """Write the pictures at hand as files, and return how many there are.

    The stored file is written as it is, unless a viewer would turn it: then a PNG of what its masks describe.

    Raises:
        UsageError: When the folder cannot be written.
    """
    written = 0
    if found.images is None:
        return written
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(found.names):
            if not found.images.problem(row):
                (folder / name).write_bytes(_upright(found.images, row))
                written += 1
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return written


def _upright(images: Images, row: int) -> bytes:
    from PIL import Image

    stored = images.encoded(row)
    with Image.open(io.BytesIO(stored)) as picture:
        if picture.getexif().get(ORIENTATION, 1) == 1:
            return stored
    buffer = io.BytesIO()
    images[row].save(buffer, "PNG")
    return buffer.getvalue()
