"""Python functions with a signature in, compiled Numba functions out: one way to compile, one place to cache.

Every kernel is compiled eagerly for one signature, so that a cache entry is read here, where a bad one can be
mended, and not in the middle of a call. Importing this module imports Numba; import it inside functions.
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
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic

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
    """`$NUMBA_CACHE_DIR`, else `numba` in the folder that `refcocom_gpu.cache.cache_dir` names by the same rules."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    if chosen := os.environ.get("REFCOCOM_CACHE"):
        return Path(os.path.expanduser(chosen)) / "numba"  # noqa: PTH111
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(os.devnull if base.startswith("~") else base) / "refcocom_gpu" / "numba"


def _cache_dir() -> Path:
    """A folder named by all that shapes the code: Numba itself checks only the file of a function, not its callees."""
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest = hashlib.sha256(repr(versions).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return _cache_root() / digest.hexdigest()[:16]


@contextlib.contextmanager
def _verified(folder: Path, function: Callable[..., Any]) -> Iterator[None]:
    """Hold the lock of a cache folder, and let Numba see only files of a function that are as it wrote them.

    Numba would execute a code file with a flipped bit. A seal beside the files holds the hash of their bytes; files
    that do not match it are deleted, then compiled anew.
    """
    stem = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}-"
    seal = folder / f"{stem}seal"

    def files() -> list[Path]:
        return sorted(folder.glob(f"*/{stem}*.nb[ic]"))

    def digest() -> bytes:
        hashed = hashlib.sha256()
        for file in files():
            hashed.update(file.name.encode() + file.read_bytes())
        return hashed.hexdigest().encode()

    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "lock"):
        found = seal.read_bytes() if seal.is_file() else b""
        if found != digest():
            for file in files():
                file.unlink()
        yield
        if found != digest():
            seal.write_bytes(digest())


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
        if spent > 0.3 and sys.stderr is not None and sys.stderr.isatty():
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
                with _verified(folder, function), _numba_cache_at(str(folder)):
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


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(typingctx: Any, word: Any) -> Any:  # noqa: ARG001
    """Index of the lowest set bit of a uint64 that is not 0, through LLVM's `cttz`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def as_float(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001
    """The float32 with the bits of an int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def as_bits(typingctx: Any, value: Any) -> Any:  # noqa: ARG001
    """The bits of a float32 as an int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


def _load64(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """64 elements of an int16 or int32 vector as an LLVM vector, and its element type."""
    element = ir.IntType(signature.args[0].dtype.bitwidth)
    vector = ir.VectorType(element, 64)
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    pointer = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
    return builder.load(pointer, align=element.width // 8), element


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(
        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _order_keys(builder: Any, loaded: Any, element: Any) -> Any:
    """Float bits to signed integers in the order of the floats: the bits below the sign flip where it is set."""
    sign = _splat(builder, ir.Constant(element, element.width - 1), 64)
    below = _splat(builder, ir.Constant(element, 2 ** (element.width - 1) - 1), 64)
    return builder.xor(loaded, builder.and_(builder.ashr(loaded, sign), below))


def _compare64(operator: str) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def compare(typingctx: Any, array: Any, at: Any, key: Any) -> Any:  # noqa: ARG001
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            loaded, element = _load64(context, builder, signature, args)
            key = builder.trunc(args[2], element) if element.width < 64 else args[2]
            keys = _order_keys(builder, loaded, element)
            found = builder.icmp_signed(operator, keys, _splat(builder, key, 64))
            return builder.bitcast(found, ir.IntType(64))

        return types.uint64(array, types.intp, types.int64), codegen

    return compare


above64 = _compare64(">")
"""Bit k says whether float k of 64, given by its bits, has an order key above a key."""

below64 = _compare64("<")
"""Bit k says whether float k of 64, given by its bits, has an order key below a key."""


@intrinsic  # type: ignore[untyped-decorator]
def magnitude64(typingctx: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
    """Largest magnitude of 64 floats given by their bits, as bits: one reduction, NaN and infinity on top."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded, element = _load64(context, builder, signature, args)
        below = _splat(builder, ir.Constant(element, 2 ** (element.width - 1) - 1), 64)
        name = f"llvm.vector.reduce.umax.v64i{element.width}"
        function_type = ir.FunctionType(element, [ir.VectorType(element, 64)])
        reduce = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.zext(builder.call(reduce, [builder.and_(loaded, below)]), ir.IntType(64))

    return types.int64(array, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def weighted_above64(
    typingctx: Any, upper: Any, lower: Any, at: Any, upper_weight: Any, lower_weight: Any, threshold: Any
) -> Any:  # fmt: skip  # noqa: ARG001
    """Bit k says whether `upper[k] * upper_weight + lower[k] * lower_weight > threshold`, 64 float32 from `at` on.

    Each product and the sum round on their own: nothing allows LLVM to fuse them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), 64)

        def load(k: int) -> Any:
            data = context.make_array(signature.args[k])(context, builder, args[k]).data
            pointer = builder.bitcast(builder.gep(data, [args[2]]), vector.as_pointer())
            return builder.load(pointer, align=4)

        from_upper = builder.fmul(load(0), _splat(builder, args[3], 64))
        from_lower = builder.fmul(load(1), _splat(builder, args[4], 64))
        value = builder.fadd(from_upper, from_lower)
        found = builder.fcmp_ordered(">", value, _splat(builder, args[5], 64))
        return builder.bitcast(found, ir.IntType(64))

    single = types.float32
    return types.uint64(upper, lower, types.intp, single, single, single), codegen


@intrinsic  # type: ignore[untyped-decorator]
def resize4(
    typingctx: Any, values: Any, low: Any, weight_low: Any, weight_high: Any, at: Any, out: Any
) -> Any:  # noqa: ARG001
    """`out[x] = values[low[x]] * weight_low[x] + values[low[x] + 1] * weight_high[x]` for four x from `at` on.

    The two neighbours are one 8-byte load, so four pixels are four loads and a few vector instructions; a gather
    instruction is slower than that, and scalar code took twice as long.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        single, index = ir.FloatType(), ir.IntType(32)

        def pointer(k: int, offset: Any, kind: Any) -> Any:
            data = context.make_array(signature.args[k])(context, builder, args[k]).data
            return builder.bitcast(builder.gep(data, [offset]), kind.as_pointer())

        def load(k: int, offset: Any, kind: Any) -> Any:
            return builder.load(pointer(k, offset, kind), align=4)

        four = ir.VectorType(single, 4)
        cells = load(1, args[4], ir.VectorType(index, 4))
        pairs = []
        for lane in range(4):
            cell = builder.extract_element(cells, ir.Constant(index, lane))
            pairs.append(load(0, builder.zext(cell, ir.IntType(64)), ir.VectorType(single, 2)))

        def shuffle(a: Any, b: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(index, len(lanes)), lanes)
            return builder.shuffle_vector(a, b, mask)

        ab = shuffle(pairs[0], pairs[1], [0, 1, 2, 3])
        cd = shuffle(pairs[2], pairs[3], [0, 1, 2, 3])
        left = builder.fmul(shuffle(ab, cd, [0, 2, 4, 6]), load(2, args[4], four))
        right = builder.fmul(shuffle(ab, cd, [1, 3, 5, 7]), load(3, args[4], four))
        builder.store(builder.fadd(left, right), pointer(5, args[4], four), align=4)
        return context.get_dummy_value()

    return types.void(values, low, weight_low, weight_high, types.intp, out), codegen


@intrinsic  # type: ignore[untyped-decorator]
def halves_to_floats16(typingctx: Any, halves: Any, at: Any, bits: Any, to: Any) -> Any:  # noqa: ARG001
    """Sixteen float16, given by their bits, as the bits of float32; finite values only.

    In integers, because hardware conversion is not on every machine and Numba widens int32 arithmetic to int64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = 16
        short, integer = ir.VectorType(ir.IntType(16), lanes), ir.VectorType(ir.IntType(32), lanes)
        single = ir.VectorType(ir.FloatType(), lanes)

        def pointer(k: int, offset: Any, kind: Any) -> Any:
            data = context.make_array(signature.args[k])(context, builder, args[k]).data
            return builder.bitcast(builder.gep(data, [offset]), kind.as_pointer())

        def constant(value: int) -> Any:
            return ir.Constant(integer, [value] * lanes)

        half = builder.sext(builder.load(pointer(0, args[1], short), align=2), integer)
        shifted = builder.shl(builder.and_(half, constant(0x7FFF)), constant(13))
        normal = builder.add(shifted, constant(112 << 23))
        mantissa = builder.sitofp(builder.and_(half, constant(0x3FF)), single)
        scale = ir.Constant(single, [2.0**-24] * lanes)
        subnormal = builder.bitcast(builder.fmul(mantissa, scale), integer)
        is_normal = builder.icmp_signed("!=", builder.and_(half, constant(0x7C00)), constant(0))
        sign = builder.and_(half, constant(-(2**31)))
        result = builder.or_(builder.select(is_normal, normal, subnormal), sign)
        builder.store(result, pointer(2, args[3], integer), align=4)
        return context.get_dummy_value()

    return types.void(halves, types.intp, bits, types.intp), codegen
