"""A tensor of this rank in, those of all ranks out, or an error that says which rank is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from refcocom_gpu.errors import SyncError


def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """Gather a tensor from all ranks, waiting no longer than the process group's timeout.

    Args:
        tensor: Of the same number of dimensions on all ranks.
        group: Process group; all ranks by default.

    Returns:
        One tensor per rank.

    Raises:
        SyncError: When a rank does not answer in time.
    """
    group = dist.group.WORLD if group is None else group
    try:
        if dist.get_backend(group) == "gloo" and (timeout := _timeout(group)) is not None:
            # Unlike a plain barrier it names the ranks that are missing.
            dist.monitored_barrier(group, timeout, wait_all_ranks=True)
        gathered: list[Tensor] = gather_all_tensors(tensor, group)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SyncError(
            f"rank {dist.get_rank(group)} of {dist.get_world_size(group)} could not gather the counts of all ranks: "
            f"a rank ended early, or did not call compute() within the process group's timeout. {reason}"
        ) from error
    return gathered


def refuse_different(identities: Sequence[Tensor]) -> None:
    """Check that all ranks score the same thing.

    Args:
        identities: Of each rank, a digest of its dataset and options.

    Raises:
        SyncError: When they differ.
    """
    others = [rank for rank, one in enumerate(identities) if not torch.equal(one, identities[0])]
    if others:
        raise SyncError(
            f"ranks {', '.join(map(str, others))} have another dataset or other options than rank 0; "
            "make the metric the same way on every rank"
        )


def _timeout(group: Any) -> Any:
    """The process group's own timeout, which a monitored barrier does not look up itself."""
    try:
        return group._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, RuntimeError):
        return None
