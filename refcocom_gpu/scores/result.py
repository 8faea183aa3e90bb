"""Counts of every example in, a result out: its scores, and a folder from which they are computed again.

`per_example.parquet` holds one row per example in index order. `summary.json` holds the scores and what they are scores
of. `folder` writes and checks the two files; every score is computed again from the Parquet alone.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refcocom_gpu.scores import boundary, metrics
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.scores.folder import HASH, SCHEMA_VERSION, read_result, write_result
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset
    from refcocom_gpu.store.store import MaskStore

STATUSES = SCORED, EMPTY, MISSING = "scored", "empty", "missing"

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
        per_example: `SCHEMA` and the columns of other metrics, one row per example in index order; N rows.
        info: What the scores are scores of: dataset, predictions, device, versions, wall time.
        convention: Name of the convention.
        precision_strict: True when Pr@X counts IoU > X instead of IoU ≥ X.
    """

    per_example: pa.Table
    info: dict[str, Any] = field(default_factory=dict)
    convention: str = "official"
    precision_strict: bool = False

    @property
    def _counts(self) -> Iterator[NDArray[np.int64]]:
        """[N] intersections, [N] predicted areas, [N] true areas."""
        names = ("intersection", "pred_area", "target_area")
        return (to_numpy(self.per_example.column(name)) for name in names)

    @property
    def _empty(self) -> float:
        """IoU of two empty masks."""
        return get_convention(self.convention).empty

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """[N] float64 IoU per example."""
        return metrics.iou(*self._counts, empty=self._empty)

    @cached_property
    def miou(self) -> float:
        """Mean IoU over all examples: the official score, 0…1."""
        return metrics.mean(self.iou)

    @cached_property
    def ciou(self) -> float:
        """Cumulative IoU: ΣI / ΣU, 0…1."""
        return metrics.ciou(*self._counts, empty=self._empty)

    @cached_property
    def precision_at(self) -> dict[float, float]:
        """Share of examples with IoU at or above 0.5, 0.6, 0.7, 0.8, 0.9."""
        return metrics.precision_at(self.iou, strict=self.precision_strict)

    @cached_property
    def miou_by_category(self) -> dict[str, float]:
        """Mean IoU over the examples of each category."""
        encoded = self.per_example.column("category").combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        by_code = metrics.mean_by(self.iou, to_numpy(encoded.indices))
        return dict(sorted((names[code], score) for code, score in by_code.items()))

    @cached_property
    def miou_per_instance(self) -> float:
        """Mean over samples of their expressions' mean IoU: each sample counts once, however often it is described."""
        by_sample = metrics.mean_by(self.iou, _sample_numbers(self.per_example))
        return metrics.mean(list(by_sample.values()))

    @cached_property
    def boundary_values(self) -> dict[str, NDArray[np.float64]]:
        """[N] float64 per example: boundary IoU, min(IoU, boundary IoU), Boundary F; see `scores.boundary`.

        They and their means below were counted only with `metrics=["iou", "boundary"]`; otherwise `UsageError` is
        raised.
        """
        columns = boundary.boundary_columns(self.per_example)
        return boundary.boundary_values(columns, self.iou, self._empty)

    @property
    def boundary_iou(self) -> float:
        """Mean boundary IoU over all examples, 0…1."""
        return metrics.mean(self.boundary_values["boundary_iou"])

    @property
    def min_mask_boundary_iou(self) -> float:
        """Mean over all examples of the lower of IoU and boundary IoU, 0…1."""
        return metrics.mean(self.boundary_values["min_mask_boundary_iou"])

    @property
    def boundary_f(self) -> float:
        """Mean Boundary F over all examples, 0…1."""
        return metrics.mean(self.boundary_values["boundary_f"])

    @property
    def boundary_scores(self) -> dict[str, float]:
        """The three means by name; none if boundaries were not counted."""
        if not boundary.are_counted(self.per_example):
            return {}
        return {name: metrics.mean(values) for name, values in self.boundary_values.items()}

    @property
    def n_examples(self) -> int:
        """Number of examples in the denominator."""
        return len(self.per_example)

    @cached_property
    def n_missing(self) -> int:
        """Number of examples that had no prediction and were scored as empty."""
        return self._count(MISSING)

    @cached_property
    def n_empty(self) -> int:
        """Number of examples whose predicted mask has no pixel."""
        return self._count(EMPTY)

    def _count(self, status: str) -> int:
        # Not pc.equal with a string, which imports pandas.
        counts = pc.value_counts(self.per_example.column("status")).to_pylist()
        return sum(entry["counts"] for entry in counts if entry["values"] == status)

    def summary(self) -> dict[str, Any]:
        """Return every score and what it is a score of, ready for JSON."""
        return {
            "schema": "refcocom-summary",
            "version": SCHEMA_VERSION,
            "miou": self.miou,
            "ciou": self.ciou,
            **self.boundary_scores,
            "precision_at": {str(x): share for x, share in self.precision_at.items()},
            "miou_per_instance": self.miou_per_instance,
            "miou_by_category": self.miou_by_category,
            "n_examples": self.n_examples,
            "n_missing": self.n_missing,
            "n_empty": self.n_empty,
            # Duplicates are refused, never averaged or dropped: the zero tells a reader of the file so.
            "n_duplicate": 0,
            "convention": self.convention,
            "precision": ">" if self.precision_strict else ">=",
            **self.info,
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `per_example.parquet` and `summary.json`.

        Args:
            folder: Made where absent; other files in it are left alone.
            overwrite: Replace an existing result.

        Returns:
            The folder.

        Raises:
            UsageError: When the folder holds a result and `overwrite` is False, or when it cannot be written.
        """
        write_result(folder, self.per_example, self.summary(), overwrite=overwrite)
        return Path(folder)


_STATUS = pa.StringArray.from_buffers(
    3,
    pa.py_buffer(np.cumsum([0, *map(len, STATUSES)]).astype(np.int32)),
    pa.py_buffer("".join(STATUSES).encode()),
)


def per_example(
    store: MaskStore,
    counts: NDArray[np.int64],
    absent: NDArray[np.int64],
    measured: Mapping[str, NDArray[np.int64]] | None = None,
) -> pa.Table:
    """Make the table of a result.

    Args:
        store: Ground truth.
        counts: [N, 2] intersection and predicted area.
        absent: Indices of the examples that had no prediction.
        measured: [N] int64 columns of metrics besides IoU, by name.

    Returns:
        `SCHEMA`, then the measured columns; N rows.
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
    table = table.cast(SCHEMA).replace_schema_metadata(SCHEMA.metadata)
    for name, column in (measured or {}).items():
        table = table.append_column(name, from_numpy(np.ascontiguousarray(column)))
    return table


def about_run(store: MaskStore, device: str | None = None) -> dict[str, Any]:
    """Return what a summary says of any run: its dataset, device and versions.

    Args:
        store: Ground truth.
        device: The device that counted; the store's by default.
    """
    return {
        "dataset": about_dataset(store.dataset),
        "device": device or store.device,
        "versions": dict(_versions()),
    }


def about_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return what a summary says of the dataset that was scored."""
    return {
        "source": dataset.source,
        "revision": dataset.revision,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint,
        "n_images": dataset.n_images,
        "n_samples": dataset.n_samples,
        "n_examples": dataset.n_examples,
        "n_dropped": dataset.n_dropped,
        "counts_as_published": dataset.published_difference() is None,
    }


def left_out(predictions: Mapping[str, Any]) -> list[str]:
    """Say which predictions stand for no row of a result.

    Args:
        predictions: What the summary says of them.

    >>> left_out({"n_extra": 5236, "n_repeated": 0})
    ['5,236 predictions of examples that the dataset does not have were left out']
    """
    reasons = {
        "n_extra": "of examples that the dataset does not have",
        "n_repeated": "that repeat the mask of another",
    }
    return [
        f"{number:,} prediction{'s' if number > 1 else ''} {reason} "
        f"{'were' if number > 1 else 'was'} left out"
        for name, reason in reasons.items()
        if (number := predictions.get(name, 0))
    ]


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("refcocom-gpu", "numpy", "numba", "torch", "pyarrow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


def load_results(folder: str | Path) -> Result:
    """Read back what `Result.save` wrote; every score is computed again from the Parquet alone.

    Args:
        folder: Holds `per_example.parquet` and `summary.json`.

    Raises:
        ResultsError: When a file is absent, altered since it was written, or of a newer schema version.
    """
    table, summary = read_result(folder)
    result = Result(
        table,
        convention=summary["convention"],
        precision_strict=summary["precision"] == ">",
    )
    computed = {*result.summary(), HASH}
    result.info.update({key: value for key, value in summary.items() if key not in computed})
    return result


def _sample_numbers(table: pa.Table) -> NDArray[np.int64]:
    """Return [N] a number per sample.

    Ids cannot serve, because they repeat where examples are named by position. But the examples of a sample are
    consecutive, and the first has `sentence_idx` 0.
    """
    return np.cumsum(to_numpy(table.column("sentence_idx")) == 0)
