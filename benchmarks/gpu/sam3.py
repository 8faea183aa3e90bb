"""IoU and runs on a device in SAM 3's manner: plain torch on batches of masks.

The ideas are those of `sam3/perflib/iou.py` and of `rle_encode` in `facebookresearch/sam3`; each line was written here.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of all pairs: masks as rows of floats, intersections as one matrix product.

    Args:
        first: [N, H, W] bool.
        second: [M, H, W] bool.

    Returns:
        [N, M] float32, with 10⁻⁶ added to each union.
    """
    rows, columns = first.flatten(1).float(), second.flatten(1).float()
    both = rows @ columns.T
    areas = rows.sum(1)[:, None] + columns.sum(1)
    return both / (areas - both + 1e-6)


def mask_run_lengths(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of masks: all changes at once, then a subtraction for each mask.

    SAM 3 then makes strings of them with pycocotools, mask by mask, which is left out here.

    Args:
        masks: [B, H, W] bool.

    Returns:
        [R] int64 lengths of runs and [B + 1] int64 where a mask's begin, both on the host.
    """
    down = masks.mT.flatten(1)
    is_end = down.new_ones(len(down), down.shape[1] + 1)
    is_end[:, 0] = down[:, 0]
    torch.ne(down[:, 1:], down[:, :-1], out=is_end[:, 1:-1])
    _, ends = is_end.nonzero(as_tuple=True)
    offsets = F.pad(is_end.sum(1).cumsum(0), (1, 0)).cpu()
    lengths = ends.clone()
    for start, stop in pairwise(offsets.tolist()):
        lengths[start + 1 : stop] -= ends[start : stop - 1]
    return lengths.cpu(), offsets
