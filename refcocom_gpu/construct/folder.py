"""Decisions and their audit in; the folder of a refined set out, staged first and then moved into place."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refcocom_gpu._version import __version__
from refcocom_gpu.construct.audit import Audit
from refcocom_gpu.construct.beside import STAGE, check_beside, kept_work, work_folder
from refcocom_gpu.construct.card import card
from refcocom_gpu.construct.keep import Decision
from refcocom_gpu.construct.pictures import Pictures
from refcocom_gpu.construct.sheet import contact_sheet
from refcocom_gpu.construct.write import Output, write_dataset
from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.files import hash_files, parquet_bytes, sync, write_files
from refcocom_gpu.utils.folders import check_writable
from refcocom_gpu.utils.run_config import config_file

SUMMARY = "construct.json"
"""The file that is moved into place last and marks a complete set."""

CONTENTS = ("data", "audit", "README.md", SUMMARY)
"""What a construction writes into its folder, and replaces there."""

JUDGE = "judge"
"""Where a judgement of the set is kept. It is deleted when another set takes the place of the one that was judged."""


def check_folder(output: Output, dataset: Dataset) -> None:
    """Refuse a folder with other content, which would be replaced.

    Raises:
        UsageError: The folder holds the original set, or files that no construction wrote, or it or what is beside it
            cannot be written.
    """
    folder = Path(output.folder)
    if folder.resolve() == Path(dataset.source).expanduser().resolve():
        raise UsageError(f"{folder} holds the original set; choose another output_dir")
    check_writable(folder)
    check_beside(folder)
    existing = [name for name in CONTENTS if (folder / name).exists()]
    if existing and not kept_work(folder):
        raise UsageError(
            f"{folder} holds {', '.join(existing)} that no construction wrote, or whose {work_folder(folder).name} was "
            "deleted; choose another output_dir"
        )


def write_folder(
    output: Output,
    dataset: Dataset,
    decisions: Sequence[Sequence[Decision]],
    audit: Audit,
    about: Mapping[str, Any],
    pictures: Pictures,
) -> dict[str, Any]:
    """Write the refined set, its audit, card and summary, and replace what the folder held of an earlier one.

    Args:
        output: The folder, made where absent, and how the set is written.
        dataset: The original set.
        decisions: For each image, one for each of its samples.
        audit: The tables of `audit/`.
        about: What the summary says of the original, the counts, the rules, the proposers and the filter.
        pictures: The pictures.

    Returns:
        The summary.

    Raises:
        UsageError: The folder cannot be written.
    """
    folder = Path(output.folder)
    stage = work_folder(folder) / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (stage / "data").mkdir(parents=True)
        shards = write_dataset(stage / "data", dataset, decisions, pictures, output)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    kept = [
        row
        for row, of_image in enumerate(decisions)
        if any(not decision.cause for decision in of_image)
    ]
    n_kept, n_held = len(kept), sum(map(pictures.can_be_held, kept))
    summary = {
        "schema": "refcocom-construct",
        "version": 1,
        "made_with": __version__,
        **about,
        "images": {"original": dataset.n_images, "kept": n_kept},
        "pictures": {"held_as": pictures.held_as, "held": n_held, "absent": n_kept - n_held},
        "split": dataset.split,
        "fingerprint": _fingerprint(stage, dataset) if n_kept else None,
        "content": hash_files(shards),
    }
    tables = {f"{name}.parquet": parquet_bytes(table) for name, table in audit._asdict().items()}
    sheet = {"contact_sheet.png": contact_sheet(dataset, audit.instances, pictures.images)}
    write_files(stage / "audit", tables | sheet)
    summary_text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_files(stage, {"README.md": card(summary).encode(), SUMMARY: summary_text.encode()})
    keys = config_file(folder, output.config)
    write_files(stage, keys)
    _replace(folder, stage, [*keys, *CONTENTS])
    return summary


def _fingerprint(stage: Path, dataset: Dataset) -> str:
    """The fingerprint of the written set, which our own loader reads back and checks."""
    with warnings.catch_warnings():
        # The loader warns that this is not RefCOCO-M, because the summary that says so is not written yet.
        warnings.simplefilter("ignore", UserWarning)
        return load_dataset(stage / "data", split=dataset.split, key=dataset.key).fingerprint


def _replace(folder: Path, stage: Path, names: Sequence[str]) -> None:
    """Move the staged files into place. The old summary goes first and the new one comes last."""
    (folder / SUMMARY).unlink(missing_ok=True)
    for name in (JUDGE, *CONTENTS):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    for name in names:
        (stage / name).replace(folder / name)
    sync(folder)
    stage.rmdir()
