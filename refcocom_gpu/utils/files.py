"""Contents in, whole files or hashes of files out: a reader finds all of a file or none of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.errors import UsageError

LOCK = ".lock"
"""The file in a folder that one writer at a time locks."""

TEMPORARY = ".tmp"
"""The ending of a file that is being written; if a killed writer left such a file, it may be deleted."""


PARQUET = {"compression": "zstd", "write_page_checksum": True}
"""How every Parquet file is written. Arrow reads the values of a damaged page as other numbers unless it may compare
a checksum: of 200 flipped bits, 78 were."""

VERIFIED = {"page_checksum_verification": True}
"""How Parquet files are read; files without checksums, of other writers, are read all the same."""

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular(path: Path) -> Path:
    """Return the path of what can be read to its end: a file, a folder, or a link to one.

    Opening a pipe waits for a writer, perhaps for ever, and some devices never end. Whatever opens a path that a user
    named, or found in a folder that a user named, asks this function first.

    Raises:
        UsageError: It is something else. A path at which there is nothing is returned; who opens it says so.

    >>> regular(Path(os.devnull)).name
    Traceback (most recent call last):
    refcocom_gpu.errors.UsageError: /dev/null is a device, not a file; copy what it holds to a file and name that
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise UsageError(
            f"{path} is {kind}, not a file; copy what it holds to a file and name that"
        )
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file; if the block ends well, sync it and rename it to that file.

    The content reaches the disk before the name does, so that a power cut leaves the old file or the new one, but no
    empty one.

    Args:
        path: The file to make or replace, in a folder that exists.

    Yields:
        A hidden path with another ending than `path`, so that no glob finds it.
    """
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name[:200]}.{writer}{TEMPORARY}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk.

    Raises:
        OSError: The content cannot be written. A file system that cannot sync is left to itself.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows opens no folder
    opened = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files under temporary names and rename them once all are written, in the order given.

    Args:
        folder: Made where absent; other files in it are left alone.
        contents: Bytes by name. The last file appears last, so that its presence shows that all are there.

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
            # An ExitStack leaves in reverse order, so files entered last to first are renamed first to last.
            for path, content in reversed([*zip(paths, contents.values(), strict=True)]):
                renames.enter_context(replacing(path)).write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    return paths


def hash_files(paths: Iterable[Path]) -> str:
    """Return the xxh3 hash of the bytes of files, 32 hex digits; for several files, a hash of their hashes.

    Raises:
        OSError: When a file cannot be read.
        UsageError: When a path is neither a file nor a folder.
    """
    return combine_hashes([hash_file(path) for path in paths])


def hash_file(path: Path) -> str:
    """Return the xxh3 hash of a file's bytes; for a folder, of the names and bytes of its files in order of name."""
    digest = xxhash.xxh3_128()
    is_folder = path.is_dir()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if is_folder else [path]:
        if is_folder:
            digest.update(file.name.encode("utf-8", "surrogateescape"))
        with regular(file).open("rb") as opened:
            while chunk := opened.read(2**22):
                digest.update(chunk)
    return digest.hexdigest()


def combine_hashes(digests: Sequence[str]) -> str:
    """Return the hash of a set of files from the hash of each."""
    if len(digests) == 1:
        return digests[0]
    return xxhash.xxh3_128_hexdigest("\n".join(digests).encode())


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file, the same bytes for the same table.

    >>> parquet_bytes(pa.table({"a": pa.array([1])}))[:4]
    b'PAR1'
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **PARQUET)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@contextlib.contextmanager
def locked(folder: str | Path, what: str) -> Iterator[Path]:
    """Lock a folder, made where absent, for one writer; the system unlocks it when the writer is killed.

    Args:
        folder: Where files are written over some time.
        what: Who writes, for messages.

    Raises:
        UsageError: When another writer holds it, or it cannot be written.
    """
    import filelock

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
