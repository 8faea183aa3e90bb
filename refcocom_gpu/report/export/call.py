"""`rc.export`: a dataset, or a result with its masks, in, a folder in the format of another tool out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from refcocom_gpu.errors import UsageError
from refcocom_gpu.report.export.coco import coco_files
from refcocom_gpu.report.export.content import Content
from refcocom_gpu.report.export.fiftyone import fiftyone_files
from refcocom_gpu.report.export.pictures import find_pictures, write_pictures
from refcocom_gpu.report.truth import Truth, truth_of
from refcocom_gpu.scores.folder import check_output
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.saved_masks import NO_MASKS
from refcocom_gpu.scores.sweep_results import find_result
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.utils.files import write_files

FORMATS: Mapping[str, tuple[str, ...]] = {
    "coco": ("instances.json", "predictions.json"),
    "fiftyone": ("samples.json", "metadata.json"),
}
"""The files of each format; `predictions.json` is only written for a result."""

DATA = "data"
"""The folder of the pictures of a FiftyOne dataset."""


def export(
    what: Result | Truth,
    folder: str | Path,
    format: str = "coco",
    *,
    truth: Truth | None = None,
    images: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ground truth, and the masks of a result, for another tool.

    `coco` writes `instances.json`, the true masks as COCO annotations, and `predictions.json`, COCO results that carry
    our keys, which `score` reads too. `fiftyone` writes a dataset that
    `fiftyone.Dataset.from_dir(folder, fiftyone.types.FiftyOneDataset)` reads: a sample per image, and per expression a
    detection in `detections` and one with its `iou` in `predictions`.

    Args:
        what: A result with masks, the folder of one or a row of a sweep; or a dataset, or its name or path.
        folder: Made where absent.
        format: `coco` or `fiftyone`.
        truth: The dataset of a result; by default the one that it names.
        images: For `fiftyone`, a folder of pictures by `file_name`, where the dataset does not hold them.
        overwrite: Replace what an earlier export wrote.

    Returns:
        The folder.

    Raises:
        UsageError: For an unknown format, a result without masks, a dataset that is not that of the result, or a folder
            that is written already.

    Warns:
        UserWarning: Some pictures are not at hand; what is written names them all the same.

    >>> import tempfile
    >>> import refcocom_gpu as rc
    >>> result = rc.score("sample", "sample", save_masks=True)
    >>> folder = rc.export(result, tempfile.mkdtemp())
    >>> rc.score(folder / "predictions.json", "sample").miou == result.miou
    True
    """
    if format not in FORMATS:
        raise UsageError(f"format must be {' or '.join(FORMATS)}, not {format!r}")
    check_output(folder, overwrite=overwrite, names=FORMATS[format])
    result, store = _result_and_store(what, truth)
    folder = Path(folder)
    content = Content.of(store, result)
    if format == "coco":
        files = coco_files(content)
        write_files(folder, files)
        for name in {*FORMATS[format]} - {*files}:
            # Of an earlier export, and of another truth.
            (folder / name).unlink(missing_ok=True)
        return folder
    found = find_pictures(store.dataset, images)
    written = write_pictures(found, folder / DATA)
    if written < len(found.names):
        warnings.warn(
            f"refcocom: {len(found.names) - written:,} of {len(found.names):,} pictures are not at hand"
            f"{found.reason}; pass the folder that holds them as images=DIR",
            UserWarning,
            stacklevel=2,
        )
    names = [f"{DATA}/{name}" for name in found.names]
    write_files(folder, fiftyone_files(content, names))
    return folder


def _result_and_store(what: Result | Truth, truth: Truth | None) -> tuple[Result | None, MaskStore]:
    result = what if isinstance(what, Result) else None
    if isinstance(what, str | Path):
        result = find_result(what)
    if result is None:
        assert not isinstance(what, Result)
        if truth is not None:
            raise UsageError(f"the true masks of a result may be given; {what} is none")
        return None, as_store(what)
    if result.held_masks is None:
        raise UsageError(NO_MASKS)
    store, problem = truth_of(result, truth)
    if store is None:
        raise UsageError(f"{problem}; pass truth=DATASET")
    return result, store
