"""Counts at several thresholds in one pass: the Numba and Triton ops equal that of one threshold, to the last pixel."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refcocom_kernels import cpu, curve_ops, reference
from test_kernels import as_kind, field, packed

GRID = np.array([-3.0, -0.7, 0.0, 1e-30, 0.25, 0.5, 0.6, 2.0, 50.0], np.float32)
KINDS = ["smooth", "tiny", "subnormal", "huge", "noise", "ties", "spots", "zero"]


def stored(sizes, seed=0):
    """Random targets, and what a store would give an op of them."""
    rng = np.random.default_rng(seed)
    targets = [rng.random(size) < 0.5 for size in sizes]
    words, offsets = packed(targets)
    heights, widths = np.array(sizes).T.copy()
    return targets, (heights, widths, words, offsets)


def one_by_one(values, target, thresholds, valid=None):
    """The loop that the ops replace: the op of one threshold, once for each."""
    target = torch.from_numpy(target)
    return [reference.logit_counts(values, target, float(t), valid).tolist() for t in thresholds]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_op_equals_the_op_of_one_threshold(kind, dtype):
    sizes = [(9, 130), (33, 65), (100, 127), (20, 64)]
    targets, store = stored(sizes)
    for h, w in [(1, 1), (16, 16), (64, 130)]:
        arrays, tensors = zip(
            *(as_kind(field(kind, h, w, k), dtype) for k in range(4)), strict=True
        )
        for valid in (None, (max(0.4, 0.7 * h), max(0.3, 0.93 * w))):
            regions = None if valid is None else np.array([valid] * 4)
            own = np.arange(4)
            found = cpu.logit_curve(np.stack(arrays), own, *store, GRID, valid=regions, threads=1)
            for k, threshold in enumerate(GRID):
                counted = cpu.logit_counts(
                    np.stack(arrays), own, *store, threshold=float(threshold), valid=regions
                )
                np.testing.assert_array_equal(found[:, k], counted.counts)
            for row in range(4):
                assert found[row].tolist() == one_by_one(tensors[row], targets[row], GRID, valid)


@given(st.data())
def test_the_cpu_op_on_any_values_and_thresholds(data):
    size = st.integers(1, 70)
    h, w, height, width = (data.draw(size) for _ in range(4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    # Few distinct values, so that pixels lie exactly on thresholds and whole rows on one side of them.
    pool = data.draw(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=4))
    values = rng.choice(np.array(pool, np.float32), size=(h, w))
    asked = data.draw(st.lists(st.sampled_from(pool) | st.floats(-5, 5, width=32), min_size=1))
    thresholds = np.unique(np.array([0.0, *asked], np.float32))
    (target,), store = stored([(height, width)])
    counts = cpu.logit_curve(values[None], np.zeros(1, np.int64), *store, thresholds)[0]
    assert counts.tolist() == one_by_one(torch.from_numpy(values), target, thresholds)
    # A higher threshold never adds a pixel.
    assert (np.diff(counts, axis=0) <= 0).all()
    assert (counts[:, 0] <= np.minimum(counts[:, 1], target.sum())).all()


def tensors_of(store):
    heights, widths, words, offsets = store
    return (
        torch.from_numpy(heights),
        torch.from_numpy(widths),
        torch.from_numpy(words.view(np.int64)),
        torch.from_numpy(offsets),
        int(heights.max()),
        int(widths.max()),
    )


def test_the_operator_and_its_shape_under_compilation():
    targets, store = stored([(9, 30), (12, 17)])
    logits = torch.from_numpy(np.stack([field("smooth", 8, 10, k) for k in range(2)])).half()
    grid = torch.from_numpy(GRID)
    arguments = (logits, torch.arange(2), *tensors_of(store), grid)
    torch.library.opcheck(
        curve_ops.logit_curve, arguments, test_utils=["test_schema", "test_faketensor"]
    )
    counts = curve_ops.logit_curve(*arguments)
    for row, target in enumerate(targets):
        assert counts[row].tolist() == one_by_one(logits[row], target, GRID)
    with pytest.raises(TypeError, match="float64"):
        curve_ops.logit_curve(logits.double(), *arguments[1:])


# Triton, in its interpreter ------------------------------------------------------------------------


@pytest.fixture
def triton_op():
    pytest.importorskip("triton")
    from bounds import checked_memory
    from refcocom_kernels.cuda import curve

    with checked_memory():
        yield curve


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_triton_op_equals_the_definition(triton_op, dtype):
    targets, store = stored([(9, 130), (33, 65), (63, 40)])
    logits = [as_kind(field(kind, 16, 20, k), dtype)[1] for k, kind in enumerate(KINDS)]
    sample = [k % 3 for k in range(len(KINDS))]
    valid = [(16.0, 20.0) if k % 2 else (11.2, 18.6) for k in range(len(KINDS))]
    found = triton_op.logit_curve(
        torch.stack(logits), torch.tensor(sample), *tensors_of(store), torch.from_numpy(GRID),
        torch.tensor(valid, dtype=torch.float64), tile=(32, 64),
    )  # fmt: skip
    for k, values in enumerate(logits):
        assert found[k].tolist() == one_by_one(values, targets[sample[k]], GRID, valid[k]), k


@settings(max_examples=8)
@given(st.data())
def test_the_triton_op_on_any_size(data):
    curve = pytest.importorskip("refcocom_kernels.cuda.curve")
    size = st.integers(1, 40)
    h, w, height, width = (data.draw(size) for _ in range(4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    values = torch.from_numpy(rng.choice([-1.0, 0.0, 0.25, 3.0], size=(h, w))).half()
    thresholds = np.unique(
        np.array(data.draw(st.lists(st.floats(-2, 4, width=32), min_size=1)), np.float32)
    )
    (target,), store = stored([(height, width)])
    found = curve.logit_curve(
        values[None],
        torch.tensor([0]),
        *tensors_of(store),
        torch.from_numpy(thresholds),
        tile=(16, 32),
    )
    assert found[0].tolist() == one_by_one(values, target, thresholds)


def test_the_triton_op_takes_no_examples_and_refuses_too_large_ones(triton_op):
    _, store = stored([(4, 5)])
    arguments = (*tensors_of(store), torch.from_numpy(GRID))
    empty = triton_op.logit_curve(
        torch.zeros(0, 3, 3), torch.zeros(0, dtype=torch.int64), *arguments
    )
    assert empty.shape == (0, len(GRID), 2)
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="tile"):
        triton_op.logit_curve(torch.zeros(1, 3, 3), one, *arguments, tile=(1024, 32))
    with pytest.raises(ValueError, match="too large"):
        triton_op.logit_curve(torch.empty(1, 2**16, 2**15, device="meta"), one, *arguments)


def cases():
    import aot

    tensors = ["sample", "heights", "widths", "word_offsets", "rows", "columns", "counts"]
    sizes = ["cells", "w", "max_height", "max_width", "tiles_x", "tiles", "n_thresholds"]
    shared = {"words": "*i32:16", "thresholds": "*fp32:16"}
    shared |= {"TILE_Y": 32, "TILE_X": 32, "CELLS_Y": 16, "CELLS_X": 16}
    shared |= dict.fromkeys(tensors, "*i64:16") | dict.fromkeys(sizes, "i32")
    return [
        aot.Case(
            "refcocom_kernels.cuda.curve", "count_curve_tiles", shared | {"logits": f"*{kind}:16"},
            {"enable_fp_fusion": False},
        )
        for kind in ("fp32", "fp16", "bf16")
    ]  # fmt: skip


CASES = cases()


def test_compiled_kernels(compiled):
    import aot

    assert len(compiled(list(map(aot.ones, CASES)), [aot.ONES_ARCHITECTURE])) == len(CASES)
    for built in compiled(CASES):
        assert built.stack == 0, built
        assert built.local_accesses == 0, built
        assert built.fused == 0, built
        assert not re.search(r"\bfma\.rn\S*\.f(32|64)|\.ftz", built.ptx), built
        assert built.registers <= 80, built
