"""A dataset in, what one prediction for it may hold at most out: asked before a file is inflated, by its headers alone.

A few bytes of an archive can declare, or inflate to, any number of pixels. The largest image bounds what a mask needs;
what is beyond that by far is refused, whatever it is. Low-resolution and padded logits are within it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import ContentError
from refcocom_gpu.predictions.compressed import Read

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

TIMES_LARGEST = 4
"""A mask with more times the pixels of the largest image is refused."""

LEAST_PIXELS = 2**22
"""But one of so many is always read: the padded input of SAM has a quarter of it."""

STACKED = 16
"""So many times the pixels of one mask may stand in an array of several: 218 masks of 480×640."""

PIXEL_BYTES = 16
"""The widest number that NumPy has; a pixel of a PNG needs at most half of it."""

OTHER_BYTES = 2**20
"""Bytes of a member beside its pixels, and of what stands before a member of a `.tar`."""

OTHER_MEMBERS = 10_000
"""A file may have so many members beside four for each example."""

HEAD_BYTES = 2**14
"""Bytes in which the header of a `.npy` ends; NumPy reads headers of 10,000 bytes at most."""


class Limits(NamedTuple):
    """What a file of predictions may hold.

    Attributes:
        pixels: Of one mask.
        members: Masks and other files.
    """

    pixels: int
    members: int

    def check_number(self, n_members: int) -> None:
        """Refuse a file of too many members.

        Raises:
            ContentError: It has.
        """
        if n_members > self.members:
            raise ContentError(
                f"the archive has more than {self.members:,} members, far more than the dataset has examples"
            )

    def check_size(self, size: int, *, stacked: bool) -> None:
        """Refuse a member by the bytes that it declares.

        Args:
            size: Bytes when it is inflated.
            stacked: Whether it may hold several masks.

        Raises:
            ValueError: It declares too many.
        """
        pixels = self.pixels * STACKED if stacked else self.pixels
        most = PIXEL_BYTES * pixels + OTHER_BYTES
        if size > most:
            raise ValueError(
                f"it declares {size:,} bytes; {most:,} hold {pixels:,} pixels, {self._reason()}"
            )

    def check_shape(self, shape: Sequence[int], itemsize: int = 1) -> None:
        """Refuse a member by the shape that it declares.

        Args:
            shape: Of one mask [H, W], or of several [K, H, W].
            itemsize: Bytes of each value.

        Raises:
            ValueError: It declares too many pixels, or values wider than any number.

        >>> Limits(pixels=100, members=1).check_shape((11, 10))
        Traceback (most recent call last):
        ValueError: it declares 11×10 pixels, more than 100: 4 times the largest image or more
        """
        most = self.pixels * STACKED if len(shape) > 2 else self.pixels
        if math.prod(shape) > most:
            declared = "×".join(map(str, shape))
            raise ValueError(f"it declares {declared} pixels, more than {most:,}: {self._reason()}")
        if itemsize > PIXEL_BYTES:
            raise ValueError(f"it declares values of {itemsize:,} bytes; no pixel needs as many")

    def _reason(self) -> str:
        return f"{TIMES_LARGEST} times the largest image or more"


def limits_of(dataset: Dataset) -> Limits:
    """Return what predictions for a dataset may hold."""
    largest = int((dataset.heights * dataset.widths).max(initial=0))
    pixels = max(TIMES_LARGEST * largest, LEAST_PIXELS)
    return Limits(pixels, 4 * dataset.n_examples + OTHER_MEMBERS)


def read_npy(read: Read, size: int, limits: Limits) -> NDArray[Any]:
    """Read a `.npy`, of which nothing but the header is inflated before its shape is known to be allowed.

    Args:
        read: Returns the next bytes.
        size: All bytes that the archive says are there.
        limits: What is allowed.

    Raises:
        ValueError: It is no `.npy` of plain numbers, declares too much, or holds more or less than it declares.
    """
    limits.check_size(size, stacked=True)
    head = read(min(size, HEAD_BYTES))
    header = io.BytesIO(head)
    version = np.lib.format.read_magic(header)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(header)
    else:
        raise ValueError(f"an array of version {version} of .npy, which plain numbers do not need")
    limits.check_shape(shape, dtype.itemsize)
    held = size - header.tell()
    # What stands for objects has no size to compare; NumPy refuses it.
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
        raise ValueError(
            f"it declares the shape {list(shape)} of {dtype}, but holds {held:,} bytes"
        )
    content = head + read(size - len(head))
    if len(content) < size:
        raise ValueError("the archive ends in the middle of it")
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
