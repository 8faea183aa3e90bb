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

    NCCL raises nothing at its timeout: its watchdog ends the process, and says which collective waited.

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


def header(identity: Tensor, n_syncs: int) -> Tensor:
    """What ranks compare before they exchange counts.

    Args:
        identity: [4] int64 digest of the dataset and the options.
        n_syncs: How often this rank has exchanged counts.

    Returns:
        [5] int64.
    """
    return torch.cat([identity, identity.new_full((1,), n_syncs)])


def refuse_different(headers: Sequence[Tensor]) -> None:
    """Check that all ranks score the same thing, and are at the same place of their programs.

    Args:
        headers: `header` of each rank.

    Raises:
        SyncError: When they differ.
    """
    first = headers[0]
    others = [rank for rank, one in enumerate(headers) if not torch.equal(one[:-1], first[:-1])]
    if others:
        raise SyncError(
            f"ranks {', '.join(map(str, others))} have another dataset or other options than rank 0; "
            "make the metric the same way on every rank"
        )
    # Counts of two epochs have one shape: mixed, they would give a score that is none.
    if any(not torch.equal(one, first) for one in headers):
        said = ", ".join(str(int(one[-1])) for one in headers)
        raise SyncError(
            f"ranks are out of step: they have called compute() {said} times; call it on every rank or on none"
        )


def _timeout(group: Any) -> Any:
    """The process group's own timeout, which a monitored barrier does not look up itself."""
    try:
        return group._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, RuntimeError):
        return None
