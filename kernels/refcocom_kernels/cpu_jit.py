"""Python functions with a signature in, compiled Numba functions out: one way to compile, one place to cache.

Every kernel is compiled eagerly for one signature, so that a cache entry is read here, where a bad one can be
mended, and not in the middle of a call. Importing this module imports Numba; import it inside functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.core import config as numba_config
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

_SCALARS = {
    "u1": types.uint8,
    "i1": types.int8,
    "i4": types.int32,
    "u4": types.uint32,
    "i8": types.int64,
    "u8": types.uint64,
    "f4": types.float32,
    "f8": types.float64,
    "b1": types.boolean,
}
_lock = threading.RLock()

# What a truncated, foreign or stale cache file raises from Numba's index and data loaders.
_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ImportError,
    UnicodeDecodeError,
    MemoryError,
    RuntimeError,
    OSError,
)


def _parse_type(word: str) -> Any:
    """`i8` a scalar, `in i8` a read-only contiguous vector, `out i8` a writable one."""
    direction, _, name = word.rpartition(" ")
    scalar = _SCALARS[name]
    if not direction:
        return scalar
    return types.Array(scalar, 1, "C", readonly=direction == "in")


def _cache_dir() -> Path:
    """A folder named by the kernels' own source: Numba checks only the file that holds a function, not its callees."""
    base = os.environ.get("NUMBA_CACHE_DIR")
    root = (
        Path(base)
        if base
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "refcocom_gpu"
        / "numba"
    )
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("cpu*.py")):
        digest.update(source.read_bytes())
    return root / digest.hexdigest()[:16]


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

    seconds = 0.0

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> _Progress:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self.start
        _Progress.seconds += spent
        # Loading from the cache takes a few milliseconds; only a real compilation is worth a line.
        if spent > 0.3 and sys.stderr.isatty():
            sys.stderr.write(f"refcocom: compiled {self.name} in {spent:.1f} s (first run only)\n")


def compile_seconds() -> float:
    """Seconds this process has spent compiling kernels or loading them from the cache."""
    return _Progress.seconds


def jit(signature: str) -> Callable[[F], F]:
    """Compile a function for one signature, cached on disk, the GIL released.

    Args:
        signature: `"in u1, out i8, i8 -> void"`: element types as in NumPy, `in`/`out` before vectors.

    Returns:
        A decorator. Where nothing can be cached the function is compiled uncached, with a warning that says so;
        an unreadable cache entry is deleted and compiled anew.
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
                with _numba_cache_at(str(folder)):
                    return build(cache=True)  # type: ignore[no-any-return]
            except numba.core.errors.NumbaError:
                raise
            except _UNREADABLE:
                shutil.rmtree(folder, ignore_errors=True)
            try:
                with _numba_cache_at(str(folder)):
                    return build(cache=True)  # type: ignore[no-any-return]
            except _UNREADABLE as error:
                warnings.warn(
                    f"refcocom: kernels are compiled anew in every process, nothing can be cached "
                    f"({error}); set NUMBA_CACHE_DIR to a writable folder",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return build(cache=False)  # type: ignore[no-any-return]

    return decorate


def inline(function: F) -> F:
    """A helper that is compiled into its callers; never called from Python."""
    return numba.njit(inline="never", error_model="numpy", boundscheck=False)(function)  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def popcount(typingctx: Any, word: Any) -> Any:  # noqa: ARG001
    """Number of set bits of a uint64, through LLVM's `ctpop`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def nonzero64(typingctx: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
    """64 bytes of a uint8 vector from index `at` to a uint64 whose bit k says whether byte k is not 0.

    Written as LLVM vectors because scalar code is not recognised as a mask: x86 gets `vptestmb` or
    `vpmovmskb`, ARM the equivalent shuffles; 64 pixels cost two or three instructions.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), 64)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        loaded = builder.load(pointer, align=1)
        set_bits = builder.icmp_unsigned("!=", loaded, ir.Constant(vector, None))
        return builder.bitcast(set_bits, ir.IntType(64))

    return types.uint64(array, types.intp), codegen
