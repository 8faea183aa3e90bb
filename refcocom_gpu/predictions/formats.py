"""The name of a file in, its ending out, with that of its compression; and which reader an ending selects."""

from __future__ import annotations

from pathlib import PurePath

CODECS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
"""What text and `.tar` may be compressed with, by the last ending of their name."""

_COMPRESSIBLE = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), ("text", "read_text")),
    ".tar": ("archives", "read_tar"),
}

READERS = {
    ".parquet": ("parquet", "read_parquet"),
    ".arrow": ("arrow_tables", "read_arrow"),
    ".feather": ("arrow_tables", "read_arrow"),
    **_COMPRESSIBLE,
    **{name + codec: reader for name, reader in _COMPRESSIBLE.items() for codec in CODECS},
    ".tgz": ("archives", "read_tar"),
    ".zip": ("archives", "read_zip"),
    ".npz": ("archives", "read_npz"),
    ".safetensors": ("arrays", "read_safetensors"),
    ".pt": ("arrays", "read_torch"),
    ".pth": ("arrays", "read_torch"),
}
"""For each ending the module of its reader and the reader."""

_RLE_READERS = ("parquet", "arrow_tables", "text")

RLE_FORMATS = {name for name, (module, _) in READERS.items() if module in _RLE_READERS}
"""The endings whose readers yield RLE, never arrays."""

ENDINGS = (
    f"{', '.join(ending for ending in READERS if PurePath(ending).suffix not in CODECS)}; "
    f"{', '.join(_COMPRESSIBLE)} may end in {', '.join(CODECS)} too"
)
"""The endings of `READERS`, for messages."""


def ending(name: str) -> str:
    """Return the ending of a path or address that selects its reader, in lower case.

    >>> ending("s3://bucket/a.v2.JSONL.gz"), ending("a.parquet"), ending("masks")
    ('.jsonl.gz', '.parquet', '')
    """
    path = PurePath(name)
    last = path.suffix.lower()
    return PurePath(path.stem).suffix.lower() + last if last in CODECS else last
