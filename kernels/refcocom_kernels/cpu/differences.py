"""Two blocks of rows of float64 in; over the differences of each two rows, sums of squares and largest ratios out.

Both release the GIL, and both give the bits of the NumPy expression in their docstring, whatever the blocks.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from refcocom_kernels.cpu.pool import Int64

Floats = NDArray[np.float64]

LEAF = 128
"""Terms that NumPy's pairwise sum adds up in eight lanes; more are halved first (`pairwise_sum` in its C code)."""


@functools.lru_cache
def order_of_sum(n: int) -> tuple[Int64, Int64]:
    """Return the order in which `np.sum` adds n contiguous float64.

    Returns:
        [L + 1] offsets of the leaves, and [L] after each of them how often the last two sums are added together.

    >>> order_of_sum(300)
    (array([  0,  72, 144, 216, 300]), array([0, 1, 0, 2]))
    """
    leaves, merges = [0], []

    def add(n: int) -> None:
        if n <= LEAF:
            leaves.append(leaves[-1] + n)
            merges.append(0)
            return
        half = n // 2 - n // 2 % 8
        add(half)
        add(n - half)
        merges[-1] += 1

    add(n)
    return np.array(leaves), np.array(merges)


def squared_differences(left: Floats, right: Floats) -> Floats:
    """Return the sum of squares of the difference between each two columns.

    The sums have the bits of `np.square(u - v).sum()` of two contiguous rows u and v.

    Args:
        left: [G, m], C-contiguous.
        right: [G, n], C-contiguous.

    Returns:
        [m, n] float64.

    >>> squared_differences(np.array([[1.0], [2.0]]), np.array([[1.0, 3.0], [0.0, 3.0]]))
    array([[4., 5.]])
    """
    from refcocom_kernels.cpu.numba import differences

    leaves, merges = order_of_sum(len(left))
    m, n = left.shape[1], right.shape[1]
    lanes, sums = np.empty(8 * n), np.empty((len(merges).bit_length() + 1, m, n))
    differences.squared_differences(
        left.reshape(-1), right.reshape(-1), leaves, merges, m, n, lanes, sums.reshape(-1)
    )
    result: Floats = sums[0]
    return result


def largest_ratios(left: Floats, right: Floats, inverse: Floats, largest: Floats) -> None:
    """Raise each of `largest` to the largest of `abs(left[i] - right[j]) * inverse[i, j]`, in place.

    Args:
        left: [m, B], C-contiguous.
        right: [n, B], C-contiguous.
        inverse: [m, n], not negative; pairs with 0 take no part. C-contiguous.
        largest: [B], not negative.

    >>> largest_ratios(np.zeros((1, 2)), np.array([[1.0, -4.0]]), np.array([[0.5]]), top := np.ones(2))
    >>> top
    array([1., 2.])
    """
    from refcocom_kernels.cpu.numba import differences

    m, n = inverse.shape
    differences.largest_ratios(
        left.reshape(-1), right.reshape(-1), inverse.reshape(-1), m, n, len(largest), largest
    )
