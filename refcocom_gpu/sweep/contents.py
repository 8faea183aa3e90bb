"""A path or an address in, a local file and a hash of what it holds out.

Addresses are whatever fsspec opens (`s3://`, `hf://`, `memory://`, `http://`): fetched whole to a temporary file by the
worker that scores them, so that every reader reads a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xxhash

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scorer import hash_files

_URL = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://.*", re.DOTALL)

UNSETTLED_NS = 2_000_000_000
"""A file that changed this recently may change again within one tick of its clock (FAT's is 2 s), unseen."""

_IDENTIFYING = (
    "etag", "etags", "lastmodified", "last_modified", "mtime", "modified", "updated", "created", "md5hash",
    "content-md5", "content_md5", "crc32c", "checksum", "blob_id", "version_id", "generation", "digest",
)  # fmt: skip
"""Words by which file systems say that a content is another one."""


def is_url(name: str) -> bool:
    """Whether a name is an address and no local file.

    >>> is_url("s3://bucket/a.parquet"), is_url("runs/a=b.parquet")
    (True, False)
    """
    return _URL.fullmatch(name) is not None and not os.path.exists(name)  # noqa: PTH110


def expand_url(url: str) -> list[str]:
    """An address, or the addresses that a glob matches; of HTTP, which lists nothing, the address itself.

    Raises:
        UsageError: When nothing matches, or the file system cannot be asked.
    """
    if url.startswith(("http://", "https://")) or not re.search(r"[*?\[]", url):
        _file_system(url)
        return [url]
    with _named_errors(url):
        system, path = _file_system(url)
        if system.exists(path):
            return [url]
        found = sorted(system.glob(path))
        if found:
            return [str(system.unstrip_protocol(match)) for match in found]
    raise UsageError(f"no prediction file at {url}")


@contextlib.contextmanager
def at_hand(name: str) -> Iterator[Path]:
    """A path as it is, or the file of an address, fetched for as long as the context lasts.

    Raises:
        UsageError: When an address cannot be fetched.
    """
    if not is_url(name):
        yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="refcocom-") as folder:
        # The ending decides which reader is taken; the name itself may be anything.
        local = Path(folder) / f"fetched{Path(re.split('[?#]', name)[0]).suffix}"
        with _named_errors(name):
            system, path = _file_system(name)
            system.get_file(path, str(local))
        if not local.is_file():
            raise UsageError(f"{name} cannot be fetched: it is no file")
        yield local


def digest_of(files: Sequence[Path]) -> str:
    """32 hex digits of a set's content: of one file its own hash, of shards a hash of theirs.

    Raises:
        OSError: When a file cannot be read.
    """
    return combined([hash_files([path]) for path in files])


def combined(digests: Sequence[str]) -> str:
    """The hash of a set from those of its files."""
    if len(digests) == 1:
        return digests[0]
    return xxhash.xxh3_128_hexdigest("\n".join(digests).encode())


def token_of(path: Path, *, settled: bool = True) -> str | None:
    """What changes when a local file or folder does: size and time of change to the nanosecond.

    Args:
        path: A file, or a folder, whose files are then told by name.
        settled: Give None for what changed so recently that another change might not show.

    Raises:
        OSError: When it is not there.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files]
    latest = max((max(s.st_mtime_ns, s.st_ctime_ns) for _, s in stats), default=0)
    if settled and latest > time.time_ns() - UNSETTLED_NS:
        return None
    text = repr([(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats])
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogateescape"))


def remote_token(url: str) -> str | None:
    """What changes when a remote file does, as far as its file system says; None where it says nothing but a size.

    Raises:
        UsageError: When it cannot be asked.
    """
    with _named_errors(url):
        system, path = _file_system(url)
        info = system.info(path)
    said = {k: str(v) for k, v in info.items() if k.lower() in _IDENTIFYING and v}
    return repr(sorted({**said, "size": str(info.get("size"))}.items())) if said else None


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url} cannot be opened: {str(error).splitlines()[0]}") from None
    return system, path


@contextlib.contextmanager
def _named_errors(url: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # each file system has errors of its own, few of which are OSErrors
        said = (str(error).splitlines() or [""])[0]
        raise UsageError(f"{url} cannot be fetched: {type(error).__name__}: {said}") from None
