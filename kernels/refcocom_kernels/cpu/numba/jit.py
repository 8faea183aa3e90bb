"""Python functions with a signature in, compiled Numba functions out: one way to compile, one place to cache.

Every kernel is compiled eagerly for one signature, so that its cache entry is read here, where a damaged one can be
deleted, and not in the middle of a call. Importing this module imports Numba; import it inside functions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock
import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import config as numba_config

F = TypeVar("F", bound=Callable[..., Any])

_SCALARS = {
    "u1": types.uint8,
    "i1": types.int8,
    "i2": types.int16,
    "i4": types.int32,
    "u4": types.uint32,
    "i8": types.int64,
    "u8": types.uint64,
    "f4": types.float32,
    "f8": types.float64,
    "b1": types.boolean,
}
_lock = threading.RLock()


def _parse_type(word: str) -> Any:
    """`i8` a scalar, `in i8` a read-only contiguous vector, `out i8` a writable one."""
    direction, _, name = word.rpartition(" ")
    scalar = _SCALARS[name]
    if not direction:
        return scalar
    return types.Array(scalar, 1, "C", readonly=direction == "in")


def _cache_root() -> Path:
    """`$NUMBA_CACHE_DIR`, else `numba` in the folder that `refcocom_gpu.utils.cache` uses, by the same rules."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    if chosen := os.environ.get("REFCOCOM_CACHE"):
        return Path(os.path.expanduser(chosen)) / "numba"  # noqa: PTH111
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(os.devnull if base.startswith("~") else base) / "refcocom_gpu" / "numba"


@functools.cache
def _code_digest(sources: Path) -> str:
    """Hash of all that shapes the code: Numba itself checks only the file of a function, not its callees."""
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest = hashlib.sha256(repr(versions).encode())
    for source in sorted(sources.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_dir() -> Path:
    return _cache_root() / _code_digest(Path(__file__).parents[2])


def _delete_entries(folder: Path, function: Callable[..., Any]) -> bool:
    """Delete what Numba cached of a function; return whether there was anything."""
    stem = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}-"
    entries = list(folder.glob(f"*/{stem}*.nb[ic]"))
    for entry in entries:
        entry.unlink()
    return bool(entries)


@functools.cache
def _warn_uncached(reason: str) -> None:
    warnings.warn(
        f"refcocom: kernels are compiled anew in every process, nothing can be cached ({reason}); "
        "set REFCOCOM_CACHE to a writable folder",
        RuntimeWarning,
        stacklevel=4,
    )


@contextlib.contextmanager
def _numba_cache_at(path: str) -> Iterator[None]:
    """Point Numba's cache at `path` while one function is decorated; other users of Numba keep theirs."""
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = path
    try:
        yield
    finally:
        numba_config.CACHE_DIR = before


class _Progress:
    """Says on a terminal that kernels are being compiled: a silent half minute looks like a hang."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> _Progress:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self.start
        # Loading from the cache takes a few milliseconds; only a real compilation is worth a line.
        if spent > 0.3 and sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write(f"refcocom: compiled {self.name} in {spent:.1f} s (first run only)\n")


def jit(signature: str) -> Callable[[F], F]:
    """Compile a function for one signature, cached on disk, the GIL released.

    Args:
        signature: `"in u1, out i8, i8 -> void"`: element types as in NumPy, `in`/`out` before vectors.

    Returns:
        A decorator. Where nothing can be cached the function is compiled uncached, with a warning that says so;
        a damaged cache entry is deleted and compiled anew.
    """
    arguments, _, result = signature.partition("->")
    parsed = [_parse_type(word.strip()) for word in arguments.split(",")]
    returns = types.void if result.strip() == "void" else _parse_type(result.strip())

    def decorate(function: F) -> F:
        def build(cache: bool) -> Any:
            # error_model="numpy": no branch for division by zero, which no kernel performs.
            return numba.njit(
                returns(*parsed), nogil=True, cache=cache, error_model="numpy", boundscheck=False
            )(function)

        with _lock, _Progress(function.__name__):
            folder = _cache_dir()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # Of many processes that start on a cold cache one compiles; the others wait, then read.
                with filelock.FileLock(folder / "lock"), _numba_cache_at(str(folder)):
                    try:
                        return build(cache=True)  # type: ignore[no-any-return]
                    except Exception:
                        # A damaged entry raises almost anything when it is read.
                        if not _delete_entries(folder, function):
                            raise
                        return build(cache=True)  # type: ignore[no-any-return]
            except numba.core.errors.NumbaError:
                raise
            except Exception as error:
                # A folder that is not writable, a full disk, a file system without locks: none is worth failing for.
                _warn_uncached(f"{type(error).__name__}: {error}")
                return build(cache=False)  # type: ignore[no-any-return]

    return decorate


def inline(function: F) -> F:
    """A helper that is compiled into its callers; never called from Python."""
    return numba.njit(inline="never", error_model="numpy", boundscheck=False)(function)  # type: ignore[no-any-return]
