"""Masks and logits become the runs that the CPU and the definition give, on tiles of any size."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import aot
from bounds import checked_memory
from refcocom_kernels import cpu, reference
from refcocom_kernels.cuda import encode as op
from test_kernels import KINDS, draw, field


@pytest.fixture(autouse=True)
def memory():
    with checked_memory() as checked:
        yield checked


def check_masks(masks: np.ndarray, **tiles) -> None:
    ends, offsets = op.mask_runs(torch.from_numpy(masks), **tiles)
    expected, expected_offsets = cpu.mask_runs(masks.view(np.uint8))
    np.testing.assert_array_equal(ends.numpy(), expected)
    np.testing.assert_array_equal(offsets.numpy(), expected_offsets)
    assert ends.dtype == torch.int32
    assert offsets.dtype == torch.int64


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1), (63, 65), (37, 129), (100, 3)])
@pytest.mark.parametrize("tile", [(64, 128), (16, 32)])
def test_runs_of_masks(size, tile):
    check_masks(np.stack([draw(kind, *size, seed) for seed, kind in enumerate(KINDS)]), tile=tile)


def test_any_nonzero_byte_is_set_whatever_the_strides():
    rng = np.random.default_rng(0)
    bytes_ = (rng.random((5, 19, 22)) < 0.5).astype(np.uint8) * rng.integers(
        1, 256, (5, 19, 22)
    ).astype(np.uint8)
    check_masks(bytes_, tile=(1, 64))
    turned = torch.from_numpy(bytes_).transpose(1, 2)[1::2]
    ends, offsets = op.mask_runs(turned)
    expected, expected_offsets = cpu.mask_runs(np.ascontiguousarray(turned.numpy()))
    np.testing.assert_array_equal(ends.numpy(), expected)
    np.testing.assert_array_equal(offsets.numpy(), expected_offsets)


@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_runs_of_any_masks(n_rows, height, width, share, seed):
    rng = np.random.default_rng(seed)
    check_masks(rng.random((n_rows, height, width)) < share, tile=(16, 16))


FIELDS = ["smooth", "noise", "ties", "spots", "zero", "tiny"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("threshold", "valid"), [(0.0, None), (0.5, (9.3, 10.6))])
def test_runs_of_logits(dtype, threshold, valid):
    h, w, height, width = 13, 11, 50, 31
    logits = torch.stack([torch.from_numpy(field(k, h, w, 3)) for k in FIELDS]).to(dtype)
    ends, offsets = op.logit_runs(
        logits, height, width, threshold=threshold, valid=valid, cells=(8, 8)
    )
    assert offsets[0] == 0
    assert offsets[-1] == len(ends)
    for row, values in enumerate(logits):
        mask = reference.resize_logits(values, height, width, valid) > threshold
        expected = reference.run_ends(mask)
        assert ends[offsets[row] : offsets[row + 1]].tolist() == expected.tolist(), FIELDS[row]


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (5, 4)])
@pytest.mark.parametrize("tile", [(8, 32), (64, 64)])
def test_runs_of_logits_of_odd_sizes(size, tile):
    logits = torch.from_numpy(field("noise", 12, 9, 1))[None]
    ends, offsets = op.logit_runs(logits, *size, tile=tile)
    expected = reference.run_ends(reference.resize_logits(logits[0], *size) > 0)
    assert ends.tolist() == expected.tolist()
    assert offsets.tolist() == [0, len(ends)]


def test_a_change_between_two_tiles_that_are_each_on_one_side():
    bands = torch.where(torch.arange(128) // 16 % 2 == 0, 1.0, -1.0)
    logits = bands[:, None].expand(128, 4)[None]
    ends, _ = op.logit_runs(logits, 64, 4, tile=(8, 32))
    assert (
        ends.tolist() == reference.run_ends(reference.resize_logits(logits[0], 64, 4) > 0).tolist()
    )
    assert len(ends) > 4 * 64 // 8


def test_a_tile_on_one_side_is_not_interpolated(monkeypatch):
    changes, n = op._changes, []
    monkeypatch.setattr(op, "_changes", lambda *a: n.append(1) or changes(*a))
    half = torch.full((1, 32, 32), -5.0)
    half[:, :, :12] = 5.0
    op.logit_runs(half, 128, 128)
    # Counted: four tiles at the top, and below them the one of four that the edge runs through. Written: the tops of
    # the first column and of the first one beyond the edge, since within a column nothing changes.
    assert len(n) == (4 + 3) + 2


def test_empty_batches():
    for ends, offsets in [
        op.mask_runs(torch.zeros(0, 5, 6, dtype=torch.bool)),
        op.logit_runs(torch.zeros(0, 5, 6), 7, 8),
    ]:
        assert ends.shape == (0,)
        assert ends.dtype == torch.int32
        assert offsets.tolist() == [0]


def test_offsets_beyond_32_bits(memory):
    """Three masks of which one row of one tile is looked at."""
    pixels = 2**30
    masks = memory.vast(torch.uint8, 3, pixels)
    counts = torch.zeros(3, 8, 1, dtype=torch.int32)
    op.count_changes[(3,)](
        masks, None, None, counts, pixels, 8, 2, 8, 1, 1, 0.0, TILE_Y=2, TILE_X=8, CELLS_Y=1, CELLS_X=1
    )  # fmt: skip
    assert memory.touched == {pixels * b + at for b in range(3) for at in range(16)}


def cases() -> list[aot.Case]:
    shared = dict.fromkeys(["stride", "w", "height", "width"], "i32:16")
    shared |= dict.fromkeys(["tiles_x", "tiles_y"], "i32") | {
        "counts": "*i32:16",
        "threshold": "fp32",
    }
    bytes_ = {"source": "*u8:16", "rows": None, "columns": None, "TILE_Y": 64, "TILE_X": 128}
    logits = {
        "source": "*fp16:16",
        "rows": "*i64:16",
        "columns": "*i64:16",
        "TILE_Y": 32,
        "TILE_X": 32,
    }
    cells = {"CELLS_Y": 16, "CELLS_X": 16}
    written = {"ends": "*i32:16", "totals": "*i64:16"}
    apart = {"enable_fp_fusion": False}
    return [
        aot.Case(op.__name__, name, shared | source | own, apart)
        for source in (bytes_, logits)
        for name, own in (("count_changes", cells), ("write_changes", written))
    ]


CASES = cases()


def test_sizes_of_one_compile(compiled):
    assert len(compiled(list(map(aot.ones, CASES)), [aot.ONES_ARCHITECTURE])) == len(CASES)


def test_compiled_kernels(compiled):
    for case, built in zip(np.repeat(CASES, 3), compiled(CASES), strict=True):
        assert built.stack == 0, built
        assert built.local_accesses == 0, built
        assert not re.search(r"\bfma\.rn\S*\.f(32|64)|\.ftz", built.ptx), built
        assert built.fused == 0, built
        assert built.registers <= 128, built
        if case.arguments["rows"] is None:
            # Pixels are read 16 at a time; only the bottom of the columns to the left is not.
            assert built.load_bits[128] >= 8, built
