"""Numba kernel over logits: resize, threshold and count in one pass, no full-size mask. Launched by `cpu/logits.py`.

A target pixel is interpolated between the four corners of a source *cell*. If all four lie on one side of the
threshold, by more than rounding can move a value, so do all pixels of the cell. A run of such cells is a range of
target columns, and costs a popcount over the packed truth for each row. Only the other cells, the *mixed* ones, are
interpolated, in exactly the arithmetic of `reference.resize_logits`. Cells are classified 64 at a time on the bits of
the floats, which can be compared as integers. Where most cells of a band of rows are mixed, the whole band is
interpolated, so that noise costs no more than a plain resize.

Shapes: `B` examples, `h` × `w` cells, `H` × `W` pixels, `P` packed words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.codes import BFLOAT16, FLOAT32, NON_FINITE
from refcocom_kernels.cpu.numba.bits import bits_at
from refcocom_kernels.cpu.numba.cells import (
    decode_row,
    largest_in,
    order_key,
    resize_row,
    value_at,
    values_kind,
)
from refcocom_kernels.cpu.numba.jit import inline, jit
from refcocom_kernels.cpu.numba.vectors import (
    above64,
    as_float,
    below64,
    popcount,
    trailing_zeros,
    weighted_above64,
)

MARGIN = np.float32(2.0**-20)
"""Share of the largest magnitude by which corners must clear the threshold.

Two products, a sum, two products and a sum round by less than 4 · 2⁻²⁴ of the largest term, and two weights sum to 1
within 2⁻²⁴; 2⁻²⁰ leaves a factor of three."""

SUBNORMAL_MARGIN = np.float32(2.0**-126)
"""The error of a product below the smallest normal number is not a share of it but an amount: up to 2⁻¹⁵⁰."""

DENSE_SHARE = 6
"""A band is interpolated whole when more than one cell in this many is mixed (measured on noise of rising share)."""

_U0, _U1, _U63 = np.uint64(0), np.uint64(1), np.uint64(63)
_ONES = np.uint64(2**64 - 1)


@inline
def _classify(
    raw16: Any, raw32: Any, kind: int, start: int, cells: int, threshold: Any, largest: int, edge16: Any,
    edge32: Any, surely_set: Any, surely_not: Any, slot: int, n_words: int,
) -> None:  # fmt: skip
    """Bits of one row of cells: above the threshold for sure, and below it for sure."""
    if kind == FLOAT32:
        top = as_float(np.int32(largest))
    elif kind == BFLOAT16:
        top = as_float(np.int32(largest << 16))
    else:
        # For a subnormal this is too large, by up to 2⁻¹⁴; that only widens the margin.
        top = as_float(np.int32((largest << 13) + (112 << 23)))
    margin = max(top, abs(threshold)) * MARGIN + SUBNORMAL_MARGIN
    high = order_key(threshold + margin, kind)
    low = order_key(threshold - margin, kind)
    base = slot * n_words
    whole = cells // 64
    left = cells - 64 * whole
    for k in range(n_words):
        yes, no = _U0, _U0
        if k < whole:
            if kind == FLOAT32:
                yes = above64(raw32, start + 64 * k, high)
                no = below64(raw32, start + 64 * k, low)
            else:
                yes = above64(raw16, start + 64 * k, high)
                no = below64(raw16, start + 64 * k, low)
        elif k == whole and left > 0:
            # The last part of a row is copied, so that no lane reads beyond the buffer.
            if kind == FLOAT32:
                for c in range(left):
                    edge32[c] = raw32[start + 64 * whole + c]
                yes, no = above64(edge32, 0, high), below64(edge32, 0, low)
            else:
                for c in range(left):
                    edge16[c] = raw16[start + 64 * whole + c]
                yes, no = above64(edge16, 0, high), below64(edge16, 0, low)
            valid = (_U1 << np.uint64(left)) - _U1
            yes &= valid
            no &= valid
        surely_set[base + k] = yes
        surely_not[base + k] = no
    # The corner after the last cell is the last cell again.
    at, after = np.uint64(base + ((cells - 1) >> 6)), np.uint64(base + (cells >> 6))
    last = np.uint64((cells - 1) & 63)
    surely_set[after] |= ((surely_set[at] >> last) & _U1) << np.uint64(cells & 63)
    surely_not[after] |= ((surely_not[at] >> last) & _U1) << np.uint64(cells & 63)


@inline
def _both_corners(rows: Any, a: int, b: int, k: int, n_words: int) -> Any:
    """Bit c is set where corners c and c + 1 of both rows are."""
    here = rows[np.uint64(a + k)] & rows[np.uint64(b + k)]
    after = rows[np.uint64(a + k + 1)] & rows[np.uint64(b + k + 1)] if k + 1 < n_words else _U0
    return here & ((here >> _U1) | (after << _U63))


@inline
def _count_range(words: Any, start: int, stop: int) -> int:
    """Number of set bits from bit `start` to bit `stop` - 1; the range must not be empty."""
    first, last = start >> 6, (stop - 1) >> 6
    head = _ONES << np.uint64(start & 63)
    tail = _ONES >> np.uint64(63 - ((stop - 1) & 63))
    if first == last:
        return np.int64(popcount(words[np.uint64(first)] & head & tail))  # type: ignore[return-value]
    n = popcount(words[np.uint64(first)] & head) + popcount(words[np.uint64(last)] & tail)
    for k in range(first + 1, last):
        n += popcount(words[np.uint64(k)])
    return np.int64(n)  # type: ignore[return-value]


@jit(
    "in i2, in i4, i8, i8, i8, in i8, in i8, in u8, in i8, f4, "
    "in i4, in i4, in f4, in f4, in i8, in i8, i8, i8, i8, out i8, out i1, out i8 -> void"
)
def count_logits(
    raw16: Any, raw32: Any, kind: int, h: int, w: int, sample: Any, widths: Any,
    words: Any, word_offsets: Any, threshold: Any,
    low: Any, high: Any, weight_low: Any, weight_high: Any, first_pixel: Any, layout: Any,
    widest: int, first: int, last: int, counts: Any, kinds: Any, mixed_cells: Any,
) -> None:  # fmt: skip
    """Examples `first` to `last - 1` of [B, h, w] logits.

    The tables of all sizes in the batch are concatenated in `low` … `weight_high`, the first pixel of each cell in
    `first_pixel`. `layout` is [B, 6] flat: for rows, then for columns, where an example's table begins, where its list
    of first pixels begins, and how many cells hold content. `counts` is [B, 2] flat; `kinds` [B] says what the
    values look like; `mixed_cells` [B] counts the cells that had to be interpolated.
    """
    n_words = (w >> 6) + 1
    surely_set = np.zeros(2 * n_words, np.uint64)
    surely_not = np.zeros(2 * n_words, np.uint64)
    edge16 = np.zeros(64, np.int16)
    edge32 = np.zeros(64, np.int32)
    cell_bits = np.empty(w + 1, np.int32)
    cell_values = cell_bits.view(np.float32)
    # Room for the lanes after the last column, which are computed and then masked out.
    stride = widest + 64
    resized = np.zeros(2 * stride, np.float32)
    for b in range(first, last):
        mask = sample[b]
        width = widths[mask]
        truth = 64 * word_offsets[mask]
        yt, yf, rows = layout[6 * b], layout[6 * b + 1], layout[6 * b + 2]
        xt, xf, cells = layout[6 * b + 3], layout[6 * b + 4], layout[6 * b + 5]
        base = b * h * w
        intersection, area, mixed_total = 0, 0, 0
        largest = 0
        # The source row that each of the two slots holds: classified, and resized.
        held = np.array([-1, -1])
        held_resized = np.array([-1, -1])
        for row in range(rows):
            y0, y1 = first_pixel[yf + row], first_pixel[yf + row + 1]
            if y0 == y1:
                # No pixel falls between these rows, but their values are checked all the same.
                largest = max(largest, largest_in(raw16, raw32, kind, base + row * w, w))
                continue
            below = min(row + 1, rows - 1)
            for k in range(2):
                needed = row if k == 0 else below
                slot = needed & 1
                if held[slot] != needed:
                    start = base + needed * w
                    seen = largest_in(raw16, raw32, kind, start, w)
                    largest = max(largest, seen)
                    _classify(
                        raw16, raw32, kind, start, cells, threshold, seen, edge16, edge32,
                        surely_set, surely_not, slot, n_words,
                    )  # fmt: skip
                    held[slot] = needed
            top, bottom = (row & 1) * n_words, (below & 1) * n_words
            n_mixed = 0
            for k in range(n_words):
                known = _both_corners(surely_set, top, bottom, k, n_words)
                nots = _both_corners(surely_not, top, bottom, k, n_words)
                known |= nots
                here = min(64, cells - 64 * k)
                if here > 0:
                    n_mixed += here - np.int64(popcount(known))
            mixed_total += n_mixed
            if n_mixed * DENSE_SHARE > cells:
                for k in range(2):
                    needed = row if k == 0 else below
                    slot = needed & 1
                    if held_resized[slot] != needed:
                        decode_row(raw16, raw32, kind, base + needed * w, cells, cell_bits)
                        at = slot * stride
                        resize_row(
                            cell_values,
                            low[xt : xt + width],
                            weight_low[xt : xt + width],
                            weight_high[xt : xt + width],
                            resized[at : at + width],
                        )
                        held_resized[slot] = needed
                upper = resized[(row & 1) * stride : (row & 1) * stride + stride]
                lower = resized[(below & 1) * stride : (below & 1) * stride + stride]
                for y in range(y0, y1):
                    from_upper, from_lower = weight_low[yt + y], weight_high[yt + y]
                    for x in range(0, width, 64):
                        n = min(64, width - x)
                        bits = weighted_above64(upper, lower, x, from_upper, from_lower, threshold)
                        if n < 64:
                            bits &= (_U1 << np.uint64(n)) - _U1
                        area += np.int64(popcount(bits))
                        intersection += np.int64(
                            popcount(bits & bits_at(words, truth + y * width + x, n))
                        )
                continue
            # Sparse band: ranges of set cells, then the mixed cells one by one.
            carry = _U0
            start = 0
            for k in range(n_words):
                inside = _both_corners(surely_set, top, bottom, k, n_words)
                if 64 * k + 64 > cells:
                    n = cells - 64 * k
                    inside &= ((_U1 << np.uint64(n)) - _U1) if n > 0 else _U0
                changes = inside ^ ((inside << _U1) | carry)
                carry = inside >> _U63
                while changes != _U0:
                    c = 64 * k + np.int64(trailing_zeros(changes))
                    changes &= changes - _U1
                    column = first_pixel[xf + c]
                    if (inside >> np.uint64(c & 63)) & _U1:
                        start = column
                    elif column > start:
                        area += (column - start) * (y1 - y0)
                        for y in range(y0, y1):
                            at = truth + y * width
                            intersection += _count_range(words, at + start, at + column)
            if carry and width > start:
                area += (width - start) * (y1 - y0)
                for y in range(y0, y1):
                    at = truth + y * width
                    intersection += _count_range(words, at + start, at + width)
            if n_mixed == 0:
                continue
            for k in range(n_words):
                mixed = ~(
                    _both_corners(surely_set, top, bottom, k, n_words)
                    | _both_corners(surely_not, top, bottom, k, n_words)
                )
                n = cells - 64 * k
                if n < 64:
                    mixed &= ((_U1 << np.uint64(n)) - _U1) if n > 0 else _U0
                while mixed != _U0:
                    c = 64 * k + np.int64(trailing_zeros(mixed))
                    mixed &= mixed - _U1
                    x0, x1 = first_pixel[xf + c], first_pixel[xf + c + 1]
                    if x0 == x1:
                        continue
                    right = min(c + 1, cells - 1)
                    v00 = value_at(raw16, raw32, kind, base + row * w + c)
                    v01 = value_at(raw16, raw32, kind, base + row * w + right)
                    v10 = value_at(raw16, raw32, kind, base + below * w + c)
                    v11 = value_at(raw16, raw32, kind, base + below * w + right)
                    for x in range(x0, x1):
                        t = np.uint64(xt + x)
                        left_weight, right_weight = weight_low[t], weight_high[t]
                        above_left, above_right = v00 * left_weight, v01 * right_weight
                        below_left, below_right = v10 * left_weight, v11 * right_weight
                        value_above, value_below = (
                            above_left + above_right,
                            below_left + below_right,
                        )
                        for y in range(y0, y1):
                            u = np.uint64(yt + y)
                            from_above, from_below = (
                                value_above * weight_low[u],
                                value_below * weight_high[u],
                            )
                            is_set = np.int64(from_above + from_below > threshold)
                            bit = truth + y * width + x
                            true = np.int64(words[np.uint64(bit >> 6)] >> np.uint64(bit & 63)) & 1
                            area += is_set
                            intersection += is_set & true
        # Rows of padding are checked too: NaN anywhere is a fault.
        for row in range(rows, h):
            largest = max(largest, largest_in(raw16, raw32, kind, base + row * w, w))
        seen = values_kind(raw16, raw32, kind, base, h * w, largest)
        if seen == NON_FINITE:
            intersection, area = 0, 0
        counts[2 * b] = intersection
        counts[2 * b + 1] = area
        kinds[b] = seen
        mixed_cells[b] = mixed_total


@jit("in i2, in i4, i8, i8, i8, i8, out i1 -> void")
def kinds_of_values(
    raw16: Any, raw32: Any, kind: int, cells: int, first: int, last: int, kinds: Any
) -> None:
    """What the values of examples `first` to `last - 1` of [B, cells] look like."""
    for b in range(first, last):
        base = b * cells
        largest = largest_in(raw16, raw32, kind, base, cells)
        kinds[b] = values_kind(raw16, raw32, kind, base, cells, largest)
