"""NumPy arrays in, integer counts out: the launchers of the Numba kernels and the one thread pool they share.

Every function here takes `threads` (0: all cores this process may use) and splits its rows over them; the kernels
release the GIL, and the result does not depend on the split. Kernels are imported on first use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_kernels.tables import Table, axis_table

Bytes = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]
Status = NDArray[np.int8]

MIN_ROWS = 16
"""Rows below which handing work to a thread costs more than it saves (about 20 µs a hand-over, measured)."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


class Runs(NamedTuple):
    """Masks as run ends.

    Attributes:
        ends: [R] running totals of each mask's runs.
        offsets: [B + 1] where a mask's runs begin in `ends`.
        status: [B] codes of `rle_status`.
        detail: [B] position or total that explains a code.
    """

    ends: Int32
    offsets: Int64
    status: Status
    detail: Int64


def available_threads() -> int:
    """Cores this process may use, by its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pool(threads: int) -> ThreadPoolExecutor:
    # Keyed by process: threads do not survive a fork, and a pool inherited from the parent would wait for ever.
    key = (os.getpid(), threads)
    if key not in _pools:
        # A pool starts no thread before its first task, so one made in vain by a second thread costs nothing.
        _pools.setdefault(key, ThreadPoolExecutor(threads, thread_name_prefix="refcocom"))
    return _pools[key]


def over_rows(
    kernel: Callable[[int, int], Any], n_rows: int, threads: int, *, min_rows: int = MIN_ROWS
) -> None:
    """Call `kernel(first, last)` for ranges that cover `n_rows`, over `threads` threads."""
    threads = threads or available_threads()
    parts = min(4 * threads, n_rows // min_rows)
    if threads == 1 or parts < 2:
        kernel(0, n_rows)
        return
    bounds = [n_rows * k // parts for k in range(parts + 1)]
    for _ in _pool(threads).map(kernel, bounds[:-1], bounds[1:]):
        pass


def offsets_from(lengths: Int64) -> Int64:
    """[B] lengths to [B + 1] offsets."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _most(values: Int64) -> int:
    return int(values.max(initial=0))


def rle_parse(data: Bytes, offsets: Int64, pixels: Int64, *, threads: int = 0) -> Runs:
    """Parse and validate a column of COCO RLE strings.

    Args:
        data: [D] the characters of all strings, one after the other.
        offsets: [B + 1] where each string begins.
        pixels: [B] H·W of each mask, at most 2**30.
        threads: See the module.
    """
    from refcocom_kernels import cpu_rle

    n_rows = len(offsets) - 1
    n_runs = np.zeros(n_rows, np.int64)
    over_rows(lambda a, b: cpu_rle.count_runs(data, offsets, a, b, n_runs), n_rows, threads)
    run_offsets = offsets_from(n_runs)
    ends = np.zeros(run_offsets[-1], np.int32)
    longest = _most(np.diff(offsets))
    status = np.zeros(n_rows, np.int8)
    detail = np.zeros(n_rows, np.int64)
    over_rows(
        lambda a, b: cpu_rle.parse_rows(
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
        threads: See the module.

    Returns:
        [B, 2] intersection and predicted area, [B] status, [B] detail; counts are 0 where the status is not OK.
    """
    from refcocom_kernels import cpu_rle

    n_rows = len(sample)
    counts = np.zeros((n_rows, 2), np.int64)
    status = np.zeros(n_rows, np.int8)
    detail = np.zeros(n_rows, np.int64)
    flat = counts.reshape(-1)
    # Rows of one target follow each other, so that what is made of the target serves them all.
    order = np.argsort(sample, kind="stable")
    longest, most_pixels = _most(np.diff(offsets)), _most(pixels)
    over_rows(
        lambda a, b: cpu_rle.intersect_rows(
            data,
            offsets,
            order,
            sample,
            target_ends,
            target_offsets,
            pixels,
            longest,
            most_pixels,
            a,
            b,
            flat,
            status,
            detail,
        ),
        n_rows,
        threads,
    )
    return counts, status, detail


def rle_write(ends: Int32, run_offsets: Int64, *, threads: int = 0) -> tuple[Bytes, Int64]:
    """Run ends to canonical COCO strings, byte-equal to pycocotools.

    Args:
        ends: [R] run ends.
        run_offsets: [B + 1] where a mask's runs begin.
        threads: See the module.

    Returns:
        [D] characters and [B + 1] offsets.
    """
    from refcocom_kernels import cpu_rle

    n_rows = len(run_offsets) - 1
    lengths = np.zeros(n_rows, np.int64)
    over_rows(
        lambda a, b: cpu_rle.string_lengths(ends, run_offsets, a, b, lengths), n_rows, threads
    )
    offsets = offsets_from(lengths)
    data = np.zeros(offsets[-1], np.uint8)
    over_rows(
        lambda a, b: cpu_rle.write_strings(ends, run_offsets, offsets, a, b, data), n_rows, threads
    )
    return data, offsets


def mask_counts(
    pixels: Bytes,
    sample: Int64,
    words: Words,
    word_offsets: Int64,
    *,
    threads: int = 0,
) -> Int64:
    """Count dense masks of one size against packed stored masks.

    Args:
        pixels: [B, H·W] bytes, row-major, C-contiguous; any nonzero byte is a set pixel.
        sample: [B] the stored mask each row is scored against; each must have H·W pixels.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threads: See the module.

    Returns:
        [B, 2] intersection and predicted area.
    """
    from refcocom_kernels import cpu_masks

    n_rows, n_pixels = pixels.shape
    counts = np.zeros((n_rows, 2), np.int64)
    flat, flat_counts = pixels.reshape(-1), counts.reshape(-1)
    over_rows(
        lambda a, b: cpu_masks.count_masks(
            flat, n_pixels, sample, words, word_offsets, a, b, flat_counts
        ),
        n_rows,
        threads,
    )
    return counts


def word_offsets_for(pixels: Int64) -> Int64:
    """[M] pixels per mask to [M + 1] offsets of its 64-bit words."""
    return offsets_from((pixels + 63) // 64)


def rle_pack(
    ends: Int32, run_offsets: Int64, heights: Int64, widths: Int64, *, threads: int = 0
) -> Words:
    """Run ends (column-major) to packed bits (row-major).

    Args:
        ends: [R] run ends of valid masks.
        run_offsets: [M + 1] where a mask's runs begin.
        heights: [M] H.
        widths: [M] W.
        threads: See the module.

    Returns:
        [P] words; mask m occupies `word_offsets_for(heights * widths)[m:m + 2]`.
    """
    from refcocom_kernels import cpu_masks

    word_offsets = word_offsets_for(heights * widths)
    words = np.zeros(word_offsets[-1], np.uint64)
    over_rows(
        lambda a, b: cpu_masks.pack_runs(
            ends, run_offsets, heights, widths, word_offsets, a, b, words
        ),
        len(heights),
        threads,
    )
    return words


class LogitCounts(NamedTuple):
    """What `logit_counts` finds.

    Attributes:
        counts: [B, 2] intersection and predicted area; 0 where a logit is not finite.
        flags: [B] `cpu_logits.NON_FINITE`, `cpu_logits.UNIT_RANGE` or 0.
        mixed_cells: [B] cells whose corners disagree, which had to be interpolated.
    """

    counts: Int64
    flags: Status
    mixed_cells: Int64


def logit_counts(
    logits: NDArray[Any],
    sample: Int64,
    heights: Int64,
    widths: Int64,
    words: Words,
    word_offsets: Int64,
    *,
    threshold: float = 0.0,
    valid: NDArray[np.float64] | None = None,
    threads: int = 0,
) -> LogitCounts:
    """Resize logits to the stored masks' sizes, threshold and count, in one pass.

    Equal to `reference.logit_counts` to the last pixel.

    Args:
        logits: [B, h, w] float32 or float16, or bfloat16 as its bits in uint16; C-contiguous.
        sample: [B] the stored mask each is scored against.
        heights: [M] H.
        widths: [M] W.
        words: [P] packed bits of the stored masks.
        word_offsets: [M + 1] where a stored mask's words begin.
        threshold: Values strictly above it are set.
        valid: [B, 2] rows and columns of cells that hold content, from the top left; all by default.
        threads: See the module.
    """
    from refcocom_kernels import cpu_logits

    n_rows, h, w = logits.shape
    kind = {
        "float32": cpu_logits.FLOAT32,
        "float16": cpu_logits.FLOAT16,
        "uint16": cpu_logits.BFLOAT16,
    }[logits.dtype.name]
    is_single = kind == cpu_logits.FLOAT32
    raw16 = np.zeros(0, np.int16) if is_single else logits.reshape(-1).view(np.int16)
    raw32 = logits.reshape(-1).view(np.int32) if is_single else np.zeros(0, np.int32)
    pool = _TablePool()
    layout = np.empty((n_rows, 6), np.int64)
    for b, mask in enumerate(sample.tolist()):
        valid_h, valid_w = (float(h), float(w)) if valid is None else valid[b].tolist()
        layout[b, :3] = pool.place(valid_h, int(heights[mask]))
        layout[b, 3:] = pool.place(valid_w, int(widths[mask]))
    tables = pool.concatenated()
    counts = np.zeros((n_rows, 2), np.int64)
    flags = np.zeros(n_rows, np.int8)
    mixed_cells = np.zeros(n_rows, np.int64)
    flat_layout, flat_counts = layout.reshape(-1), counts.reshape(-1)
    widest = _most(widths[sample])
    over_rows(
        lambda a, b: cpu_logits.count_logits(
            raw16,
            raw32,
            kind,
            h,
            w,
            sample,
            heights,
            widths,
            words,
            word_offsets,
            np.float32(threshold),
            *tables,
            flat_layout,
            widest,
            a,
            b,
            flat_counts,
            flags,
            mixed_cells,
        ),
        n_rows,
        threads,
        min_rows=1,
    )
    return LogitCounts(counts, flags, mixed_cells)


class _TablePool:
    """The resize tables of a batch, each once, concatenated for a kernel."""

    def __init__(self) -> None:
        self._places: dict[tuple[float, int], tuple[int, int, int]] = {}
        self._tables: list[Table] = []
        self._used = [0, 0]

    def place(self, valid: float, target: int) -> tuple[int, int, int]:
        """Where a table begins, where its first pixels begin, and how many cells it has."""
        key = (valid, target)
        if key not in self._places:
            table = axis_table(valid, target)
            self._places[key] = (*self._used, len(table.first_pixel) - 1)
            self._tables.append(table)
            self._used[0] += target
            self._used[1] += len(table.first_pixel)
        return self._places[key]

    def concatenated(self) -> tuple[NDArray[Any], ...]:
        """`low`, `high`, `weight_low`, `weight_high`, `first_pixel` of all tables."""
        if len(self._tables) == 1:
            return tuple(self._tables[0])
        return tuple(np.concatenate(columns) for columns in zip(*self._tables, strict=True))
