"""Limits of the machine: the time to read bytes, and the time of a plain compiled C loop for RLE counts."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCE = r"""
#include <stdint.h>
#include <stddef.h>

/* Sum of 64-bit words: reads every byte and does nothing else. */
uint64_t read_words(const uint64_t *words, size_t n) {
  uint64_t a = 0, b = 0, c = 0, d = 0;
  size_t k = 0;
  for (; k + 4 <= n; k += 4) { a += words[k]; b += words[k + 1]; c += words[k + 2]; d += words[k + 3]; }
  for (; k < n; k++) a += words[k];
  return a + b + c + d;
}

/* Parse a COCO string and intersect it with a mask given as a rank table: 32 bits of the mask, column-major, below the
   number of bits set before them. The table is made beforehand and is not timed. */
void parse_and_rank(const uint8_t *data, const int64_t *offsets, const int64_t *sample, const uint64_t *table,
                    const int64_t *table_offsets, const int64_t *pixels, int64_t n, int64_t *counts) {
  for (int64_t row = 0; row < n; row++) {
    const uint8_t *at = data + offsets[row], *stop = data + offsets[row + 1];
    const uint64_t *rank = table + table_offsets[sample[row]];
    int64_t total = 0, before = 0, last = 0, runs = 0, intersection = 0, area = 0, previous = 0;
    int ok = 1;
    while (at < stop && ok) {
      int64_t value = 0;
      int shift = 0, more = 1;
      while (more) {
        if (at >= stop || shift > 30) { ok = 0; break; }
        unsigned digit = (unsigned)*at++ - 48;
        if (digit > 63) { ok = 0; break; }
        value |= (int64_t)(digit & 31) << shift;
        shift += 5;
        more = digit & 32;
        if (!more && (digit & 16)) value |= -(INT64_C(1) << shift);
      }
      if (runs > 2) value += before;
      before = last; last = value;
      total += value;
      if (!ok || value < 0 || total > pixels[sample[row]]) { ok = 0; break; }
      uint64_t word = rank[total >> 5];
      int64_t here = (int64_t)(word >> 32) + __builtin_popcount((uint32_t)word & ((1u << (total & 31)) - 1));
      if (runs & 1) { intersection += here - previous; area += value; }
      previous = here;
      runs++;
    }
    ok = ok && total == pixels[sample[row]];
    counts[2 * row] = ok ? intersection : -1;
    counts[2 * row + 1] = ok ? area : -1;
  }
}
"""


def compiled() -> Any | None:
    """The C loops as a library, or None if there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="refcocom-limit-"))
    source, library = folder / "limit.c", folder / "limit.so"
    source.write_text(SOURCE)
    command = [
        compiler,
        "-O3",
        "-march=native",
        "-shared",
        "-fPIC",
        str(source),
        "-o",
        str(library),
    ]
    if subprocess.run(command, check=False).returncode != 0:
        return None
    loaded = ctypes.CDLL(str(library))
    loaded.read_words.restype = ctypes.c_uint64
    return loaded


def reader(library: Any, array: NDArray[Any]) -> Callable[[], Any]:
    """A function that reads every byte of an array once."""
    words = array.reshape(-1).view(np.uint64)
    pointer = words.ctypes.data_as(ctypes.c_void_p)
    return lambda: library.read_words(pointer, ctypes.c_size_t(words.size))


def rank_tables(
    ends: NDArray[np.int32], run_offsets: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The rank tables of all masks for the C loop, and where each begins."""
    offsets = np.concatenate([[0], np.cumsum(pixels // 32 + 1)]).astype(np.int64)
    table = np.zeros(offsets[-1], np.uint64)
    for m in range(len(pixels)):
        mask_ends = ends[run_offsets[m] : run_offsets[m + 1]]
        flat = np.repeat(np.arange(len(mask_ends)) % 2 == 1, np.diff(mask_ends, prepend=0))
        bits = np.packbits(np.pad(flat, (0, -len(flat) % 32 + 32)), bitorder="little").view(
            np.uint32
        )
        bits = bits[: pixels[m] // 32 + 1].astype(np.uint64)
        before = np.concatenate([[0], np.cumsum(np.bitwise_count(bits))[:-1]]).astype(np.uint64)
        table[offsets[m] : offsets[m + 1]] = (before << np.uint64(32)) | bits
    return table, offsets


def parse_and_rank(
    library: Any, arrays: list[NDArray[Any]], n: int, threads: int = 1
) -> Callable[[], NDArray[np.int64]]:
    """The C loop over `data, offsets, sample, table, table_offsets, pixels`, its rows split over threads."""
    counts = np.zeros((n, 2), np.int64)
    bounds = [n * k // threads for k in range(threads + 1)]
    pool = ThreadPoolExecutor(threads)

    def rows(first: int, last: int) -> None:
        data, offsets, sample, *rest = arrays
        part = (data, offsets[first:], sample[first:], *rest)
        library.parse_and_rank(
            *(a.ctypes.data_as(ctypes.c_void_p) for a in part),
            ctypes.c_int64(last - first),
            counts[first:].ctypes.data_as(ctypes.c_void_p),
        )

    def run() -> NDArray[np.int64]:
        list(pool.map(rows, bounds[:-1], bounds[1:]))
        return counts

    return run
