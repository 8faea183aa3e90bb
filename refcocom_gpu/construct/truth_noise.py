"""Two versions of a dataset's masks in; how far they differ, and what that does to scores and ranks, out.

RefCOCO-M redraws masks of RefCOCO, and `construct` those of its original. A score is only as exact as the masks it is
taken against: where two versions of them agree by 90 %, a model that draws one version perfectly gets 90 on the other.
Instances and sentences are paired by `match_datasets`, every score is over the pairs, and what is left out is counted.

A pair needs overlapping masks (`store/pairs.py`). Instances whose versions overlap less are left out, so that the
agreement that is measured here is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.counting.measures import ALONE
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.predictions.options import ReadOptions, refuse_boxes
from refcocom_gpu.scorer import Progress, check_missing, count, score
from refcocom_gpu.scores import metrics
from refcocom_gpu.scores.about import about_dataset
from refcocom_gpu.scores.example_table import per_example
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.match import DatasetMatch, match_datasets
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Truth = MaskStore | Dataset | str | Path

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the masks' agreement; 0 is the worst pair."""

MEASURES = ("iou", "boundary_iou")


class Run(NamedTuple):
    """One set of predictions against both versions of the masks, over the examples that both versions have.

    Attributes:
        name: Of the predictions.
        on_dataset: Scored against the masks of `dataset`.
        on_truth: Scored against the masks of `truth`.
    """

    name: str
    on_dataset: Result
    on_truth: Result


class Swap(NamedTuple):
    """Two runs, of which one has the higher mIoU on one version of the masks, the other on the other one."""

    better_on_dataset: str
    better_on_truth: str


@dataclass(frozen=True, eq=False)
class TruthNoise:
    """How far two versions of a dataset's masks differ.

    Attributes:
        match: The pairs; `match.target` is the dataset and `match.source` the truth that it is held against.
        masks: A row per matched instance: `sample_id` and `truth_sample_id`, `image_id`, `intersection`, `area` and
            `truth_area` in pixels, `iou`, `boundary_iou`.
        baseline: The masks of the dataset as predictions of those of the truth, over the matched examples. IoU and
            boundary IoU are symmetric, so a perfect predictor of either gets these scores on the other. Where the
            dataset's masks are polygons drawn by hand, as in RefCOCO, this is the human-polygon baseline.
        runs: Predictions on both.
    """

    match: DatasetMatch
    masks: pa.Table
    baseline: Result
    runs: tuple[Run, ...] = ()

    def __repr__(self) -> str:
        return (
            f"TruthNoise({self.match.target.source!r} on {self.match.source.source!r}: "
            f"mIoU {100 * self.baseline.miou:.2f} over {self.baseline.n_examples:,} of "
            f"{self.match.target.n_examples:,} examples, {len(self.runs)} runs)"
        )

    def agreement(self, measure: str = "iou") -> dict[str, Any]:
        """Return the mean and `QUANTILES` of a measure over matched instances.

        Args:
            measure: `iou` or `boundary_iou`.
        """
        values: Floats = to_numpy(self.masks[measure])
        quantiles = np.quantile(values, QUANTILES).tolist()
        return {
            "mean": metrics.mean(values),
            "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
        }

    @cached_property
    def mious(self) -> Floats:
        """[R, 2] mIoU of each run against the masks of the dataset and of the truth."""
        scores = [(run.on_dataset.miou, run.on_truth.miou) for run in self.runs]
        return np.array(scores, np.float64).reshape(-1, 2)

    @property
    def ranks(self) -> Ints:
        """[R, 2] rank of each run by mIoU on the dataset and on the truth, 1 the best; equal scores share a rank."""
        scores = self.mious
        ranks: Ints = 1 + np.count_nonzero(scores[None] > scores[:, None], axis=1)
        return ranks

    @property
    def tau(self) -> float:
        """Kendall's tau between the orders of the runs on both; NaN where there is no order to compare."""
        return kendall_tau(self.mious[:, 0], self.mious[:, 1])

    @property
    def swaps(self) -> list[Swap]:
        """The pairs of runs whose order by mIoU is the opposite on the truth; ties are none."""
        first, second = (_order(scores) for scores in self.mious.T)
        names = [run.name for run in self.runs]
        pairs = np.argwhere((first > 0) & (second < 0)).tolist()
        return [Swap(names[a], names[b]) for a, b in pairs]

    def summary(self) -> dict[str, Any]:
        """Return all numbers, for JSON; tau is null where there is no order to compare."""
        match = self.match
        ranks = self.ranks.tolist()
        return {
            "schema": "refcocom-truth-noise",
            "version": 1,
            "dataset": about_dataset(match.target),
            "truth": about_dataset(match.source),
            **match.counts(),
            "n_masks": self.masks.num_rows,
            "n_examples": self.baseline.n_examples,
            "n_examples_left_out": {
                "dataset": match.target.n_examples - match.n_matched,
                "truth": match.source.n_examples - match.n_matched,
            },
            "masks": {measure: self.agreement(measure) for measure in MEASURES},
            "baseline": _scores(self.baseline),
            "runs": [
                {
                    "name": run.name,
                    "n_missing": run.on_dataset.n_missing,
                    "dataset": {"rank": ranks[k][0], **_scores(run.on_dataset)},
                    "truth": {"rank": ranks[k][1], **_scores(run.on_truth)},
                }
                for k, run in enumerate(self.runs)
            ],
            "kendall_tau": None if math.isnan(self.tau) else self.tau,
            "swaps": [swap._asdict() for swap in self.swaps],
        }


def truth_noise(
    dataset: Truth,
    truth: Truth,
    runs: Mapping[str, Any] | None = None,
    *,
    missing: str = "error",
    progress: Progress | None = None,
    **reading: Any,
) -> TruthNoise:
    """Measure how far two versions of a dataset's masks differ, and what that does to scores and ranks.

    Args:
        dataset: One version: a store, a dataset, or the name or path of one. Its device counts.
        truth: The other version.
        runs: Name to predictions for `dataset`, each as for `score`. They are scored against both versions.
        missing: Of the runs, as for `score`.
        progress: Called with the number of examples each batch of a run has counted: in all 2N for each run.
        reading: Fields of `ReadOptions`, for the runs.

    Raises:
        DatasetError: A mask of either is not valid RLE, or an image has another size in one than in the other.
        DataError: The two have no example in common.
        PredictionError: As `score` does, for a run.
        UsageError: For an unknown option, or a dataset or run that is absent.

    >>> noise = truth_noise("sample", "sample", {"good": "sample", "coarse": "sample-coarse"})
    >>> noise
    TruthNoise('sample' on 'sample': mIoU 100.00 over 297 of 297 examples, 2 runs)
    >>> noise.ranks.tolist(), noise.tau, noise.swaps
    ([[1, 1], [2, 2]], 1.0, [])
    """
    check_missing(missing)
    options = ReadOptions(**reading)
    refuse_boxes(options, "truth noise")
    store, other = as_store(dataset), as_store(truth)
    match = match_datasets(other, store)
    match.check_common()
    redrawn = MaskStore.build(_redrawn(match), cache=False).to(store.device)
    masks, baseline = _compare(match, redrawn)
    rows = from_numpy(np.flatnonzero(match.source_index >= 0))
    scored = []
    for name, predictions in (runs or {}).items():
        result = score(predictions, store, missing=missing, progress=progress, **asdict(options))
        # What looks misread was warned of once, above.
        counted = count(predictions, redrawn, options, missing=missing, progress=progress)
        table = per_example(redrawn, counted.counts, counted.absent)
        scored.append(Run(name, *(Result(t.take(rows)) for t in (result.per_example, table))))
    return TruthNoise(match, masks, baseline, tuple(scored))


def kendall_tau(a: Floats, b: Floats) -> float:
    """Return Kendall's tau-b of two lists of scores, which allows for ties; NaN where either does not vary.

    >>> kendall_tau(np.array([3.0, 2.0, 1.0]), np.array([3.0, 1.0, 2.0])).__round__(3)
    0.333
    """
    first, second = _order(a), _order(b)
    pairs = np.count_nonzero(first) * np.count_nonzero(second)
    return int((first * second).sum()) / math.sqrt(pairs) if pairs else math.nan


def _order(scores: Floats) -> Ints:
    """Return [R, R] 1 where the run of a row has the higher score, −1 where that of a column has, 0 for ties."""
    return np.sign(scores[:, None] - scores[None]).astype(np.int64)


def _redrawn(match: DatasetMatch) -> Dataset:
    """Return the dataset with the truth's masks where its samples are matched, and its own elsewhere.

    It keeps its fingerprint, which says what predictions are made for; so its store must not be cached.
    """
    target, source = match.target, match.source
    own, theirs = (dataset.samples["counts"] for dataset in (target, source))
    rows = np.where(
        match.source_sample >= 0,
        target.n_samples + match.source_sample,
        np.arange(target.n_samples),
    )
    counts = pa.chunked_array([*own.chunks, *theirs.chunks]).take(from_numpy(rows))
    place = target.samples.column_names.index("counts")
    return replace(target, samples=target.samples.set_column(place, "counts", counts))


def _compare(match: DatasetMatch, redrawn: MaskStore) -> tuple[pa.Table, Result]:
    """Return a row per pair of masks, and their scores over the pairs of examples."""
    target, source = match.target, match.source
    samples = np.flatnonzero(match.source_sample >= 0)
    # One example for each sample: a mask is counted once, however often it is described, or never.
    each = pa.table(
        {
            "sample": from_numpy(np.arange(target.n_samples)),
            "sentence_idx": from_numpy(np.zeros(target.n_samples, np.int64)),
            "sentence": pa.array([""] * target.n_samples),
            "sent_id": pa.nulls(target.n_samples, pa.int64()),
        }
    )
    store = MaskStore.build(replace(redrawn.dataset, examples=each), cache=False)
    own = {
        k: {
            "size": [int(target.heights[k]), int(target.widths[k])],
            "counts": target.counts.row(k),
        }
        for k in samples.tolist()
    }
    counted = count(own, store.to(redrawn.device), ReadOptions(), missing="zero", metrics=ALONE)
    by_mask = per_example(store, counted.counts, counted.absent, counted.measured)
    of_masks = Result(by_mask.take(from_numpy(samples)))
    columns = of_masks.per_example
    masks = pa.table(
        {
            "sample_id": columns["sample_id"],
            "truth_sample_id": from_numpy(source.sample_ids[match.source_sample[samples]]),
            "image_id": columns["image_id"],
            "intersection": columns["intersection"],
            "area": columns["pred_area"],
            "truth_area": columns["target_area"],
            "iou": from_numpy(of_masks.iou),
            "boundary_iou": from_numpy(of_masks.boundary_values["boundary_iou"]),
        }
    )
    sample = target.example_sample
    by_example = per_example(
        redrawn,
        counted.counts[sample],
        np.flatnonzero(match.source_sample[sample] < 0),
        {name: column[sample] for name, column in (counted.measured or {}).items()},
    )
    rows = from_numpy(np.flatnonzero(match.source_index >= 0))
    return masks, Result(by_example.take(rows))


def _scores(result: Result) -> dict[str, Any]:
    return {
        "miou": result.miou,
        "ciou": result.ciou,
        **result.boundary_scores,
        "precision_at": {str(x): share for x, share in result.precision_at.items()},
    }
