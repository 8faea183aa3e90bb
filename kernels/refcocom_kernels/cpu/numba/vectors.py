"""LLVM instructions that Numba does not offer: bits of 64 pixels at a time, and the arithmetic of a resize.

Each is written with LLVM vectors of a fixed width, which the compiler splits to suit the machine.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 1024
"""Bytes that a mask is prefetched ahead of reading. This is a sixth faster than the hardware's prefetch, which ends at
every page; 512 and 2,048 were slower."""


@intrinsic  # type: ignore[untyped-decorator]
def popcount(typingctx: Any, word: Any) -> Any:
    """Number of set bits of a uint64, through LLVM's `ctpop`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typingctx: Any, array: Any, at: Any) -> Any:
    """Prefetch the cache line of index `at`. This is only a hint, so `at` may lie beyond the vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        integer = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, integer, integer, integer])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        # The three flags: a read, of data that is used once, into the data cache.
        builder.call(function, [pointer, integer(0), integer(0), integer(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def nonzero64(typingctx: Any, array: Any, at: Any) -> Any:
    """64 bytes of a uint8 vector from index `at` to a uint64 whose bit k says whether byte k is not 0.

    LLVM recognises this as a mask only when it is written with vectors: x86 gets `vptestmb` or `vpmovmskb`, ARM the
    equivalent shuffles. 64 pixels cost two or three instructions.
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
def equal64(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """64 bytes of a uint8 vector from index `at` to a uint64 whose bit k says whether byte k is `value`, a uint8."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), 64)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        loaded = builder.load(pointer, align=1)
        equal = builder.icmp_unsigned("==", loaded, splat(builder, args[2], 64))
        return builder.bitcast(equal, ir.IntType(64))

    return types.uint64(array, types.intp, types.uint8), codegen


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(typingctx: Any, word: Any) -> Any:
    """Index of the lowest set bit of a uint64 that is not 0, through LLVM's `cttz`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def as_float(typingctx: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic  # type: ignore[untyped-decorator]
def as_bits(typingctx: Any, value: Any) -> Any:
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


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of `lanes` times `value`."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(
        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _order_keys(builder: Any, loaded: Any, element: Any) -> Any:
    """Float bits to signed integers in the order of the floats: the bits below the sign flip where it is set."""
    sign = splat(builder, ir.Constant(element, element.width - 1), 64)
    below = splat(builder, ir.Constant(element, 2 ** (element.width - 1) - 1), 64)
    return builder.xor(loaded, builder.and_(builder.ashr(loaded, sign), below))


def _compare64(operator: str) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def compare(typingctx: Any, array: Any, at: Any, key: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            loaded, element = _load64(context, builder, signature, args)
            key = builder.trunc(args[2], element) if element.width < 64 else args[2]
            keys = _order_keys(builder, loaded, element)
            found = builder.icmp_signed(operator, keys, splat(builder, key, 64))
            return builder.bitcast(found, ir.IntType(64))

        return types.uint64(array, types.intp, types.int64), codegen

    return compare


above64 = _compare64(">")
"""Bit k says whether the order key of float k of 64, given by its bits, is above `key`."""

below64 = _compare64("<")
"""Bit k says whether the order key of float k of 64, given by its bits, is below `key`."""


@intrinsic  # type: ignore[untyped-decorator]
def magnitude64(typingctx: Any, array: Any, at: Any) -> Any:
    """Largest magnitude of 64 floats, given and returned as bits: one reduction. NaN and infinity count as largest."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded, element = _load64(context, builder, signature, args)
        below = splat(builder, ir.Constant(element, 2 ** (element.width - 1) - 1), 64)
        name = f"llvm.vector.reduce.umax.v64i{element.width}"
        function_type = ir.FunctionType(element, [ir.VectorType(element, 64)])
        reduce = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.zext(builder.call(reduce, [builder.and_(loaded, below)]), ir.IntType(64))

    return types.int64(array, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def weighted_above64(
    typingctx: Any, upper: Any, lower: Any, at: Any, upper_weight: Any, lower_weight: Any, threshold: Any
) -> Any:  # fmt: skip
    """Bit k says whether `upper[k] * upper_weight + lower[k] * lower_weight > threshold`, 64 float32 from `at` on.

    Each product and the sum is rounded by itself: nothing allows LLVM to fuse them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), 64)

        def load(k: int) -> Any:
            data = context.make_array(signature.args[k])(context, builder, args[k]).data
            pointer = builder.bitcast(builder.gep(data, [args[2]]), vector.as_pointer())
            return builder.load(pointer, align=4)

        from_upper = builder.fmul(load(0), splat(builder, args[3], 64))
        from_lower = builder.fmul(load(1), splat(builder, args[4], 64))
        value = builder.fadd(from_upper, from_lower)
        found = builder.fcmp_ordered(">", value, splat(builder, args[5], 64))
        return builder.bitcast(found, ir.IntType(64))

    single = types.float32
    return types.uint64(upper, lower, types.intp, single, single, single), codegen


@intrinsic  # type: ignore[untyped-decorator]
def resize4(
    typingctx: Any, values: Any, low: Any, weight_low: Any, weight_high: Any, at: Any, out: Any
) -> Any:
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
def halves_to_floats16(typingctx: Any, halves: Any, at: Any, bits: Any, to: Any) -> Any:
    """Sixteen float16, given by their bits, as the bits of float32; finite values only.

    Uses integer vectors, because not every machine converts in hardware and Numba widens int32 arithmetic to int64.
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
