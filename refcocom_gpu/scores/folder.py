"""The table, the summary and perhaps the masks of a result in, files of a folder out; and back, checked.

All files are written under temporary names and renamed. The summary is renamed last and holds the hashes of the others,
so a folder either holds a whole result or is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.errors import ResultsError, UsageError
from refcocom_gpu.scores.conventions import CONVENTIONS
from refcocom_gpu.utils.arrow import reader_of
from refcocom_gpu.utils.files import VERIFIED, parquet_bytes, regular, write_files
from refcocom_gpu.utils.folders import check_writable
from refcocom_gpu.utils.run_config import config_file
from refcocom_gpu.utils.text import as_text

SCHEMA_VERSION = 1
PER_EXAMPLE, SUMMARY, MASKS = "per_example.parquet", "summary.json", "predictions.parquet"
HASH = "per_example_xxh3_128"
"""Key of the summary that holds the hash of the Parquet file."""
MASKS_HASH = "predictions_xxh3_128"
"""Key of the summary that holds the hash of the masks, if there are any."""


def check_output(
    folder: str | Path, *, overwrite: bool, names: Sequence[str] = (SUMMARY, PER_EXAMPLE)
) -> None:
    """Refuse an output folder before any work is done.

    Args:
        folder: Where files will be written.
        overwrite: Whether existing files may be replaced.
        names: The files.

    Raises:
        UsageError: When the folder holds one of the files and `overwrite` is False, is not a folder, or is read-only.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output_dir {folder} is a file, not a folder")
    check_writable(folder)
    existing = [name for name in names if (folder / name).exists()]
    if existing and not overwrite:
        raise UsageError(
            f"{folder} already holds a result ({', '.join(existing)}); pass overwrite=True or another output_dir"
        )


def holds_result(folder: str | Path) -> bool:
    """Return whether `Result.save` wrote this folder, even if its files have been damaged since."""
    return any(os.path.exists(os.path.join(folder, name)) for name in (SUMMARY, PER_EXAMPLE))  # noqa: PTH110, PTH118


def write_result(
    folder: str | Path,
    table: pa.Table,
    summary: dict[str, Any],
    *,
    overwrite: bool,
    masks: bytes | None = None,
    config: bytes | None = None,
) -> None:
    """Write the files of a result.

    Args:
        folder: Made where absent; other files in it are left alone.
        table: One row per example.
        summary: Ready for JSON.
        overwrite: Replace an existing result, and delete its masks if this one has none.
        masks: Content of `MASKS`.
        config: The keys of the command that made the result, for `run_config`.

    Raises:
        UsageError: As `check_output` does, and when the folder cannot be written.
    """
    names = [SUMMARY, PER_EXAMPLE] if masks is None else [SUMMARY, PER_EXAMPLE, MASKS]
    check_output(folder, overwrite=overwrite, names=names)
    parquet = parquet_bytes(table)
    content = {**summary, HASH: xxhash.xxh3_128_hexdigest(parquet)}
    files = {PER_EXAMPLE: parquet}
    if masks is not None:
        content[MASKS_HASH] = xxhash.xxh3_128_hexdigest(masks)
        files = {MASKS: masks, **files}
    outdated = masks is None and _holds_masks(Path(folder))
    text = as_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    files |= config_file(folder, config)
    write_files(folder, {**files, SUMMARY: text.encode()})
    if outdated:
        (Path(folder) / MASKS).unlink(missing_ok=True)


def _holds_masks(folder: Path) -> bool:
    """Return whether a folder holds masks that a result wrote there, and not predictions that someone else did."""
    try:
        return MASKS_HASH in json.loads((folder / SUMMARY).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read_result(folder: str | Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read both files of a result.

    Args:
        folder: Holds `per_example.parquet` and `summary.json`.

    Returns:
        The table and the summary.

    Raises:
        ResultsError: When a file is absent, altered since it was written, or of a newer schema version.
    """
    folder = Path(folder)
    try:
        summary = json.loads(regular(folder / SUMMARY).read_text("utf-8"))
        parquet = regular(folder / PER_EXAMPLE).read_bytes()
    except FileNotFoundError as error:
        raise ResultsError(
            f"{folder} holds no result: {Path(error.filename).name} is missing"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder / SUMMARY} cannot be read: {error}") from None
    _check_summary(folder, summary)
    if xxhash.xxh3_128_hexdigest(parquet) != summary[HASH]:
        raise ResultsError(
            f"{folder / PER_EXAMPLE} is not the table that {SUMMARY} was written with; score again"
        )
    return pq.read_table(reader_of(parquet), **VERIFIED), summary


def _check_summary(folder: Path, summary: Any) -> None:
    if not isinstance(summary, dict) or summary.get("schema") != "refcocom-summary":
        raise ResultsError(f"{folder / SUMMARY} is not a summary of this package")
    version = summary.get("version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResultsError(
            f"{folder} has schema version {version}; this package reads up to {SCHEMA_VERSION}"
        )
    if lacking := [key for key in (HASH, "convention", "precision") if key not in summary]:
        raise ResultsError(f"{folder / SUMMARY} lacks {', '.join(lacking)}")
    for name in ("dataset", "predictions"):
        about = summary.get(name, {})
        if not isinstance(about, dict) or not isinstance(about.get("source", ""), str):
            raise ResultsError(f"{folder / SUMMARY} says nothing that can be read in {name!r}")
    if summary["convention"] not in CONVENTIONS:
        raise ResultsError(
            f"{folder / SUMMARY} names an unknown convention {summary['convention']!r}"
        )
