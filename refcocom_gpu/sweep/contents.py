"""A path or an address in; a local file out, and for an address a token that changes with its content.

An address is anything that fsspec opens (`s3://`, `hf://`, `memory://`, `http://`). The worker that scores it fetches
it to a temporary file, so that readers only ever read files.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.formats import ending
from refcocom_gpu.utils.text import first_line

_URL = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://.*", re.DOTALL)

_IDENTIFYING = (
    "etag", "etags", "lastmodified", "last_modified", "mtime", "modified", "updated", "created", "md5hash",
    "content-md5", "content_md5", "crc32c", "checksum", "blob_id", "version_id", "generation", "digest",
)  # fmt: skip
"""Fields in which file systems tell that a content has changed."""


def is_url(name: str) -> bool:
    """Return whether a name is an address and not a local file.

    >>> is_url("s3://bucket/a.parquet"), is_url("runs/a=b.parquet")
    (True, False)
    """
    return _URL.fullmatch(name) is not None and not os.path.exists(name)  # noqa: PTH110


def expand_url(url: str) -> list[str]:
    """Return an address, or the addresses that a glob matches; HTTP cannot list files, so it has no globs.

    Raises:
        UsageError: When nothing matches, or the file system cannot be reached.
    """
    if url.startswith(("http://", "https://")) or not re.search(r"[*?\[]", url):
        _file_system(url)
        return [url]
    with _named_errors(url):
        system, path = _file_system(url)
        if system.exists(path):
            return [url]
        matches = sorted(system.glob(path))
        if matches:
            return [str(system.unstrip_protocol(match)) for match in matches]
    raise UsageError(f"no prediction file at {url}")


@contextlib.contextmanager
def at_hand(name: str) -> Iterator[Path]:
    """Yield a path as it is; fetch an address to a temporary file, which the end of the context deletes.

    Raises:
        UsageError: When an address cannot be fetched.
    """
    if not is_url(name):
        yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="refcocom-") as folder:
        # Only the ending of the name matters, because it selects the reader.
        local = Path(folder) / f"fetched{ending(re.split('[?#]', name)[0])}"
        with _named_errors(name):
            system, path = _file_system(name)
            system.get_file(path, str(local))
        if not local.is_file():
            raise UsageError(f"{name} cannot be fetched: it is not a file")
        yield local


def remote_token(url: str) -> str | None:
    """Return a token that changes with a remote file; None if its file system reports only a size.

    Raises:
        UsageError: When the file system cannot be reached.
    """
    with _named_errors(url):
        system, path = _file_system(url)
        info = system.info(path)
    identifying = {k: str(v) for k, v in info.items() if k.lower() in _IDENTIFYING and v}
    if not identifying:
        return None
    return repr(sorted({**identifying, "size": str(info.get("size"))}.items()))


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url} cannot be opened: {first_line(error)}") from None
    return system, path


@contextlib.contextmanager
def _named_errors(url: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    # Every file system has its own errors, and few of them are OSErrors.
    except Exception as error:
        raise UsageError(
            f"{url} cannot be fetched: {type(error).__name__}: {first_line(error)}"
        ) from None
