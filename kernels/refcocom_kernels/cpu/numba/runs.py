"""LLVM vectors for COCO RLE: eight characters to numbers, numbers to run ends, runs to words of a rank table.

A character holds the digit `character - 48`: five bits, low first. Bit 5 says that the number continues; bit 4 of its
last character is the sign. From the fourth number on, a number is the difference to the run two before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refcocom_kernels.cpu.numba.vectors import splat

LANES = 8
"""Characters of a block, and numbers that one may end in. `spread8`, `sum_runs` and `fill_words` write whole vectors:
their vectors need so many elements more than they hold."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_GROUP = 4


def _spread_table() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[256 · 16] for each pattern of continuation bits, the bytes of eight numbers of one or two characters.

    Bits 0…7 of a pattern belong to the characters 7…14 of sixteen; the numbers are those that end in 8…15. A number
    takes two bytes: its first character, then the second or, if there is none, 128, which stands for a 0.
    """
    table = np.full((256, LANES, 2), 128, np.uint8)
    for pattern in range(256):
        lane = 0
        for k in range(LANES):
            if k < LANES - 1 and pattern >> (k + 1) & 1:
                continue
            two = pattern >> k & 1
            table[pattern, lane, : 1 + two] = (7 + k, 8 + k)[1 - two :]
            lane += 1
    return table.reshape(-1)


SPREAD = _spread_table()


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, element: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), element.as_pointer())


def _constant(element: Any, values: list[int]) -> Any:
    return ir.Constant(ir.VectorType(element, len(values)), values)


def _shuffle(builder: Any, vector: Any, lanes: list[int], other: Any = None) -> Any:
    other = ir.Constant(vector.type, ir.Undefined) if other is None else other
    return builder.shuffle_vector(vector, other, _constant(_I32, lanes))


def _select_bytes(context: Any, builder: Any, source: Any, indices: Any) -> Any:
    """Bytes `indices` of `source`, 0 where an index is 128: one instruction on x86 with SSSE3 and on ARM."""
    vector = source.type
    triple, _, features = context.codegen().magic_tuple()
    name = None
    if triple.startswith("x86_64") and "+ssse3" in features:
        name = "llvm.x86.ssse3.pshuf.b.128"
    elif triple.startswith(("aarch64", "arm64")):
        name = "llvm.aarch64.neon.tbl1.v16i8"
    if name is not None:
        function_type = ir.FunctionType(vector, [vector, vector])
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, function_type, name
        )
        return builder.call(function, [source, indices])
    result = ir.Constant(vector, None)
    for lane in range(vector.count):
        index = builder.extract_element(indices, _I32(lane))
        byte = builder.extract_element(source, builder.and_(index, _I8(15)))
        byte = builder.select(builder.icmp_signed("<", index, _I8(0)), _I8(0), byte)
        result = builder.insert_element(result, byte, _I32(lane))
    return result


@intrinsic  # type: ignore[untyped-decorator]
def load8(typingctx: Any, array: Any, at: Any) -> Any:
    """Eight bytes of a uint8 vector from index `at` as a uint64, the first lowest."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], _I64)
        return builder.load(pointer, align=1)

    return types.uint64(array, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def spread8(
    typingctx: Any, before: Any, digits: Any, table: Any, pattern: Any, numbers: Any, at: Any
) -> Any:
    """The numbers that end in eight digits, each of one or two digits, to `numbers[at:at + 8]`, int32.

    `before` and `digits` are eight digits each, as a uint64; the last one before may begin a number. `table` is
    `SPREAD`; `pattern` holds the continuation bits of the last digit before and of the first seven. Elements behind
    the last number become 0.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = ir.Constant(ir.VectorType(_I64, 2), ir.Undefined)
        for lane, word in enumerate(args[:2]):
            pair = builder.insert_element(pair, word, _I32(lane))
        sixteen = ir.VectorType(_I8, 16)
        source = builder.bitcast(pair, sixteen)
        # Below 16 a digit stands for itself; else it is 32 too large, by its continuation bit or as a negative number.
        large = builder.icmp_signed(">", source, _constant(_I8, [15] * 16))
        excess = builder.select(large, _constant(_I8, [32] * 16), ir.Constant(sixteen, None))
        source = builder.sub(source, excess)
        offset = builder.shl(args[3], _I64(4))
        pointer = _pointer(context, builder, signature.args[2], args[2], offset, sixteen)
        chosen = _select_bytes(context, builder, source, builder.load(pointer, align=1))
        numbers = builder.bitcast(chosen, ir.VectorType(_I16, LANES))
        eight = _constant(_I16, [8] * LANES)
        low = builder.ashr(builder.shl(numbers, eight), eight)
        high = builder.shl(builder.ashr(numbers, eight), _constant(_I16, [5] * LANES))
        wide = ir.VectorType(_I32, LANES)
        value = builder.sext(builder.add(low, high), wide)
        builder.store(
            value, _pointer(context, builder, signature.args[4], args[4], args[5], wide), align=4
        )
        return context.get_dummy_value()

    words = (types.uint64, types.uint64)
    return types.void(*words, table, types.uint64, numbers, types.intp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def sum_runs(
    typingctx: Any, numbers: Any, n: Any, limit: Any, low: Any, high: Any, ends: Any
) -> Any:
    """Numbers to run ends, four at a time; returns (whether all is well, area, last run end).

    There are `n` numbers, int32, none below -2**30 or above 2**30, with four zeros behind them; the first becomes 0.
    A run end is written to `ends`, int32, as `min(max(end, low), high) - low`. All is well if no run is negative and
    none ends beyond `limit`, H·W, at most 2**30. The first run that is not so is found before a sum of 32 bits can
    wrap around: until then both summands lie between 0 and `limit`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        group = ir.VectorType(_I32, _GROUP)
        zeros = ir.Constant(group, None)
        n, limit, low, high = (builder.trunc(value, _I32) for value in args[1:5])
        limits, lows, highs = (splat(builder, value, _GROUP) for value in (limit, low, high))
        first_at = _pointer(context, builder, signature.args[0], args[0], _I64(0), _I32)
        first = builder.load(first_at)
        # The third run is not written as a difference, so it must find 0 in place of the first run.
        builder.store(_I32(0), first_at)

        start = builder.block
        loop = builder.append_basic_block("groups")
        done = builder.append_basic_block("done")
        starts = {
            "at": _I32(0), "runs": zeros, "ends": splat(builder, first, _GROUP), "area": zeros,
            "signs": splat(builder, first, _GROUP),
        }  # fmt: skip
        builder.branch(loop)
        builder.position_at_end(loop)
        state = {name: builder.phi(value.type, name) for name, value in starts.items()}
        for name, phi in state.items():
            phi.add_incoming(starts[name], start)
        at = builder.zext(state["at"], _I64)
        runs = builder.load(
            _pointer(context, builder, signature.args[0], args[0], at, group), align=4
        )
        # Each sum of shifted lanes doubles how far it reaches; the runs of odd and even number are summed apart.
        runs = builder.add(runs, _shuffle(builder, runs, [4, 4, 0, 1], zeros))
        runs = builder.add(runs, _shuffle(builder, state["runs"], [2, 3, 2, 3]))
        # The numbers behind the last are 0 and repeat the last two runs: they count as runs of length 0.
        lanes = builder.add(splat(builder, state["at"], _GROUP), _constant(_I32, [0, 1, 2, 3]))
        inside = builder.icmp_signed("<", lanes, splat(builder, n, _GROUP))
        runs = builder.select(inside, runs, zeros)
        ends = builder.add(runs, _shuffle(builder, runs, [4, 0, 1, 2], zeros))
        ends = builder.add(ends, _shuffle(builder, ends, [4, 4, 0, 1], zeros))
        ends = builder.add(ends, _shuffle(builder, state["ends"], [3, 3, 3, 3]))
        signs = builder.or_(builder.or_(state["signs"], runs), builder.sub(limits, ends))
        area = builder.add(state["area"], runs)
        clamped = builder.select(builder.icmp_signed("<", ends, lows), lows, ends)
        clamped = builder.select(builder.icmp_signed(">", clamped, highs), highs, clamped)
        builder.store(
            builder.sub(clamped, lows),
            _pointer(context, builder, signature.args[5], args[5], at, group),
            align=4,
        )
        following = builder.add(state["at"], _I32(_GROUP))
        for name, value in zip(state, (following, runs, ends, area, signs), strict=True):
            state[name].add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, done)

        builder.position_at_end(done)
        signs = builder.or_(signs, _shuffle(builder, signs, [2, 3, 2, 3]))
        signs = builder.or_(signs, _shuffle(builder, signs, [1, 1, 1, 1]))
        well = builder.icmp_signed(">=", builder.extract_element(signs, _I32(0)), _I32(0))
        odd = [builder.zext(builder.extract_element(area, _I32(k)), _I64) for k in (1, 3)]
        last = builder.sext(builder.extract_element(ends, _I32(3)), _I64)
        result = [builder.zext(well, _I64), builder.add(*odd), last]
        return context.make_tuple(builder, signature.return_type, result)

    scalars = [types.int64] * 4
    return types.UniTuple(types.int64, 3)(numbers, *scalars, ends), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fill_words(
    typingctx: Any, words: Any, before: Any, at: Any, bits: Any, rank: Any, step: Any
) -> Any:
    """`words[at:at + 8] = bits` and `before[at:at + 8] = rank, rank + step, …`: uint64 and int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, rank, step = args[3], *(builder.trunc(value, _I32) for value in args[4:])
        wide = ir.VectorType(_I64, LANES)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[2], wide)
        builder.store(splat(builder, bits, LANES), pointer, align=8)
        steps = builder.mul(splat(builder, step, LANES), _constant(_I32, list(range(LANES))))
        ranks = builder.add(splat(builder, rank, LANES), steps)
        pointer = _pointer(context, builder, signature.args[1], args[1], args[2], ranks.type)
        builder.store(ranks, pointer, align=4)
        return context.get_dummy_value()

    scalars = (types.intp, types.uint64, types.int64, types.int64)
    return types.void(words, before, *scalars), codegen
