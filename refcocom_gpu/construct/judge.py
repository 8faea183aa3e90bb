"""An audit and exact masks in; how much closer the refined masks are to the exact ones, by the share kept, out.

This is for sets whose true masks are known: only there can it be measured how far agreement can be trusted. All
comparisons are on the same instances, and intervals are clustered by image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.construct.agree import Floats, Ints, Masks, boundaries_of, iou_with, pack_runs
from refcocom_gpu.construct.audit import Audit
from refcocom_gpu.construct.curves import plot_curves
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DataError
from refcocom_gpu.masks import rle
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.files import parquet_bytes, write_files

SHARES = tuple(np.round(np.arange(0.05, 1.0001, 0.05), 2).tolist())
"""The shares kept at which a curve has points."""

MEASURES = ("iou", "boundary_iou")


@dataclass(frozen=True, eq=False)
class Judgement:
    """Quality of every mask of a construction: its IoU and boundary IoU with the truth.

    Attributes:
        table: A row per instance that has a refined mask: sample_id, image_id, area (of the truth), refined_area,
            confidence, kept, and the qualities `iou of NAME` and `boundary_iou of NAME`, where NAME is `original`,
            `refined` or a proposer. A proposer without a usable mask has quality 0.
        proposers: Their names.
        n_instances: Number of all instances, including those without a refined mask.
    """

    table: pa.Table
    proposers: tuple[str, ...]
    n_instances: int

    def quality(self, name: str, measure: str = "iou") -> Floats:
        """[n] IoU or boundary IoU with the truth of `original`, `refined` or a proposer."""
        values: Floats = to_numpy(self.table[f"{measure} of {name}"])
        return values

    @cached_property
    def best(self) -> str:
        """The proposer with the highest mean IoU over all instances."""
        return max(self.proposers, key=lambda name: float(self.quality(name).mean()))

    @cached_property
    def confidence(self) -> Floats:
        """[n]; −1, which is below every threshold, for an instance without one."""
        confidence: Floats = np.nan_to_num(to_numpy(self.table["confidence"]), nan=-1.0)
        return confidence

    def threshold(self, share: float) -> float:
        """The threshold that keeps a share of all instances, or all refined ones where these are fewer."""
        n = min(len(self.confidence), max(1, round(share * self.n_instances)))
        return float(np.sort(self.confidence)[::-1][n - 1])

    def at(self, threshold: float, measure: str = "iou") -> dict[str, Any]:
        """Compare the masks of the instances that a threshold keeps.

        Args:
            threshold: Lowest confidence that is kept.
            measure: `iou` or `boundary_iou`.

        Returns:
            `threshold`; `share`, the share of all instances kept; `refined`, `original` and `best`, mean qualities of
            the kept instances; `over_original` and `over_best`, how much better the refined masks are; for each of
            these five its standard error, `…_se`; `by_area`, the mean quality when the same number of instances is
            kept by size of the refined mask, the largest first; `at_random`, the mean quality of all.
        """
        kept = self.confidence >= threshold
        image = to_numpy(self.table["image_id"])[kept]
        refined = self.quality("refined", measure)
        columns = {
            "refined": refined,
            "original": self.quality("original", measure),
            "best": self.quality(self.best, measure),
        }
        stacked = np.stack([column[kept] for column in columns.values()], axis=1)
        ratio = un.ratio_by_image(image, stacked)
        se, difference_se = un.cluster_se(ratio), un.difference_se(ratio)
        row = {"threshold": threshold, "share": float(kept.sum() / self.n_instances)}
        for k, name in enumerate(columns):
            row |= {name: float(stacked[:, k].mean()), f"{name}_se": float(se[k])}
        for k, name in enumerate(columns):
            if name != "refined":
                row[f"over_{name}"] = row["refined"] - row[name]
                # Row 0 of the differences is that of the refined masks.
                row[f"over_{name}_se"] = float(difference_se[0, k])
        largest = np.argsort(-to_numpy(self.table["refined_area"]), kind="stable")[: kept.sum()]
        row |= {"by_area": float(refined[largest].mean()), "at_random": float(refined.mean())}
        return row

    def curve(self, measure: str = "iou", shares: Sequence[float] = SHARES) -> pa.Table:
        """One row of `at` for each share, where the kept instances are of several images."""
        return pa.Table.from_pylist(
            [self.at(self.threshold(share), measure) for share in shares if self._has_errors(share)]
        )

    def curves(self) -> dict[str, pa.Table]:
        """The curve of each measure."""
        return {measure: self.curve(measure) for measure in MEASURES}

    def _has_errors(self, share: float) -> bool:
        """Whether the kept instances are of several images; one image has no standard error."""
        kept = self.confidence >= self.threshold(share)
        return len(np.unique(to_numpy(self.table["image_id"])[kept])) > 1

    def correlation(self, measure: str = "iou") -> dict[str, float]:
        """Spearman's rank correlation of confidence and quality, over all instances and within thirds by true area."""
        area = to_numpy(self.table["area"])
        third = np.searchsorted(np.quantile(area, [1 / 3, 2 / 3]), area)
        quality = self.quality("refined", measure)
        names = ("smallest third", "middle third", "largest third")
        correlations = {"all": rank_correlation(self.confidence, quality)}
        for k, name in enumerate(names):
            correlations[name] = rank_correlation(self.confidence[third == k], quality[third == k])
        return correlations

    def summary(self) -> dict[str, Any]:
        """Counts, the best proposer, and for both measures the qualities at a few shares and the correlations."""
        return {
            "n_instances": self.n_instances,
            "n_refined": self.table.num_rows,
            "best": self.best,
            **{
                measure: {
                    "at": [
                        self.at(self.threshold(s), measure)
                        for s in (1.0, 0.75, 0.5)
                        if self._has_errors(s)
                    ],
                    "rank_correlation": self.correlation(measure),
                }
                for measure in MEASURES
            },
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write `judge.json`, `judge.png`, and the table and the curves as Parquet.

        Raises:
            UsageError: The folder cannot be written, or matplotlib is not installed.
        """
        curves = self.curves()
        files = {"judge.png": plot_curves([("", curves)])}
        files["instances.parquet"] = parquet_bytes(self.table)
        for measure, curve in curves.items():
            files[f"curve_{measure}.parquet"] = parquet_bytes(curve)
        files["judge.json"] = (json.dumps(self.summary(), indent=2) + "\n").encode()
        return write_files(folder, files)


def judge(audit: Audit, truth: Dataset) -> Judgement:
    """Compare the masks of an audit with the true ones.

    Args:
        audit: Of a construction.
        truth: Holds the true mask of every sample of the audit, by sample id.

    Raises:
        DataError: A sample has no true mask, an empty one, or one of another size; or sample ids repeat.
    """
    rows = audit.instances.filter(audit.instances["counts"].is_valid())
    if not rows.num_rows:
        raise DataError("no instance has a refined mask: there is nothing to judge")
    ids = rows["sample_id"].to_pylist()
    if len(set(ids)) < len(ids) or truth.key != "sample_id":
        raise DataError("masks are compared by sample id, and ids of this set repeat")
    samples = _samples(truth, to_numpy(rows["sample_id"]))
    areas = MaskStore.build(truth, cache=False).areas[samples]
    sizes = np.stack([to_numpy(rows["height"]), to_numpy(rows["width"])], axis=1)
    _check_truth(truth, samples, areas, ids, sizes)
    true_masks = _packed(truth.counts.take(samples), sizes)
    true_boundaries = boundaries_of(true_masks)

    def qualities(name: str, counts: Sequence[str], present: Ints) -> dict[str, pa.Array]:
        masks = _packed(rle.column(text.encode() for text in counts), sizes[present])
        values = np.zeros((2, len(sizes)))
        values[0, present] = iou_with(masks, _subset(true_masks, present))
        values[1, present] = iou_with(boundaries_of(masks), _subset(true_boundaries, present))
        return {f"{m} of {name}": pa.array(v) for m, v in zip(MEASURES, values, strict=True)}

    columns: dict[str, Any] = {
        "sample_id": rows["sample_id"],
        "image_id": rows["image_id"],
        "area": pa.array(areas),
        "refined_area": rows["area"],
        "confidence": rows["confidence"],
        "kept": rows["kept"],
    }
    all_rows = np.arange(len(sizes))
    columns |= qualities("original", rows["original_counts"].to_pylist(), all_rows)
    columns |= qualities("refined", rows["counts"].to_pylist(), all_rows)
    by_proposer = _first_masks(audit, ids)
    for proposer, counts in by_proposer.items():
        present = np.array(sorted(counts), np.int64)
        columns |= qualities(proposer, [counts[row] for row in present.tolist()], present)
    return Judgement(pa.table(columns), tuple(by_proposer), audit.instances.num_rows)


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where either does not vary.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 4.0]))
    0.5
    """
    ranks = []
    for values in (a, b):
        _, place, n = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(n) - (n - 1) / 2)[place])
    if len(a) < 2 or np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1].round(12))


def _samples(truth: Dataset, sample_ids: Ints) -> Ints:
    known = {int(sample_id): row for row, sample_id in enumerate(truth.sample_ids)}
    absent = [int(s) for s in sample_ids if int(s) not in known]
    if absent:
        raise DataError(
            f"{truth.source} has no true mask for {len(absent):,} samples, the first is {absent[0]}"
        )
    return np.array([known[int(s)] for s in sample_ids], np.int64)


def _check_truth(
    truth: Dataset, samples: Ints, areas: Ints, sample_ids: Sequence[int], sizes: Ints
) -> None:
    """Refuse a true mask that is empty or of another size than the mask of the audit."""
    true_sizes = np.stack([truth.heights[samples], truth.widths[samples]], axis=1)
    wrong = np.flatnonzero((sizes != true_sizes).any(axis=1) | (areas == 0))
    if len(wrong):
        k = int(wrong[0])
        raise DataError(
            f"sample {sample_ids[k]}: its true mask is {'×'.join(map(str, true_sizes[k]))} with "
            f"{areas[k]} pixels set, the mask of the audit {'×'.join(map(str, sizes[k]))}"
        )


def _first_masks(audit: Audit, sample_ids: Sequence[int]) -> dict[str, dict[int, str]]:
    """For each proposer, row to mask. Of several masks the first counts: the one it would have proposed alone."""
    row_of = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    by_proposer: dict[str, dict[int, str]] = {}
    for candidate in audit.candidates.to_pylist():
        counts = by_proposer.setdefault(candidate["proposer"], {})
        if candidate["usable"] and candidate["sample_id"] in row_of:
            counts.setdefault(row_of[candidate["sample_id"]], candidate["counts"])
    return by_proposer


def _packed(strings: rle.Column, sizes: Ints) -> Masks:
    """Compressed COCO strings as groups of one mask."""
    runs = rle.parse(strings, sizes[:, 0] * sizes[:, 1])
    return pack_runs(runs.ends, runs.offsets, sizes, np.ones(len(sizes), np.int64))


def _subset(masks: Masks, groups: Ints) -> Masks:
    """The masks of some groups of one mask each."""
    words = [masks.words[masks.word_offsets[g] : masks.word_offsets[g + 1]] for g in groups]
    lengths = np.array([len(w) for w in words], np.int64)
    return Masks(
        np.concatenate(words) if words else np.zeros(0, np.uint64),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.arange(len(groups) + 1),
        masks.heights[groups],
        masks.widths[groups],
    )
