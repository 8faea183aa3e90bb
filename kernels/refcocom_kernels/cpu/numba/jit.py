"""Python functions with a signature in, compiled Numba functions out; compiled code is cached on disk.

Every kernel has one signature. It is compiled, or read from the cache, at its first call, so that a process waits for
those that it uses. Importing this module imports Numba; import it inside functions.
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

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import config as numba_config
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys

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
    """Return the Numba type: `i8` is a scalar, `in i8` a read-only contiguous vector, `out i8` a writable one."""
    direction, _, name = word.rpartition(" ")
    scalar = _SCALARS[name]
    if not direction:
        return scalar
    return types.Array(scalar, 1, "C", readonly=direction == "in")


def _cache_root() -> Path:
    """Return `$NUMBA_CACHE_DIR` if set, else `numba` in the folder that `refcocom_gpu.utils.cache` chooses."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    if chosen := os.environ.get("REFCOCOM_CACHE"):
        return Path(os.path.expanduser(chosen)) / "numba"  # noqa: PTH111
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(os.devnull if base.startswith("~") else base) / "refcocom_gpu" / "numba"


@functools.cache
def _code_digest(sources: Path) -> str:
    """Hash of versions and sources. Numba by itself checks only the file of a function, not those of its callees."""
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest = hashlib.sha256(repr(versions).encode())
    for source in sorted(sources.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_dir() -> Path:
    return _cache_root() / _code_digest(Path(__file__).parents[2])


def _delete_entries(folder: Path, function: Callable[..., Any]) -> bool:
    """Delete the cache entries of a function; return whether there were any."""
    stem = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}-"
    entries = list(folder.glob(f"*/{stem}*.nb[ic]"))
    for entry in entries:
        entry.unlink()
    return bool(entries)


@functools.cache
def _warn_uncached(reason: str) -> None:
    warnings.warn(
        f"refcocom: kernels cannot be cached and are compiled anew in every process ({reason}); "
        "set REFCOCOM_CACHE to a writable folder",
        RuntimeWarning,
        stacklevel=4,
    )


@contextlib.contextmanager
def _numba_cache_at(path: str) -> Iterator[None]:
    """Point Numba's cache at `path` while one function is compiled; other users of Numba keep their own setting."""
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = path
    try:
        yield
    finally:
        numba_config.CACHE_DIR = before


class _Progress:
    """Reports each compiled kernel on a terminal: a silent half minute looks like a hang."""

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


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache, read without importing what only a compilation needs.

    Numba refreshes its target first, which imports all that it can compile, and SciPy's linear algebra: 0.4 s. An entry
    is machine code, which needs Numba's memory manager alone.
    """

    may_compile = False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)
        entry = None
        with self._guard_against_spurious_io_errors():
            entry = self._load_overload(sig, target_context)
        if entry is None and not self.may_compile:
            raise LookupError(f"no entry for {sig}")
        return entry


class Kernel:
    """A function that is compiled for one signature, or read from the cache, when it is first called."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function."""
        if self._compiled is None:
            self.compile()
        return self._compiled(*arguments)

    def compile(self) -> Any:
        """Return Numba's dispatcher. A damaged cache entry is deleted; if nothing can be cached, a warning says so."""
        with _lock:
            if self._compiled is None:
                with _Progress(self._function.__name__):
                    self._compiled = self._build()
            return self._compiled

    def _build(self) -> Any:
        folder = _cache_dir()
        # Entries are written whole, so that reading one needs no lock, whose import takes as long as several kernels.
        # Without a folder that it may write to, Numba would choose another.
        if os.access(folder, os.W_OK):
            with contextlib.suppress(Exception), _numba_cache_at(str(folder)):
                return self._dispatcher(_Cache(self._function))
        try:
            import filelock

            folder.mkdir(parents=True, exist_ok=True)
            # If many processes start on a cold cache, one compiles; the others wait, then read.
            with filelock.FileLock(folder / "lock"), _numba_cache_at(str(folder)):
                cache = _Cache(self._function)
                cache.may_compile = True
                try:
                    return self._dispatcher(cache)
                except Exception:
                    # Reading a damaged entry can raise almost anything.
                    if not _delete_entries(folder, self._function):
                        raise
                    return self._dispatcher(cache)
        except numba.core.errors.NumbaError:
            raise
        except Exception as error:
            # A read-only folder, a full disk or a file system without locks is no reason to fail.
            _warn_uncached(f"{type(error).__name__}: {error}")
            return self._dispatcher(None)

    def _dispatcher(self, cache: _Cache | None) -> Any:
        # error_model="numpy" leaves out the check for division by zero, which no kernel performs.
        dispatcher = numba.njit(nogil=True, error_model="numpy", boundscheck=False)(self._function)
        if cache is not None:
            dispatcher._cache = cache  # as `enable_caching` does
        dispatcher.compile(self._signature)
        dispatcher.disable_compile()
        return dispatcher


def jit(signature: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile a function for one signature, cached on disk, the GIL released.

    Args:
        signature: `"in u1, out i8, i8 -> void"`: element types as in NumPy, `in`/`out` before vectors.

    Returns:
        A decorator.
    """
    arguments, _, result = signature.partition("->")
    parsed = [_parse_type(word.strip()) for word in arguments.split(",")]
    returns = types.void if result.strip() == "void" else _parse_type(result.strip())
    return lambda function: Kernel(function, returns(*parsed))


def inline(function: F) -> F:
    """A helper that is compiled into its callers; never called from Python."""
    return numba.njit(inline="never", error_model="numpy", boundscheck=False)(function)  # type: ignore[no-any-return]
