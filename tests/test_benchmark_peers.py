"""Peers written for the GPU benchmark give the runs and the IoU that ours give; interpreted, so without a GPU."""

import pytest
import torch

pytest.importorskip("triton")

import aot
from bounds import checked_memory
from refcocom_kernels import ops, reference

from benchmarks.gpu import roboflow, sam3


@pytest.mark.parametrize("size", [(5, 6, 19, 21), (1, 1, 5, 4)])
def test_roboflow_runs(monkeypatch, size):
    """Noise, smooth, a mask of every pixel, none, and one at an edge, in many tiles and bands."""
    monkeypatch.setattr(roboflow, "TILE", (8, 8))
    monkeypatch.setattr(roboflow, "BANDS", 2)
    h, w, height, width = size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(h, w, generator=generator)
    edge = torch.full((h, w), -1.0).index_fill_(1, torch.tensor([w - 1]), 1.0)
    smooth = torch.nn.functional.avg_pool2d(noise[None], 3, 1, 1)[0]
    logits = torch.stack([noise, smooth, torch.ones(h, w), -torch.ones(h, w), edge]).half()
    with checked_memory():
        results = roboflow.logit_runs(logits, *roboflow.resize_entries(logits, height, width))
    for result, expected in zip(results, ops.logit_runs(logits, height, width), strict=True):
        assert torch.equal(result, expected)


def test_roboflow_runs_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(roboflow, "CAPACITY", 3)
    logits = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    with checked_memory(), pytest.raises(RuntimeError, match="changes in 1 masks"):
        roboflow.logit_runs(logits, *roboflow.resize_entries(logits, 8, 8))


def test_sam3_runs_and_iou():
    masks = torch.rand(5, 13, 17, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[1], masks[2] = True, False
    lengths, offsets = sam3.mask_run_lengths(masks)
    for mask, start, stop in zip(masks, offsets[:-1], offsets[1:], strict=True):
        assert torch.equal(lengths[start:stop].cumsum(0), reference.run_ends(mask).long())
    both = reference.pairwise_intersections(masks, masks)
    union = both.diagonal()[:, None] + both.diagonal() - both
    assert torch.equal(sam3.pairwise_iou(masks, masks), both / (union + 1e-6))


_SIZES = dict.fromkeys(["h", "w", "height", "width", "capacity"], "i32:16")
_TABLES = dict.fromkeys(["rows", "columns", "changes"], "*i64:16")
CASES = [
    aot.Case(
        roboflow.__name__, "find_positive",
        {"logits": "*fp16:16", "edges": "*i32:16", "h": "i32", "w": "i32", "BLOCK": roboflow.CELLS},
    ),
    aot.Case(
        roboflow.__name__, "append_changes",
        {"logits": "*fp16:16", "edges": "*i32:16", **_SIZES, **_TABLES, "TILE_Y": roboflow.TILE[0],
         "TILE_X": roboflow.TILE[1], "SIZE_Y": 512, "SIZE_X": 1024},
        {"enable_fp_fusion": False},
    ),
]  # fmt: skip


def test_compiled_kernels(compiled):
    """They spill nothing, which would slow them."""
    for built in compiled(CASES):
        assert built.stack == 0, built
        assert built.local_accesses == 0, built


def test_sizes_of_one_compile(compiled):
    assert len(compiled(list(map(aot.ones, CASES)), [aot.ONES_ARCHITECTURE])) == len(CASES)
