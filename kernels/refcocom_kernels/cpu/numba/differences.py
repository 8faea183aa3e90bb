"""The Numba kernels over the differences of every two of many rows of float64. Launched by `cpu/differences.py`.

The innermost loops run along slices, because LLVM makes vectors of nothing else here. They are written out, because
calls of helpers made them a third slower.
"""

from __future__ import annotations

from typing import Any

from refcocom_kernels.cpu.numba.jit import jit

PART = 256
"""Columns of `largest_ratios` that are done before the next: 120 rows of them, 246 KB, stay in an L2 cache of 512 KB.
128 and 512 columns were as fast."""


@jit("in f8, in f8, in i8, in i8, i8, i8, out f8, out f8 -> void")
def squared_differences(
    left: Any, right: Any, leaves: Any, merges: Any, m: int, n: int, lanes: Any, sums: Any
) -> None:
    """`left` [G, m] and `right` [G, n] flat; the first m·n of `sums` become Σ (right[g, j] − left[g, i])² over g.

    `leaves` and `merges` are from `cpu.differences.order_of_sum`. `lanes` has room for 8·n, `sums` for a partial sum
    more than there are merges at once, each m·n.
    """
    depth = 0
    for leaf in range(len(merges)):
        first, last = leaves[leaf], leaves[leaf + 1]
        whole = last - (last - first) % 8
        for i in range(m):
            lanes[:] = 0
            for k in range(8):
                lane = lanes[k * n : (k + 1) * n]
                g = first + k
                # Four terms at a time, so that a lane is read and written once for four.
                while g + 24 < whole:
                    r0, r1 = right[g * n : (g + 1) * n], right[(g + 8) * n : (g + 9) * n]
                    r2, r3 = right[(g + 16) * n : (g + 17) * n], right[(g + 24) * n : (g + 25) * n]
                    x0, x1 = left[g * m + i], left[(g + 8) * m + i]
                    x2, x3 = left[(g + 16) * m + i], left[(g + 24) * m + i]
                    for j in range(n):
                        d0, d1, d2, d3 = r0[j] - x0, r1[j] - x1, r2[j] - x2, r3[j] - x3
                        lane[j] = (((lane[j] + d0 * d0) + d1 * d1) + d2 * d2) + d3 * d3
                    g += 32
                while g < whole:
                    r0, x0 = right[g * n : (g + 1) * n], left[g * m + i]
                    for j in range(n):
                        d0 = r0[j] - x0
                        lane[j] += d0 * d0
                    g += 8
            total = sums[(depth * m + i) * n : (depth * m + i + 1) * n]
            # In the order in which NumPy adds its eight lanes.
            l0, l1, l2, l3 = lanes[:n], lanes[n : 2 * n], lanes[2 * n : 3 * n], lanes[3 * n : 4 * n]
            l4, l5, l6 = lanes[4 * n : 5 * n], lanes[5 * n : 6 * n], lanes[6 * n : 7 * n]
            l7 = lanes[7 * n : 8 * n]
            for j in range(n):
                a, b = (l0[j] + l1[j]) + (l2[j] + l3[j]), (l4[j] + l5[j]) + (l6[j] + l7[j])
                total[j] = a + b
            for g in range(whole, last):
                r0, x0 = right[g * n : (g + 1) * n], left[g * m + i]
                for j in range(n):
                    d0 = r0[j] - x0
                    total[j] += d0 * d0
        depth += 1
        for _ in range(merges[leaf]):
            depth -= 1
            total = sums[(depth - 1) * m * n : depth * m * n]
            more = sums[depth * m * n : (depth + 1) * m * n]
            for k in range(m * n):
                total[k] += more[k]


@jit("in f8, in f8, in f8, i8, i8, i8, out f8 -> void")
def largest_ratios(
    left: Any, right: Any, inverse: Any, m: int, n: int, width: int, largest: Any
) -> None:
    """`left` [m, B], `right` [n, B] and `inverse` [m, n] flat, with B = `width`; they are those of the launcher."""
    for start in range(0, width, PART):
        size = min(PART, width - start)
        top = largest[start : start + size]
        # Two rows of each side at a time, so that a number read serves four; the last may come twice, which changes
        # no maximum. Four of one side took a sixth longer.
        for i0 in range(0, m, 2):
            i1 = min(i0 + 1, m - 1)
            x0 = left[i0 * width + start : i0 * width + start + size]
            x1 = left[i1 * width + start : i1 * width + start + size]
            for j0 in range(0, n, 2):
                j1 = min(j0 + 1, n - 1)
                y0 = right[j0 * width + start : j0 * width + start + size]
                y1 = right[j1 * width + start : j1 * width + start + size]
                w00, w01 = inverse[i0 * n + j0], inverse[i0 * n + j1]
                w10, w11 = inverse[i1 * n + j0], inverse[i1 * n + j1]
                for b in range(size):
                    t = top[b]
                    t00, t01 = abs(y0[b] - x0[b]) * w00, abs(y1[b] - x0[b]) * w01
                    t10, t11 = abs(y0[b] - x1[b]) * w10, abs(y1[b] - x1[b]) * w11
                    t = t00 if t00 > t else t
                    t = t01 if t01 > t else t
                    t = t10 if t10 > t else t
                    # Not written only where it is larger: such a store is slow.
                    top[b] = t11 if t11 > t else t
