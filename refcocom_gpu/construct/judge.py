"""An audit and exact masks in; how much closer to them the refined masks are, against the share that is kept, out.

For sets whose true masks are known: what agreement is worth can be measured there and nowhere else. Everything compared
is compared on the same instances, and intervals are clustered by image.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.construct.agree import Masks, boundaries_of, iou_with, pack_runs
from refcocom_gpu.construct.audit import Audit
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DataError
from refcocom_gpu.masks import rle
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.files import parquet_bytes, write_files

Floats = NDArray[np.float64]

SHARES = tuple(np.round(np.arange(0.05, 1.0001, 0.05), 2).tolist())
"""Shares kept at which a curve is drawn."""

Z = 1.96
"""Standard errors to either side of an interval: 95 %."""

MEASURES = ("iou", "boundary_iou")


@dataclass(frozen=True, eq=False)
class Judgement:
    """Quality of every mask of a construction, IoU and boundary IoU with the truth.

    Attributes:
        table: A row per instance that has a refined mask: sample_id, image_id, area (of the truth), confidence, kept,
            and for each of `original`, `refined` and the proposers its iou and boundary_iou, named `iou of NAME`; a
            proposer without a usable mask scored 0.
        proposers: Their names.
        n_instances: All instances, also those without a refined mask.
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
        """[n]; below every threshold where there is none."""
        found: Floats = np.nan_to_num(to_numpy(self.table["confidence"]), nan=-1.0)
        return found

    def threshold(self, share: float) -> float:
        """The confidence from which on a share of all instances is kept, or as much of it as there is."""
        n = min(len(self.confidence), max(1, round(share * self.n_instances)))
        return float(np.sort(self.confidence)[::-1][n - 1])

    def at(self, threshold: float, measure: str = "iou") -> dict[str, Any]:
        """Compare on what a threshold keeps.

        Args:
            threshold: Lowest confidence that is kept.
            measure: `iou` or `boundary_iou`.

        Returns:
            `share` of all instances kept; `refined`, `original`, `best`: means over them with standard errors
            `…_se`; `over_original`, `over_best`: differences with standard errors; `by_area`: mean of the refined
            masks when as many instances are kept, the largest (by the refined mask, which is known without the truth);
            `at_random`: their mean when all are.
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
        se, apart = un.cluster_se(ratio), un.difference_se(ratio)
        found: dict[str, Any] = {
            "threshold": threshold,
            "share": float(kept.sum() / self.n_instances),
        }
        for k, name in enumerate(columns):
            found |= {name: float(stacked[:, k].mean()), f"{name}_se": float(se[k])}
        for k, name in ((1, "over_original"), (2, "over_best")):
            found |= {name: found["refined"] - found[("", "original", "best")[k]]}
            found |= {f"{name}_se": float(apart[0, k])}
        largest = np.argsort(-to_numpy(self.table["refined_area"]), kind="stable")[: kept.sum()]
        found |= {"by_area": float(refined[largest].mean()), "at_random": float(refined.mean())}
        return found

    def curve(self, measure: str = "iou", shares: Sequence[float] = SHARES) -> pa.Table:
        """`at` for the thresholds that keep each of some shares; a row each."""
        return pa.Table.from_pylist(
            [self.at(self.threshold(share), measure) for share in shares if self._is_there(share)]
        )

    def _is_there(self, share: float) -> bool:
        kept = self.confidence >= self.threshold(share)
        # One image has no standard error.
        return len(np.unique(to_numpy(self.table["image_id"])[kept])) > 1

    def correlation(self, measure: str = "iou") -> dict[str, float]:
        """Spearman's rank correlation of confidence and quality: over all, and within thirds by true area."""
        area = to_numpy(self.table["area"])
        third = np.searchsorted(np.quantile(area, [1 / 3, 2 / 3]), area)
        quality = self.quality("refined", measure)
        names = ("smallest third", "middle third", "largest third")
        found = {"all": rank_correlation(self.confidence, quality)}
        for k, name in enumerate(names):
            found[name] = rank_correlation(self.confidence[third == k], quality[third == k])
        return found

    def summary(self) -> dict[str, Any]:
        """What is told of it: counts, the best proposer, both measures at a few shares, correlations."""
        return {
            "n_instances": self.n_instances,
            "n_refined": self.table.num_rows,
            "best": self.best,
            **{
                measure: {
                    "at": [
                        self.at(self.threshold(s), measure)
                        for s in (1.0, 0.75, 0.5)
                        if self._is_there(s)
                    ],
                    "rank_correlation": self.correlation(measure),
                }
                for measure in MEASURES
            },
        }

    def plot(self, title: str = "") -> bytes:
        """Both curves as a PNG.

        Raises:
            UsageError: matplotlib is not installed.
        """
        return plot_curves([(title, self)])

    def save(self, folder: str | Path) -> list[Path]:
        """Write `judge.json`, `judge.png`, and the table and the curves as Parquet.

        Raises:
            UsageError: The folder cannot be written, or matplotlib is not installed.
        """
        files = {"judge.png": self.plot(), "instances.parquet": parquet_bytes(self.table)}
        for measure in MEASURES:
            files[f"curve_{measure}.parquet"] = parquet_bytes(self.curve(measure))
        files["judge.json"] = (json.dumps(self.summary(), indent=2) + "\n").encode()
        return write_files(folder, files)


def judge(audit: Audit, truth: Dataset) -> Judgement:
    """Compare the masks of an audit with the true ones.

    Args:
        audit: Of a construction.
        truth: Holds the true mask of every sample of the audit, by sample id.

    Raises:
        DataError: A sample has no true mask, one of another size, or an empty one.
    """
    rows = audit.instances.filter(audit.instances["counts"].is_valid())
    if not rows.num_rows:
        raise DataError("no instance has a refined mask: there is nothing to judge")
    ids = rows["sample_id"].to_pylist()
    if len(set(ids)) < len(ids) or truth.key != "sample_id":
        raise DataError("masks are compared by sample id, and ids of this set repeat")
    store = MaskStore.build(truth, cache=False)
    samples = _samples(truth, to_numpy(rows["sample_id"]))
    sizes = np.stack([to_numpy(rows["height"]), to_numpy(rows["width"])], axis=1)
    true_sizes = np.stack([truth.heights[samples], truth.widths[samples]], axis=1)
    wrong = (sizes != true_sizes).any(axis=1) | (store.areas[samples] == 0)
    if wrong.any():
        k = int(wrong.argmax())
        raise DataError(
            f"sample {rows['sample_id'][k]}: its true mask is {'×'.join(map(str, true_sizes[k]))} with "
            f"{store.areas[samples[k]]} pixels set, the mask of the audit {'×'.join(map(str, sizes[k]))}"
        )
    true = _packed(truth.counts.take(samples), sizes)
    edges = boundaries_of(true)
    columns: dict[str, Any] = {
        "sample_id": rows["sample_id"],
        "image_id": rows["image_id"],
        "area": pa.array(store.areas[samples]),
        "refined_area": rows["area"],
        "confidence": rows["confidence"],
        "kept": rows["kept"],
    }

    def measure(name: str, counts: Any, present: NDArray[np.int64]) -> None:
        masks = _packed(rle.column(text.encode() for text in counts), sizes[present])
        for what, mine, theirs in (
            ("iou", masks, true),
            ("boundary_iou", boundaries_of(masks), edges),
        ):
            values = np.zeros(len(sizes))
            values[present] = iou_with(mine, _some(theirs, present))
            columns[f"{what} of {name}"] = pa.array(values)

    everyone = np.arange(len(sizes))
    measure("original", rows["original_counts"].to_pylist(), everyone)
    measure("refined", rows["counts"].to_pylist(), everyone)
    row_of = {sample_id: k for k, sample_id in enumerate(ids)}
    by_proposer: dict[str, dict[int, str]] = {}
    for one in audit.candidates.to_pylist():
        of_proposer = by_proposer.setdefault(one["proposer"], {})
        if one["usable"] and one["sample_id"] in row_of:
            # A proposer may propose several; the first is what it would have answered alone.
            of_proposer.setdefault(row_of[one["sample_id"]], one["counts"])
    for name, proposed in by_proposer.items():
        present = np.array(sorted(proposed), np.int64)
        measure(name, [proposed[k] for k in present.tolist()], present)
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


def plot_curves(judgements: Sequence[tuple[str, Judgement]]) -> bytes:
    """Quality against the share kept, a column for each judgement, IoU above boundary IoU, as a PNG.

    Args:
        judgements: Title and judgement.

    Raises:
        UsageError: matplotlib is not installed.
    """
    from refcocom_gpu.errors import UsageError

    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'refcocom-gpu[construct]'") from None
    n = len(judgements)
    figure = Figure(figsize=(5.2 * n, 7.2), layout="constrained")
    axes = figure.subplots(2, n, sharex=True, squeeze=False)
    lines = (
        ("refined", "refined, most confident kept", "#1b7f4d", "-"),
        ("best", "best single proposer, same instances", "#3465a4", "-"),
        ("original", "original, same instances", "#c4552d", "-"),
        ("by_area", "refined, largest kept", "#888888", "--"),
        ("at_random", "refined, kept at random", "#888888", ":"),
    )
    for column, (title, judgement) in enumerate(judgements):
        for row, measure in enumerate(MEASURES):
            axis, curve = axes[row][column], judgement.curve(measure)
            share = to_numpy(curve["share"])
            for name, label, colour, style in lines:
                value = to_numpy(curve[name])
                axis.plot(share, value, style, color=colour, label=label)
                if f"{name}_se" in curve.column_names:
                    spread = Z * to_numpy(curve[f"{name}_se"])
                    axis.fill_between(
                        share, value - spread, value + spread, color=colour, alpha=0.15, lw=0
                    )
            axis.set_ylabel(
                f"mean {measure.replace('_', ' ').replace('iou', 'IoU')} with the truth"
            )
            axis.grid(alpha=0.3)
        axes[0][column].set_title(title)
        axes[1][column].set_xlabel("share of instances kept")
    axes[0][0].legend(fontsize=8, loc="lower left")
    buffer = io.BytesIO()
    # Without the software's version, the same figure is the same file.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _samples(truth: Dataset, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    known = {int(sample_id): row for row, sample_id in enumerate(truth.sample_ids)}
    absent = [int(s) for s in sample_ids if int(s) not in known]
    if absent:
        raise DataError(
            f"{truth.source} has no true mask for {len(absent):,} samples, the first is {absent[0]}"
        )
    return np.array([known[int(s)] for s in sample_ids], np.int64)


def _packed(strings: rle.Column, sizes: NDArray[np.int64]) -> Masks:
    """One mask a group."""
    runs = rle.parse(strings, sizes[:, 0] * sizes[:, 1])
    return pack_runs(runs.ends, runs.offsets, sizes, np.ones(len(sizes), np.int64))


def _some(masks: Masks, groups: NDArray[np.int64]) -> Masks:
    """Some groups of one mask each."""
    words = [masks.words[masks.word_offsets[g] : masks.word_offsets[g + 1]] for g in groups]
    lengths = np.array([len(w) for w in words], np.int64)
    return Masks(
        np.concatenate(words) if words else np.zeros(0, np.uint64),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.arange(len(groups) + 1),
        masks.heights[groups],
        masks.widths[groups],
    )
