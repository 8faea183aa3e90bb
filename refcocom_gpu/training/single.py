"""A metric and the name of a score in; a torchmetrics `Metric` of that score alone out, which shares all state."""

from __future__ import annotations

import warnings
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric

from refcocom_gpu.errors import PredictionError
from refcocom_gpu.predictions.arguments import ABSENT
from refcocom_gpu.training.base import CountsMetric
from refcocom_gpu.training.limits import SANITY_CHECK, limit_here


class SingleScore(Metric):
    """One score of a `RefCOCOMMetric`, such as `metric["miou"]`, for what wants a metric of a scalar.

    It holds nothing itself: updates, resets and moves to a device are those of the metric, and so is what torchmetrics
    looks up. In Lightning, `self.log("miou", metric["miou"])` logs the score of each epoch and resets the metric.

    Where a Lightning trainer runs a part of the batches on purpose (the sanity check, `fast_dev_run`,
    `limit_val_batches`), an incomplete score is NaN, because the name under which it is logged cannot say that it is
    partial. Anywhere else it is an error. With `partial=True` it is the score of what was seen.

    Args:
        metric: A `RefCOCOMMetric`, whose state is shared.
        name: Of the score, without the name of the metric.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, metric: CountsMetric, name: str) -> None:
        # Not Metric's, which would make a state. In `__dict__`, because the metric is no part of this module.
        torch.nn.Module.__init__(self)
        self.__dict__.update(metric=metric, name=name)

    def update(self, masks: Any = ABSENT, index: Any = ABSENT, *, no_target: Any = None) -> None:
        """As `RefCOCOMMetric.update`."""
        self.metric.update(masks, index, no_target=no_target)

    def forward(self, masks: Any = ABSENT, index: Any = ABSENT, *, no_target: Any = None) -> Tensor:
        """As `RefCOCOMMetric.forward`; return the score of this batch alone."""
        return self._of(self.metric(masks, index, no_target=no_target))

    def compute(self) -> Tensor:
        """Return the score of the epoch, of all ranks.

        Returns:
            0-dimensional float64; NaN for a part of the examples that Lightning was told to run.

        Raises:
            PredictionError: When a prediction was wrong, or examples are unseen otherwise.
            SyncError: When a rank does not answer, or scores something else.
        """
        try:
            return self._of(self.metric.compute())
        except PredictionError as error:
            limit = limit_here() if set(error.counts) == {"missing"} else None
            if limit is None:
                raise
            if limit != SANITY_CHECK:  # whose values Lightning throws away
                warnings.warn(
                    f"refcocom: {self.name} is NaN: {limit} left out {error.counts['missing']:,} of "
                    f"{len(self.metric.store):,} examples; RefCOCOMCallback logs such scores as partial",
                    UserWarning,
                    stacklevel=2,
                )
        return self._of({})

    def _of(self, scores: dict[str, Tensor]) -> Tensor:
        """Return this score; NaN if there is none, such as the standard error of a part."""
        for key, value in scores.items():
            if key.endswith(f"/{self.name}"):
                return value
        return torch.tensor(torch.nan, dtype=torch.float64, device=self.metric.device)

    @property
    def _forward_cache(self) -> Tensor | None:  # type: ignore[override]
        # Lightning takes the score of a step from here.
        scores = self.metric._forward_cache
        return None if scores is None else self._of(scores)

    def reset(self) -> None:
        """As `RefCOCOMMetric.reset`."""
        self.metric.reset()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As `torchmetrics.Metric.sync`."""
        self.metric.sync(*args, **kwargs)

    def unsync(self, should_unsync: bool = True) -> None:
        """As `torchmetrics.Metric.unsync`."""
        self.metric.unsync(should_unsync)

    def sync_context(self, *args: Any, **kwargs: Any) -> Any:
        """As `torchmetrics.Metric.sync_context`."""
        return self.metric.sync_context(*args, **kwargs)

    def merge_state(self, incoming_state: Any) -> None:
        """As `RefCOCOMMetric.merge_state`."""
        shared = isinstance(incoming_state, SingleScore)
        self.metric.merge_state(incoming_state.metric if shared else incoming_state)

    def set_dtype(self, dst_type: Any) -> Self:
        """Do nothing, because counts are int64."""
        return self

    def extra_repr(self) -> str:
        """Return the name of the score."""
        return str(self.name)

    def _apply(self, fn: Any, exclude_state: Any = "") -> Self:
        self.metric._apply(fn, exclude_state)
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        self.metric._load_from_state_dict(*args)

    def __getattr__(self, name: str) -> Any:
        if "metric" not in self.__dict__:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.metric, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # A collection makes the metrics of a group share their states and number of updates.
        shared = name in vars(self.metric) and name not in self.__dict__
        setattr(self.metric, name, value) if shared else super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
