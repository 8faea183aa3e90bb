"""Contents in, whole files out, and the hash of a file's bytes: a reader finds all of a file or none of it."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.errors import UsageError

LOCK = ".lock"
"""Held by whoever writes a folder over some time."""

TEMPORARY = ".tmp"
"""The ending of a file that is being written; one that a killed writer left may be deleted."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and rename it to that file if the block ends well.

    Args:
        path: The file to make or replace; its folder is there.

    Yields:
        A hidden path that does not end like `path`, so that no glob finds it.
    """
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name[:200]}.{writer}{TEMPORARY}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files under temporary names and rename them once all are written, in the order given.

    Args:
        folder: Made where absent; other files in it are left alone.
        contents: Name to bytes; the last appears last, so it can vouch for the others.

    Returns:
        The paths, in the same order.

    Raises:
        UsageError: When the folder cannot be written.

    >>> import tempfile
    >>> [path.read_bytes() for path in write_files(tempfile.mkdtemp(), {"a": b"1", "b": b"2"})]
    [b'1', b'2']
    """
    folder = Path(folder)
    paths = [folder / name for name in contents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as renames:
            # Entered from the last to the first, they are renamed from the first to the last.
            for path, content in reversed([*zip(paths, contents.values(), strict=True)]):
                renames.enter_context(replacing(path)).write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return paths


def hash_files(paths: Iterable[Path]) -> str:
    """Return the xxh3 hash of what files hold, 32 hex digits: of one file its own, of several a hash of theirs.

    Raises:
        OSError: When a file cannot be read.
    """
    return combine_hashes([hash_file(path) for path in paths])


def hash_file(path: Path) -> str:
    """Return the xxh3 hash of a file's bytes, or of a folder's files, names and bytes in the order of names."""
    digest = xxhash.xxh3_128()
    is_folder = path.is_dir()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if is_folder else [path]:
        if is_folder:
            digest.update(file.name.encode("utf-8", "surrogateescape"))
        with file.open("rb") as opened:
            while chunk := opened.read(2**22):
                digest.update(chunk)
    return digest.hexdigest()


def combine_hashes(digests: Sequence[str]) -> str:
    """Return the hash of a set of files from theirs."""
    if len(digests) == 1:
        return digests[0]
    return xxhash.xxh3_128_hexdigest("\n".join(digests).encode())


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file, the same bytes for the same table.

    >>> parquet_bytes(pa.table({"a": pa.array([1])}))[:4]
    b'PAR1'
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def as_text(value: str) -> str:
    r"""Text that can be written as UTF-8: the bytes of a file name that is not are escaped.

    >>> as_text("a\udcffé")
    'a\\udcffé'
    """
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def locked(folder: str | Path, what: str) -> Iterator[Path]:
    """Hold a folder, made where absent, for one writer at a time; the system frees it when a writer is killed.

    Args:
        folder: Where something is written over some time.
        what: Who writes, for messages.

    Raises:
        UsageError: When another writer is at work in it, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output_dir {folder} is a file, not a folder")
    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UsageError(
            f"another {what} is writing to {folder}; wait for it to end, or choose another output_dir"
        ) from None
    except NotImplementedError:
        warnings.warn(
            f"refcocom: the file system of {folder} has no locks; let one {what} at a time write there",
            RuntimeWarning,
            stacklevel=3,
        )
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    try:
        yield folder
    finally:
        lock.release()
