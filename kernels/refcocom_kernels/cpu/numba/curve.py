"""Numba kernel over logits at several thresholds: resized once, counted at each. Launched by `cpu/logits.py`.

Rows are resized as in `logits.py`, in the arithmetic of `reference.resize_logits`. 64 pixels at a time are compared
with the thresholds. Of ascending thresholds the first leave all of the pixels set, the last leave none, and only those
in between are looked at: from where the pixels to the left had theirs, upwards to the first that leaves none, and
downwards to the first that leaves all. In most parts of an image these are one or two.

Shapes: `B` examples, `T` thresholds, `h` × `w` cells, `H` × `W` pixels, `P` packed words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refcocom_kernels.cpu.numba.bits import bits_at
from refcocom_kernels.cpu.numba.cells import decode_row, resize_row
from refcocom_kernels.cpu.numba.jit import jit
from refcocom_kernels.cpu.numba.vectors import popcount, weighted_above64

_U0, _ONES = np.uint64(0), np.uint64(2**64 - 1)


@jit(
    "in i2, in i4, i8, i8, i8, in i8, in i8, in u8, in i8, in f4, "
    "in i4, in i4, in f4, in f4, in i8, in i8, i8, i8, i8, out i8 -> void"
)
def count_curve(
    raw16: Any, raw32: Any, kind: int, h: int, w: int, sample: Any, widths: Any,
    words: Any, word_offsets: Any, thresholds: Any,
    low: Any, high: Any, weight_low: Any, weight_high: Any, first_pixel: Any, layout: Any,
    widest: int, first: int, last: int, counts: Any,
) -> None:  # fmt: skip
    """Examples `first` to `last - 1` of [B, h, w] logits.

    Tables and `layout` are those of `logits.count_logits`; `thresholds` [T] ascend; `counts` is [B, T, 2] flat.
    """
    n = len(thresholds)
    cell_bits = np.empty(w + 1, np.int32)
    cell_values = cell_bits.view(np.float32)
    # Room for the lanes after the last column, which are computed and then masked out.
    stride = widest + 64
    resized = np.zeros(2 * stride, np.float32)
    # Pixels of the parts that the first k thresholds leave set as a whole: those of the truth, and all.
    whole = np.zeros(2 * (n + 1), np.int64)
    for b in range(first, last):
        mask = sample[b]
        width = widths[mask]
        truth = 64 * word_offsets[mask]
        yt, yf, rows = layout[6 * b], layout[6 * b + 1], layout[6 * b + 2]
        xt, cells = layout[6 * b + 3], layout[6 * b + 5]
        base, out = b * h * w, 2 * b * n
        whole[:] = 0
        held = np.array([-1, -1])
        for row in range(rows):
            y0, y1 = first_pixel[yf + row], first_pixel[yf + row + 1]
            if y0 == y1:
                continue
            below = min(row + 1, rows - 1)
            for side in range(2):
                needed = row if side == 0 else below
                slot = needed & 1
                if held[slot] != needed:
                    decode_row(raw16, raw32, kind, base + needed * w, cells, cell_bits)
                    at = slot * stride
                    resize_row(
                        cell_values,
                        low[xt : xt + width],
                        weight_low[xt : xt + width],
                        weight_high[xt : xt + width],
                        resized[at : at + width],
                    )
                    held[slot] = needed
            upper = resized[(row & 1) * stride : (row & 1) * stride + stride]
            lower = resized[(below & 1) * stride : (below & 1) * stride + stride]
            for y in range(y0, y1):
                from_upper, from_lower = weight_low[yt + y], weight_high[yt + y]
                guess = 0
                for x in range(0, width, 64):
                    lanes = min(64, width - x)
                    every = _ONES >> np.uint64(64 - lanes)
                    true = every & bits_at(words, truth + y * width + x, lanes)
                    n_whole = guess
                    k = guess
                    while k < n:
                        bits = every & weighted_above64(
                            upper, lower, x, from_upper, from_lower, thresholds[k]
                        )
                        if bits == _U0:
                            break
                        if bits == every and n_whole == k:
                            n_whole += 1
                        else:
                            counts[out + 2 * k] += np.int64(popcount(bits & true))
                            counts[out + 2 * k + 1] += np.int64(popcount(bits))
                        k += 1
                    # Where the threshold at the guess leaves all, so do those before it.
                    if n_whole == guess:
                        while n_whole > 0:
                            bits = every & weighted_above64(
                                upper, lower, x, from_upper, from_lower, thresholds[n_whole - 1]
                            )
                            if bits == every:
                                break
                            n_whole -= 1
                            counts[out + 2 * n_whole] += np.int64(popcount(bits & true))
                            counts[out + 2 * n_whole + 1] += np.int64(popcount(bits))
                    whole[2 * n_whole] += np.int64(popcount(true))
                    whole[2 * n_whole + 1] += lanes
                    guess = n_whole
        for part in range(2):
            total = 0
            for k in range(n - 1, -1, -1):
                total += whole[2 * (k + 1) + part]
                counts[out + 2 * k + part] += total
