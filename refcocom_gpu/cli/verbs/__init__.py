"""The config of a verb comes in; its work is done and its output printed. Each verb is a module with `run(config)`.

This file holds what verbs share: output to pipes that may be closed, loading of the dataset, and a progress bar. A verb
imports what it needs when it runs, so that `refcocom --help` imports nothing heavy. Start at `score.py`.
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


class StdoutClosed(Exception):  # noqa: N818 (not an error: `refcocom … | head` has read enough)
    """The reader of stdout has closed it."""


def say(text: str) -> None:
    """Write one line for a person to stderr."""
    # None if the process was started with stderr closed.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # there is nowhere else to tell it
            sys.stderr.write(f"{text}\n")


def print_(text: str) -> None:
    """Write the output of a verb to stdout.

    Raises:
        StdoutClosed: When the reader has closed it.
        UsageError: When it cannot be written, as a file on a full disk.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        # Without this, Python would print another error when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise StdoutClosed from None
        raise UsageError(f"cannot write the output: {error.strerror}") from None


def is_strict(precision: str | None) -> bool | None:
    """Return whether Pr@X counts IoU > X instead of IoU ≥ X; None where the convention decides.

    Raises:
        UsageError: For anything but `ge`, `gt` and None.
    """
    if precision not in {"ge", "gt", None}:
        raise UsageError(f"precision must be ge or gt, not {precision!r}")
    return None if precision is None else precision == "gt"


def load(config: DatasetConfig) -> Dataset:
    """Load the dataset that a config names.

    Raises:
        UsageError: When a key is wrong or `dataset.path` does not exist.
        DatasetError: When the records cannot be used.
    """
    from refcocom_gpu.dataset.known import KNOWN
    from refcocom_gpu.dataset.table import KEY_KINDS, load_dataset

    if config.key not in KEY_KINDS:
        raise UsageError(f"dataset.key must be {' or '.join(KEY_KINDS)}, not {config.key!r}")
    path = None if config.path is None else Path(config.path)
    if path is not None and not os.path.exists(path):  # noqa: PTH110 (Path's raises for a name that is too long)
        raise UsageError(f"no file or folder at dataset.path={path}")
    # A path alone may hold any set, so only the name of a group says what is at it.
    is_declared = path is None or config.name in KNOWN
    return load_dataset(
        config.name if is_declared else path,  # type: ignore[arg-type]
        path=path if is_declared else None,
        revision=config.revision,
        split=config.split,
        split_by=config.split_by,
        key=config.key,  # type: ignore[arg-type]
        invalid_references=config.invalid_references,
    )


@contextlib.contextmanager
def resumable(folder: str | Path) -> Iterator[None]:
    """Say how to go on with work that is interrupted (Ctrl-C) while it keeps what it did in a folder."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"What was done is kept in {folder}; the same command goes on from where it stopped.")
        raise


PAGE = "report.html"
"""The name of a page in the folder of what it shows."""


def page_in(
    output_dir: str | None, *, wanted: bool, overwrite: bool, name: str = PAGE
) -> Path | None:
    """Return the page that `report=true` asks for, before any work.

    Raises:
        UsageError: There is no folder for it, it exists already, or a library is not installed.
    """
    if not wanted:
        return None
    from refcocom_gpu.report.call import check_page

    if output_dir is None:
        raise UsageError("report=true writes a page: pass output_dir=DIR")
    page = Path(output_dir) / name
    check_page(page, overwrite=overwrite)
    return page


def forget_page(output_dir: Path | None, page: Path | None) -> None:
    """Delete the page of an earlier result that has been replaced, unless a new one is written."""
    stale = None if output_dir is None or page is not None else output_dir / PAGE
    if stale is not None and stale.is_file():
        with stale.open("rb") as file:
            is_ours = b'name="generator" content="refcocom-gpu' in file.read(4096)
        if is_ours:
            stale.unlink()


def write_page(what: Any, page: Path | None, *, shown: bool, **drawing: Any) -> list[Path]:
    """Write a page where one is wanted, with a bar on a terminal, and return the files that were written."""
    if page is None:
        return []
    from refcocom_gpu.report.call import report

    with progress(None, shown=shown, unit="pictures") as drawn:
        return [report(what, page, overwrite=True, progress=drawn, **drawing)]


@contextlib.contextmanager
def progress(
    total: int | None, *, shown: bool, unit: str = "examples"
) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on a terminal; yield the function that advances it, or None if nothing is shown."""
    if not (shown and sys.stderr is not None and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", leave=False, delay=0.5) as bar:
        yield bar.update
