"""Counts of many prediction files in, one table out: a row per file with its scores, their uncertainty and its rank.

Scores and differences come from `metrics` on the counts. Only standard errors and the widths of intervals come from the
bootstrap, which rounds IoUs to a grid so that its sums are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu._version import __version__
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.conventions import OFFICIAL, check_official
from refcocom_gpu.scores.leaderboard.typed import typed_columns
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS, Floats
from refcocom_gpu.scores.result import about_dataset
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.text import as_text

SCHEMA_VERSION = 1

NONE = np.zeros(0, np.int64)

BLOCK = 64
"""Models whose IoUs are held at a time; afterwards one sum per image is kept of each."""

NAMES = (("rank", pa.int64()), ("model", pa.string()), ("path", pa.string()))
"""Columns before the manifest's."""

SCORES = (
    ("miou", pa.float64()),
    ("miou_se", pa.float64()),
    ("rank_low", pa.int64()),
    ("rank_high", pa.int64()),
    ("like_best", pa.bool_()),
    ("difference", pa.float64()),
    ("difference_low", pa.float64()),
    ("difference_high", pa.float64()),
    ("ciou", pa.float64()),
    *((f"pr{round(100 * x)}", pa.float64()) for x in PRECISION_THRESHOLDS),
    ("n_examples", pa.int64()),
    ("n_missing", pa.int64()),
    ("n_empty", pa.int64()),
    ("digest", pa.string()),
    ("error", pa.string()),
    ("warnings", pa.string()),
)
"""Columns after the manifest's; scores and differences are shares of 1."""


class FileResult(Protocol):
    """What a leaderboard needs to know of a scored prediction file."""

    @property
    def path(self) -> str:
        """The path as the user gave it."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Further columns of the manifest, such as the model's step."""

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """[N, 2] intersection and predicted area; None where `error` is set."""

    @property
    def absent(self) -> NDArray[np.int64] | None:
        """Indices of the examples that had no prediction and count as empty; None means that there are none."""

    @property
    def error(self) -> str | None:
        """Why the file has no scores."""

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the predictions look misread."""

    @property
    def digest(self) -> str | None:
        """Hash of the predictions; None where nothing could be read."""


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Scored files, best first.

    Attributes:
        table: Columns `NAMES`, those of the manifest, then `SCORES`; one row per file, files with an error last.
        about: What the scores are scores of and what their uncertainty means, ready for JSON.
    """

    table: pa.Table
    about: dict[str, Any]


def make_leaderboard(
    results: Sequence[FileResult],
    store: MaskStore,
    *,
    convention: str = "official",
    precision_strict: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Leaderboard:
    """Score, compare and sort the files; see `write_leaderboard` for the arguments and errors."""
    check_official(convention, "a leaderboard")
    un.quantile_place(LEVEL, replicates)
    image = store.dataset.image_ids[store.dataset.sample_image[store.example_sample]]
    scored: list[tuple[dict[str, Any], Floats]] = []
    readable = [result for result in results if result.error is None]
    for first in range(0, len(readable), BLOCK):
        pairs = [
            _scored(result, store, OFFICIAL.empty, precision_strict)
            for result in readable[first : first + BLOCK]
        ]
        sums, n = un.per_image(np.stack([ious for _, ious in pairs], axis=1), image)
        scored += [(row, of_model.copy()) for (row, _), of_model in zip(pairs, sums.T, strict=True)]
    # All fields in turn, so that even rows alike in most of them have an order that does not depend on the input's.
    scored.sort(key=lambda pair: (-pair[0]["miou"], *_identity(pair[0]["result"])))
    failed = sorted((r for r in results if r.error is not None), key=_identity)
    rows = [row for row, _ in scored]
    critical = None
    if rows:
        sums = np.stack([of_model for _, of_model in scored], axis=1)
        critical = _add_ranks(rows, sums, n[:, None].astype(np.float64), replicates, seed)
    rows += [{"result": result, "error": as_text(str(result.error))} for result in failed]
    about = {
        "schema": "refcocom-leaderboard",
        "version": SCHEMA_VERSION,
        "refcocom_gpu": __version__,
        "convention": convention,
        "precision": ">" if precision_strict else ">=",
        "dataset": about_dataset(store.dataset),
        "n_models": len(scored),
        "n_failed": len(failed),
        "uncertainty": {
            "level": LEVEL,
            "replicates": replicates,
            "seed": seed,
            "critical_value": critical,
            "meaning": MEANING,
        },
    }
    return Leaderboard(_table(rows), about)


MEANING = {
    "miou_se": "Standard error of mIoU over other images like these: images are the unit, because expressions of one "
    "image are not independent.",
    "difference": "mIoU minus that of the first row; the intervals cover the true differences of all pairs of models "
    "at once with the probability `level`, so the best may be chosen after looking.",
    "rank": "From 1 + how many models are surely better to the number of models − how many are surely worse, surely "
    "meaning that the interval of the difference excludes 0; all true ranks lie within at once at the same level.",
    "like_best": "The first row is not surely better: its lead may be chance.",
}
"""What a reader may conclude from a column."""


def _identity(result: FileResult) -> tuple[str, ...]:
    columns = json.dumps(dict(result.columns), default=str)
    return result.model, result.path, result.digest or "", columns, str(result.error)


def _scored(
    result: FileResult, store: MaskStore, empty: float, strict: bool
) -> tuple[dict[str, Any], Floats]:
    """Return a row without the columns that depend on other rows, and [N] IoUs."""
    counts = result.counts
    if counts is None or counts.shape != (len(store), 2):
        actual = "no counts" if counts is None else f"counts of shape {counts.shape}"
        raise UsageError(f"{result.path}: {actual} where [{len(store)}, 2] is expected")
    triple = counts[:, 0], counts[:, 1], store.areas[store.example_sample]
    ious = metrics.iou(*triple, empty=empty)
    precision = metrics.precision_at(ious, strict=strict)
    absent = np.zeros(len(store), np.bool_)
    absent[NONE if result.absent is None else result.absent] = True
    row = {
        "result": result,
        "miou": metrics.mean(ious),
        "ciou": metrics.ciou(*triple, empty=empty),
        **{f"pr{round(100 * x)}": share for x, share in precision.items()},
        "n_examples": len(store),
        "n_missing": int(absent.sum()),
        "n_empty": int(((counts[:, 1] == 0) & ~absent).sum()),
    }
    return row, ious


def _add_ranks(
    rows: list[dict[str, Any]], sums: Floats, n: Floats, replicates: int, seed: int
) -> float | None:
    """Add to each row its rank and its difference from the best, with their uncertainty.

    Args:
        rows: M, best first.
        sums: [G, M] IoUs summed within each image, in the same order.
        n: [G, 1] examples of each image.
        replicates: B.
        seed: Of the bootstrap.

    Returns:
        The critical value. None where there is one model, or one image, which tells nothing of other images.
    """
    scores = [row["miou"] for row in rows]
    for row in rows:
        # Rows of equal score share the better rank.
        row["rank"] = 1 + scores.index(row["miou"])
        row["difference"] = row["miou"] - scores[0]
    if len(n) < 2:
        return None
    ratio = un.Ratio(sums, n)
    pairs = un.pairwise_intervals(ratio, n_replicates=replicates, seed=seed)
    reach = pairs.critical * pairs.se[:, 0]
    columns = zip(
        un.cluster_se(ratio).tolist(),
        un.rank_intervals(pairs).tolist(),
        un.like_best(pairs).tolist(),
        reach.tolist(),
        strict=True,
    )
    for row, (se, (low, high), like_best, width) in zip(rows, columns, strict=True):
        row.update(miou_se=se, rank_low=low, rank_high=high, like_best=like_best)
        row.update(
            difference_low=row["difference"] - width, difference_high=row["difference"] + width
        )
    return pairs.critical if len(rows) > 1 else None


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    results: list[FileResult] = [row.pop("result") for row in rows]
    for row, result in zip(rows, results, strict=True):
        row.update(
            model=as_text(result.model),
            path=as_text(result.path),
            digest=as_text(result.digest) if result.digest else None,
            warnings=as_text("\n".join(result.warnings)) or None,
        )
    arrays = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in NAMES}
    taken = [name for name, _ in (*NAMES, *SCORES)]
    arrays |= typed_columns([result.columns for result in results], taken)
    arrays |= {name: pa.array([row.get(name) for row in rows], kind) for name, kind in SCORES}
    table = pa.table(arrays)
    return table.replace_schema_metadata(
        {"schema": "refcocom-leaderboard", "version": str(SCHEMA_VERSION)}
    )
