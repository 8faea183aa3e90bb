"""The Triton ops on logits equal the naive torch definition to the last pixel, and fuse nothing when compiled."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import aot
from bounds import checked_memory
from refcocom_kernels import codes, reference, tables
from refcocom_kernels.cuda import logits as op
from refcocom_kernels.cuda import resize
from test_kernels import field, float_values, packed

KINDS = [
    "smooth",
    "tiny",
    "subnormal",
    "huge",
    "noise",
    "ties",
    "spots",
    "zero",
    "edge",
    "negative",
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def memory():
    with checked_memory() as checked:
        yield checked


def draw(kind: str, h: int, w: int, seed: int) -> torch.Tensor:
    special = {
        # Just above a threshold, where rounding carries some pixels onto it.
        "edge": lambda: np.full((h, w), np.nextafter(np.float32(0.5), np.float32(1))),
        "negative": lambda: np.full((h, w), -3.0),
    }
    values = special[kind]() if kind in special else field(kind, h, w, seed)
    return torch.from_numpy(values.astype(np.float32))


def stored(sizes: list[tuple[int, int]], seed: int = 0) -> tuple[list[np.ndarray], dict]:
    """Random targets, and what a store would give a kernel of them."""
    rng = np.random.default_rng(seed)
    targets = [rng.random(size) < 0.5 for size in sizes]
    words, offsets = packed(targets)
    heights, widths = torch.tensor(sizes).T.contiguous()
    return targets, {
        "heights": heights,
        "widths": widths,
        "words": torch.from_numpy(words.view(np.int64)),
        "word_offsets": torch.from_numpy(offsets),
        "max_height": max(h for h, _ in sizes),
        "max_width": max(w for _, w in sizes),
    }


def test_tables_equal_those_of_numpy():
    rng = np.random.default_rng(0)
    cells, longest = 300, 700
    targets = [1, 2, 3, 7, 64, 100, 333, 427, 480, 500, 613, 640, 700]
    valid = [
        1.0,
        2.0,
        3.0,
        16.0,
        37.0,
        64.0,
        160.0,
        255.9,
        256.0,
        300.0,
        0.4,
        *rng.uniform(0.2, 300, 5),
    ]
    cases = [(v, t) for v in valid for t in targets]
    sizes = torch.tensor(targets)
    sample = torch.tensor([targets.index(t) for _, t in cases])
    both = torch.tensor([[v, 299.0] for v, _ in cases], dtype=torch.float64)
    entries = resize.axis_entries(
        sample, sizes, both, axis=0, cells=cells, longest=longest, block=1024
    )
    flipped = resize.axis_entries(
        sample, sizes, both.flip(1).contiguous(), axis=1, cells=cells, longest=longest, block=1024
    )
    for row, (v, t) in enumerate(cases):
        table = tables.axis_table(float(v), t)
        found = entries[row, :t].numpy()
        np.testing.assert_array_equal(found >> 32, table.low)
        np.testing.assert_array_equal(found.astype(np.int32).view(np.float32), table.weight_high)
        # The kernels leave the cell after out where it weighs nothing.
        assert (table.high[table.weight_high > 0] == table.low[table.weight_high > 0] + 1).all()
        np.testing.assert_array_equal(flipped[row, :t].numpy(), found)


def check(logits, sample, targets, store, threshold=0.0, valid=None, **tiles):
    """Counts and kinds of a batch against the definition."""
    regions = None if valid is None else torch.tensor(valid, dtype=torch.float64)
    counts, kinds = op.logit_counts(
        torch.stack(logits),
        torch.tensor(sample),
        **store,
        threshold=threshold,
        valid=regions,
        **tiles,
    )
    assert counts.dtype == torch.int64
    assert kinds.dtype == torch.int8
    for row, values in enumerate(logits):
        target = torch.from_numpy(targets[sample[row]])
        region = None if valid is None else valid[row]
        expected = reference.logit_counts(values, target, threshold, region)
        assert counts[row].tolist() == expected.tolist(), (row, target.shape, region)
        assert kinds[row] == reference.value_kind(values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("cells", [(1, 1), (1, 5), (16, 20), (65, 33)])
def test_counts_of_a_ragged_batch(dtype, threshold, cells):
    h, w = cells
    targets, store = stored([(1, 1), (9, 130), (33, 65), (63, 40)])
    # A bound may be larger than any target.
    store["max_width"] += 130
    logits = [draw(kind, h, w, row).to(dtype) for row, kind in enumerate(KINDS)]
    sample = [(row + h) % len(targets) for row in range(len(KINDS))]
    regions = [(float(h), float(w)), (max(0.4, 0.7 * h), max(0.3, 0.93 * w))]
    valid = [regions[(row // 3 + w) % 2] for row in range(len(KINDS))]
    check(logits, sample, targets, store, threshold, valid, tile=(64, 128))


@pytest.mark.parametrize(
    ("tile", "cells"),
    [((32, 32), (16, 16)), ((2, 32), (1, 1)), ((64, 32), (2, 4)), ((8, 256), (64, 8))],
)
def test_tiles_of_any_size_count_the_same(tile, cells):
    targets, store = stored([(17, 70), (12, 33)])
    logits = [draw("smooth", 11, 17, 1).half(), draw("noise", 11, 17, 1).half()]
    check(logits, [0, 1], targets, store, tile=tile, cells=cells, block=64)


def test_a_tile_on_one_side_is_not_interpolated(monkeypatch):
    """What makes it fast: the cells' range decides all but the tiles that an edge runs through."""
    resized, n = op.resized, []
    monkeypatch.setattr(op, "resized", lambda *a: n.append(1) or resized(*a))
    targets, store = stored([(128, 128)])
    half = torch.full((32, 32), -5.0)
    half[:, :12] = 5.0
    check([half], [0], targets, store)
    # Of four columns of tiles the edge runs through one.
    assert len(n) == 4


def test_the_least_number_is_on_no_side():
    """Half of it rounds to 0, so that cells above a threshold of 0 surround pixels that are not."""
    targets, store = stored([(8, 10)])
    least = torch.full((16, 20), 2.0**-149)
    assert reference.logit_counts(least, torch.from_numpy(targets[0])).tolist() == [0, 0]
    check([least, -least], [0, 0], targets, store)


def test_strides_offsets_and_an_empty_batch():
    targets, store = stored([(20, 30), (31, 7)])
    logits = torch.stack([draw("noise", 9, 14, k) for k in range(4)])
    turned = logits.transpose(1, 2).contiguous().transpose(1, 2)
    check(list(turned[1::2]), [1, 0], targets, store)
    counts, kinds = op.logit_counts(logits[:0], torch.zeros(0, dtype=torch.int64), **store)
    assert counts.shape == (0, 2)
    assert kinds.shape == (0,)
    with pytest.raises(ValueError, match="tile"):
        op.logit_counts(logits, torch.zeros(4, dtype=torch.int64), **store, tile=(32, 16))
    with pytest.raises(ValueError, match="tile"):
        op.logit_counts(logits, torch.zeros(4, dtype=torch.int64), **store, tile=(1024, 32))


@settings(max_examples=12)
@given(st.data())
def test_counts_of_any_size(data):
    size = st.integers(1, 40)
    h, w = data.draw(st.tuples(size, size))
    targets, store = stored(data.draw(st.lists(st.tuples(size, size), min_size=1, max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    values = rng.normal(size=(len(targets), h, w)) + rng.choice([-2, 0, 2])
    valid = data.draw(
        st.none()
        | st.lists(
            st.tuples(st.floats(0.1, h), st.floats(0.1, w)),
            min_size=len(targets),
            max_size=len(targets),
        )
    )
    logits = list(torch.from_numpy(values).half())
    check(logits, list(range(len(targets))), targets, store, valid=valid, tile=(64, 64))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_logits_are_flagged_wherever_they_are(dtype):
    targets, store = stored([(9, 30)])
    logits = torch.stack([draw("smooth", 41, 70, 0)] * 7).to(dtype)
    for row, (bad, place) in enumerate(
        [("nan", (0, 0)), ("inf", (40, 69)), ("-inf", (20, 64)), ("nan", (40, 3)), ("inf", (13, 3)), ("nan", (1, 69))]
    ):  # fmt: skip
        logits[row][place] = float(bad)
    # The last rows and columns are padding, which is looked at all the same.
    valid = torch.tensor([[30.0, 50.0]] * 7, dtype=torch.float64)
    counts, kinds = op.logit_counts(
        logits, torch.zeros(7, dtype=torch.int64), **store, valid=valid, tile=(64, 64), block=1024
    )
    assert kinds.tolist() == [codes.NON_FINITE] * 6 + [codes.SIGNED]
    assert counts[:6].tolist() == [[0, 0]] * 6
    expected = reference.logit_counts(
        logits[6], torch.from_numpy(targets[0]), valid=tuple(valid[6].tolist())
    )
    assert counts[6].tolist() == expected.tolist()


@settings(max_examples=12)
@given(float_values(), st.sampled_from(DTYPES))
def test_kinds_equal_the_definition(values, dtype):
    _, store = stored([(4, 4)])
    logits = torch.from_numpy(values).to(dtype)[None]
    _, kinds = op.logit_counts(logits, torch.zeros(1, dtype=torch.int64), **store, block=256)
    assert kinds.tolist() == [reference.value_kind(logits[0])]


def test_offsets_beyond_32_bits(memory):
    """Three examples of 2**30 cells, of which a small region holds content."""
    cells, w = 2**30, 2**16
    logits = memory.vast(torch.float16, 3, cells)
    _, store = stored([(4, 5)])
    sample = torch.zeros(3, dtype=torch.int64)
    valid = torch.full((3, 2), 2.0, dtype=torch.float64)
    rows, columns = (
        resize.axis_entries(sample, store[name], valid, axis=axis, cells=1000, longest=8, block=8)
        for axis, name in enumerate(["heights", "widths"])
    )
    counts = torch.zeros(3, 2, dtype=torch.int64)
    op.count_tiles[(3,)](
        logits, sample, store["heights"], store["widths"], store["words"].view(torch.int32),
        store["word_offsets"], rows, columns, counts, cells, w, 8, 8, 1, 1, -1.0,
        TILE_Y=8, TILE_X=32, CELLS_Y=2, CELLS_X=2,
    )  # fmt: skip
    square = {0, 2, 2 * w, 2 * w + 2}
    assert memory.touched == {2 * cells * b + at for b in range(3) for at in square}
    assert counts[:, 1].tolist() == [20] * 3
    memory.touched.clear()
    op.inspect_cells[(3,)](logits, torch.zeros(3, 3, dtype=torch.int32), cells, 1, BLOCK=4)
    assert memory.touched == {2 * cells * b + at for b in range(3) for at in (0, 2, 4, 6)}


def cases() -> list[aot.Case]:
    tensors = ["sample", "heights", "widths", "word_offsets", "rows", "columns", "counts"]
    sizes = ["cells", "w", "max_height", "max_width", "tiles_x", "tiles"]
    tile = {"TILE_Y": 32, "TILE_X": 32, "CELLS_Y": 16, "CELLS_X": 16}
    shared = {"words": "*i32:16", "threshold": "fp32", **tile}
    shared |= dict.fromkeys(tensors, "*i64:16") | dict.fromkeys(sizes, "i32")
    apart = {"enable_fp_fusion": False}
    axis = {"entries": "*i64:16", "sample": "*i64:16", "sizes": "*i64:16", "valid": "*fp64:16"}
    axis |= dict.fromkeys(["cells", "longest", "blocks"], "i32") | {"AXIS": 1, "BLOCK": 256}
    kinds = ["fp32", "fp16", "bf16"]
    blocks = {"seen": "*i32:16", "cells": "i32:16", "blocks": "i32", "BLOCK": 4096}
    return [
        *(
            aot.Case(op.__name__, "count_tiles", shared | {"logits": f"*{k}:16"}, apart)
            for k in kinds
        ),
        *(aot.Case(op.__name__, "inspect_cells", blocks | {"logits": f"*{k}:16"}) for k in kinds),
        aot.Case(resize.__name__, "fill_axis", axis, apart),
        aot.Case(resize.__name__, "fill_axis", axis | {"valid": None}, apart),
    ]


CASES = cases()


def test_sizes_of_one_compile(compiled):
    assert len(compiled(list(map(aot.ones, CASES)), [aot.ONES_ARCHITECTURE])) == len(CASES)


def test_compiled_kernels(compiled):
    for built in compiled(CASES):
        assert built.stack == 0, built
        assert built.local_accesses == 0, built
        assert not re.search(r"\bfma\.rn\S*\.f(32|64)|\.ftz", built.ptx), built
        if built.kernel == "count_tiles":
            assert built.fused == 0, built
            assert "popc.b32" in built.ptx, built
            assert built.registers <= 48, built
        elif built.kernel == "inspect_cells":
            # Nothing but whole 128-bit loads.
            assert set(built.load_bits) == {128}, built
            assert built.registers <= 64, built
        else:
            # ptxas divides float64 in steps of its own, correctly rounded.
            assert "div.rn.f64" in built.ptx, built
            assert built.registers <= 48, built
