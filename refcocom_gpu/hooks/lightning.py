"""A Lightning callback: the outputs of `validation_step` in, the scores of the epoch logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

try:
    from lightning.pytorch import Callback
except ImportError:  # the same under its older name
    from pytorch_lightning import Callback  # type: ignore[assignment]

from refcocom_gpu.errors import UsageError
from refcocom_gpu.hooks.metric import RefCOCOMMetric


class RefCOCOMCallback(Callback):
    """Scores what `validation_step` and `test_step` return, and logs it at the end of the epoch.

    What is only a part is logged as `refcocom_partial/…`: the sanity check, `fast_dev_run`, `limit_val_batches` and
    `limit_test_batches`.

    Args:
        metric: How to score. The callback resets it at the start of an epoch and moves it to the module's device.
        preds: Where a mapping that the step returns holds the predictions; a step may also return them alone.
        index: Where that mapping, or else the batch, holds the indices.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> callback = RefCOCOMCallback(rc.RefCOCOMMetric(store))  # Trainer(callbacks=[callback])
    """

    def __init__(
        self, metric: RefCOCOMMetric, *, preds: str = "preds", index: str = "index"
    ) -> None:
        self.metric, self.preds, self.index = metric, preds, index

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an epoch."""
        self.metric.to(pl_module.device)
        self.metric.reset()

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        preds = outputs
        if isinstance(outputs, Mapping):
            if self.preds not in outputs:
                raise UsageError(f"the step returned no {self.preds!r} among {', '.join(outputs)}")
            preds = outputs[self.preds]
        if preds is None:
            raise UsageError("the step returned nothing; it should return the predictions")
        for holder in (outputs, batch):
            if isinstance(holder, Mapping) and self.index in holder:
                self.metric.update(preds, holder[self.index])
                return
        raise UsageError(
            f"neither the step's outputs nor the batch hold {self.index!r}; "
            "ExpressionDataset with collate_fn=collate puts it into the batch"
        )

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores."""
        limited = trainer.sanity_checking or trainer.limit_val_batches != 1.0
        self._log(pl_module, limited=bool(limited or trainer.fast_dev_run))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores."""
        limited = trainer.limit_test_batches != 1.0
        self._log(pl_module, limited=bool(limited or trainer.fast_dev_run))

    def _log(self, pl_module: Any, *, limited: bool) -> None:
        before = self.metric.partial
        self.metric.partial = before or limited
        try:
            scores = self.metric.compute()
        finally:
            self.metric.partial = before
        # Every rank has the same numbers. The largest of them is that number still, which a mean may not be.
        pl_module.log_dict(
            {key: value.to(torch.float64) for key, value in scores.items()},
            sync_dist=True,
            reduce_fx="max",
        )
