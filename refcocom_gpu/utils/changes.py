"""Files in, a token that changes with their content out: what is hashed is what is read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from refcocom_gpu.errors import DataError, RefCOCOMError, UsageError

UNSETTLED_NS = 2_000_000_000
"""A file that changed this recently may change again within one tick of the file system's clock (2 s on FAT)."""


def token_of(path: Path) -> str:
    """Return a token that changes with a local file or folder: from sizes, and times of change in nanoseconds.

    Args:
        path: A file, or a folder, for which the names of its files count too.

    Raises:
        OSError: When it is absent.
    """
    stats = [(n, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for n, s in _stats(path)]
    return xxhash.xxh3_128_hexdigest(repr(stats).encode("utf-8", "surrogateescape"))


def is_settled(path: Path) -> bool:
    """Return whether a local file changed long enough ago that another change would show in `token_of`.

    Raises:
        OSError: When it is absent.
    """
    latest = max((max(s.st_mtime_ns, s.st_ctime_ns) for _, s in _stats(path)), default=0)
    return latest <= time.time_ns() - UNSETTLED_NS


def _stats(path: Path) -> list[tuple[str, os.stat_result]]:
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [(file.name, file.stat()) for file in files]


@contextlib.contextmanager
def unchanged(paths: Sequence[Path]) -> Iterator[None]:
    r"""Refuse the result of a block that read files which were changed or replaced meanwhile.

    A mistake that the block found is not reported then: it may be that of a file of which half was written.

    Args:
        paths: Files and folders that the block reads.

    Raises:
        UsageError: One cannot be read.
        DataError: One is another than before the block.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "p.jsonl"
    >>> _ = path.write_text("{}")
    >>> with unchanged([path]):
    ...     _ = path.write_text("[]\n")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    refcocom_gpu.errors.DataError: ...p.jsonl changed while it was read; run this again when nothing writes to it
    """
    before = [_token(path) for path in paths]
    try:
        yield
    except (RefCOCOMError, OSError):
        _check(paths, before)
        raise
    _check(paths, before)


def _token(path: Path) -> str:
    try:
        return token_of(path)
    except OSError as error:
        raise UsageError(f"{error.filename or path} cannot be read: {error.strerror}") from None


def _check(paths: Sequence[Path], before: Sequence[str]) -> None:
    for path, token in zip(paths, before, strict=True):
        try:
            is_same = token_of(path) == token
        except OSError:  # it was deleted
            is_same = False
        if not is_same:
            raise DataError(
                f"{path} changed while it was read; run this again when nothing writes to it"
            ) from None
