"""COCO RLE in any form in, validated run ends or compressed strings out, a whole column at a time.

The format (pycocotools, `common/maskApi.c`): a mask is read down its columns as runs of 0 and 1, beginning with 0.
The *list form* holds the run lengths. The *compressed form* writes them as a string, five bits a character; from the
fourth on, a run is written as its difference from the run two before.

Every mask is validated before it is decoded: its runs total exactly H·W, none is negative, no character is foreign or
missing, H and W are positive, and H·W is at most `MAX_PIXELS`. Zero-length runs are legal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.errors import SHOWN, RLEError
from refcocom_gpu.masks.causes import explain_counts

MAX_PIXELS = 2**30
"""The largest H·W accepted: run ends and areas then fit an int32 with a bit to spare."""

MAX_RUN = 2**30
"""The longest run that a mask of `MAX_PIXELS` can hold."""


class Column(NamedTuple):
    """The strings of many masks in one buffer.

    Attributes:
        data: [D] uint8 characters.
        offsets: [B + 1] int64, where each string begins; the last entry is D.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def row(self, row: int) -> bytes:
        """Return the string of one row."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def take(self, rows: NDArray[np.int64]) -> Column:
        """Return the strings of some rows, in the order given."""
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


def joined(columns: Sequence[Column]) -> Column:
    """Return the strings of columns, one after another, as one column.

    >>> joined([column([b"04"]), column([b"1", b""])]).offsets
    array([0, 2, 3, 3])
    """
    lengths = [np.diff(part.offsets) for part in columns]
    return Column(
        np.concatenate([np.zeros(0, np.uint8), *(part.data for part in columns)]),
        cpu.offsets_from(np.concatenate([np.zeros(0, np.int64), *lengths])),
    )


def check_size(size: Any) -> tuple[int, int]:
    """Check the size of a mask and return H and W.

    Args:
        size: Height and width, two positive whole numbers; a float such as 10.0 counts as one.

    Raises:
        RLEError: The size is anything else, or H·W exceeds `MAX_PIXELS`.

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
    """Return counts of either form as a compressed string; the runs in a string are checked by `parse`.

    Args:
        counts: `str` or `bytes` of the compressed form, or a sequence of run lengths.

    Raises:
        RLEError: The counts have another type, hold a character outside ASCII, or list anything but run lengths.

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
    """Check one mask object and convert it to (H, W, compressed counts).

    Args:
        segmentation: A mapping with `size` and `counts`.

    Raises:
        RLEError: It is anything else; the message says what it is and what to do.

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
        held = (
            "of objects"
            if segmentation and isinstance(segmentation[0], Mapping)
            else "(a polygon?)"
        )
        raise RLEError(f"mask is a list {held}, not an object with size and counts")
    if not isinstance(segmentation, Mapping):
        raise RLEError(f"mask is {_brief(segmentation)}, not an object with size and counts")
    missing = [name for name in ("size", "counts") if name not in segmentation]
    if missing:
        present = ", ".join(map(str, segmentation)) or "nothing"
        raise RLEError(f"mask lacks {' and '.join(missing)}; it has {present}")
    height, width = check_size(segmentation["size"])
    return height, width, check_counts(segmentation["counts"])


def parse(strings: Column, pixels: NDArray[np.int64], *, threads: int = 0) -> cpu.Runs:
    """Parse and validate a whole column of masks.

    Args:
        strings: B compressed strings.
        pixels: [B] H·W of each mask.
        threads: 0 for all cores.

    Returns:
        Run ends and offsets, every row valid.

    Raises:
        RLEError: Some masks are not valid; the message names the first and counts all.

    >>> parse(column([b"045"]), np.array([9])).ends
    array([0, 4, 9], dtype=int32)
    """
    runs = cpu.rle_parse(strings.data, strings.offsets, pixels, threads=threads)
    bad = np.flatnonzero(runs.status)
    if len(bad):
        shown = "; ".join(
            f"mask {row}: "
            + explain_counts(
                strings.row(row), int(runs.status[row]), int(runs.detail[row]), int(pixels[row])
            )
            for row in bad[:SHOWN]
        )
        raise RLEError(f"{len(bad):,} of {len(pixels):,} masks are not valid RLE: {shown}")
    return runs


def ends_of(segmentation: Any, height: int, width: int) -> NDArray[np.int32]:
    """Return the run ends of one mask object that must have a given size.

    Args:
        segmentation: As for `check`.
        height: H.
        width: W.

    Returns:
        [R] int32 as `run_ends` gives them.

    Raises:
        RLEError: The mask is not valid or has another size.
    """
    *size, counts = check(segmentation)
    if size != [height, width]:
        raise RLEError(f"mask is {size[0]}×{size[1]} (height×width), the image is {height}×{width}")
    return parse(column([counts]), np.array([height * width]), threads=1).ends


def decode(segmentation: Any) -> NDArray[np.bool_]:
    """Decode one mask object to pixels.

    Args:
        segmentation: As for `check`.

    Returns:
        [H, W] bool.

    Raises:
        RLEError: The mask is not valid.

    >>> decode({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    height, width, counts = check(segmentation)
    runs = parse(column([counts]), np.array([height * width]), threads=1)
    return decode_ends(runs.ends, height, width)


def decode_ends(ends: NDArray[np.int32], height: int, width: int) -> NDArray[np.bool_]:
    """Convert the run ends of one valid mask to pixels.

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
    """Convert pixels to run ends.

    Args:
        mask: [H, W], bool or numbers; every pixel that is not 0 is set.

    Returns:
        [R] int32 running totals of the runs down the columns; the last is H·W.

    >>> run_ends(np.array([[0, 1, 0], [1, 0, 0]]))
    array([1, 3, 6], dtype=int32)
    """
    set_pixels = np.ascontiguousarray(np.asarray(mask) != 0)
    return cpu.mask_runs(set_pixels.view(np.uint8)[None], threads=1)[0]


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """Encode pixels as a COCO RLE object, byte-equal to that of pycocotools.

    Args:
        mask: [H, W], bool or numbers; every pixel that is not 0 is set.

    Returns:
        `{"size": [H, W], "counts": str}`.

    Raises:
        RLEError: The mask is not two-dimensional, has no pixels, or has too many.

    >>> encode(np.array([[0, 1, 0], [1, 0, 0]]))
    {'size': [2, 3], 'counts': '123'}
    """
    return encode_all([mask])[0]


def encode_all(masks: Sequence[NDArray[Any]], *, threads: int = 0) -> list[dict[str, Any]]:
    """Encode many masks, of any sizes, as COCO RLE objects; see `encode`."""
    sizes = []
    for mask in masks:
        if np.ndim(mask) != 2:
            raise RLEError(f"a mask has shape [H, W], not {list(np.shape(mask))}")
        sizes.append(list(check_size(np.shape(mask))))
    return encode_ends([run_ends(mask) for mask in masks], sizes, threads=threads)


def encode_ends(
    ends: Sequence[NDArray[np.int32]], sizes: Sequence[Sequence[int]], *, threads: int = 0
) -> list[dict[str, Any]]:
    """Write the run ends of many masks as COCO RLE objects.

    Args:
        ends: One vector per mask, [R] int32, from `run_ends`.
        sizes: [H, W] of each.
        threads: 0 for all cores.
    """
    offsets = cpu.offsets_from(np.array([len(e) for e in ends], np.int64))
    all_ends = np.concatenate(ends) if ends else np.zeros(0, np.int32)
    strings = Column(*cpu.rle_write(all_ends, offsets, threads=threads))
    return [
        {"size": list(size), "counts": strings.row(row).decode("ascii")}
        for row, size in enumerate(sizes)
    ]


def _brief(value: Any) -> str:
    """Shorten a value for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
