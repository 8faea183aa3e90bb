"""Peers written for the GPU benchmark give the runs and the IoU that ours give."""

import torch
from refcocom_kernels import reference

from benchmarks.gpu import sam3


def test_sam3_runs_and_iou():
    masks = torch.rand(5, 13, 17, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[1], masks[2] = True, False
    lengths, offsets = sam3.mask_run_lengths(masks)
    for mask, start, stop in zip(masks, offsets[:-1], offsets[1:], strict=True):
        assert torch.equal(lengths[start:stop].cumsum(0), reference.run_ends(mask).long())
    both = reference.pairwise_intersections(masks, masks)
    union = both.diagonal()[:, None] + both.diagonal() - both
    assert torch.equal(sam3.pairwise_iou(masks, masks), both / (union + 1e-6))
