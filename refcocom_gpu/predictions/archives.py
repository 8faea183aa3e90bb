"""A `.zip` or a `.tar` of PNGs or `.npy` arrays in, `ArrayBatch` out: read in place, nothing is written.

The base name of a member is its key, or what `name=` says, in whatever folder it lies. An archive may be made to harm:
what a member declares is compared with the images of the dataset before it is decompressed, and no name leads out of
the archive, because none is ever used as a path.
"""

from __future__ import annotations

import contextlib
import io
import math
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import numpy as np

from refcocom_gpu.errors import ContentError, Problems
from refcocom_gpu.predictions.arrays import read_members
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.compressed import Read, opened
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.pictures import read_png

TIMES_LARGEST = 4
"""A member with more times the pixels of the largest image is refused."""

LEAST_PIXELS = 2**22
"""But one of so many is always read: the padded input of SAM has a quarter of it."""

PIXEL_BYTES = 16
"""The widest number that NumPy has; a pixel of a PNG needs at most half of it."""

OTHER_BYTES = 2**20
"""Bytes of a member beside its pixels, and of what stands before a member of a `.tar`."""

OTHER_MEMBERS = 10_000
"""An archive may have so many members beside four for each example."""


class _Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: Its whole name.
        size: The bytes that it declares to hold.
        refused: Why it is not read, whatever it is called; None for a plain file.
    """

    name: str
    size: int
    refused: str | None


class _Limits(NamedTuple):
    """What a member may hold."""

    pixels: int
    size: int
    members: int


def _limits(keys: Keys) -> _Limits:
    dataset = keys.dataset
    largest = int((dataset.heights * dataset.widths).max(initial=0))
    pixels = max(TIMES_LARGEST * largest, LEAST_PIXELS)
    members = 4 * dataset.n_examples + OTHER_MEMBERS
    return _Limits(pixels, PIXEL_BYTES * pixels + OTHER_BYTES, members)


def read_zip(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a `.zip` of masks.

    Raises:
        ContentError: It is no such archive, or has far too many members.
    """
    limits = _limits(keys)
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise ContentError(f"not a zip archive: {error}") from None
        with archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_number(len(infos), limits)
            plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            # The other methods decompress without a bound on what one block of input becomes.
            other = "compressed by another method than deflate, the usual one"
            members = [
                _Member(
                    info.filename, info.file_size, None if info.compress_type in plain else other
                )
                for info in infos
            ]

            def load(k: int) -> bytes:
                # Without a size, all that the bytes decompress to would be held before it is cut to what was declared.
                with archive.open(infos[k]) as member:
                    return member.read(infos[k].file_size)

            yield from _read(path, members, load, limits, keys, options, problems)


def read_tar(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a `.tar` of masks, which may be compressed; it is gone through twice, for the names and for the masks.

    Raises:
        ContentError: It is no such archive, is damaged, or has a member or a number of them that is far too large.
    """
    limits = _limits(keys)
    with contextlib.closing(_Forward(path)) as file:
        infos: list[tarfile.TarInfo] = []
        try:
            with tarfile.open(fileobj=cast(Any, file), mode="r:") as archive:
                for n_members, info in enumerate(archive, 1):
                    # A `.tar` has no list of its members: to pass over one, all of it is decompressed.
                    if info.size > limits.size:
                        raise ContentError(f"member {info.name}: {_too_large(info.size, limits)}")
                    if not info.isdir():
                        infos.append(info)
                    _check_number(n_members, limits)
                    file.allowed = OTHER_BYTES
                # `tarfile` takes a header that is damaged or cut for the end, which is a block of zeros.
                file.seek(archive.offset)
                block = file.read(tarfile.BLOCKSIZE)
                if block.strip(b"\0") or len(block) % tarfile.BLOCKSIZE:
                    raise ContentError(f"the archive is damaged or cut after {len(infos):,} files")
        except ContentError:
            raise
        # Headers that are not what they should be break its parser in several ways.
        except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as error:
            raise ContentError(f"not a tar archive: {error}") from None
        other = "a link, a sparse file or a device, not a plain file"
        members = [
            _Member(info.name, info.size, None if info.isreg() and not info.issparse() else other)
            for info in infos
        ]

        def load(k: int) -> bytes:
            file.seek(infos[k].offset_data)
            file.allowed = infos[k].size + 1
            content = file.read(infos[k].size)
            if len(content) < infos[k].size:
                raise ValueError("the archive ends in the middle of it")
            return content

        yield from _read(path, members, load, limits, keys, options, problems)


class _Forward:
    """The bytes of a file that may be compressed, as `tarfile` wants them: going back begins anew.

    Attributes:
        allowed: Bytes that may be read until it is set again; what is passed over does not count. Headers that go on
            without end, and a parser that waits for more at the end of the file, are stopped by it.
    """

    def __init__(self, path: Path) -> None:
        self.allowed = OTHER_BYTES
        self._path = path
        self._open = contextlib.ExitStack()
        self._begin()

    def _begin(self) -> None:
        self._open.close()
        # Empty masks are compressed a thousandfold; members are limited instead.
        self._next: Read = self._open.enter_context(opened(self._path, limited=False))
        self._at = 0

    def read(self, n: int) -> bytes:
        """Return the next `n` bytes, fewer only at the end."""
        self.allowed -= max(n, 1)
        if self.allowed < 0:
            raise ContentError(f"the headers of a member are longer than {OTHER_BYTES:,} bytes")
        parts = []
        while n and (block := self._next(n)):
            parts.append(block)
            n -= len(block)
            self._at += len(block)
        return b"".join(parts)

    def tell(self) -> int:
        """Return how many bytes are behind."""
        return self._at

    def seek(self, at: int) -> None:
        """Go to a byte, or to the end if that comes first."""
        if at < self._at:
            self._begin()
        while self._at < at and (block := self._next(min(at - self._at, 2**20))):
            self._at += len(block)

    def close(self) -> None:
        """Close the file."""
        self._open.close()


def _check_number(n_members: int, limits: _Limits) -> None:
    if n_members > limits.members:
        raise ContentError(
            f"the archive has more than {limits.members:,} members, far more than the dataset has examples"
        )


def _too_large(size: int, limits: _Limits) -> str:
    return (
        f"it declares {size:,} bytes; {limits.size:,} hold {limits.pixels:,} pixels, {TIMES_LARGEST} times the "
        "largest image or more"
    )


def _read(
    path: Path,
    members: Sequence[_Member],
    load: Callable[[int], bytes],
    limits: _Limits,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> Batches:
    """Read the members that are masks; record those that are neither masks nor hidden files of a system."""

    def where(name: str) -> str:
        return f"{path}, member {name}"

    masks: list[int] = []
    for k, member in enumerate(members):
        parts = member.name.replace("\\", "/").split("/")
        base = PurePosixPath(parts[-1])
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            reason = "its name leads out of the archive; nothing of it is read"
            problems.add("unsafe name", where(member.name), reason)
        elif any(part == "__MACOSX" or (part.startswith(".") and part != ".") for part in parts):
            continue
        elif member.refused is not None or base.suffix.lower() not in (".png", ".npy"):
            reason = member.refused or "an archive of masks holds .png and .npy files only"
            problems.add("unknown file", where(member.name), reason)
        else:
            masks.append(k)

    def load_mask(number: int) -> Any:
        member = members[masks[number]]
        if member.size > limits.size:
            raise ValueError(_too_large(member.size, limits))
        content = load(masks[number])
        is_png = member.name.lower().endswith(".png")
        shape = _png_shape(content) if is_png else _npy_shape(content)
        if math.prod(shape) > limits.pixels:
            raise ValueError(
                f"it declares {'×'.join(map(str, shape))} pixels, more than {limits.pixels:,}: {TIMES_LARGEST} times "
                "the largest image or more"
            )
        if is_png:
            return read_png(io.BytesIO(content), options)
        return np.load(io.BytesIO(content), allow_pickle=False)

    names = [PurePosixPath(members[k].name.replace("\\", "/")).stem for k in masks]
    yield from read_members(
        names, load_mask, lambda n: where(members[masks[n]].name), keys, options, problems
    )


def _png_shape(content: bytes) -> tuple[int, ...]:
    """Return height and width that a PNG declares; nothing for what is no PNG, which Pillow refuses."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        return ()
    return int.from_bytes(content[20:24]), int.from_bytes(content[16:20])


def _npy_shape(content: bytes) -> tuple[int, ...]:
    """Return the shape that a `.npy` declares.

    Raises:
        ValueError: It is none, or has a header of fields with names.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, _ = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"an array of version {version} of .npy, which plain numbers do not need")
    return tuple(map(int, shape))
