"""The stored file of a picture in, its opened header out, and whether its EXIF orientation is to be applied."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.files import regular
from refcocom_gpu.utils.text import first_line

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

ORIENTATION = 0x0112
"""The tag of EXIF that says how a picture is turned and mirrored for a viewer; 1 for not at all."""

QUARTER_TURNS = (5, 6, 7, 8)
"""The orientations that exchange height and width."""


@contextmanager
def opened(stored: Path | bytes, where: str) -> Iterator[ImageFile]:
    """Open a picture, whose pixels are decoded when they are asked for.

    Args:
        stored: Its path or its bytes.
        where: What to call it in an error message.

    Raises:
        DatasetError: There is no such file, or it does not decode; also where that shows in the `with` block.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(
            io.BytesIO(stored) if isinstance(stored, bytes) else regular(stored)
        ) as file:
            yield file
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"{where}: there is no file {stored!s}") from None
    except UnidentifiedImageError:
        # Pillow's own message holds the address of an object, which differs from run to run.
        raise DatasetError(
            f"{where}: the picture does not decode: cannot identify its format"
        ) from None
    except Exception as error:  # each of Pillow's formats raises its own exceptions
        raise DatasetError(f"{where}: the picture does not decode: {first_line(error)}") from error


def is_turned(file: ImageFile, masks: Collection[tuple[int, int]], where: str) -> bool:
    """Return whether the EXIF orientation of a picture is to be applied.

    It is, because annotators see the picture so, unless only the stored pixels have the size of the masks.

    Args:
        file: From `opened`.
        masks: The H and W of each mask of the picture; none allows any size.
        where: What to call the picture in an error message.

    Raises:
        DatasetError: A mask has neither the size that the orientation gives, nor that of the stored pixels.
    """
    stored, orientation = (file.height, file.width), _orientation(file)
    turned = stored[::-1] if orientation in QUARTER_TURNS else stored
    if all(mask == turned for mask in masks):
        return orientation != 1
    if all(mask == stored for mask in masks):
        return False
    wrong = next(mask for mask in masks if mask != stored)
    by_exif = f", by its EXIF orientation {orientation} {turned[0]} × {turned[1]}"
    raise DatasetError(
        f"{where}: the picture is {stored[0]} × {stored[1]} (height × width)"
        f"{by_exif if orientation != 1 else ''}, its mask {wrong[0]} × {wrong[1]}"
    )


def _orientation(file: ImageFile) -> int:
    """The EXIF orientation, 1…8; 1 where the picture states none."""
    try:
        stated: Any = file.getexif().get(ORIENTATION)
    except Exception:  # EXIF data that is damaged raises nearly any exception; viewers ignore it
        return 1
    return int(stated) if stated in range(1, 9) else 1
