"""Counts of every example in, a result out: scores, two files, and back again without inference.

`per_example.parquet` (schema version 1) holds one row per example in index order; `summary.json` the scores and what
they are scores of. Every score is recomputed from the Parquet alone. Both files are written under temporary names and
renamed, the summary last and with the hash of the other, so a folder holds a whole result or is refused.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.errors import ResultsError, UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.conventions import CONVENTIONS, get_convention
from refcocom_gpu.utils.arrow import from_numpy, to_numpy
from refcocom_gpu.utils.files import as_text, parquet_bytes, write_files

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset
    from refcocom_gpu.store.store import MaskStore

SCHEMA_VERSION = 1
PER_EXAMPLE, SUMMARY = "per_example.parquet", "summary.json"
SCORED, EMPTY, MISSING = "scored", "empty", "missing"

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("sample_id", pa.int64()),
        ("sentence_idx", pa.int64()),
        ("image_id", pa.int64()),
        ("sentence", pa.string()),
        ("category", pa.string()),
        ("supercategory", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("intersection", pa.int64()),
        ("pred_area", pa.int64()),
        ("target_area", pa.int64()),
        ("status", pa.string()),
    ],
    metadata={"schema": "refcocom-per-example", "version": str(SCHEMA_VERSION)},
)


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of scoring one set of predictions.

    Attributes:
        per_example: `SCHEMA`, one row per example in index order; N rows.
        info: What the scores are scores of: dataset, predictions, device, versions, wall time.
        convention: Name of the convention.
        precision_strict: True when Pr@X counts IoU > X instead of IoU ≥ X.
    """

    per_example: pa.Table
    info: dict[str, Any] = field(default_factory=dict)
    convention: str = "official"
    precision_strict: bool = False

    def _ints(self, name: str) -> NDArray[np.int64]:
        return to_numpy(self.per_example.column(name))

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """[N] float64 IoU per example."""
        return metrics.iou(
            self._ints("intersection"),
            self._ints("pred_area"),
            self._ints("target_area"),
            empty=get_convention(self.convention).empty,
        )

    @cached_property
    def miou(self) -> float:
        """Mean IoU over all examples: the official score, 0…1."""
        return metrics.mean(self.iou)

    @cached_property
    def ciou(self) -> float:
        """Cumulative IoU: ΣI / ΣU, 0…1."""
        return metrics.ciou(
            self._ints("intersection"),
            self._ints("pred_area"),
            self._ints("target_area"),
            empty=get_convention(self.convention).empty,
        )

    @cached_property
    def precision_at(self) -> dict[float, float]:
        """Share of examples with IoU at or above 0.5, 0.6, 0.7, 0.8, 0.9."""
        return metrics.precision_at(self.iou, strict=self.precision_strict)

    @cached_property
    def miou_by_category(self) -> dict[str, float]:
        """Mean IoU over the examples of each category."""
        coded = self.per_example.column("category").combine_chunks().dictionary_encode()
        labels = coded.dictionary.to_pylist()
        by_code = metrics.mean_by(self.iou, to_numpy(coded.indices))
        return dict(sorted((labels[code], score) for code, score in by_code.items()))

    @cached_property
    def miou_per_instance(self) -> float:
        """Mean over samples of their expressions' mean IoU: a sample counts once however often it is described."""
        by_sample = metrics.mean_by(
            self.iou,
            # Ids repeat when examples are named by position, so a sample is told by its image and first row too.
            _sample_rows(self.per_example),
        )
        return metrics.mean(list(by_sample.values()))

    @property
    def n_examples(self) -> int:
        """Examples in the denominator."""
        return len(self.per_example)

    @cached_property
    def n_missing(self) -> int:
        """Examples that had no prediction and were scored as empty."""
        return self._n(MISSING)

    @cached_property
    def n_empty(self) -> int:
        """Examples whose predicted mask has no pixel."""
        return self._n(EMPTY)

    def _n(self, status: str) -> int:
        counted = pc.value_counts(self.per_example.column("status")).to_pylist()
        return sum(entry["counts"] for entry in counted if entry["values"] == status)

    def summary(self) -> dict[str, Any]:
        """Every score and what it is a score of, ready for JSON."""
        return {
            "schema": "refcocom-summary",
            "version": SCHEMA_VERSION,
            "miou": self.miou,
            "ciou": self.ciou,
            "precision_at": {str(x): share for x, share in self.precision_at.items()},
            "miou_per_instance": self.miou_per_instance,
            "miou_by_category": self.miou_by_category,
            "n_examples": self.n_examples,
            "n_missing": self.n_missing,
            "n_empty": self.n_empty,
            # Duplicates are refused, never averaged or dropped; the zero says so to a reader of the file.
            "n_duplicate": 0,
            "convention": self.convention,
            "precision": ">" if self.precision_strict else ">=",
            **self.info,
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `per_example.parquet` and `summary.json`.

        Args:
            folder: Made where absent; other files in it are left alone.
            overwrite: Replace a result that is there.

        Returns:
            The folder.

        Raises:
            UsageError: When the folder holds a result and `overwrite` is False, or cannot be written.
        """
        check_output(folder, overwrite=overwrite)
        table = parquet_bytes(self.per_example)
        content = {**self.summary(), "per_example_xxh3_128": xxhash.xxh3_128_hexdigest(table)}
        text = as_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        # The summary last: it vouches for the other.
        write_files(folder, {PER_EXAMPLE: table, SUMMARY: text.encode()})
        return Path(folder)


_STATUS = pa.StringArray.from_buffers(
    3,
    pa.py_buffer(np.cumsum([0, *map(len, (SCORED, EMPTY, MISSING))]).astype(np.int32)),
    pa.py_buffer("".join((SCORED, EMPTY, MISSING)).encode()),
)


def per_example(store: MaskStore, counts: NDArray[np.int64], absent: NDArray[np.int64]) -> pa.Table:
    """The table of a result.

    Args:
        store: Ground truth.
        counts: [N, 2] intersection and predicted area.
        absent: Indices of the examples that had no prediction.

    Returns:
        `SCHEMA`, N rows.
    """
    status = np.where(counts[:, 1] > 0, 0, 1)
    status[absent] = 2
    table = store.dataset.described
    for name, column in (
        ("intersection", from_numpy(counts[:, 0])),
        ("pred_area", from_numpy(counts[:, 1])),
        ("target_area", from_numpy(store.areas[store.example_sample])),
        ("status", _STATUS.take(from_numpy(status))),
    ):
        table = table.append_column(name, column)
    return table.cast(SCHEMA).replace_schema_metadata(SCHEMA.metadata)


def about_run(store: MaskStore, device: str | None = None) -> dict[str, Any]:
    """What a summary says of any run: its dataset, device and versions.

    Args:
        store: Ground truth.
        device: What counted; the store's by default.
    """
    return {
        "dataset": about_dataset(store.dataset),
        "device": device or store.device,
        "versions": dict(_versions()),
    }


def about_dataset(dataset: Dataset) -> dict[str, Any]:
    """What a summary says of the dataset that was scored."""
    return {
        "source": dataset.source,
        "revision": dataset.revision,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint,
        "n_images": dataset.n_images,
        "n_samples": dataset.n_samples,
        "n_examples": dataset.n_examples,
        "counts_as_published": dataset.published_difference() is None,
    }


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("refcocom-gpu", "numpy", "numba", "torch", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def check_output(
    folder: str | Path, *, overwrite: bool, names: Sequence[str] = (SUMMARY, PER_EXAMPLE)
) -> None:
    """Refuse a folder before any work is done.

    Args:
        folder: Where files will be written.
        overwrite: Whether files that are there may be replaced.
        names: The files.

    Raises:
        UsageError: When it holds a result and `overwrite` is False, or is not a folder.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output_dir {folder} is a file, not a folder")
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise UsageError(
            f"{folder} already holds a result ({', '.join(there)}); pass overwrite=true or another output_dir"
        )


def holds_result(folder: str | Path) -> bool:
    """Whether a folder is one that `Result.save` wrote, were it damaged since."""
    return any(os.path.exists(os.path.join(folder, name)) for name in (SUMMARY, PER_EXAMPLE))  # noqa: PTH110, PTH118


def load_results(folder: str | Path) -> Result:
    """Read back what `Result.save` wrote; every score comes from the Parquet alone.

    Args:
        folder: Holds `per_example.parquet` and `summary.json`.

    Raises:
        ResultsError: When a file is absent, altered since it was written, or of a newer schema version.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / SUMMARY).read_text("utf-8"))
        digest = _hash(folder / PER_EXAMPLE)
    except FileNotFoundError as error:
        raise ResultsError(
            f"{folder} holds no result: {Path(error.filename).name} is not there"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder / SUMMARY} cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != "refcocom-summary":
        raise ResultsError(f"{folder / SUMMARY} is not a summary of this package")
    version = content.get("version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResultsError(
            f"{folder} has schema version {version}; this package reads up to {SCHEMA_VERSION}"
        )
    needed = ("per_example_xxh3_128", "convention", "precision")
    if absent := [key for key in needed if key not in content]:
        raise ResultsError(f"{folder / SUMMARY} lacks {', '.join(absent)}")
    if content["convention"] not in CONVENTIONS:
        raise ResultsError(
            f"{folder / SUMMARY} names an unknown convention {content['convention']!r}"
        )
    if digest != content["per_example_xxh3_128"]:
        raise ResultsError(
            f"{folder / PER_EXAMPLE} is not the table that {SUMMARY} was written with; score again"
        )
    result = Result(
        pq.read_table(pa.BufferReader((folder / PER_EXAMPLE).read_bytes())),
        convention=content["convention"],
        precision_strict=content["precision"] == ">",
    )
    scores = set(result.summary()) | {"per_example_xxh3_128"}
    result.info.update({key: value for key, value in content.items() if key not in scores})
    return result


def _hash(path: Path) -> str:
    return xxhash.xxh3_128(path.read_bytes()).hexdigest()


def _sample_rows(table: pa.Table) -> NDArray[np.int64]:
    """[N] a number per sample: examples of a sample are consecutive and `sentence_idx` counts up within it."""
    return np.cumsum(to_numpy(table.column("sentence_idx")) == 0)
