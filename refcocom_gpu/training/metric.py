"""Batches of a validation loop in, the scores of the epoch out: a `torchmetrics.Metric` whose state is exact counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from refcocom_gpu.counting.choose import counter_on
from refcocom_gpu.counting.counter import Counter
from refcocom_gpu.counting.doubts import doubts
from refcocom_gpu.counting.measures import (
    ALONE,
    IOU,
    chosen_metrics,
    measured_columns,
    n_columns,
)
from refcocom_gpu.counting.rows import N_COUNTS, OTHER_RANK
from refcocom_gpu.counting.stacks import CountedBatch, Index, Stack, count_stacks
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import UnknownNameError, UsageError
from refcocom_gpu.predictions.arguments import ABSENT, UPDATE, index_and_masks
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scores.about import about_run
from refcocom_gpu.scores.boxes import check_truth
from refcocom_gpu.scores.conventions import check_official
from refcocom_gpu.scores.example_table import per_example
from refcocom_gpu.scores.no_target import label_columns
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.training.base import CountsMetric
from refcocom_gpu.training.batches import read_batch
from refcocom_gpu.training.labels import LABEL, N_LABELS, labelled, read_labels
from refcocom_gpu.training.saving import Saver
from refcocom_gpu.training.scores import (
    has_no_target,
    names_of_scores,
    refuse_conflicts,
    refuse_faults,
    refuse_missing,
    scores,
    seen,
    warn_of_doubts,
)
from refcocom_gpu.training.single import SingleScore
from refcocom_gpu.training.state import empty_state, record
from refcocom_gpu.training.subset import Subset, draw_subset

FULL, PARTIAL, ESTIMATE = "", "_partial", "_estimate"
"""What follows the name in the keys of scores, so that scores of a part are never taken for those of the whole."""


class RefCOCOMMetric(CountsMetric):
    """The scores of RefCOCO-M inside a training loop, equal to those of the saved predictions offline.

    The state is a row of counts per example, and an example counts once. Scores therefore do not depend on the batch
    size, the order, the number of ranks or a sampler that repeats examples to pad. `update` waits for no device.

    Args:
        store: Ground truth. Metrics that share a store share the memory of its masks. The store of a dataset, or of
            the name or path of one, is built first.
        values: What numbers are: `logits` (set above 0) or `probabilities` (set above 0.5). None takes floats for
            logits, and `compute` refuses an epoch of floats that look otherwise.
        label: The value of a set pixel in integer masks that hold several labels.
        letterbox: As of `ReadOptions`: the side of the padded square input (SAM, LISA: 1024), or `center`.
        resize_masks: `nearest` resizes masks of another size than their image; None refuses them.
        combine: `union` or `best` makes one of several masks for an expression; None refuses them.
        no_target_threshold: The score above which `no_target` says that an expression has no target.
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X instead of IoU ≥ X.
        metrics: What is counted: `iou`, which always is, `boundary`, which adds boundary IoU and Boundary F, and
            `causes`, which implies `boundary`, and `boxes`, which adds box IoU and accuracy; the causes are those of
            `result()`, no score.
        box_truth: What boxes are compared with, as for `score`.
        partial: Score what was seen, under `refcocom_partial/…`, instead of raising if examples are unseen.
        subset: Expect only the examples that `ExpressionDataset(…, subset=…, seed=…)` holds, and estimate the scores
            of all from them, under `refcocom_estimate/…` with their standard errors.
        seed: Seed of the subset.
        save_predictions: Folder for the predictions of each rank and epoch; `update` then waits for the device and
            writes them. An epoch ends with `reset`.
        name: The keys of the scores begin with it.
        kwargs: Of `torchmetrics.Metric`, such as `process_group`.

    Raises:
        UsageError: For an unknown option.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> metric = rc.RefCOCOMMetric(store)
    >>> for index in range(len(store)):
    ...     metric.update(store.mask(index), index)
    >>> metric.compute()["refcocom/miou"]
    tensor(1., dtype=torch.float64)
    """

    def __init__(
        self,
        store: MaskStore | Dataset | str | Path,
        *,
        values: str | None = None,
        label: int | None = None,
        letterbox: int | str | None = None,
        resize_masks: str | None = None,
        combine: str | None = None,
        no_target_threshold: float | None = None,
        convention: str = "official",
        precision_strict: bool = False,
        metrics: str | Sequence[str] = (IOU,),
        box_truth: str | None = None,
        partial: bool = False,
        subset: int | None = None,
        seed: int = 0,
        save_predictions: str | Path | None = None,
        name: str = "refcocom",
        **kwargs: Any,
    ) -> None:
        check_official(convention, "RefCOCOMMetric")
        counted = chosen_metrics(metrics, known=ALONE, where="RefCOCOMMetric")
        store = as_store(store)
        check_truth(box_truth, counted, stated=store.dataset.boxes is not None)
        options = ReadOptions(
            values=values,
            label=label,
            letterbox=letterbox,
            resize_masks=resize_masks,
            combine=combine,
            no_target_threshold=no_target_threshold,
        )
        saver = None
        if save_predictions is not None:
            saver = Saver(save_predictions, store, options)
        about = (
            store.dataset.fingerprint, values, label, letterbox and str(letterbox), resize_masks, combine,
            convention, precision_strict, subset, None if subset is None else seed, counted, box_truth,
            no_target_threshold,
        )  # fmt: skip
        super().__init__(store, about, saver, n_columns(counted) + N_LABELS, **kwargs)
        self.metrics, self.box_truth = counted, box_truth
        self.name = name
        self.convention, self.precision_strict = convention, precision_strict
        self.subset: Subset | None = None
        if subset is not None:
            self.subset = draw_subset(store.dataset, subset, seed)
        self._options = options
        self._partial = partial
        self._counter: Counter | None = None
        self._counter_device = torch.device("cpu")
        self._last: CountedBatch | None = None
        names = names_of_scores(
            estimated=self.subset is not None, metrics=counted, no_target=has_no_target(store)
        )
        self._single = {score: SingleScore(self, score) for score in names}

    @property
    def partial(self) -> bool:
        """Whether what was seen is scored, under other keys, if examples are unseen."""
        return self._partial

    @partial.setter
    def partial(self, partial: bool) -> None:
        if partial != self._partial:
            self._partial, self._computed = partial, None

    def update(self, masks: Any = ABSENT, index: Any = ABSENT, *, no_target: Any = None) -> None:
        """Count a batch.

        Args:
            masks: [B, h, w] or [B, 1, h, w] on the device of the metric, or B predictions in any container: arrays or
                tensors [h, w] there, PIL pictures, COCO RLE objects, or None for an empty mask. Floats are logits or
                probabilities at any resolution. Bools and integers are masks of the size of the image. A dict maps row
                numbers or keys to predictions.
            index: [B] row numbers of the examples, on that device or on the host; or [B, 2] keys
                `(sample_id, sentence_idx)`, which are looked up on the host.
            no_target: [B] whether the model says that an expression has no target: bools, or floats if
                `no_target_threshold` is given. Such a prediction counts as an empty mask, whatever its mask is.

        Raises:
            UsageError: When shapes or devices do not fit, a prediction is nothing of the kind, or `index` is a target
                mask.
            PredictionError: For an index that is not a row, a mask of another size than its image, integers of several
                values, logits that are not finite, undeclared scores: nothing of the batch is counted. Also for an
                example that was seen before with other counts, because `reset` was forgotten. On a device, `compute`
                raises it instead, unless predictions are saved.
        """
        indices, stacks, codes = self._read(masks, index, no_target)
        batch = self._count(stacks, indices, codes)
        if self._saver is not None:
            self._saver.write(stacks, indices, codes)
        if record(self.counts, batch.index, batch.rows):
            refuse_conflicts(self.counts.numpy(), self.store)
        # Through `__dict__`, because Module.__setattr__ takes 10 µs, a tenth of what `update` costs beside counting.
        self.__dict__["_last"] = batch

    def count(self, masks: Any = ABSENT, index: Any = ABSENT, *, no_target: Any = None) -> Tensor:
        """Count a batch without adding it, for trainers that gather the outputs of all ranks themselves.

        Args:
            masks: As for `update`.
            index: As for `update`.
            no_target: As for `update`.

        Returns:
            [B, 1 + C] int64 on the device of the metric, for `add`: the index and a row of the state.
        """
        indices, stacks, codes = self._read(masks, index, no_target)
        return self._count(stacks, indices, codes).table()

    def add(self, rows: Any) -> None:
        """Add rows that `count` returned, on this rank or others; rows may repeat.

        Args:
            rows: [B, 1 + C] int64.

        Raises:
            UsageError: When the table is something else, or in host memory holds an index that no store has.
        """
        self._refuse_synced()
        table = torch.as_tensor(rows)
        width = 1 + self.counts.shape[1]
        if table.dtype != torch.int64 or table.ndim != 2 or table.shape[1] != width:
            raise UsageError(
                f"rows are [B, {width}] int64 as `count` gives them, not {tuple(table.shape)} {table.dtype}; "
                "a Trainer needs preprocess_logits_for_metrics as well as compute_metrics"
            )
        table = table.to(self.counts.device)
        n = len(self.store)
        # Only what is in host memory is looked at. Row N takes what a device could not name.
        if table.is_cpu and len(table) and not (table[:, 0].min() >= 0 and table[:, 0].max() <= n):
            raise UsageError(f"rows hold an index outside 0…{n}; they are of another dataset")
        self._note_update()
        # Rows may be of other ranks, or left over from an evaluation that was broken off.
        record(self._writable(), table[:, 0], table[:, 1:], OTHER_RANK)

    def reset(self) -> None:
        """As `CountsMetric.reset`; the next epoch is looked at for padding again."""
        super().reset()
        self._counter = None

    def _count(self, stacks: list[Stack], index: Index, codes: Tensor | None) -> CountedBatch:
        device = self.counts.device
        if self._counter is None or self._counter_device != device:
            self._counter = counter_on(self.store, self._options, device, self.metrics)
            self._counter_device = device
        return labelled(count_stacks(self._counter, stacks, index), codes)

    def _read(
        self, masks: Any, index: Any, no_target: Any
    ) -> tuple[Index, list[Stack], Tensor | None]:
        """Return the arguments of `update` as indices, stacks and codes, checked to be on the device of the state."""
        self._refuse_synced()
        index, masks = index_and_masks(index, masks, UPDATE)
        device = self._writable().device
        indices, stacks = read_batch(masks, index, self.store.dataset, self._options, device)
        for stack in stacks:
            if stack.values is not None and stack.values.device != device:
                raise UsageError(
                    f"predictions are on {stack.values.device}, the metric on {device}; "
                    f"call metric.to({str(stack.values.device)!r}) once before the loop"
                )
        codes = read_labels(no_target, len(indices), self._options.no_target_threshold, device)
        return indices, stacks, codes

    def _writable(self) -> Tensor:
        """Return the state; torch forbids writing outside of inference mode to one that was reset inside it."""
        if self.counts.is_inference() and not torch.is_inference_mode_enabled():
            self.counts = self.counts.clone()
        return self.counts

    def forward(
        self, masks: Any = ABSENT, index: Any = ABSENT, *, no_target: Any = None
    ) -> dict[str, Tensor]:
        """Count a batch, and return the scores of this batch alone.

        Returns:
            What `compute` returns with `partial=True`: `refcocom_partial/miou` and so on.
        """
        # torchmetrics would put the state aside and compute; an error would then lose the state.
        self.update(masks, index, no_target=no_target)
        assert self._last is not None
        rows = self._last.table().cpu()
        state = empty_state(len(self.store), n_columns=self.counts.shape[1])
        record(state, rows[:, 0], rows[:, 1:])
        # A part of the set shows only the faults of its predictions.
        refuse_faults(state.numpy(), self.store, self._options, whole=False)
        scores = self._scores(state.numpy(), PARTIAL, None)
        self._forward_cache = scores
        return scores

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of the epoch, of all ranks.

        Returns:
            `refcocom/miou`, `refcocom/ciou` and `refcocom/precision_at_0.5` … `_0.9`, with the metric `boundary`
            `refcocom/boundary_iou`, `…/min_mask_boundary_iou`, `…/boundary_f`, and with `boxes` `refcocom/box_iou` and
            `…/box_accuracy`, and where examples of the store have no target `refcocom/n_acc` and `…/t_acc`,
            0-dimensional float64 in 0…1;
            `refcocom/n_examples` and `refcocom/n_conflicting` (seen twice with different counts), int64.

        Raises:
            PredictionError: When a prediction was wrong, or examples are unseen and `partial` is False.
            SyncError: When a rank does not answer, or scores something else.
        """
        rows = self.counts.cpu().numpy()
        refuse_faults(rows, self.store, self._options)
        if self._saver is not None:
            self._saver.finish(self._owned)
        subset = self.subset
        expected = np.arange(len(self.store)) if subset is None else subset.indices
        unexpected = np.setdiff1d(seen(rows), expected)
        if len(unexpected):
            raise UsageError(
                f"{len(unexpected):,} examples do not belong to the subset, first index {unexpected[0]}; "
                "the loader must hold ExpressionDataset(…, subset=…, seed=…) of the same size and seed"
            )
        if not self.partial:
            refuse_missing(rows, self.store, expected)
        warn_of_doubts(rows, self.store)
        if self.partial:
            return self._scores(rows, PARTIAL, None)
        return self._scores(rows, FULL if subset is None else ESTIMATE, subset)

    def result(self) -> Result:
        """Return the epoch as `score` does: a table of all examples, which can be saved, compared and scored again.

        Raises:
            PredictionError: When examples are unseen, or a prediction was wrong.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            rows = self.counts.cpu().numpy()
        everything = np.arange(len(self.store))
        refuse_faults(rows, self.store, self._options)
        refuse_missing(rows, self.store, everything)
        sample = self.store.example_sample
        measured = measured_columns(rows[:-1], sample, self.metrics, self.store)
        measured |= label_columns(rows[:-1, LABEL])
        table = per_example(self.store, rows[:-1, :N_COUNTS], everything[:0], measured)
        info = {
            **about_run(self.store, str(self.counts.device)),
            "predictions": {"source": "memory"},
            "options": {"missing": "error", **asdict(self._options)},
            "metrics": list(self.metrics),
            "warnings": doubts(rows[:-1], everything, self.store),
        }
        return Result(table, info, self.convention, self.precision_strict, box_truth=self.box_truth)

    def __getitem__(self, name: str) -> SingleScore:  # type: ignore[override]
        """Return one score as a metric of its own, which shares the state of this one.

        Args:
            name: `miou`, `ciou`, `precision_at_0.5` … `precision_at_0.9`; with a subset `miou`, `miou_se`, `ciou`,
                `ciou_se`.

        Raises:
            UnknownNameError: There is no such score; the message lists them.

        >>> import refcocom_gpu as rc
        >>> metric = rc.RefCOCOMMetric(rc.MaskStore.build(rc.load_dataset("sample"), cache=False), partial=True)
        >>> metric.update(None, 0)
        >>> metric["miou"].compute()  # in a LightningModule: self.log("miou", self.metric["miou"])
        tensor(0., dtype=torch.float64)
        """
        if name not in self._single:
            raise UnknownNameError(f"no score {name!r}, only {', '.join(self._single)}")
        return self._single[name]

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """As of any module, and the single scores: Lightning looks for a logged metric among these."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        for name, single in self._single.items():
            # A dot would separate a module from its parts.
            path = ".".join(filter(None, [prefix, name.replace(".", "_")]))
            yield from single.named_modules(memo, path, remove_duplicate)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot scores with Matplotlib, without the numbers of examples.

        Args:
            val: The return value of `compute` or `forward`, or a list of them; by default that of `compute()`.
            ax: Axes to draw on.
        """
        val = self.compute() if val is None else val
        listed = val if isinstance(val, list | tuple) else [val]
        shown = [{k: v for k, v in one.items() if "/n_" not in k} for one in listed]
        return self._plot(shown if isinstance(val, list | tuple) else shown[0], ax)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_counter": None, "_last": None, "_last_sync": None}

    def _scores(
        self, rows: NDArray[np.int64], label: str, subset: Subset | None
    ) -> dict[str, Tensor]:
        index = seen(rows)
        named = scores(
            rows[index],
            index,
            self.store,
            convention=self.convention,
            precision_strict=self.precision_strict,
            subset=subset,
            metrics=self.metrics,
            box_truth=self.box_truth,
        )
        return {
            f"{self.name}{label}/{key}": torch.tensor(
                value,
                dtype=torch.int64 if isinstance(value, int) else torch.float64,
                device=self.counts.device,
            )
            for key, value in named.items()
        }
