"""A file in, its bytes out, decompressed as they are read: memory holds a block, whatever the file claims to hold."""

from __future__ import annotations

import contextlib
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from refcocom_gpu.errors import ContentError
from refcocom_gpu.predictions.formats import CODECS

MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd"}
"""How a file of each compression begins."""

MOST_TIMES = 500
"""Text that takes more times its compressed size is refused. Rows of empty masks, the most repetitive text that
predictions can be, take 170 times theirs with xz."""

MOST_BYTES = 2**24
"""Up to so many bytes, text may take any times its compressed size."""

Read = Callable[[int], bytes]
"""Returns up to so many of the next bytes; none at the end."""


@contextlib.contextmanager
def opened(path: Path, *, limited: bool = True) -> Iterator[Read]:
    """Open a file for reading; its last ending says how it is compressed, if it is.

    Args:
        path: The file.
        limited: Refuse what decompresses to far more than text does.

    Raises:
        ContentError: Also from reading: the file is damaged, not compressed so, or decompresses to far too much.
    """
    suffix = path.suffix.lower()
    codec = CODECS.get(".gz" if suffix == ".tgz" else suffix)
    with path.open("rb") as file:
        if codec is None:
            yield file.read
            return
        if not file.read(len(MAGIC[codec])) == MAGIC[codec]:
            raise ContentError(
                f"the file is not compressed with {codec}, whatever its name says; give it the ending of what it is"
            )
        file.seek(0)
        # Arrow has no xz, and Python has no zstd before 3.14.
        with (
            lzma.LZMAFile(file) if codec == "xz" else pa.input_stream(file, compression=codec)
        ) as stream:
            most = max(MOST_BYTES, MOST_TIMES * path.stat().st_size) if limited else None
            yield _bounded(stream.read, codec, most)


def _bounded(read: Read, codec: str, most: int | None) -> Read:
    n_read = 0

    def read_next(n: int) -> bytes:
        nonlocal n_read
        try:
            block = read(n)
        except (OSError, EOFError, lzma.LZMAError) as error:
            # An error of the system has a number, one of a decoder has none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ContentError(f"damaged, as {codec} it cannot be decompressed: {error}") from None
        n_read += len(block)
        if most is not None and n_read > most:
            raise ContentError(
                f"decompresses to more than {most:,} bytes, {MOST_TIMES} times its size; no predictions do"
            )
        return block

    return read_next
