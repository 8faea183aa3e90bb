"""A Lightning callback: the outputs of `validation_step` in, the scores of the epoch logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

try:
    from lightning.pytorch import Callback
except ImportError:  # the package's older name
    from pytorch_lightning import Callback  # type: ignore[assignment]

from refcocom_gpu.errors import UsageError
from refcocom_gpu.training.limits import limit_of
from refcocom_gpu.training.metric import RefCOCOMMetric


class RefCOCOMCallback(Callback):
    """Scores what `validation_step` and `test_step` return, and logs the scores at the end of the epoch.

    Scores of a part of the examples are logged as `refcocom_partial/…`: those of the sanity check, `fast_dev_run`,
    `limit_val_batches` and `limit_test_batches`. Without the callback, `self.log("miou", metric["miou"])` logs one
    score under a name of your own, and NaN where the callback would log a partial score.

    Args:
        metric: The metric. The callback resets it at the start of an epoch and moves it to the module's device.
        preds: Key of the predictions where the step returns a mapping; a step may also return the predictions alone.
        index: Key of the indices in that mapping, or else in the batch.
        dataloader_idx: Which of several loaders loads this dataset; needed if there are several.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> callback = RefCOCOMCallback(rc.RefCOCOMMetric(store))  # Trainer(callbacks=[callback])
    """

    def __init__(
        self,
        metric: RefCOCOMMetric,
        *,
        preds: str = "preds",
        index: str = "index",
        dataloader_idx: int | None = None,
    ) -> None:
        self.metric, self.preds, self.index = metric, preds, index
        self.dataloader_idx = dataloader_idx

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
        if self.dataloader_idx is None and dataloader_idx > 0:
            raise UsageError(
                "there are several loaders; RefCOCOMCallback(…, dataloader_idx=K) says which one loads this dataset"
            )
        if dataloader_idx != (self.dataloader_idx or 0):
            return
        preds = outputs
        if isinstance(outputs, Mapping):
            if self.preds not in outputs:
                raise UsageError(
                    f"the step's outputs have no {self.preds!r}, only {', '.join(outputs)}"
                )
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
        self._log(pl_module, limited=limit_of(trainer) is not None)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _log(self, pl_module: Any, *, limited: bool) -> None:
        scores = self._scores(partial=self.metric.partial or limited)
        # A limit beyond the last batch leaves out no example.
        n_seen = next(int(n) for key, n in scores.items() if key.endswith("/n_examples"))
        if limited and not self.metric.partial and n_seen == len(self.metric.store):
            scores = self._scores(partial=False)
        # Every rank has the same number. Their maximum is exactly that number, whereas a mean may round.
        pl_module.log_dict(
            {key: value.to(torch.float64) for key, value in scores.items()},
            sync_dist=True,
            reduce_fx="max",
        )

    def _scores(self, *, partial: bool) -> dict[str, torch.Tensor]:
        before = self.metric.partial
        self.metric.partial = partial
        try:
            return self.metric.compute()
        finally:
            self.metric.partial = before
