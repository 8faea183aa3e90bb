"""A tensor of this rank in, those of all ranks out, or an error that says which rank is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from refcocom_gpu.errors import SyncError, UsageError
from refcocom_gpu.utils.text import first_line


def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """Gather a tensor from all ranks, waiting no longer than the process group's timeout.

    NCCL raises no error at its timeout: its watchdog ends the process and names the collective that waited.

    Args:
        tensor: Has the same number of dimensions on all ranks.
        group: Process group; all ranks by default.

    Returns:
        One tensor per rank.

    Raises:
        SyncError: When a rank does not answer in time.
        UsageError: When this rank is not in the group.
    """
    group = dist.group.WORLD if group is None else group
    if dist.get_rank(group) < 0:
        raise UsageError(
            "this rank is not in the metric's process_group; make and use the metric on the group's ranks only"
        )
    try:
        if dist.get_backend(group) == "gloo" and (timeout := _timeout(group)) is not None:
            # Unlike a plain barrier, this one names the ranks that are missing.
            dist.monitored_barrier(group, timeout, wait_all_ranks=True)
        gathered: list[Tensor] = gather_all_tensors(tensor, group)
    except RuntimeError as error:
        raise SyncError(
            f"rank {dist.get_rank(group)} of {dist.get_world_size(group)} could not gather the counts of all ranks "
            f"from {tensor.device} over {dist.get_backend(group)}; most often a rank ended early, or did not call "
            f"compute() within the process group's timeout. {first_line(error)}"
        ) from error
    return gathered


def header(identity: Tensor, n_syncs: int, epoch: int) -> Tensor:
    """Return what ranks compare before they exchange counts.

    Args:
        identity: [5] int64 digest of the dataset and the options.
        n_syncs: How often this rank has exchanged counts.
        epoch: Epoch of the saved predictions.

    Returns:
        [7] int64.
    """
    return torch.cat([identity, torch.tensor([n_syncs, epoch], device=identity.device)])


def refuse_different(headers: Sequence[Tensor]) -> None:
    """Check that all ranks score the same dataset with the same options, and are at the same epoch and sync.

    Args:
        headers: `header` of each rank.

    Raises:
        SyncError: When they differ.
    """
    first = headers[0]
    others = [rank for rank, row in enumerate(headers) if not torch.equal(row[:-2], first[:-2])]
    if others:
        raise SyncError(
            f"ranks {', '.join(map(str, others))} have another dataset or other options than rank 0; "
            "make the metric the same way on every rank, with one folder for save_predictions"
        )
    # Counts of different epochs have the same shape, so mixing them would go unnoticed and give a wrong score.
    if any(not torch.equal(row, first) for row in headers):
        syncs = ", ".join(str(int(row[-2])) for row in headers)
        epochs = ", ".join(str(int(row[-1])) for row in headers)
        raise SyncError(
            f"ranks are out of step: by rank, compute() was called {syncs} times and reset() began epochs {epochs}; "
            "call both on every rank or on none"
        )


def _timeout(group: Any) -> Any:
    """Return the process group's own timeout, which a monitored barrier does not look up itself."""
    try:
        return group._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, RuntimeError):
        return None
