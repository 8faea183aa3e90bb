"""The name of a dataset of the Hub in, its table or its files out, by way of the caches of the Hub's clients.

The clients try an unreachable Hub again for half a minute, with a line each time. So the Hub is asked first whether it
is there; where it does not answer, the clients are told that there is no network, and read their caches.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refcocom_gpu.dataset.locate import files_below, parquet_files
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.utils.text import first_line

WAIT = 3.0
"""Seconds in which the Hub must answer; `HF_HUB_ETAG_TIMEOUT`, the client's variable for this, allows others. A Hub
that can be used answers well within one, and with the imports an error comes within five."""


def open_hub(
    name: str, split: str, revision: str | None, columns: Sequence[str]
) -> tuple[Any, str | None]:
    """Open a dataset of the Hub by way of the caches of its clients.

    Args:
        name: `owner/name`.
        split: As for `load_dataset`.
        revision: As for `load_dataset`.
        columns: The fields of a record to load.

    Returns:
        A `datasets.Dataset` of these columns, or the Parquet files of the split, which hold all
        columns, where only the Hub client's own cache has them. Also the commit, where it is known.

    Raises:
        DatasetError: There is no such dataset, or the Hub does not answer within `WAIT` and no cache holds it.
    """
    answer = _Answer(name)
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    at = f" at revision {revision}" if revision else ""
    reason = (
        f"cannot reach the Hub and {name}{at} is not in the local cache; download it elsewhere and pass "
        "dataset.path=/path/to/snapshot, or copy that cache here (HF_HOME) and set HF_HUB_OFFLINE=1"
    )
    try:
        with contextlib.nullcontext() if answer.came() else _offline():
            loaded = datasets.load_dataset(
                name, split=split, revision=revision, columns=list(columns)
            )
        commit = _commit_of(loaded)
        # Without a network, `datasets` ignores the revision and loads the one it cached last.
        if revision in (None, commit) or getattr(_cached(name, revision), "name", None) == commit:
            return loaded, commit
    except DatasetNotFoundError as error:
        reason = f"{name}: {first_line(error)}"
    except (
        Exception
    ) as error:  # the Hub client's version decides between requests, httpx and httpx2
        if not _is_connection_error(error):
            reason = f"{name}: {type(error).__name__}: {first_line(error)}"
    # The Hub client's own cache may hold files of which `datasets` has no table of these columns:
    # after `snapshot_download`, after a load of other columns, or for records of the other shape.
    folder = _cached(name, revision)
    if folder is None or not files_below(folder):
        raise DatasetError(reason)
    return parquet_files(folder, split), folder.name


def _cached(name: str, revision: str | None) -> Path | None:
    """Return the snapshot of a revision in the Hub client's cache; None if there is none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except (OSError, ValueError):
        return None


def _is_connection_error(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return (
        isinstance(error, ConnectionError | TimeoutError | FileNotFoundError)
        or library in ("requests", "urllib3", "httpx", "httpx2", "httpcore")
        or "Couldn't find cache" in str(error)
    )


def _commit_of(loaded: Any) -> str | None:
    """Return the commit that `datasets` resolved; older versions' checksums or its cache folder name it."""
    places = [*(loaded.info.download_checksums or ()), *(f["filename"] for f in loaded.cache_files)]
    for place in places:
        match = re.search(r"[@/\\]([0-9a-f]{40})(?=[/\\])", place)
        if match:
            return match[1]
    return None


class _Answer:
    """A question to the Hub, asked in a thread: looking up its name may take longer than any timeout of a client."""

    def __init__(self, name: str) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

        given = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
        self._wait = float(given) if given.isdecimal() else WAIT
        self._until = time.monotonic() + self._wait
        self._came = False
        url = f"{constants.ENDPOINT}/api/datasets/{name}"

        def ask() -> None:
            # Any answer will do. What a failure raises depends on the version of the client.
            with contextlib.suppress(Exception):
                get_session().head(url, timeout=self._wait)
                self._came = True

        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    def came(self) -> bool:
        """Wait for the answer, and return whether there is one."""
        # Imports run meanwhile. The thread may have had no turn beside them, so it always gets another second.
        self._thread.join(max(self._until - time.monotonic(), 1.0))
        return self._came


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Tell the Hub's clients that there is no network, as HF_HUB_OFFLINE=1 does before they are imported."""
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (datasets.config, constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
