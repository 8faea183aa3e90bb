"""An mmengine metric: the data samples of a batch in, the scores of the epoch out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.normalise import as_ints
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.training.metric import RefCOCOMMetric


@METRICS.register_module()
class RefCOCOMEvaluator(BaseMetric):  # type: ignore[misc]
    """An evaluator for a config: `val_evaluator = dict(type="RefCOCOMEvaluator", dataset="sample")`.

    Ranks exchange counts as `RefCOCOMMetric` does. mmengine's own way interleaves the results of all ranks and cuts the
    list at the size of the dataset, which is right for its own sampler only.

    Args:
        dataset: The ground truth: a name or path for `load_dataset`, a dataset, or a store.
        preds: Key of a data sample's mask or logits, [h, w] or [1, h, w].
        index: Key of the index of its example.
        options: Options of `RefCOCOMMetric`.
    """

    def __init__(
        self,
        dataset: str | Path | Dataset | MaskStore = "moondream/refcoco-m",
        *,
        preds: str = "preds",
        index: str = "index",
        **options: Any,
    ) -> None:
        name = options.setdefault("name", "refcocom")
        super().__init__(prefix=name)
        if not isinstance(dataset, MaskStore):
            loaded = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
            dataset = MaskStore.build(loaded)
        self.metric = RefCOCOMMetric(dataset, **options)
        self._preds, self._index = preds, index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count a batch.

        Args:
            data_batch: Not read.
            data_samples: B samples with the predictions and the indices.
        """
        for sample in data_samples:
            if lacking := [key for key in (self._preds, self._index) if key not in sample]:
                raise UsageError(f"a data sample has no {lacking[0]!r}, only {', '.join(sample)}")
        preds = [sample[self._preds] for sample in data_samples]
        if preds and isinstance(preds[0], torch.Tensor) and preds[0].device != self.metric.device:
            self.metric.to(preds[0].device)
        self.metric.update(preds, as_ints([sample[self._index] for sample in data_samples]))

    def evaluate(self, size: int) -> dict[str, Any]:
        """Return the scores of the epoch, on every rank.

        Args:
            size: Not read, since each example has its index.

        Raises:
            PredictionError: When examples are unseen, or a prediction was wrong; `metric.reset()` forgets the epoch.
        """
        scores = self.compute_metrics([])
        self.metric.reset()
        return scores

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        """Return the scores of what was processed.

        Args:
            results: Not read.
        """
        return {key: value.item() for key, value in self.metric.compute().items()}
