"""Counts of every example in, a result out: its scores, and a folder from which they are computed again.

`per_example.parquet` holds one row per example in index order. `summary.json` holds the scores and what they are scores
of. `folder` writes and checks the two files; every score is computed again from the Parquet alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import (
    boundary,
    boxes,
    consistency,
    metrics,
    saved_masks,
    thresholds,
    under,
)
from refcocom_gpu.scores import causes as failures
from refcocom_gpu.scores import slices as slicing
from refcocom_gpu.scores.conventions import OFFICIAL, check_official, get_convention
from refcocom_gpu.scores.example_table import with_iou
from refcocom_gpu.scores.folder import (
    HASH,
    MASKS,
    MASKS_HASH,
    SCHEMA_VERSION,
    read_result,
    write_result,
)
from refcocom_gpu.scores.no_target import NoTargetScores, no_target_scores, rejections_of
from refcocom_gpu.scores.saved_masks import MasksFile
from refcocom_gpu.scores.under import EMPTY, MISSING, sample_numbers
from refcocom_gpu.scores.views import ResultViews
from refcocom_gpu.utils.arrow import to_numpy

if TYPE_CHECKING:
    from refcocom_gpu.masks.rle import Column
    from refcocom_gpu.store.store import MaskStore


@dataclass(frozen=True, eq=False, repr=False)
class Result(ResultViews):
    """The outcome of scoring one set of predictions.

    Predictions that are boxes have the scores `box_iou` and `box_accuracy`; every score of masks is a `UsageError`.

    Attributes:
        per_example: `SCHEMA`, the IoU of the official convention as `iou`, and the columns of other metrics, one row
            per example in index order; N rows.
        info: What the scores are scores of: dataset, predictions, device, versions, wall time.
        convention: Name of the convention.
        precision_strict: True when Pr@X counts IoU > X, False for IoU ≥ X; None as the convention does.
        sliced: The groupings whose slices the summary holds.
        box_truth: What boxes are compared with: `bbox`, those of the records; `mask`, those of the true masks; None for
            `bbox` where every record states one.
        held_masks: The masks, or the file that holds them; `masks` reads it.
    """

    per_example: pa.Table
    info: dict[str, Any] = field(default_factory=dict)
    convention: str = "official"
    precision_strict: bool | None = None
    sliced: tuple[str, ...] = ()
    box_truth: str | None = None
    held_masks: Column | MasksFile | None = None

    def under(self, convention: str) -> Result:
        """Return the result of the same counts under another convention; Pr@X compares as that one does.

        Args:
            convention: Its name.

        Raises:
            UsageError: For an unknown name, or of predictions that are boxes.

        >>> import refcocom_gpu as rc
        >>> result = rc.score("sample", rc.MaskStore.build(rc.load_dataset("sample"), cache=False))
        >>> result.under("cris").n_examples, result.under("cris").under("official").miou == result.miou
        (105, True)
        """
        if get_convention(convention) is not OFFICIAL:
            boxes.refuse_given(self.per_example)
        return Result(
            self.per_example,
            self.info,
            convention,
            box_truth=self.box_truth,
            held_masks=self.held_masks,
        )

    @property
    def is_strict(self) -> bool:
        """Whether Pr@X counts IoU > X instead of IoU ≥ X."""
        given = self.precision_strict
        return get_convention(self.convention).strict if given is None else given

    @cached_property
    def is_counted(self) -> NDArray[np.bool_]:
        """[N] whether the convention scores each example; the official one scores all."""
        return under.chosen(get_convention(self.convention), self.per_example)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """[N] float64 IoU per example, also of those that the convention leaves out."""
        return under.ious_of(get_convention(self.convention), self.per_example)

    @cached_property
    def miou(self) -> float:
        """Mean IoU over all examples that count: the official score, 0…1."""
        return under.mean_iou(get_convention(self.convention), self.iou[self.is_counted])

    @cached_property
    def ciou(self) -> float:
        """Cumulative IoU: ΣI / ΣU, 0…1."""
        convention = get_convention(self.convention)
        counts = (x[self.is_counted] for x in under.counts_of(self.per_example, convention))
        return under.cumulative_iou(convention, *counts)

    @cached_property
    def precision_at(self) -> metrics.ByThreshold:
        """Share of examples with IoU at or above 0.5, 0.6, 0.7, 0.8, 0.9, or above what the convention prints.

        Another threshold is an `UnknownNameError`.
        """
        return under.precision_at(
            get_convention(self.convention),
            self.iou[self.is_counted],
            to_numpy(self.per_example.column("target_area"))[self.is_counted],
            strict=self.precision_strict,
        )

    @cached_property
    def miou_by_category(self) -> dict[str, float]:
        """Mean IoU over the examples of each category."""
        encoded = self.per_example.column("category").combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = to_numpy(encoded.indices)[self.is_counted]
        by_code = metrics.mean_by(self.iou[self.is_counted], codes)
        return dict(sorted((names[code], score) for code, score in by_code.items()))

    @cached_property
    def miou_per_instance(self) -> float:
        """Mean over samples of their expressions' mean IoU: each sample counts once, however often it is described."""
        numbers = sample_numbers(self.per_example)[self.is_counted]
        return metrics.mean(metrics.mean_of_each(self.iou[self.is_counted], numbers))

    @cached_property
    def miou_worst_sentence(self) -> float:
        """Mean over samples of the lowest IoU of their expressions: what the worst wording of each reaches."""
        numbers = sample_numbers(self.per_example)[self.is_counted]
        return consistency.mean_of_worst(self.iou[self.is_counted], numbers)

    @cached_property
    def hard_pass_rate(self) -> float:
        """Share of samples all of whose expressions reach IoU 0.5 (above it, if `is_strict`)."""
        numbers = sample_numbers(self.per_example)[self.is_counted]
        return consistency.hard_pass_rate(self.iou[self.is_counted], numbers, strict=self.is_strict)

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        check_official(self.convention, "pairwise IoU")
        empty = get_convention(self.convention).empty
        return consistency.pair_ious(*consistency.pair_columns(self.per_example), empty=empty)

    @property
    def pairwise_iou(self) -> float:
        """Mean over samples of the mean IoU of each two predictions for one; NaN where none has two sentences.

        Pairs were counted only with `metrics=["iou", "consistency"]`; otherwise `UsageError` is raised.
        """
        return consistency.pairwise_iou(*self._pairs)

    @property
    def consistency(self) -> dict[str, Any]:
        """What `scores.consistency.summary` says; nothing if pairs were not counted or as of `cause_summary`."""
        if self.convention != OFFICIAL.name or not consistency.are_counted(self.per_example):
            return {}
        return consistency.summary(*self._pairs, self.miou_worst_sentence, self.hard_pass_rate)

    @cached_property
    def causes(self) -> NDArray[np.str_]:
        """[N] why each prediction fails, or that it is right: one of `scores.causes.CAUSES`.

        Causes were counted only with `metrics=["iou", "causes"]`; otherwise `UsageError` is raised.
        """
        check_official(self.convention, "causes")
        columns = failures.cause_columns(self.per_example)
        return np.array(failures.CAUSES)[failures.cause_places(*columns)]

    @cached_property
    def cause_summary(self) -> dict[str, Any]:
        """What `scores.causes.summary` says; nothing if causes were not counted or the convention is another."""
        if self.convention != OFFICIAL.name or not failures.are_counted(self.per_example):
            return {}
        return failures.summary(*failures.cause_columns(self.per_example))

    @cached_property
    def boundary_values(self) -> dict[str, NDArray[np.float64]]:
        """[N] float64 per example: boundary IoU, min(IoU, boundary IoU), Boundary F; see `scores.boundary`.

        They and their means below were counted only with `metrics=["iou", "boundary"]`; otherwise `UsageError` is
        raised.
        """
        check_official(self.convention, "boundary quality")
        columns = boundary.boundary_columns(self.per_example)
        empty = get_convention(self.convention).empty
        return boundary.boundary_values(columns, self.iou, empty)

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
        """The three means by name; none if boundaries were not counted or the convention is not the official one."""
        if self.convention != OFFICIAL.name or not boundary.are_counted(self.per_example):
            return {}
        return {name: metrics.mean(values) for name, values in self.boundary_values.items()}

    @cached_property
    def box_values(self) -> dict[str, NDArray[np.float64]]:
        """[N] float64 per example: box IoU, and 1 or 0 for accuracy; see `scores.boxes`.

        They and their means below were counted only with `metrics=["iou", "boxes"]`; otherwise `UsageError` is raised.
        """
        check_official(self.convention, "box scores")
        truth = boxes.truth_of(self.per_example, self.box_truth)
        empty = get_convention(self.convention).empty
        columns = boxes.box_columns(self.per_example)
        return boxes.box_values(columns, truth, empty, strict=self.is_strict)

    @property
    def box_iou(self) -> float:
        """Mean box IoU over all examples, 0…1."""
        return metrics.mean(self.box_values["box_iou"])

    @property
    def box_accuracy(self) -> float:
        """Share of examples with box IoU at or above 0.5, or above it where `is_strict`."""
        return metrics.mean(self.box_values["box_accuracy"])

    @property
    def box_scores(self) -> dict[str, Any]:
        """Both by name and the `box_truth` of them; none if boxes were not counted or as of `boundary_scores`."""
        if self.convention != OFFICIAL.name or not boxes.are_counted(self.per_example):
            return {}
        truth = boxes.truth_of(self.per_example, self.box_truth)
        return {"box_iou": self.box_iou, "box_accuracy": self.box_accuracy, "box_truth": truth}

    def threshold_curve(self) -> pa.Table:
        """Score every threshold: `thresholds.CURVE_SCHEMA`; counted only with `metrics=["iou", "thresholds"]`."""
        check_official(self.convention, "a curve over thresholds")
        empty = get_convention(self.convention).empty
        return thresholds.curve(self.per_example, empty=empty, strict=self.is_strict)

    @property
    def best_threshold(self) -> thresholds.BestThreshold:
        """The threshold with the highest mIoU, and its gain over the one in use.

        It is chosen on the examples that it is scored on, so both are optimistic: choose a threshold on other data.
        """
        return thresholds.best(self.per_example, self.threshold_curve())

    def interpolations(self) -> pa.Table:
        """Score each interpolation that was counted: `thresholds.INTERPOLATION_SCHEMA`."""
        check_official(self.convention, "interpolations side by side")
        return thresholds.interpolations(
            self.per_example, empty=get_convention(self.convention).empty
        )

    @cached_property
    def reading_scores(self) -> dict[str, Any]:
        """What `thresholds.summary` says; nothing if nothing was counted or the convention is another."""
        if self.convention != OFFICIAL.name:
            return {}
        return thresholds.summary(self.per_example, empty=OFFICIAL.empty, strict=self.is_strict)

    @cached_property
    def n_examples(self) -> int:
        """Number of examples in the denominator."""
        return int(np.count_nonzero(self.is_counted))

    @cached_property
    def n_missing(self) -> int:
        """Number of examples that had no prediction and were scored as empty."""
        return int(self._has(MISSING).sum())

    @cached_property
    def n_empty(self) -> int:
        """Number of examples whose predicted mask has no pixel."""
        return int(self._has(EMPTY).sum())

    @cached_property
    def n_no_target(self) -> int:
        """Number of examples whose true mask has no pixel, because the expression refers to nothing in the image."""
        targets = to_numpy(self.per_example.column("target_area"))[self.is_counted]
        return int(np.count_nonzero(targets == 0))

    @property
    def n_acc(self) -> float:
        """Share of the examples without a target that are rejected (N-acc); NaN if all have a target.

        The label of a prediction rejects, or an empty mask where it has none; see `scores.no_target`.
        """
        return self._no_target.n_acc

    @property
    def t_acc(self) -> float:
        """Share of the examples with a target that are not rejected (T-acc); NaN if none has one."""
        return self._no_target.t_acc

    @cached_property
    def _no_target(self) -> NoTargetScores:
        counts = (counts[self.is_counted] for counts in under.counts_of(self.per_example))
        rejected = rejections_of(self.per_example)[self.is_counted]
        return no_target_scores(*counts, rejected=rejected)

    def _has(self, status: str) -> NDArray[np.bool_]:
        """[N] whether an example has this status."""
        # Not pc.equal with a string, which imports pandas.
        names, codes = self._statuses
        has: NDArray[np.bool_] = codes == (names.index(status) if status in names else -1)
        return has

    @cached_property
    def _statuses(self) -> tuple[list[str], NDArray[np.int32]]:
        """The statuses that occur, and [N] which of them each example has."""
        encoded = self.per_example.column("status").combine_chunks().dictionary_encode()
        return encoded.dictionary.to_pylist(), to_numpy(encoded.indices)

    @overload
    def slices(self) -> list[str]: ...

    @overload
    def slices(self, name: str) -> pa.Table: ...

    def slices(self, name: str | None = None) -> list[str] | pa.Table:
        """Score the slices of a grouping, which hold each example once.

        Args:
            name: Of the grouping; None for the names that there are.

        Returns:
            `scores.slices.SCHEMA`: a row per slice with its numbers of examples, images and missing predictions, mIoU,
            its standard error clustered by image (null in few images), cIoU and Pr@0.5.

        Raises:
            UsageError: For an unknown name, or for `complexity` where `with_slices` has not added what it needs.

        >>> import refcocom_gpu as rc
        >>> result = rc.score("sample", rc.MaskStore.build(rc.load_dataset("sample"), cache=False))
        >>> result.slices("size").column("n_examples").to_pylist()
        [90, 204, 3]
        """
        if name is None:
            return slicing.names_of(self.per_example)
        return pa.Table.from_pylist(self.slice_rows(name), slicing.SCHEMA)

    def slice_rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of `slices(name)`, ready for JSON."""
        check_official(self.convention, "slices")
        return slicing.slice_rows(
            slicing.slicing_of(self.per_example, name),
            to_numpy(self.per_example.column("image_id")),
            self.iou,
            under.counts_of(self.per_example),
            self._has(MISSING),
            empty=get_convention(self.convention).empty,
            strict=self.is_strict,
        )

    def with_slices(
        self,
        names: str | Iterable[str] = (),
        *,
        tags: str | Path | slicing.Tags | None = None,
        store: MaskStore | None = None,
    ) -> Result:
        """Return the same result with a summary that holds slices, and a table that holds what they need.

        Args:
            names: Groupings, or `all` that there are; `complexity` only with a store, or where it was asked for before.
            tags: A file of tags (see `scores.slices.tags`); each of its columns is a grouping too.
            store: Ground truth of this result, from which `complexity` is computed.

        Raises:
            UsageError: For an unknown name, another convention than the official one, a file that cannot be read,
                `complexity` without a store, or a store of another dataset.
            TagsError: When the file does not fit the examples.
        """
        check_official(self.convention, "slices")
        boxes.refuse_given(self.per_example)
        table, info = self.per_example, self.info
        of_file: list[str] = []
        if tags is not None:
            read = tags if isinstance(tags, slicing.Tags) else slicing.read_tags(tags, table)
            table, of_file = slicing.with_tags(table, read.columns), [*read.columns]
            info = {**info, "tags": [*info.get("tags", ()), read.about]}
        if store is not None:
            true = self.info.get("dataset", {}).get("fingerprint", store.dataset.fingerprint)
            if true != store.dataset.fingerprint or len(store) != len(table):
                raise UsageError(f"the result is not one of {store}: their datasets differ")
            table = slicing.with_masks(table, names, store)
        sliced = [*self.sliced, *slicing.chosen(names, slicing.names_of(table)), *of_file]
        return replace(self, per_example=table, info=info, sliced=tuple(dict.fromkeys(sliced)))

    @cached_property
    def masks(self) -> Column | None:
        """The predicted masks as N RLE strings in index order, empty without a prediction; None if none are held.

        They are at hand after `save_masks=true`; those of a folder are read and checked now, or `ResultsError` is
        raised.
        """
        held = self.held_masks
        return held.read(self.per_example) if isinstance(held, MasksFile) else held

    def mask_of(self, index: int) -> NDArray[np.bool_]:
        """Return the predicted mask of one example: [H, W] bool, with no pixel where there was no prediction.

        Raises:
            UsageError: The result holds no masks.
            ResultsError: The file of masks is absent or altered.
            IndexError: There is no such example.
        """
        return saved_masks.mask_of(self.per_example, self.masks, index)

    def with_masks(
        self, predictions: Any, *, store: MaskStore | None = None, **reading: Any
    ) -> Result:
        """Return the same result with masks, from the predictions that it was scored from, given again.

        Args:
            predictions: As for `score`.
            store: Ground truth, where `keys` or `name` need more of it than the table holds.
            reading: Fields of `ReadOptions` that are now others than those that were scored with.

        Raises:
            ResultsError: They are others: the hash of their file, which are missing, or the area of a mask.
            PredictionError: They cannot be read.

        >>> import refcocom_gpu as rc
        >>> result = rc.score("sample", "sample")
        >>> int(result.with_masks("sample").mask_of(0).sum()) == result.per_example["pred_area"][0].as_py()
        True
        """
        from refcocom_gpu.scores.masks_again import masks_again

        masks = masks_again(self.per_example, self.info, predictions, store, **reading)
        return replace(self, held_masks=masks)

    def summary(self) -> dict[str, Any]:
        """Return every score and what it is a score of, ready for JSON."""
        if boxes.are_given(self.per_example):
            return self._summary_of_boxes()
        return {
            "schema": "refcocom-summary",
            "version": SCHEMA_VERSION,
            "miou": self.miou,
            "ciou": self.ciou,
            **self.boundary_scores,
            **self.box_scores,
            "precision_at": {str(x): share for x, share in self.precision_at.items()},
            "miou_per_instance": self.miou_per_instance,
            "miou_worst_sentence": self.miou_worst_sentence,
            "hard_pass_rate": self.hard_pass_rate,
            "miou_by_category": self.miou_by_category,
            "n_examples": self.n_examples,
            "n_missing": self.n_missing,
            "n_empty": self.n_empty,
            **self._about_no_target(),
            # Duplicates are refused, never averaged or dropped: the zero tells a reader of the file so.
            "n_duplicate": 0,
            "convention": self.convention,
            "precision": ">" if self.is_strict else ">=",
            **({"consistency": self.consistency} if self.consistency else {}),
            **({"causes": said} if (said := self.cause_summary) else {}),
            **self.reading_scores,
            "slices": {name: self.slice_rows(name) for name in self.sliced},
            **self._about_convention(),
            **self.info,
        }

    def _summary_of_boxes(self) -> dict[str, Any]:
        """Return what `summary` does, of predictions that are boxes."""
        n_no_target = self.n_no_target
        return {
            "schema": "refcocom-summary",
            "version": SCHEMA_VERSION,
            **self.box_scores,
            "n_examples": self.n_examples,
            "n_missing": self.n_missing,
            "n_empty": self.n_empty,
            **({"n_no_target": n_no_target} if n_no_target else {}),
            "n_duplicate": 0,
            "convention": self.convention,
            "precision": ">" if self.is_strict else ">=",
            "slices": {},
            **self.info,
        }

    def _about_convention(self) -> dict[str, str]:
        """Return why the scores are not exactly what the evaluator prints, and which masks were resized for it."""
        convention, table = get_convention(self.convention), self.per_example
        said = {
            "approximate": under.caveat(convention, table),
            "resized": under.resized(convention, table),
        }
        return {name: text for name, text in said.items() if text}

    def _about_no_target(self) -> dict[str, Any]:
        """Return what the summary says of a set in which some examples have no target; nothing of another set."""
        if not self.n_no_target:
            return {}
        # JSON has no NaN: T-acc is null where no example has a target.
        t_acc = None if math.isnan(self.t_acc) else self.t_acc
        return {"n_no_target": self.n_no_target, "n_acc": self.n_acc, "t_acc": t_acc}

    def save(
        self, folder: str | Path, *, overwrite: bool = False, config: bytes | None = None
    ) -> Path:
        """Write `per_example.parquet` and `summary.json`, and with masks `predictions.parquet`, which `score` reads.

        Args:
            folder: Made where absent; other files in it are left alone.
            overwrite: Replace an existing result.
            config: Content of `config.yaml`, the keys of the command that made the result.

        Returns:
            The folder.

        Raises:
            UsageError: When the folder holds a result and `overwrite` is False, or when it cannot be written.
        """
        masks = None
        if self.masks is not None:
            fingerprint = self.info.get("dataset", {}).get("fingerprint")
            masks = saved_masks.masks_bytes(self.per_example, self.masks, fingerprint)
        write_result(
            folder,
            self.per_example,
            self.summary(),
            overwrite=overwrite,
            masks=masks,
            config=config,
        )
        return Path(folder)


def load_result(folder: str | Path) -> Result:
    """Read back what `Result.save` wrote; every score is computed again from the Parquet alone.

    Args:
        folder: Holds `per_example.parquet` and `summary.json`.

    Raises:
        ResultsError: When a file is absent, altered since it was written, or of a newer schema version.
    """
    table, summary = read_result(folder)
    result = Result(
        with_iou(table),
        convention=summary["convention"],
        precision_strict=summary["precision"] == ">",
        sliced=tuple(summary.get("slices", ())),
        box_truth=summary.get("box_truth"),
        held_masks=MasksFile(Path(folder) / MASKS, digest)
        if (digest := summary.get(MASKS_HASH)) is not None
        else None,
    )
    computed = {*result.summary(), HASH, MASKS_HASH}
    result.info.update({key: value for key, value in summary.items() if key not in computed})
    return result
