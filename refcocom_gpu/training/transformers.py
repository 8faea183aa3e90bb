"""Logits of a batch in, counts for a Transformers `Trainer` to gather out; gathered counts in, scores out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from refcocom_gpu.errors import UsageError
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.metric import RefCOCOMMetric


class TrainerHook:
    """The two functions of a `Trainer` that turn logits into scores.

    ```python
    hook = TrainerHook(store)
    Trainer(
        args=TrainingArguments(label_names=["index"], ...),
        preprocess_logits_for_metrics=hook.preprocess_logits_for_metrics,
        compute_metrics=hook.compute_metrics, ...)
    ```

    Each rank counts its own batch, so the trainer gathers six integers per example and no masks. An example that a
    sampler repeats counts once. `label_names=["index"]` makes the trainer keep the index beside the batch. The trainer
    then passes the whole batch, `index` included, to the model's `forward`, and expects a loss because it treats
    `index` as a label.

    Args:
        store: Ground truth.
        preds: Which of the model's outputs after the loss holds the masks; needed if several could.
        label: Which of `label_names` is `index`.
        options: Options of `RefCOCOMMetric`: `values`, `letterbox`, `convention`, `precision_strict`, `partial`,
            `subset`, `seed`, `name`.

    Raises:
        UsageError: For `save_predictions`, since the trainer gathers counts and no masks.

    >>> import numpy as np, refcocom_gpu as rc, torch
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> hook = TrainerHook(store, partial=True)
    >>> rows = hook.preprocess_logits_for_metrics(torch.full((2, 1, 8, 8), -1.0), torch.tensor([0, 0]))
    >>> scores = hook.compute_metrics((rows.numpy(), np.array([0, 0])))
    >>> scores["refcocom_partial/miou"], scores["refcocom_partial/n_examples"]
    (0.0, 1)
    """

    def __init__(
        self, store: MaskStore, *, preds: int | None = None, label: int = -1, **options: Any
    ) -> None:
        if options.get("save_predictions") is not None:
            raise UsageError(
                "a Trainer gathers counts, not masks, so it cannot take save_predictions"
            )
        self._preds, self._label = preds, label
        self._rows: list[Any] = []
        # The trainer has already gathered the counts of all ranks, so the metric must not.
        self._metric = RefCOCOMMetric(store, sync_on_compute=False, **options)

    def preprocess_logits_for_metrics(self, logits: Any, labels: Any) -> Tensor:
        """Count a batch.

        Args:
            logits: [B, h, w] or [B, 1, h, w], or a tuple of outputs.
            labels: [B] indices, or a tuple of labels.

        Returns:
            [B, 1 + C] int64, on the device of the logits.

        Raises:
            UsageError: When it is not clear which output holds the masks, or there is no index.
        """
        preds = self._masks_of(logits)
        index = labels[self._label] if isinstance(labels, tuple | list) else labels
        if index is None:
            raise UsageError(
                'the batch has no index; pass TrainingArguments(label_names=["index"])'
            )
        if preds.device != self._metric.device:
            self._metric.to(preds.device)
        return self._metric.count(preds, index)

    def compute_metrics(self, prediction: Any, compute_result: bool = True) -> dict[str, Any]:
        """Score the epoch.

        Args:
            prediction: `EvalPrediction` whose predictions are the gathered outputs of `preprocess_logits_for_metrics`.
            compute_result: False for all batches but the last, with `batch_eval_metrics=True`.

        Returns:
            Score by name; the trainer puts `eval_` before each name. Empty while `compute_result` is False.

        Raises:
            PredictionError: When examples are unseen, or a prediction was wrong.
        """
        rows = prediction[0]
        self._rows += rows if isinstance(rows, list) else [rows]
        if not compute_result:
            return {}
        # The metric keeps the first counts of an example. So the latest come first: an evaluation that was broken off
        # may have left older ones.
        latest_first, self._rows = self._rows[::-1], []
        try:
            for part in latest_first:
                self._metric.add(part.flip(0) if isinstance(part, Tensor) else np.array(part[::-1]))
            return {key: value.item() for key, value in self._metric.compute().items()}
        finally:
            self._metric.reset()

    def _masks_of(self, logits: Any) -> Tensor:
        if isinstance(logits, Tensor):
            return logits
        if self._preds is not None:
            chosen: Tensor = logits[self._preds]
            return chosen
        masks = [output for output in logits if isinstance(output, Tensor) and output.ndim > 2]
        if len(masks) != 1:
            shapes = ", ".join(
                str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
                for output in logits
            )
            raise UsageError(
                f"the model's outputs after the loss are {shapes}; TrainerHook(…, preds=K) says which are the masks"
            )
        return masks[0]
