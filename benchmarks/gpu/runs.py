"""Masks and logits to runs on the host, beside loops in the manner of others; all runs are compared first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from refcocom_kernels import ops
from torch import Tensor

from benchmarks.gpu import sam3
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.inputs import BATCH, HEIGHT, WIDTH, Inputs
from benchmarks.timing import OURS, Contender


def masks_to_runs(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Masks to runs, beside SAM 3's manner and a loop that waits for the device for each mask."""
    n = min(BATCH, len(inputs.masks))
    masks = inputs.masks[:n].to(inputs.device)

    def ours() -> Any:
        return [x.cpu() for x in ops.mask_runs(masks)]

    def loop() -> list[Tensor]:
        all_changes = []
        for mask in masks:
            flat = mask.T.reshape(-1)
            changes = torch.nonzero(flat[1:] != flat[:-1])[:, 0] + 1
            all_changes.append(changes.cpu())
        return all_changes

    ends, offsets = ours()
    for k, changes in enumerate(loop()):
        mask_ends = ends[offsets[k] : offsets[k + 1]]
        # The first run may be empty and the last ends with the mask: neither end is a change inside the mask.
        if mask_ends[mask_ends > 0][:-1].tolist() != changes.tolist():
            raise AssertionError(f"the loop disagrees at mask {k}")
    lengths, starts = sam3.mask_run_lengths(masks)
    before = torch.arange(n).repeat_interleave(offsets.diff()) * HEIGHT * WIDTH
    if not torch.equal(starts, offsets) or not torch.equal(lengths.cumsum(0), ends + before):
        raise AssertionError("SAM 3's manner disagrees")
    yield clock.case(
        f"masks {HEIGHT}×{WIDTH} → runs, read back",
        [
            Contender(OURS, ours, n, "ours"),
            Contender("torch, nonzero of each mask in turn", loop, n),
            Contender(
                "torch in SAM 3's manner, changes of all masks at once",
                lambda: sam3.mask_run_lengths(masks),
                n,
            ),
        ],
        {},
        unit="µs/mask",
    )


def logits_to_runs(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Logits to runs, beside roboflow's manner."""
    n = min(BATCH, len(inputs.masks))
    logits = inputs.logits(120, 160, torch.float16)[:n].to(inputs.device)

    def ours() -> Any:
        return [x.cpu() for x in ops.logit_runs(logits, HEIGHT, WIDTH)]

    ends, offsets = ours()
    contenders = [Contender(OURS, ours, n, "ours")]
    try:
        from benchmarks.gpu import roboflow

        # Triton's interpreter takes a second for a mask.
        few = 1 if inputs.small else n
        entries = roboflow.resize_entries(logits, HEIGHT, WIDTH)

        def appended() -> Any:
            return roboflow.logit_runs(logits[:few], *entries)

        expected = ends[: offsets[few]], offsets[: few + 1]
        if not all(map(torch.equal, appended(), expected)):
            raise AssertionError("roboflow's manner disagrees")
        name = "Triton in roboflow's manner, appended, sorted on the host"
        contenders.append(Contender(name, appended, few))
    except ImportError:
        pass
    yield clock.case(
        f"logits smooth 120×160 float16 → runs of {HEIGHT}×{WIDTH}, read back",
        contenders,
        {"runs a mask": len(ends) / n},
        unit="µs/mask",
    )
