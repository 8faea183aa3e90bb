"""Functions over logit cells: bits to values, order keys and kinds of values, and a row of cells to a resized row.

Logits reach the kernels as the bits of their own type, because those bits can be compared as integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.codes import (
    BFLOAT16,
    BINARY,
    CLEAR,
    FAINT,
    FLOAT16,
    FLOAT32,
    LARGE,
    NON_FINITE,
    SIGNED,
    SOFT,
    ZERO,
)
from refcocom_kernels.cpu.numba.jit import inline
from refcocom_kernels.cpu.numba.vectors import (
    above64,
    as_bits,
    as_float,
    below64,
    halves_to_floats16,
    magnitude64,
    resize4,
)

_U0, _U1 = np.uint64(0), np.uint64(1)


@inline
def value_at(raw16: Any, raw32: Any, kind: int, at: int) -> Any:
    """One finite logit as float32."""
    if kind == FLOAT32:
        return as_float(raw32[np.uint64(at)])
    bits = np.int64(raw16[np.uint64(at)])
    if kind == BFLOAT16:
        return as_float(np.int32(bits << 16))
    if bits & 0x7C00:
        magnitude = as_float(np.int32(((bits & 0x7FFF) << 13) + (112 << 23)))
    else:
        magnitude = np.float32(bits & 0x3FF) * np.float32(2.0**-24)
    return -magnitude if bits < 0 else magnitude


@inline
def order_key(value: Any, kind: int) -> int:
    """Order key of a threshold in the type of the logits, rounded towards 0.

    With this rounding, a logit with a larger key is above the threshold and a logit with a smaller key is below it.
    """
    bits = np.int64(as_bits(np.float32(value)))
    magnitude = bits & 0x7FFFFFFF
    if kind == BFLOAT16:
        magnitude >>= 16
    elif kind == FLOAT16:
        if magnitude >= (112 + 31) << 23:
            magnitude = 0x7BFF
        elif magnitude >= 113 << 23:
            magnitude = (magnitude - (112 << 23)) >> 13
        else:
            magnitude = np.int64(abs(np.float32(value)) * np.float32(2.0**24))
    return ~magnitude if bits < 0 else magnitude


@inline
def largest_in(raw16: Any, raw32: Any, kind: int, start: int, cells: int) -> int:
    """Largest magnitude of a row of cells, as bits."""
    whole = cells // 64
    largest = 0
    if kind == FLOAT32:
        for k in range(whole):
            largest = max(largest, magnitude64(raw32, start + 64 * k))
        for k in range(64 * whole, cells):
            largest = max(largest, np.int64(raw32[start + k]) & 0x7FFFFFFF)
    else:
        for k in range(whole):
            largest = max(largest, magnitude64(raw16, start + 64 * k))
        for k in range(64 * whole, cells):
            largest = max(largest, np.int64(raw16[start + k]) & 0x7FFF)
    return largest


@inline
def any_below(raw16: Any, raw32: Any, kind: int, start: int, cells: int, key: int) -> bool:
    """Whether the order key of any of some cells is below `key`; it ends at the first."""
    whole = cells // 64
    for k in range(whole):
        at = start + 64 * k
        if (below64(raw32, at, key) if kind == FLOAT32 else below64(raw16, at, key)) != _U0:
            return True
    found = False
    for k in range(64 * whole, cells):
        found |= _key_at(raw16, raw32, kind, start + k) < key
    return found


@inline
def any_between(raw16: Any, raw32: Any, kind: int, start: int, cells: int, one: int) -> bool:
    """Whether any of some cells is neither 0 nor 1, whose order key is `one`; none may be above 1."""
    whole = cells // 64
    for k in range(whole):
        at = start + 64 * k
        # The order key of 0 is 0, that of −0 is −1.
        if kind == FLOAT32:
            odd = below64(raw32, at, -1) | (above64(raw32, at, 0) ^ above64(raw32, at, one - 1))
        else:
            odd = below64(raw16, at, -1) | (above64(raw16, at, 0) ^ above64(raw16, at, one - 1))
        if odd != _U0:
            return True
    for k in range(64 * whole, cells):
        here = _key_at(raw16, raw32, kind, start + k)
        if here < -1 or (here > 0 and here != one):
            return True
    return False


@inline
def _key_at(raw16: Any, raw32: Any, kind: int, at: int) -> int:
    """Order key of one cell."""
    bits = np.int64(raw32[at] if kind == FLOAT32 else raw16[at])
    below = 0x7FFFFFFF if kind == FLOAT32 else 0x7FFF
    return bits ^ below if bits < 0 else bits  # type: ignore[return-value]


@inline
def values_kind(raw16: Any, raw32: Any, kind: int, start: int, cells: int, largest: int) -> int:
    """What the values of an example look like (see `codes`), given the bits of their largest magnitude."""
    if largest >= (0x7F800000 if kind == FLOAT32 else 0x7C00 if kind == FLOAT16 else 0x7F80):
        return NON_FINITE
    if largest == 0:
        return ZERO
    one = 0x3F800000 if kind == FLOAT32 else 0x3C00 if kind == FLOAT16 else 0x3F80
    if kind == FLOAT32:
        top = as_float(np.int32(largest))
    elif kind == BFLOAT16:
        top = as_float(np.int32(largest << 16))
    elif largest >= 0x400:
        top = as_float(np.int32((largest << 13) + (112 << 23)))
    else:
        top = np.float32(largest) * np.float32(2.0**-24)
    if top >= np.float32(FAINT):
        bound = np.float32(CLEAR) * min(top, np.float32(1.0))
        if any_below(raw16, raw32, kind, start, cells, order_key(-bound, kind)):
            return SIGNED
    if top > np.float32(1.0 + CLEAR):
        return LARGE
    if largest == one and not any_between(raw16, raw32, kind, start, cells, one):
        return BINARY
    return SOFT


@inline
def decode_row(raw16: Any, raw32: Any, kind: int, start: int, cells: int, bits: Any) -> None:
    """One row of cells as the bits of float32; the last cell is written twice."""
    if kind == FLOAT32:
        row32 = raw32[start : start + cells]
        for c in range(cells):
            bits[c] = row32[c]
    elif kind == BFLOAT16:
        row16 = raw16[start : start + cells]
        for c in range(cells):
            bits[c] = np.int32(row16[c]) << 16
    else:
        whole = cells & ~15
        for c in range(0, whole, 16):
            halves_to_floats16(raw16, start + c, bits, c)
        for c in range(whole, cells):
            bits[c] = as_bits(value_at(raw16, raw32, kind, start + c))
    bits[cells] = bits[cells - 1]


@inline
def resize_row(values: Any, low: Any, weight_low: Any, weight_high: Any, resized: Any) -> None:
    """One row of cells, interpolated at every target column; the cell after the last must repeat it."""
    whole = len(low) & ~3
    for x in range(0, whole, 4):
        resize4(values, low, weight_low, weight_high, x, resized)
    for x in range(whole, len(low)):
        cell = np.uint64(low[x])
        left = values[cell] * weight_low[x]
        right = values[cell + _U1] * weight_high[x]
        resized[x] = left + right
