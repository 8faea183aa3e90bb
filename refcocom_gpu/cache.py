"""Named arrays in, one verified, memory-mapped file out: what the store keeps on disk.

A file is safetensors with a hash of its data in the header. It is written under a lock to a temporary name and
renamed, so it appears whole or not at all; it is verified each time it is opened, so a flipped byte, a truncated
or a foreign file is rebuilt and never trusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import xxhash
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_DTYPES = {"I32": np.int32, "I64": np.int64, "U64": np.uint64}


class DamagedError(Exception):
    """A cache file is not what was written; it will be rebuilt."""


def cache_dir() -> Path:
    """The folder of everything cached: `$REFCOCOM_CACHE`, else `refcocom_gpu` in the user's cache folder."""
    if chosen := os.environ.get("REFCOCOM_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "refcocom_gpu"


def cached(path: Path, identity: dict[str, str], build: Callable[[], Arrays]) -> Arrays:
    """Open the arrays at `path`, building them first where they are absent or damaged.

    Args:
        path: Where the file is or will be.
        identity: What the file must say it holds, such as a fingerprint and a layout version.
        build: Makes the arrays.

    Returns:
        Read-only arrays mapped from the file; the built ones, with a warning, where nothing can be written.
    """
    with contextlib.suppress(DamagedError):
        return open_arrays(path, identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        with lock:
            # Another process may have built it while this one waited.
            with contextlib.suppress(DamagedError):
                return open_arrays(path, identity)
            for left_by_a_killed_writer in path.parent.glob(f"{path.stem}.*.tmp"):
                left_by_a_killed_writer.unlink(missing_ok=True)
            arrays = build()
            write_arrays(path, arrays, identity)
        return open_arrays(path, identity)
    except OSError as error:
        warnings.warn(
            f"refcocom: cannot write the store to {path.parent} ({error.strerror}); it is built anew each time. "
            f"Set REFCOCOM_CACHE to a writable folder",
            RuntimeWarning,
            stacklevel=2,
        )
        return build()


def write_arrays(path: Path, arrays: Arrays, identity: dict[str, str]) -> None:
    """Write arrays with their identity and hash; the file appears whole or not at all."""
    from safetensors.numpy import save_file

    # safetensors stores by descending element size, then by name; the hash follows the file.
    ordered = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    digest = xxhash.xxh3_128()
    for name in ordered:
        digest.update(np.ascontiguousarray(arrays[name]).data)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    try:
        save_file(arrays, temporary, metadata={**identity, "xxh3_128": digest.hexdigest()})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_arrays(path: Path, identity: dict[str, str]) -> Arrays:
    """Map a file and verify it.

    Raises:
        DamagedError: When the file is absent, truncated, altered, or holds something else.
    """
    # Mapped by hand because safetensors copies every array it opens for NumPy.
    try:
        mapped = np.memmap(path, np.uint8, mode="r")
        header_bytes = int(mapped[:8].view(np.uint64)[0])
        header = json.loads(mapped[8 : 8 + header_bytes].tobytes())
        metadata = header.pop("__metadata__")
        data = mapped[8 + header_bytes :]
        if any(metadata[key] != value for key, value in identity.items()):
            raise DamagedError(f"{path} holds something else")
        if xxhash.xxh3_128(data.data).hexdigest() != metadata["xxh3_128"]:
            raise DamagedError(f"{path} does not match its hash")
        arrays = {}
        used = 0
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            arrays[name] = data[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
            used += stop - start
        if used != data.size:
            raise DamagedError(f"{path} has {data.size - used} bytes of no array")
    except DamagedError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise DamagedError(f"{path}: {error}") from None
    # Plain arrays: np.memmap's subclass costs a Python call at every slice.
    return {name: np.asarray(array) for name, array in arrays.items()}
