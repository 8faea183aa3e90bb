"""A malformed RLE string in, what is wrong with it and, where the string shows it, how it came to be so out."""

from __future__ import annotations

import re

import numpy as np
from refcocom_kernels import cpu, rle_status

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def explain_counts(counts: bytes, status: int, detail: int, pixels: int) -> str:
    """Say what is wrong with a compressed string.

    Args:
        counts: The string.
        status: Of the parser, not `OK`.
        detail: Of the parser.
        pixels: H·W of the mask.

    >>> explain_counts(b"b'045'", rle_status.FOREIGN, 1, 9).partition("; ")[2]
    'it is the text of Python bytes: write counts.decode(), not str(counts)'
    """
    reason = rle_status.explain(status, detail, pixels)
    cause = _cause(counts, status, pixels)
    return f"{reason}; {cause}" if cause else reason


def _cause(counts: bytes, status: int, pixels: int) -> str | None:
    if counts[:2] in (b"b'", b'b"') and counts[-1:] == counts[1:2]:
        return "it is the text of Python bytes: write counts.decode(), not str(counts)"
    single = counts.replace(rb"\\", b"\\")
    if single != counts:
        data, offsets = np.frombuffer(single, np.uint8), np.array([0, len(single)])
        parsed = cpu.rle_parse(data, offsets, np.array([pixels]), threads=1)
        if parsed.status[0] == rle_status.OK:
            return "its backslashes are doubled: it was escaped twice, as JSON within JSON"
    if status == rle_status.FOREIGN and _BASE64.fullmatch(counts):
        return "it looks like base64: decode it to the counts of COCO first"
    return None
