"""Predictions and references in, a dict of scores out, with the methods that users of Hugging Face `evaluate` know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.integrations.truths import store_of_masks
from refcocom_gpu.scorer import score
from refcocom_gpu.store.store import MaskStore, as_store


class MaskEvaluation:
    """Scores masks as `score` does, with `add`, `add_batch` and `compute`.

    Args:
        dataset: What references name examples of: a store, a dataset, or its name or path. Without it, references are
            the true masks.
        options: Those of `score`, such as `missing`, `letterbox` or `values`.

    Example:
        >>> import numpy as np
        >>> metric = MaskEvaluation()
        >>> truth = np.array([[True, True], [False, False]])
        >>> metric.add_batch(predictions=[truth, ~truth], references=[truth, truth])
        >>> metric.compute()
        {'miou': 0.5, 'ciou': 0.333..., 'precision_at_0.5': 0.5, ..., 'n_examples': 2, 'n_missing': 0}
    """

    def __init__(
        self, dataset: MaskStore | Dataset | str | Path | None = None, **options: Any
    ) -> None:
        self._store = None if dataset is None else as_store(dataset)
        self._options = options
        self._predictions: list[Any] = []
        self._references: list[Any] = []

    def add(self, *, prediction: Any, reference: Any) -> None:
        """Add one example, as `add_batch` adds several."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> None:
        """Add examples.

        Args:
            predictions: A list of masks, logits or anything else that `score` takes, or [B, H, W]; None for an empty
                mask.
            references: As many: with a dataset, indices or keys such as `(sample_id, sentence_idx)`; without, true
                masks, as COCO RLE or [H, W] of bools or integers.

        Raises:
            UsageError: There are not as many references as predictions.
        """
        predictions, references = list(predictions), list(references)
        if len(predictions) != len(references):
            raise UsageError(
                f"{len(predictions)} predictions came with {len(references)} references"
            )
        self._predictions += predictions
        self._references += references

    def compute(
        self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None
    ) -> dict[str, float]:
        """Score what was added, with the examples given here, and forget it; after an error, it is still there.

        Args:
            predictions: As of `add_batch`.
            references: As of `add_batch`.

        Returns:
            `miou`, `ciou` and `precision_at_0.5` … in 0…1; `n_examples`, all that are scored, and `n_missing`, those of
            the dataset that no reference names, with `missing="zero"`.

        Raises:
            PredictionError: Predictions are wrong, an example is named twice, or with a dataset some examples are
                missing.
            UsageError: A reference is no mask, or no key; there are no examples; or an option is wrong.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions or [], references=references or [])
        predictions, references = self._predictions, self._references
        store = self._store
        if store is None:
            store, references = store_of_masks(references), list(range(len(references)))
        pairs = (([key], [one]) for key, one in zip(references, predictions, strict=True))
        result = score(pairs, store, **self._options)
        self._predictions, self._references = [], []
        return {
            "miou": result.miou,
            "ciou": result.ciou,
            **{f"precision_at_{x}": share for x, share in result.precision_at.items()},
            "n_examples": result.n_examples,
            "n_missing": result.n_missing,
        }
