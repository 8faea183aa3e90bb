"""Logits for SAM's resizing in two steps in, counts out. The kernels resize in one step, so plain torch counts here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.batches import ArrayBatch
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import NON_FINITE, as_tensor, finite_range, logit_mask
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from torch import Tensor


def sam_counts(
    batch: ArrayBatch, store: MaskStore, options: ReadOptions, problems: Problems, device: Any
) -> tuple[Tensor, bool]:
    """Count each array on a device with `refcocom_kernels.reference`.

    Returns:
        [B, 2] int64 on the device, zeros for rows recorded as problems, and whether all values lay in 0…1.
    """
    import torch
    from refcocom_kernels import reference

    counts = torch.zeros((len(batch.index), 2), dtype=torch.int64, device=device)
    only_unit_range = True
    for row, array in enumerate(batch.arrays):
        logits = as_tensor(array).to(device)
        value_range = finite_range(logits)
        if value_range is None:
            problems.add("non-finite", batch.where(row), NON_FINITE)
            only_unit_range = False
            continue
        only_unit_range &= value_range[0] >= 0 and value_range[1] <= 1
        target = torch.from_numpy(store.mask(int(batch.index[row])).astype(np.bool_)).to(device)
        mask = logit_mask(logits, target.shape[0], target.shape[1], options)
        counts[row] = reference.mask_counts(mask, target)
    return counts, only_unit_range
