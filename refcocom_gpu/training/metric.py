"""Batches of a validation loop in, the scores of the epoch out: a `torchmetrics.Metric` whose state is exact counts."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from refcocom_gpu.counting.choose import counter_on
from refcocom_gpu.counting.counter import Counter
from refcocom_gpu.counting.rows import INTERSECTION, N_COLUMNS, N_COUNTS
from refcocom_gpu.counting.stacks import CountedBatch, Index, Stack, count_stacks
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scores.conventions import get_convention
from refcocom_gpu.scores.result import Result, about_run, per_example
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.batches import as_index, as_stacks
from refcocom_gpu.training.ranks import gather, header, refuse_different
from refcocom_gpu.training.saving import Saver
from refcocom_gpu.training.scores import check, scores, seen
from refcocom_gpu.training.state import empty_state, first_rank, merge, record
from refcocom_gpu.training.subset import Subset, draw_subset

FULL, PARTIAL, ESTIMATE = "", "_partial", "_estimate"
"""What follows the name in the keys of a score: a part of the examples never goes by the name of the whole."""


class RefCOCOMMetric(Metric):
    """RefCOCO-M's scores inside a training loop, equal to scoring the saved predictions offline.

    The state is a row of counts per example, so nothing depends on the batch size, the order, the number of ranks or
    on a sampler that repeats examples to pad: an example counts once. `update` waits for no device.

    Args:
        store: Ground truth. Its masks are in memory once, however many metrics share them.
        values: What float predictions are: `logits` (set above 0) or `probabilities` (set above 0.5).
        letterbox: Side of the padded square input when the image fills only its top-left part (SAM, LISA: 1024).
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X instead of IoU ≥ X.
        partial: Score what was seen, under `refcocom_partial/…`, instead of raising where examples are unseen.
        subset: Expect only the examples that `ExpressionDataset(…, subset=…, seed=…)` holds, and estimate the scores
            of all from them, under `refcocom_estimate/…` with their standard errors.
        seed: Of the subset.
        save_predictions: Folder for the predictions of each rank and epoch, as they come; `update` then waits for
            them. An epoch ends with `reset`.
        name: What the keys begin with.
        kwargs: Of `torchmetrics.Metric`, such as `process_group`.

    Raises:
        UsageError: For an option that is not known.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> metric = rc.RefCOCOMMetric(store)
    >>> for index in range(len(store)):
    ...     metric.update(store.mask(index), index)
    >>> metric.compute()["refcocom/miou"]
    tensor(1., dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    identity: Tensor
    counts: Tensor
    _forward_cache: Any

    def __init__(
        self,
        store: MaskStore,
        *,
        values: str = "logits",
        letterbox: int | None = None,
        convention: str = "official",
        precision_strict: bool = False,
        partial: bool = False,
        subset: int | None = None,
        seed: int = 0,
        save_predictions: str | Path | None = None,
        name: str = "refcocom",
        **kwargs: Any,
    ) -> None:
        # A rank whose shard has ended would answer from its cache while the others wait for it.
        kwargs.setdefault("compute_with_cache", False)
        if kwargs.get("dist_sync_on_step"):
            raise UsageError("forward scores this rank's batch: dist_sync_on_step is not for it")
        super().__init__(**kwargs)
        get_convention(convention)
        self.store = store
        self.name = name
        self.convention, self.precision_strict = convention, precision_strict
        self.subset: Subset | None = None
        if subset is not None:
            self.subset = draw_subset(store.dataset, subset, seed)
        self._options = ReadOptions(values=values, letterbox=letterbox)
        self._partial = partial
        self._counter: Counter | None = None
        self._last: CountedBatch | None = None
        self._counter_device = torch.device("cpu")
        self._saver: Saver | None = None
        if save_predictions is not None:
            self._saver = Saver(save_predictions, store, self._options)
        self._n_syncs = 0
        # Which examples belong into this rank's file: all, unless another rank has them too.
        self._owned: NDArray[np.bool_] = np.ones(len(store), np.bool_)
        self._anything_seen = False
        about = (
            store.dataset.fingerprint, values, letterbox and int(letterbox), convention, precision_strict, subset,
            None if subset is None else seed,
        )  # fmt: skip
        # The first state, so that ranks, checkpoints and the groups of a collection that differ are told apart; where
        # predictions go to is of no account to a checkpoint.
        where = "" if save_predictions is None else str(Path(save_predictions).absolute())
        identity = torch.cat([_digest(repr(about)), _digest(where)[:1]])
        self.add_state("identity", identity, dist_reduce_fx=_the_same)
        self.add_state("counts", empty_state(len(store)), dist_reduce_fx=merge)
        self.to(store.device)

    @property
    def partial(self) -> bool:
        """Whether the score of what was seen is given, labelled, where examples are unseen."""
        return self._partial

    @partial.setter
    def partial(self, partial: bool) -> None:
        if partial != self._partial:
            self._partial, self._computed = partial, None

    def update(self, preds: Any, index: Any) -> None:
        """Count a batch.

        Args:
            preds: [B, h, w] or [B, 1, h, w], or a list of B [h, w]: floats are logits or probabilities at any
                resolution; bools and integers are masks, resized as certain probabilities are where they have not
                the image's size. On the device of the metric.
            index: [B] row numbers of the examples, on that device or on the host.

        Raises:
            UsageError: When shapes or devices do not fit.
            PredictionError: For an index that is no row, a mask with its sides swapped, logits that are not finite;
                nothing of the batch is counted. On a device, which nobody waits for, `compute` raises it.
        """
        indices, stacks = self._read(preds, index)
        batch = self._count(stacks, indices)
        if self._saver is not None:
            self._saver.write(stacks, indices)
        record(self.counts, batch.index, batch.rows)
        self._last = batch

    def count(self, preds: Any, index: Any) -> Tensor:
        """Count a batch without adding it, for trainers that gather what each rank found themselves.

        Args:
            preds: As for `update`.
            index: As for `update`.

        Returns:
            [B, 6] int64 on the metric's device, for `add`: the index and what was counted.
        """
        indices, stacks = self._read(preds, index)
        return self._count(stacks, indices).table()

    def add(self, rows: Any) -> None:
        """Add what `count` gave, on this rank or others, each as often as it likes.

        Args:
            rows: [B, 6] int64.
        """
        self._refuse_synced()
        table = torch.as_tensor(rows)
        if table.dtype != torch.int64 or table.ndim != 2 or table.shape[1] != 1 + N_COLUMNS:
            raise UsageError(
                f"rows are [B, 6] int64 as `count` gives them, not {tuple(table.shape)} {table.dtype}; a Trainer needs "
                "preprocess_logits_for_metrics as well as compute_metrics"
            )
        table = table.to(self.counts.device)
        self._update_count += 1
        self._computed = None
        record(self._writable(), table[:, 0], table[:, 1:])

    def _count(self, stacks: list[Stack], index: Index) -> CountedBatch:
        device = self.counts.device
        if self._counter is None or self._counter_device != device:
            self._counter = counter_on(self.store, self._options, device)
            self._counter_device = device
        return count_stacks(self._counter, stacks, index)

    def _read(self, preds: Any, index: Any) -> tuple[Index, list[Stack]]:
        """What `update` was given, on the device of the state."""
        self._refuse_synced()
        indices = as_index(index)
        stacks = as_stacks(preds, len(indices))
        device = self._writable().device
        for stack in stacks:
            if stack.values.device != device:
                raise UsageError(
                    f"predictions are on {stack.values.device}, the metric on {device}; "
                    f"call metric.to({str(stack.values.device)!r}) once before the loop"
                )
        return indices, stacks

    def _refuse_synced(self) -> None:
        if self._is_synced:
            raise TorchMetricsUserError(
                "the metric holds the counts of all ranks until unsync(), and would forget what is added now"
            )

    def _writable(self) -> Tensor:
        """The state; one that was reset in inference mode may not be written to out of it."""
        if self.counts.is_inference() and not torch.is_inference_mode_enabled():
            self.counts = self.counts.clone()
        return self.counts

    def forward(self, preds: Any, index: Any) -> dict[str, Tensor]:
        """Count a batch, and score it alone.

        Returns:
            What `compute` gives with `partial=True`, of this batch: `refcocom_partial/miou` and so on.
        """
        # Not as torchmetrics does it, which puts the state aside and computes: an error there loses the state.
        self.update(preds, index)
        assert self._last is not None
        rows = self._last.table().cpu()
        state = empty_state(len(self.store))
        record(state, rows[:, 0], rows[:, 1:])
        check(state.numpy(), self.store, wanted=None)
        scores = self._scores(state.numpy(), PARTIAL, None)
        self._forward_cache = scores
        return scores

    def compute(self) -> dict[str, Tensor]:
        """The scores of the epoch, of all ranks.

        Returns:
            `refcocom/miou`, `refcocom/ciou` and `refcocom/precision_at_0.5` … `_0.9`, 0-dimensional float64 in 0…1;
            `refcocom/n_examples` and `refcocom/n_conflicting` (seen twice with different counts), int64.

        Raises:
            PredictionError: When examples are unseen and `partial` is False, or a prediction was wrong.
            SyncError: When a rank does not answer, or scores something else.
        """
        if self._saver is not None:
            self._saver.finish(self._owned)
        rows = self.counts.cpu().numpy()
        subset = self.subset
        expected = np.arange(len(self.store)) if subset is None else subset.indices
        unexpected = np.setdiff1d(seen(rows), expected)
        if len(unexpected):
            raise UsageError(
                f"{len(unexpected):,} examples do not belong to the subset, first index {unexpected[0]}; "
                "the loader must hold ExpressionDataset(…, subset=…, seed=…) of the same size and seed"
            )
        wanted = None if self.partial else expected
        check(rows, self.store, wanted=wanted, options=self._options)
        if self.partial:
            return self._scores(rows, PARTIAL, None)
        return self._scores(rows, FULL if subset is None else ESTIMATE, subset)

    def result(self) -> Result:
        """The epoch as `score` gives it: a table of all examples, to be saved, compared, scored again.

        Raises:
            PredictionError: When examples are unseen, or a prediction was wrong.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            rows = self.counts.cpu().numpy()
        everything = np.arange(len(self.store))
        check(rows, self.store, wanted=everything, options=self._options)
        table = per_example(self.store, rows[:-1, :N_COUNTS], everything[:0])
        info = {
            **about_run(self.store, str(self.counts.device)),
            "predictions": {"source": "memory"},
            "options": {"missing": "error", **asdict(self._options)},
        }
        return Result(table, info, self.convention, self.precision_strict)

    def reset(self) -> None:
        """Forget what was seen; saved predictions stay, and the next go into another epoch's folder."""
        super().reset()
        self._owned = np.ones(len(self.store), np.bool_)
        if self._saver is not None:
            self._saver.next_epoch(anything_seen=self._anything_seen)
        self._anything_seen = False

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot scores with Matplotlib, without the numbers of examples beside them.

        Args:
            val: What `compute` or `forward` gave, or a list of such; `compute()` by default.
            ax: Axes to draw on.
        """
        val = self.compute() if val is None else val
        listed = val if isinstance(val, list | tuple) else [val]
        shown = [{k: v for k, v in one.items() if "/n_" not in k} for one in listed]
        return self._plot(shown if isinstance(val, list | tuple) else shown[0], ax)

    # torchmetrics ---------------------------------------------------------------------------------

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None
    ) -> None:
        group = process_group or self.process_group
        ask = gather if dist_sync_fn is gather_all_tensors else dist_sync_fn
        self._n_syncs += 1
        epoch = 0 if self._saver is None else self._saver.epoch
        refuse_different(ask(header(self.identity, self._n_syncs, epoch), group=group))
        states = torch.stack(ask(self.counts, group=group))
        self.counts = merge(states)
        if self._saver is not None:
            own = first_rank(states) == torch.distributed.get_rank(group)
            self._owned = own[:-1].cpu().numpy()
            self._anything_seen |= bool((self.counts[:, INTERSECTION] >= 0).any())

    def unsync(self, should_unsync: bool = True) -> None:
        """As torchmetrics' own."""
        super().unsync(should_unsync)
        if should_unsync:
            self._owned = np.ones(len(self.store), np.bool_)

    def merge_state(self, incoming_state: Any) -> None:
        """Add the counts of another metric, of the same dataset and options; its own counts come first.

        Raises:
            SyncError: When the other scores something else.
            UsageError: When this one saves predictions, of which those are not.
        """
        self._refuse_foreign()
        super().merge_state(incoming_state)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        _the_same(torch.stack([self.identity, incoming_state["identity"].to(self.device)]))
        self.counts = merge(torch.stack([self.counts, incoming_state["counts"].to(self.device)]))

    def _refuse_foreign(self) -> None:
        if self._saver is not None:
            raise UsageError(
                "a metric that saves predictions takes counts from update alone: the file would lack the others"
            )

    def set_dtype(self, dst_type: Any) -> RefCOCOMMetric:
        """Nothing: counts are int64."""
        return self

    @contextmanager
    def sync_context(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        should_unsync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> Iterator[None]:
        """As torchmetrics' own, and back in the local state also where the block raises."""
        self.sync(dist_sync_fn, process_group, should_sync, distributed_available)
        try:
            yield
        finally:
            self.unsync(should_unsync=self._is_synced and should_unsync)

    def _wrap_update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        # What torchmetrics' own does for a metric without gradients and lists: its way through Module.__setattr__ costs
        # as much as all of `update` beside the kernel.
        @functools.wraps(update)
        def counted(*args: Any, **kwargs: Any) -> None:
            fields = self.__dict__
            fields["_computed"] = None
            fields["_update_count"] += 1
            update(*args, **kwargs)

        return counted

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        wrapped = super()._wrap_compute(compute)

        def compute_quietly(*args: Any, **kwargs: Any) -> Any:
            with warnings.catch_warnings():
                # A rank without a batch is legitimate, and what is incomplete raises.
                warnings.filterwarnings("ignore", "The ``compute`` method of metric")
                return wrapped(*args, **kwargs)

        return compute_quietly

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_counter": None, "_last": None}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        held = [state_dict.get(f"{prefix}{name}") for name in ("identity", "counts")]
        if held[0] is not None and not torch.equal(held[0][:-1].cpu(), self.identity[:-1].cpu()):
            raise UsageError("the checkpoint's counts are of another dataset or of other options")
        if held[1] is not None:
            self._refuse_foreign()
            if held[1].shape != self.counts.shape or held[1].dtype != torch.int64:
                raise UsageError("the checkpoint holds no counts of this dataset")
        own = self.identity
        super()._load_from_state_dict(state_dict, prefix, *args)
        # Counts are added in place, which the checkpoint must not notice.
        self.identity, self.counts = own, self.counts.clone()

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
        )
        return {
            f"{self.name}{label}/{key}": torch.tensor(
                value,
                dtype=torch.int64 if isinstance(value, int) else torch.float64,
                device=self.counts.device,
            )
            for key, value in named.items()
        }


def _digest(text: str) -> Tensor:
    """[4] int64 of 31 bits each: far enough apart also for those who compare states with a tolerance."""
    digest = xxhash.xxh3_128_digest(text.encode())
    return torch.from_numpy(np.frombuffer(digest, "<u4").astype(np.int64) >> 1)


def _the_same(identities: Tensor) -> Tensor:
    # Where predictions go to does not matter to counts.
    refuse_different([header(identity[:-1], 0, 0) for identity in identities])
    return identities[0]
