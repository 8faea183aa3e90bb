"""Named arrays in, one verified, memory-mapped file out: the cache on disk.

A file is safetensors whose header begins with a hash of every other byte. It is written under a lock and appears whole
or not at all. Nothing is parsed before the hash has been checked, so a damaged, truncated or foreign file is rebuilt
and never trusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.utils.files import TEMPORARY, replacing

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Pieces:
    """A vector that is made piece by piece, so that a large one can be written without being held in memory.

    Attributes:
        size: Elements in all.
        dtype: Their type.
        make: Yields the pieces in order; every call starts anew.
    """

    size: int
    dtype: np.dtype[Any]
    make: Callable[[], Iterator[NDArray[Any]]]

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (self.size,)

    @property
    def nbytes(self) -> int:
        """As an array's."""
        return self.size * self.dtype.itemsize


Built = dict[str, NDArray[Any] | Pieces]

# The names that safetensors gives to the types stored here.
_DTYPES: dict[str, np.dtype[Any]] = {
    "I32": np.dtype(np.int32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U8": np.dtype(np.uint8),
    "U64": np.dtype(np.uint64),
}

# After the eight bytes of its length, every header begins with these characters and the 32 hex digits of the hash.
_BEFORE_HASH = b'{"__metadata__":{"xxh3_128":"'
_HASH = slice(8 + len(_BEFORE_HASH), 8 + len(_BEFORE_HASH) + 32)

# The folders that this package makes below its cache folder, and how their entries are named: stores by fingerprint and
# layout, records by a hash of the file they were read from, built-in predictions by a hash of the code that draws them,
# kernels by a hash of their source.
_OURS = {
    "stores": re.compile(r"[0-9a-f]{32}-v\w+"),
    "records": re.compile(r"[0-9a-f]{32}-v\w+"),
    "predictions": re.compile(r"[0-9a-f]{16}"),
    "numba": re.compile(r"[0-9a-f]{16}"),
    "lmms-eval": re.compile(r"[0-9a-f]{32}"),
}


class DamagedError(Exception):
    """A cache file is not the one that was written; it will be rebuilt."""


def cache_dir() -> Path:
    """Return the folder of everything cached: `$REFCOCOM_CACHE`, else `refcocom_gpu` in the user's cache folder.

    `refcocom_kernels.cpu.numba.jit` keeps compiled kernels in `numba` below the same folder.
    """
    if chosen := os.environ.get("REFCOCOM_CACHE"):
        return Path(os.path.expanduser(chosen))  # noqa: PTH111 (Path's raises for an unknown user)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    # A user without a home folder has no cache folder. /dev/null is reported like a folder that cannot be written.
    return Path(os.devnull if base.startswith("~") else base) / "refcocom_gpu"


def cache_root(cache: bool | str | Path) -> Path | None:
    """Return the folder that a `cache` argument means: the user's for True, a path as given, None for False."""
    if cache is False:
        return None
    return cache_dir() if cache is True else Path(cache)


def entries() -> list[Path]:
    """Return the folders that this package made below `cache_dir()`, and no others."""
    return sorted(
        folder
        for name, ours in _OURS.items()
        for folder in (cache_dir() / name).glob("*")
        if ours.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
    )


def clear() -> None:
    """Delete `entries()`; other files stay, and so do folders that hold any.

    Raises:
        OSError: When something cannot be deleted.
    """
    for folder in entries():
        shutil.rmtree(folder)
    for folder in (*(cache_dir() / name for name in _OURS), cache_dir()):
        with contextlib.suppress(OSError):
            folder.rmdir()


def cached(path: Path, identity: dict[str, str], build: Callable[[], Built]) -> Arrays:
    """Open the arrays at `path`; build them first if they are absent or damaged.

    Args:
        path: Where the file is or will be.
        identity: What the header of the file must hold, such as a fingerprint and a layout version.
        build: Makes the arrays.

    Returns:
        Read-only arrays mapped from the file; if no file can be written, the built arrays, with a warning.
    """
    with contextlib.suppress(DamagedError):
        return open_arrays(path, identity)
    import filelock  # as long in coming as some arrays

    built: Built | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            # Another process may have built it while this one waited.
            with contextlib.suppress(DamagedError):
                return open_arrays(path, identity)
            for left_by_a_killed_writer in path.parent.glob(f".{path.name}.*{TEMPORARY}"):
                left_by_a_killed_writer.unlink(missing_ok=True)
            built = build()
            write_arrays(path, built, identity)
            # A file that was just written is not verified; the next `open_arrays` does so.
            return _mapped_arrays(_map(path), path)
    # filelock raises NotImplementedError if the file system has no locks.
    except (OSError, NotImplementedError, DamagedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        warnings.warn(
            f"refcocom: cannot keep {path} ({reason}); it is built again each time. "
            "Set REFCOCOM_CACHE to a writable folder",
            RuntimeWarning,
            stacklevel=2,
        )
        return held(build() if built is None else built)


def held(built: Built) -> Arrays:
    """Return built arrays in memory, read-only as mapped ones are."""
    arrays = {}
    for name, array in built.items():
        if isinstance(array, Pieces):
            array = np.concatenate([np.zeros(0, array.dtype), *array.make()])
        array.flags.writeable = False
        arrays[name] = array
    return arrays


def write_arrays(path: Path, arrays: Built, identity: dict[str, str]) -> None:
    """Write arrays with their identity and hash; the file appears whole or not at all."""
    names_of_types = {dtype: name for name, dtype in _DTYPES.items()}
    # Large elements first: every array is then aligned without gaps, which safetensors forbids.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"xxh3_128": "0" * 32, **identity}}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": names_of_types[array.dtype],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = bytearray(len(text).to_bytes(8, "little") + text)
    digest = xxhash.xxh3_128(head[: _HASH.start] + head[_HASH.stop :])
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for _, array in ordered:
            for piece in array.make() if isinstance(array, Pieces) else [array]:
                content = np.ascontiguousarray(piece).data
                digest.update(content)
                file.write(content)
        file.seek(_HASH.start)
        file.write(digest.hexdigest().encode())


def open_arrays(path: Path, identity: dict[str, str]) -> Arrays:
    """Map a file and verify it.

    Raises:
        DamagedError: When the file is absent, truncated, altered, or holds something else.
    """
    mapped = _map(path)
    digest = xxhash.xxh3_128(mapped[: _HASH.start].data)
    digest.update(mapped[_HASH.stop :].data)
    if digest.hexdigest().encode() != mapped[_HASH].tobytes():
        raise DamagedError(f"{path} does not match its hash")
    return _mapped_arrays(mapped, path, identity)


def _map(path: Path) -> NDArray[np.uint8]:
    # Mapped here because safetensors copies every array that it opens for NumPy.
    try:
        # A plain array: np.memmap's subclass costs a Python call at every slice.
        return np.asarray(np.memmap(path, np.uint8, mode="r"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path}: {error}") from None


def _mapped_arrays(
    mapped: NDArray[np.uint8], path: Path, identity: dict[str, str] | None = None
) -> Arrays:
    data_at = 8 + int(mapped[:8].view(np.uint64)[0])
    header = json.loads(mapped[8:data_at].tobytes())
    metadata = header.pop("__metadata__")
    if any(metadata.get(key) != value for key, value in (identity or {}).items()):
        raise DamagedError(f"{path} holds something else")
    arrays = {}
    for name, entry in header.items():
        start, stop = (data_at + offset for offset in entry["data_offsets"])
        arrays[name] = mapped[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
