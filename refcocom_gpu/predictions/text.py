"""A file of JSON in, RLE batches out: its first byte, not its name, tells JSON lines from a JSON array.

A UTF-8 byte order mark and Windows' line ends are read over. What is no UTF-8 text is named.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from refcocom_gpu.errors import ContentError, Problems
from refcocom_gpu.predictions import box_rows, rows
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.compressed import MAGIC, Read, opened
from refcocom_gpu.predictions.formats import CODECS, ending
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.records import NOT_JSON, why_not_json

BLOCK_BYTES = 2**20
"""Bytes of JSONL decoded at a time: enough to hide the cost of a call. Decoding holds some six times as much."""

BLOCK_ENTRIES = 4096
"""Entries of a JSON array decoded at a time."""

LINE_BYTES = 2**26
"""A longer line is refused: the runs of a mask of 20 megapixels, listed, need no more than two thirds of it."""

HEAD_BYTES = 64
"""At least so many bytes are looked at to tell what a file is."""

BOM = b"\xef\xbb\xbf"

NOT_TEXT = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"{\0": "UTF-16 text",
    b"[\0": "UTF-16 text",
    b"\0{": "UTF-16 text",
    b"\0[": "UTF-16 text",
    **{magic: f"compressed with {codec}" for codec, magic in MAGIC.items()},
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x93NUMPY": "a NumPy array",
    b"\x89PNG": "a PNG",
}
"""How files begin that are no UTF-8 text, and what they are."""

_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|(\\?\Z))|[\[\]{}]', re.DOTALL)
"""A whole string, the beginning of one that the text cuts (the group), or a bracket outside of strings."""


def read_text(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read the native lines after an optional header line, or a JSON array of COCO results that carry the key.

    Raises:
        ContentError: The file is not such text.
    """
    source = str(path)
    reader = rows if options.box_format is None else box_rows
    with opened(path) as read:
        first = read(max(BLOCK_BYTES, HEAD_BYTES))
        start = _check_text(first)
        begins = first[start:].lstrip()[:1]
        if begins == b"[":
            if path.suffix.lower() in CODECS:
                entries = _streamed_entries(first[start:], read)
            else:
                entries = _mapped_entries(path, start)
            yield from reader.read_entries(entries, source, keys, options, problems)
            return
        if ending(path.name).split(".")[1] == "json":
            _check_lines(first[start:])
        blocks = _line_blocks(first[start:], read)
        yield from reader.read_lines(blocks, source, keys, options, problems)


def _check_text(first: bytes) -> int:
    """Return where the text of a file begins: after a byte order mark.

    Raises:
        ContentError: These are the first bytes of no UTF-8 text.
    """
    for magic, kind in NOT_TEXT.items():
        if first.startswith(magic):
            advice = "save it as UTF-8" if "text" in kind else "give it the ending of that format"
            raise ContentError(f"the file is {kind}, not UTF-8 text; {advice}")
    return len(BOM) if first.startswith(BOM) else 0


def _check_lines(first: bytes) -> None:
    """Check that what a `.json` holds instead of an array are JSON lines.

    Raises:
        ContentError: They are not.
    """
    if not first.strip():
        raise ContentError("the file is empty")
    line, end, _ = first.lstrip().partition(b"\n")
    if line[:1] != b"{":
        raise ContentError(
            f"not a JSON array of results, which begins with [, nor JSON lines, which begin with {{: {line!r:.60}"
        )
    try:
        if end:
            msgspec.json.decode(line)
    except NOT_JSON as error:
        raise ContentError(
            f"begins with {{ as JSON lines do, but its first line is no JSON object: {why_not_json(error, line)}; "
            "write one result per line, or all of them as one array, which begins with ["
        ) from None


def _line_blocks(first: bytes, read: Read) -> Iterator[bytes]:
    """Yield blocks of whole lines; a line longer than a block is not cut."""
    rest = b""
    chunk = first
    while chunk:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield rest + chunk[:cut]
            rest = chunk[cut:]
        else:
            rest += chunk
        _check_length(rest)
        # Reading as much again makes the copies of a long line twice its length in all.
        chunk = read(max(BLOCK_BYTES, len(rest)))
    if rest:
        yield rest


def _check_length(rest: bytes) -> None:
    if len(rest) > LINE_BYTES:
        raise ContentError(
            f"a row of more than {LINE_BYTES // 2**20} MiB; no mask needs as much, and the file is not read further"
        )


def _mapped_entries(path: Path, start: int) -> Iterator[list[msgspec.Raw]]:
    """Yield the entries of a JSON array that begins at a byte of a file: all are checked first, none is copied.

    Raises:
        ContentError: It is not one JSON array.
    """
    with path.open("rb") as file:
        # Closing it fails while an entry points into it, so it is left to be freed with the last entry.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    text = memoryview(mapped)[start:]
    try:
        entries = msgspec.json.decode(text, type=list[msgspec.Raw])
    except NOT_JSON as error:
        raise ContentError(_no_array(why_not_json(error, text))) from None
    for first in range(0, len(entries), BLOCK_ENTRIES):
        yield entries[first : first + BLOCK_ENTRIES]


def _streamed_entries(first: bytes, read: Read) -> Iterator[list[msgspec.Raw]]:
    """Yield the entries of a JSON array as its text comes, a block at a time.

    Args:
        first: The first block of it, the opening bracket included.
        read: Returns the blocks after that.

    Raises:
        ContentError: It is not one JSON array.
    """
    # `text` begins behind the bracket or an entry; `at` is how far it was looked through, at how many brackets deep.
    text, at, depth, n_entries = first.lstrip()[1:], 0, 1, 0
    while depth:
        end = 0
        for found in _STRING_OR_BRACKET.finditer(text, at):
            at = found.end()
            if found[1] is not None:
                at = found.start()
                break
            bracket = found[0]
            if bracket in b"[{":
                depth += 1
            elif bracket in b"]}":
                depth -= 1
                if depth < 2:
                    end = at
                if depth == 0:
                    break
        else:
            at = len(text)
        if end:
            # The comma before the entries is checked with them, behind a number that is then left out.
            piece = (b"[0" if n_entries else b"[") + text[:end] + (b"]" if depth else b"")
            try:
                entries = msgspec.json.decode(piece, type=list[msgspec.Raw])
            except NOT_JSON as error:
                reason = f"after entry {n_entries}, {why_not_json(error, piece)}"
                raise ContentError(_no_array(reason)) from None
            entries = entries[1:] if n_entries else entries
            n_entries += len(entries)
            yield entries
            text, at = text[end:], at - end
        if depth:
            _check_length(text)
            block = read(max(BLOCK_BYTES, len(text)))
            if not block:
                raise ContentError(_no_array(f"it ends after entry {n_entries} without a ]"))
            text += block
    while text:
        if text.strip():
            raise ContentError(_no_array("text follows its closing bracket"))
        text = read(BLOCK_BYTES)


def _no_array(reason: str) -> str:
    return f"begins with [ as a JSON array of results does, but is not one: {reason}"
