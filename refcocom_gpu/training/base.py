"""The parts of torchmetrics that an exact metric replaces: states that ranks compare and merge, saved and loaded whole.

Beside its public interface, this class and `RefCOCOMMetric` rely on these names of torchmetrics: the methods
`_sync_dist`, `_reduce_states`, `_wrap_update` and `_wrap_compute`, which are overridden here, and the attributes
`_computed`, `_forward_cache`, `_is_synced`, `_to_sync` and `_update_count`.
`SingleScore` overrides `_apply` and `_load_from_state_dict`, and passes every attribute that it lacks on to its metric.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from refcocom_gpu.counting.rows import INTERSECTION, N_COLUMNS
from refcocom_gpu.errors import UsageError
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.ranks import gather, header, refuse_different
from refcocom_gpu.training.saving import Saver
from refcocom_gpu.training.state import empty_state, first_rank, merge


class _Sync(NamedTuple):
    """What a rank sent and got in a sync: its own [N + 1, 5] state, the merged one, and [N + 1] whose rows it has."""

    own: Tensor
    merged: Tensor
    owner: Tensor


class CountsMetric(Metric):
    """A metric whose state is a row of counts per example, as `training.state` describes it.

    Args:
        store: Ground truth.
        about: The dataset and the options that decide counts and scores.
        saver: Writes the predictions, if they are saved.
        n_columns: Columns of a row.
        kwargs: Of `torchmetrics.Metric`.

    Raises:
        UsageError: For `dist_sync_on_step`.
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
        about: tuple[Any, ...],
        saver: Saver | None,
        n_columns: int = N_COLUMNS,
        **kwargs: Any,
    ) -> None:
        # A rank whose shard has ended would answer from its cache while the others wait for it.
        kwargs.setdefault("compute_with_cache", False)
        if kwargs.get("dist_sync_on_step"):
            raise UsageError("forward scores this rank's batch: dist_sync_on_step is not for it")
        super().__init__(**kwargs)
        self.store = store
        self._saver = saver
        self._n_syncs = 0
        self._last_sync: _Sync | None = None
        # Which examples belong into the file of this rank: all, until another rank turns out to have some of them too.
        self._owned: NDArray[np.bool_] = np.ones(len(store), np.bool_)
        self._anything_seen = False
        # The first state: it tells apart ranks, checkpoints and groups of a collection that differ. Its last number
        # tells where predictions are saved, which does not matter to a checkpoint.
        folder = "" if saver is None else str(saver.folder.absolute())
        identity = torch.cat([_digest(repr(about)), _digest(folder)[:1]])
        self.add_state("identity", identity, dist_reduce_fx=_the_same)
        state = empty_state(len(store), n_columns=n_columns)
        self.add_state("counts", state, dist_reduce_fx=merge)
        self.to(store.device)

    def _note_update(self) -> None:
        # Through `__dict__`, because Module.__setattr__ costs as much as all of `update` apart from the kernel.
        fields = self.__dict__
        fields["_computed"] = None
        fields["_update_count"] += 1

    def _refuse_synced(self) -> None:
        if self._is_synced:
            raise TorchMetricsUserError(
                "the metric holds the counts of all ranks until unsync(), and would forget what is added now"
            )

    def _refuse_foreign(self) -> None:
        if self._saver is not None:
            raise UsageError(
                "a metric that saves predictions takes counts from update alone: the file would lack the others"
            )

    def reset(self) -> None:
        """Forget what was seen; saved predictions stay, and the next ones go into the folder of another epoch."""
        super().reset()
        self._owned = np.ones(len(self.store), np.bool_)
        if self._saver is not None:
            self._saver.next_epoch(anything_seen=self._anything_seen)
        self._anything_seen = False

    def unsync(self, should_unsync: bool = True) -> None:
        """As `torchmetrics.Metric.unsync`."""
        super().unsync(should_unsync)
        if should_unsync:
            self._owned = np.ones(len(self.store), np.bool_)

    @contextmanager
    def sync_context(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        should_unsync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> Iterator[None]:
        """As `torchmetrics.Metric.sync_context`, but return to the local state even if the block raises."""
        self.sync(dist_sync_fn, process_group, should_sync, distributed_available)
        try:
            yield
        finally:
            self.unsync(should_unsync=self._is_synced and should_unsync)

    def merge_state(self, incoming_state: Any) -> None:
        """Add the counts of another metric with the same dataset and options; counts of this one come first.

        Raises:
            SyncError: When the other metric scores something else.
            UsageError: When this metric saves predictions, because it has none of the other.
        """
        self._refuse_foreign()
        super().merge_state(incoming_state)

    def set_dtype(self, dst_type: Any) -> Self:
        """Do nothing, because counts are int64."""
        return self

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None
    ) -> None:
        group = process_group or self.process_group
        gather_from_ranks = gather if dist_sync_fn is gather_all_tensors else dist_sync_fn
        self._n_syncs += 1
        epoch = 0 if self._saver is None else self._saver.epoch
        last = self._last_sync
        unchanged = last is not None and _is_equal(last.own, self.counts)
        about = header(self.identity, self._n_syncs, epoch)
        headers = gather_from_ranks(torch.cat([about, about.new_tensor([unchanged])]), group=group)
        refuse_different([row[:-1] for row in headers])
        if last is None or not all(row[-1] for row in headers):
            own = self.counts.clone()
            states = torch.stack(gather_from_ranks(own, group=group))
            last = self._last_sync = _Sync(own, merge(states), first_rank(states))
        # Otherwise no rank has counted since the last sync: each score that is computed by itself asks for one.
        self.counts = last.merged
        if self._saver is not None:
            owned = last.owner == torch.distributed.get_rank(group)
            self._owned = owned[:-1].cpu().numpy()
            self._anything_seen |= bool((self.counts[:, INTERSECTION] >= 0).any())

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        _the_same(torch.stack([self.identity, incoming_state["identity"].to(self.device)]))
        self.counts = merge(torch.stack([self.counts, incoming_state["counts"].to(self.device)]))

    def _wrap_update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        # What torchmetrics does for a metric without gradients and lists, but faster.
        @functools.wraps(update)
        def counted(*args: Any, **kwargs: Any) -> None:
            self._note_update()
            update(*args, **kwargs)

        return counted

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        wrapped = super()._wrap_compute(compute)

        def compute_quietly(*args: Any, **kwargs: Any) -> Any:
            with warnings.catch_warnings():
                # A rank may have no batch, and incomplete counts raise an error.
                warnings.filterwarnings("ignore", "The ``compute`` method of metric")
                return wrapped(*args, **kwargs)

        return compute_quietly

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        identity, counts = (state_dict.get(f"{prefix}{name}") for name in ("identity", "counts"))
        if identity is not None and not torch.equal(identity[:-1].cpu(), self.identity[:-1].cpu()):
            raise UsageError("the checkpoint's counts are of another dataset or of other options")
        if counts is not None:
            self._refuse_foreign()
            if counts.shape != self.counts.shape or counts.dtype != torch.int64:
                raise UsageError("the checkpoint holds no counts of this dataset")
        own_identity = self.identity
        super()._load_from_state_dict(state_dict, prefix, *args)
        # Batches are added in place, which must not change the checkpoint.
        self.identity, self.counts = own_identity, self.counts.clone()


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and torch.equal(one, other)


def _digest(text: str) -> Tensor:
    """Return [4] int64 of 31 bits each, far enough apart for comparisons of states with a tolerance too."""
    digest = xxhash.xxh3_128_digest(text.encode())
    return torch.from_numpy(np.frombuffer(digest, "<u4").astype(np.int64) >> 1)


def _the_same(identities: Tensor) -> Tensor:
    # Without the last number: where predictions are saved does not matter to counts.
    refuse_different([header(identity[:-1], 0, 0) for identity in identities])
    return identities[0]
