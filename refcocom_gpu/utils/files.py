"""Contents in, whole files out: a reader finds all of a file or none of it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from refcocom_gpu.errors import UsageError

LOCK = ".lock"
"""Held by whoever writes a folder over some time."""


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files under temporary names and rename them once all are written, in the order given.

    Args:
        folder: Made where absent; other files in it are left alone.
        contents: Name to bytes.

    Returns:
        The paths, in the same order.

    Raises:
        UsageError: When the folder cannot be written.

    >>> import tempfile
    >>> [path.read_bytes() for path in write_files(tempfile.mkdtemp(), {"a": b"1", "b": b"2"})]
    [b'1', b'2']
    """
    folder = Path(folder)
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            temporary[name].write_bytes(content)
        return [temporary[name].replace(folder / name) for name in contents]
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    finally:
        if folder.is_dir():
            for path in temporary.values():
                path.unlink(missing_ok=True)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file, the same bytes for the same table.

    >>> parquet_bytes(pa.table({"a": pa.array([1])}))[:4]
    b'PAR1'
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


@contextlib.contextmanager
def locked(folder: str | Path, what: str) -> Iterator[Path]:
    """A folder, made where absent, for one writer at a time; the system frees it when a writer is killed.

    Args:
        folder: Where something is written over some time.
        what: Who writes, for messages.

    Raises:
        UsageError: When another one is at work in it, or it cannot be written.
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
            f"refcocom: the file system of {folder} has no locks; see to it that one {what} writes there at a time",
            RuntimeWarning,
            stacklevel=3,
        )
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    try:
        yield folder
    finally:
        lock.release()
