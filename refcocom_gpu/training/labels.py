"""What `update` gets as `no_target` in, codes beside the rows of counts out: the last column of a training state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refcocom_gpu.counting.rows import reject
from refcocom_gpu.counting.stacks import CountedBatch
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.batches import row_of_batch
from refcocom_gpu.predictions.labels import (
    UNREADABLE,
    check_shape,
    label_codes,
    listed_labels,
    tensor_codes,
    why_unreadable,
)

LABEL = -1
"""The column of a state that holds codes of `predictions.labels`, after those of `counting.rows`."""

N_LABELS = 1
"""How many columns a state has beside those of `counting.rows`."""


def read_labels(
    values: Any, n: int, threshold: float | None, device: torch.device
) -> Tensor | None:
    """Read the argument `no_target` of `RefCOCOMMetric.update`.

    Args:
        values: [B] or [B, 1] bools or scores on any device, or in any container; None for no labels.
        n: B.
        threshold: Of scores.
        device: That of the metric.

    Returns:
        [B] int64 codes there; None for no labels. A tensor on another device than the CPU is not waited for; what is
        wrong with it is marked `UNREADABLE`.

    Raises:
        PredictionError: What is in host memory is neither a label nor a declared score.
        UsageError: The labels have another shape.
    """
    if values is None:
        return None
    if isinstance(values, Tensor) and not values.is_cpu:
        check_shape(tuple(values.shape), n)
        return tensor_codes(values.detach().reshape(-1), threshold).to(device)
    listed = listed_labels(values, n)
    codes = label_codes(listed, threshold)
    problems = Problems()
    for row in (codes == UNREADABLE).nonzero()[0].tolist():
        reason = why_unreadable(listed[row], threshold)
        problems.add("malformed no_target", row_of_batch(row), reason)
    problems.raise_if_any()
    return torch.from_numpy(codes).to(device)


def labelled(batch: CountedBatch, codes: Tensor | None) -> CountedBatch:
    """Return a counted batch whose rows end with labels, and in which a rejected prediction counts as an empty mask.

    Args:
        batch: [B, C] rows, which change.
        codes: [B], on the device of the rows; None for no labels.
    """
    if codes is None:
        return CountedBatch(batch.index, torch.nn.functional.pad(batch.rows, (0, N_LABELS)))
    reject(batch.rows, codes)
    return CountedBatch(batch.index, torch.cat([batch.rows, codes[:, None]], 1))
