"""One module per verb; here what they share: output that no closed pipe breaks, and the dataset a config names.

Each has `run(config)`, which imports what it needs: `refcocom --help` imports this module and nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.cli.config import DatasetConfig
from refcocom_gpu.errors import UsageError

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset


class StdoutClosed(Exception):  # noqa: N818 (no error: `refcocom … | head` has seen enough)
    """Nobody reads what is printed any more."""


def say(text: str) -> None:
    """One line for a person, on stderr."""
    # None where the process was started with its errors closed.
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def print_(text: str) -> None:
    """What was asked for, on stdout.

    Raises:
        StdoutClosed: When nobody reads it.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more while it shuts down and flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StdoutClosed from None


def check_threads(threads: int) -> None:
    """Refuse a negative number of threads.

    Raises:
        UsageError: For one.
    """
    if threads < 0:
        raise UsageError(f"threads must be 0 (all cores) or more, not {threads}")


READING = ("missing", "values", "letterbox", "resize", "polygons", "batch_size", "threads")
"""Keys that every verb with predictions has, and that `score` and a sweep's `Options` take."""


def reading(config: Any) -> dict[str, Any]:
    """How the predictions of a config are read and counted."""
    return {name: getattr(config, name) for name in READING}


def load(config: DatasetConfig) -> Dataset:
    """The dataset that a config names.

    Raises:
        UsageError: When a key is wrong or nothing is at `dataset.path`.
        DatasetError: When the records cannot be used.
    """
    from refcocom_gpu.dataset.table import KEY_KINDS, load_dataset

    if config.key not in KEY_KINDS:
        raise UsageError(f"dataset.key must be {' or '.join(KEY_KINDS)}, not {config.key!r}")
    source: str | Path = config.name
    if config.path is not None:
        source = Path(config.path)
        if not os.path.exists(source):  # noqa: PTH110 (Path's raises where a name is too long)
            raise UsageError(f"no file or folder at dataset.path={source}")
    return load_dataset(
        source,
        revision=config.revision,
        split=config.split,
        key=config.key,  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def progress(
    total: int, *, shown: bool, unit: str = "examples"
) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal; its value counts, None where nothing is shown."""
    if not (shown and sys.stderr is not None and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", leave=False, delay=0.5) as bar:
        yield bar.update
