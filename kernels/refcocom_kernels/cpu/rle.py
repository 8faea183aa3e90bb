"""COCO RLE on the CPU: strings in, runs or counts out; and runs back to strings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refcocom_kernels.cpu.pool import Bytes, Int32, Int64, Status, most, offsets_from, over_rows


class Runs(NamedTuple):
    """Masks as run ends.

    Attributes:
        ends: [R] running totals of each mask's runs.
        offsets: [B + 1] where a mask's runs begin in `ends`.
        status: [B] codes of `rle_status`.
        detail: [B] position or total that `rle_status.explain` shows.
    """

    ends: Int32
    offsets: Int64
    status: Status
    detail: Int64


def rle_parse(data: Bytes, offsets: Int64, pixels: Int64, *, threads: int = 0) -> Runs:
    """Parse and validate a column of COCO RLE strings.

    Args:
        data: [D] the characters of all strings, one after the other.
        offsets: [B + 1] where each string begins.
        pixels: [B] H·W of each mask, at most 2**30.
        threads: 0 for all cores.
    """
    from refcocom_kernels.cpu.numba import strings

    n_rows = len(offsets) - 1
    n_runs = np.zeros(n_rows, np.int64)
    over_rows(lambda a, b: strings.count_runs(data, offsets, a, b, n_runs), n_rows, threads)
    run_offsets = offsets_from(n_runs)
    ends = np.zeros(run_offsets[-1], np.int32)
    longest = most(np.diff(offsets))
    status = np.zeros(n_rows, np.int8)
    detail = np.zeros(n_rows, np.int64)
    over_rows(
        lambda a, b: strings.parse_rows(
            data, offsets, pixels, run_offsets, longest, a, b, ends, status, detail
        ),
        n_rows,
        threads,
    )
    return Runs(ends, run_offsets, status, detail)


def rle_counts(
    data: Bytes,
    offsets: Int64,
    sample: Int64,
    target_ends: Int32,
    target_offsets: Int64,
    pixels: Int64,
    *,
    threads: int = 0,
) -> tuple[Int64, Status, Int64]:
    """Intersect a column of COCO RLE strings with stored masks, without decoding to pixels.

    Args:
        data: [D] the characters of all strings, one after the other.
        offsets: [B + 1] where each string begins.
        sample: [B] the stored mask each string is scored against.
        target_ends: [R] run ends of the stored masks.
        target_offsets: [M + 1] where a stored mask's runs begin.
        pixels: [M] H·W of each stored mask.
        threads: 0 for all cores.

    Returns:
        [B, 2] intersection and predicted area, [B] status, [B] detail; counts are 0 where the status is not OK.
    """
    from refcocom_kernels.cpu.numba import rle
    from refcocom_kernels.cpu.numba.strings import SPARE

    n_rows = len(sample)
    counts = np.zeros((n_rows, 2), np.int64)
    status = np.zeros(n_rows, np.int8)
    detail = np.zeros(n_rows, np.int64)
    flat = counts.reshape(-1)
    # Rows of one target follow each other, so that its rank table is built once for all of them.
    order = np.argsort(sample, kind="stable")
    longest, most_pixels = most(np.diff(offsets)), most(pixels)
    n_numbers, n_words = longest + SPARE, most_pixels // 64 + SPARE

    def count(first: int, last: int) -> None:
        scratch = (
            *(np.empty(n_numbers, np.int32), np.empty(n_numbers, np.int32)),
            *(np.empty(n_words, np.uint64), np.empty(n_words, np.int32)),
        )
        targets = target_ends, target_offsets, pixels
        rle.intersect_rows(
            data, offsets, order, sample, *targets, first, last, *scratch, flat, status, detail
        )

    over_rows(count, n_rows, threads)
    return counts, status, detail


def rle_write(ends: Int32, run_offsets: Int64, *, threads: int = 0) -> tuple[Bytes, Int64]:
    """Run ends to canonical COCO strings, byte-equal to pycocotools.

    Args:
        ends: [R] run ends.
        run_offsets: [B + 1] where a mask's runs begin.
        threads: 0 for all cores.

    Returns:
        [D] characters and [B + 1] offsets.
    """
    from refcocom_kernels.cpu.numba import strings

    n_rows = len(run_offsets) - 1
    lengths = np.zeros(n_rows, np.int64)
    over_rows(
        lambda a, b: strings.string_lengths(ends, run_offsets, a, b, lengths), n_rows, threads
    )
    offsets = offsets_from(lengths)
    data = np.zeros(offsets[-1], np.uint8)
    over_rows(
        lambda a, b: strings.write_strings(ends, run_offsets, offsets, a, b, data), n_rows, threads
    )
    return data, offsets
