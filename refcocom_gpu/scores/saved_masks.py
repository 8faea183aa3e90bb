"""The masks of a result in, native predictions out, and back: from a file beside the counts, or from predictions again.

A column of N strings holds the masks in index order; the string of an example without a prediction is empty. The file
holds no row for such an example: `status` in the table of the result tells which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.errors import ResultsError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.header import SCHEMA, VERSION
from refcocom_gpu.predictions.native import native_table, strings_of
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.scores.under import MISSING, sample_numbers
from refcocom_gpu.utils.arrow import reader_of, to_numpy
from refcocom_gpu.utils.files import VERIFIED, parquet_bytes, regular

NO_MASKS = "this result holds no masks; score with save_masks=true, or give the predictions again to Result.with_masks"


class MasksFile(NamedTuple):
    """A file of saved masks that is read when its masks are asked for.

    Attributes:
        path: Where it is.
        digest: The hash of its content when it was written.
    """

    path: Path
    digest: str

    def read(self, table: pa.Table) -> rle.Column:
        """Return the N strings of the file.

        Args:
            table: `per_example` of the result: N rows.

        Raises:
            ResultsError: The file is absent, or another than the one that was written.
        """
        try:
            content = regular(self.path).read_bytes()
        except OSError as error:
            raise ResultsError(
                f"the masks of this result are gone: {self.path} cannot be read: {error.strerror}; {_AGAIN}"
            ) from None
        if xxhash.xxh3_128_hexdigest(content) != self.digest:
            raise ResultsError(
                f"{self.path} is not the file that this result was written with; {_AGAIN}"
            )
        file = pq.ParquetFile(reader_of(content), **VERIFIED)
        strings = strings_of(file.read(columns=["segmentation"]).column("segmentation"))
        present = has_mask(table)
        if len(strings.offsets) - 1 != np.count_nonzero(present):
            raise ResultsError(f"{self.path} holds masks of other examples; {_AGAIN}")
        lengths = np.zeros(len(table), np.int64)
        lengths[present] = np.diff(strings.offsets)
        return rle.Column(strings.data, cpu.offsets_from(lengths))


_AGAIN = "score again with save_masks=true"


def has_mask(table: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether each example had a prediction, an empty one too."""
    return np.array([status != MISSING for status in table.column("status").to_pylist()], np.bool_)


def masks_bytes(
    table: pa.Table, strings: rle.Column, dataset: str | None, model: str | None = None
) -> bytes:
    """Return the masks of a result as native Parquet, which `score` reads with either kind of key.

    Args:
        table: `per_example` of the result, or its `described` columns with `status`: N rows. What it says of
            expressions without a target stands beside the masks.
        strings: N strings, empty where there was no prediction.
        dataset: The fingerprint of what they are predictions for.
        model: Whose predictions they are.
    """
    header = {"schema": SCHEMA, "version": VERSION}
    header |= {k: v for k, v in (("model", model), ("dataset", dataset)) if v is not None}
    rows = np.flatnonzero(has_mask(table))
    numbers = {name: to_numpy(table.column(name)) for name in ("image_id", "sentence_idx")}
    keys = {
        "sample_id": to_numpy(table.column("sample_id")),
        "image_id": numbers["image_id"],
        "position": positions(sample_numbers(table), numbers["image_id"]),
        "sentence_idx": numbers["sentence_idx"],
    }
    sizes = np.stack([to_numpy(table.column(name)) for name in ("height", "width")], 1)
    # Strings without a row are empty, so that leaving them out moves no character.
    held = rle.Column(strings.data, np.append(strings.offsets[rows], strings.offsets[-1]))
    labels = None
    if PRED_NO_TARGET in table.column_names:
        labels = table.column(PRED_NO_TARGET).take(pa.array(rows))
    return parquet_bytes(
        native_table(
            {name: column[rows] for name, column in keys.items()},
            table.column("sentence").take(pa.array(rows)),
            sizes[rows].astype(np.int32),
            held,
            header,
            labels,
        )
    )


def refuse_source(path: Path, sources: Sequence[Path]) -> None:
    """Refuse to replace the predictions that are scored by their masks.

    Raises:
        UsageError: `path` is one of `sources`.
    """
    if path.exists() and any(path.samefile(source) for source in sources):
        raise UsageError(
            f"{path} holds the predictions that are scored, and this result would take its place; pass another "
            "output_dir"
        )


def positions(sample: NDArray[np.int64], image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [N] the position of the sample of each example within its image, from 0.

    Args:
        sample: [N] a number per sample, rising by one.
        image: [N] the image of each; its examples are consecutive.

    >>> positions(np.array([1, 1, 2, 3]), np.array([7, 7, 7, 8]))
    array([0, 0, 1, 0])
    """
    begins = np.append(True, image[1:] != image[:-1])[: len(image)]
    first = sample[np.flatnonzero(begins)]
    within: NDArray[np.int64] = sample - first[np.cumsum(begins) - 1]
    return within


def mask_of(table: pa.Table, masks: rle.Column | None, index: int) -> NDArray[np.bool_]:
    """Return the predicted mask of one example of the table of a result; see `Result.mask_of`."""
    if not 0 <= index < len(table):
        raise IndexError(f"index {index} is not a row number 0…{len(table) - 1}")
    if masks is None:
        raise UsageError(NO_MASKS)
    height, width = (table.column(name)[index].as_py() for name in ("height", "width"))
    counts = masks.row(index)
    if not counts:
        return np.zeros((height, width), np.bool_)
    return rle.decode({"size": [height, width], "counts": counts})
