"""A `.zip`, a `.tar` or an `.npz` of PNGs or `.npy` arrays in, `ArrayBatch` out: read in place, nothing is written.

The base name of a member is its key, or what `name=` says, in whatever folder it lies. An archive may be made to harm:
what a member declares is compared with the images of the dataset before it is decompressed, and no name leads out of
the archive, because none is ever used as a path.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

from refcocom_gpu.errors import ContentError, Problems
from refcocom_gpu.predictions.arrays import read_members
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.compressed import Read, opened
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.limits import OTHER_BYTES, Limits, limits_of, read_npy
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.pictures import read_png

NPY = b"\x93NUMPY"
"""How a `.npy` begins."""

Load = Callable[[int], AbstractContextManager[Read]]
"""Opens a member, and returns what reads its next bytes."""


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


def read_zip(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a `.zip` of masks.

    Raises:
        ContentError: It is no such archive, or has far too many members.
    """
    limits = limits_of(keys.dataset)
    with _opened_zip(path, "not a zip archive", limits) as (members, load):
        yield from _read(path, members, load, limits, keys, options, problems)


def read_npz(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a NumPy archive: a `.zip` of arrays, whose member `NAME.npy` is the array `NAME`.

    Raises:
        ContentError: As `read_zip` does.
    """
    limits = limits_of(keys.dataset)
    with path.open("rb") as file:
        if file.read(len(NPY)) == NPY:
            raise ContentError("one array (.npy), not an .npz archive")
    with _opened_zip(path, "not an .npz archive", limits) as (members, load):
        names = [member.name.removesuffix(".npy") for member in members]

        def load_array(k: int) -> Any:
            if members[k].refused is not None:
                raise ValueError(members[k].refused)
            with load(k) as read:
                return read_npy(read, members[k].size, limits)

        yield from read_members(
            names, load_array, lambda k: f"{path}, member {names[k]}", keys, options, problems
        )


@contextlib.contextmanager
def _opened_zip(path: Path, otherwise: str, limits: Limits) -> Iterator[tuple[list[_Member], Load]]:
    """Yield the members of a `.zip` and how to read them; `otherwise` says what a file is that is none."""
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise ContentError(f"{otherwise}: {error}") from None
        with archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            limits.check_number(len(infos))
            plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            # The other methods decompress without a bound on what one block of input becomes.
            other = "compressed by another method than deflate, the usual one"
            members = [
                _Member(
                    info.filename, info.file_size, None if info.compress_type in plain else other
                )
                for info in infos
            ]

            @contextlib.contextmanager
            def load(k: int) -> Iterator[Read]:
                # Reading without a size would hold all that the bytes decompress to, whatever was declared.
                with archive.open(infos[k]) as member:
                    yield member.read

            yield members, load


def read_tar(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a `.tar` of masks, which may be compressed; it is gone through twice, for the names and for the masks.

    Raises:
        ContentError: It is no such archive, is damaged, or has a member or a number of them that is far too large.
    """
    limits = limits_of(keys.dataset)
    with contextlib.closing(_Forward(path)) as file:
        infos: list[tarfile.TarInfo] = []
        try:
            with tarfile.open(fileobj=cast(Any, file), mode="r:") as archive:
                for n_members, info in enumerate(archive, 1):
                    # A `.tar` has no list of its members: to pass over one, all of it is decompressed.
                    try:
                        limits.check_size(info.size, stacked=True)
                    except ValueError as error:
                        raise ContentError(f"member {info.name}: {error}") from None
                    if not info.isdir():
                        infos.append(info)
                    limits.check_number(n_members)
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

        @contextlib.contextmanager
        def load(k: int) -> Iterator[Read]:
            file.seek(infos[k].offset_data)
            file.allowed = infos[k].size + 1
            yield file.read

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


def _read(
    path: Path,
    members: Sequence[_Member],
    load: Load,
    limits: Limits,
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
        is_png = member.name.lower().endswith(".png")
        limits.check_size(member.size, stacked=not is_png)
        with load(masks[number]) as read:
            if not is_png:
                return read_npy(read, member.size, limits)
            content = read(member.size)
        if len(content) < member.size:
            raise ValueError("the archive ends in the middle of it")
        return read_png(io.BytesIO(content), options, limits)

    names = [PurePosixPath(members[k].name.replace("\\", "/")).stem for k in masks]
    yield from read_members(
        names, load_mask, lambda n: where(members[masks[n]].name), keys, options, problems
    )
