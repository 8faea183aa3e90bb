"""COCO RLE in any of its forms in, validated run ends or canonical strings out; whole columns at once.

The format (pycocotools, `common/maskApi.c`): a mask is read down its columns as runs of 0 and 1, beginning with 0.
The *list form* holds the run lengths; the *compressed form* writes them as a string, five bits a character, each
run from the fourth on as the difference from the run two before. Nothing is decoded before it is known to be valid:
runs total exactly H·W, none is negative, no character is foreign or missing, H and W are positive and H·W is at
most `MAX_PIXELS`. Zero-length runs are legal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.errors import SHOWN, RLEError

MAX_PIXELS = 2**30
"""Largest H·W accepted: run ends and areas then fit an int32 with a bit to spare."""

MAX_RUN = 2**30
"""No run of a mask within `MAX_PIXELS` is longer."""


class Column(NamedTuple):
    """Strings of many masks as one buffer.

    Attributes:
        data: [D] uint8 characters.
        offsets: [B + 1] int64 where each string begins.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def row(self, row: int) -> bytes:
        """The string of one row."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def take(self, rows: NDArray[np.int64]) -> Column:
        """The strings of some rows, in the order given."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = cpu.offsets_from(lengths)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Column(self.data[within + np.repeat(self.offsets[rows], lengths)], offsets)


def column(strings: Iterable[bytes]) -> Column:
    """Gather strings into one buffer.

    >>> column([b"04", b"1"]).offsets
    array([0, 2, 3])
    """
    parts = list(strings)
    lengths = np.fromiter((len(part) for part in parts), np.int64, len(parts))
    return Column(np.frombuffer(b"".join(parts), np.uint8), cpu.offsets_from(lengths))


def check_size(size: Any) -> tuple[int, int]:
    """H and W of a mask, checked.

    Args:
        size: Two positive whole numbers (a float such as 10.0 is one), height first.

    Raises:
        RLEError: For anything else, or when H·W exceeds `MAX_PIXELS`.

    >>> check_size([480.0, 640])
    (480, 640)
    """
    if (
        not isinstance(size, Sequence | np.ndarray)
        or isinstance(size, str | bytes)
        or len(size) != 2
    ):
        raise RLEError(f"size must be [height, width], not {_brief(size)}")
    numbers = []
    for value in size:
        whole = isinstance(value, int | np.integer) or (
            isinstance(value, float | np.floating) and float(value).is_integer()
        )
        if not whole or isinstance(value, bool) or value < 1:
            raise RLEError(f"size must be two positive whole numbers, not {_brief(size)}")
        numbers.append(int(value))
    height, width = numbers
    if height * width > MAX_PIXELS:
        raise RLEError(f"size {height}×{width} exceeds the cap of {MAX_PIXELS:,} pixels")
    return height, width


def check_counts(counts: Any) -> bytes:
    """Counts in either form as the compressed string; what the string says is checked when it is parsed.

    Args:
        counts: `str` or `bytes` of the compressed form, or a sequence of run lengths.

    Raises:
        RLEError: For another type, a character outside ASCII, or a list with something else than run lengths.

    >>> check_counts([2, 4, 3])
    b'243'
    """
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str):
        if not counts.isascii():
            at = next(i for i, c in enumerate(counts) if not c.isascii())
            raise RLEError(rle_status.explain(rle_status.FOREIGN, at, 0))
        return counts.encode("ascii")
    if isinstance(counts, np.ndarray):
        counts = counts.tolist()
    if not isinstance(counts, list | tuple):
        raise RLEError(f"counts must be a string or a list of runs, not {_brief(counts)}")
    for k, run in enumerate(counts):
        if isinstance(run, bool) or not isinstance(run, int):
            raise RLEError(f"run {k} is {_brief(run)}, not a whole number")
        if run < 0:
            raise RLEError(f"run {k} is negative")
        if run > MAX_RUN:
            raise RLEError(f"run {k} is {run}, more than any mask has pixels")
    if len(counts) > MAX_RUN or sum(counts) > MAX_PIXELS:
        raise RLEError(f"runs total {sum(counts)} pixels, more than any mask has")
    ends = np.cumsum(np.array(counts, np.int64)).astype(np.int32)
    return cpu.rle_write(ends, np.array([0, len(ends)]), threads=1)[0].tobytes()


def check(segmentation: Any) -> tuple[int, int, bytes]:
    """One mask object in any accepted form to (H, W, compressed counts).

    Args:
        segmentation: A mapping with `size` and `counts`.

    Raises:
        RLEError: When it is something else; the message says what was found and what to do.

    >>> check({"size": [3, 3], "counts": [0, 4, 5]})
    (3, 3, b'045')
    """
    if segmentation is None:
        raise RLEError("mask is null")
    if isinstance(segmentation, str | bytes):
        raise RLEError(
            "mask is a string, not an object with size and counts; if it holds JSON, parse it first"
        )
    if isinstance(segmentation, list | tuple):
        raise RLEError("mask is a list (a polygon?), not an object with size and counts")
    if not isinstance(segmentation, Mapping):
        raise RLEError(f"mask is {_brief(segmentation)}, not an object with size and counts")
    missing = [name for name in ("size", "counts") if name not in segmentation]
    if missing:
        found = ", ".join(map(str, segmentation)) or "nothing"
        raise RLEError(f"mask lacks {' and '.join(missing)}; it has {found}")
    height, width = check_size(segmentation["size"])
    return height, width, check_counts(segmentation["counts"])


def parse(strings: Column, pixels: NDArray[np.int64], *, threads: int = 0) -> cpu.Runs:
    """Parse and validate a whole column.

    Args:
        strings: B compressed strings.
        pixels: [B] H·W of each mask.
        threads: 0 for all cores.

    Returns:
        Run ends and offsets, every row valid.

    Raises:
        RLEError: Naming the first bad rows and counting all.

    >>> parse(column([b"045"]), np.array([9])).ends
    array([0, 4, 9], dtype=int32)
    """
    runs = cpu.rle_parse(strings.data, strings.offsets, pixels, threads=threads)
    bad = np.flatnonzero(runs.status)
    if len(bad):
        shown = "; ".join(
            f"mask {row}: "
            + rle_status.explain(int(runs.status[row]), int(runs.detail[row]), int(pixels[row]))
            for row in bad[:SHOWN]
        )
        raise RLEError(f"{len(bad):,} of {len(pixels):,} masks are not valid RLE: {shown}")
    return runs


def decode(segmentation: Any) -> NDArray[np.bool_]:
    """One mask object to pixels.

    Args:
        segmentation: As for `check`.

    Returns:
        [H, W] bool.

    Raises:
        RLEError: When the mask is not valid.

    >>> decode({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    height, width, counts = check(segmentation)
    runs = parse(column([counts]), np.array([height * width]), threads=1)
    return decode_ends(runs.ends, height, width)


def decode_ends(ends: NDArray[np.int32], height: int, width: int) -> NDArray[np.bool_]:
    """Run ends of one valid mask to pixels.

    Args:
        ends: [R] running totals of the runs down the columns; the last is H·W.
        height: H.
        width: W.

    Returns:
        [H, W] bool.
    """
    lengths = np.diff(ends, prepend=np.int32(0))
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def run_ends(mask: NDArray[Any]) -> NDArray[np.int32]:
    """Pixels to run ends.

    Args:
        mask: [H, W] bool or any number; what is not 0 is set.

    Returns:
        [R] int32 running totals of the runs down the columns; the last is H·W.

    >>> run_ends(np.array([[0, 1, 0], [1, 0, 0]]))
    array([1, 3, 6], dtype=int32)
    """
    set_pixels = np.ascontiguousarray(np.asarray(mask) != 0)
    return cpu.mask_runs(set_pixels.view(np.uint8)[None], threads=1)[0]


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """Pixels to a COCO RLE object, byte-equal to pycocotools.

    Args:
        mask: [H, W] bool or any number; what is not 0 is set.

    Returns:
        `{"size": [H, W], "counts": str}`.

    Raises:
        RLEError: When the mask is not two-dimensional, has no pixels or too many.

    >>> encode(np.array([[0, 1, 0], [1, 0, 0]]))
    {'size': [2, 3], 'counts': '123'}
    """
    return encode_all([mask])[0]


def encode_all(masks: Sequence[NDArray[Any]], *, threads: int = 0) -> list[dict[str, Any]]:
    """Many masks, of any sizes, to COCO RLE objects; see `encode`."""
    sizes = []
    for mask in masks:
        if np.ndim(mask) != 2:
            raise RLEError(f"a mask is [H, W], not of shape {list(np.shape(mask))}")
        sizes.append(list(check_size(np.shape(mask))))
    return encode_ends([run_ends(mask) for mask in masks], sizes, threads=threads)


def encode_ends(
    ends: Sequence[NDArray[np.int32]], sizes: Sequence[Sequence[int]], *, threads: int = 0
) -> list[dict[str, Any]]:
    """Run ends of many masks to COCO RLE objects.

    Args:
        ends: One [R] vector per mask, as `run_ends` gives it.
        sizes: [H, W] of each.
        threads: 0 for all cores.
    """
    offsets = cpu.offsets_from(np.array([len(e) for e in ends], np.int64))
    strings = Column(
        *cpu.rle_write(
            np.concatenate(ends) if ends else np.zeros(0, np.int32), offsets, threads=threads
        )
    )
    return [
        {"size": list(size), "counts": strings.row(row).decode("ascii")}
        for row, size in enumerate(sizes)
    ]


def _brief(value: Any) -> str:
    """A value for an error message, never longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
