"""The Triton kernels for dense and packed masks equal the naive torch definition; interpreted, so without a GPU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from aot import ARCHITECTURES, ONES_ARCHITECTURE, Case, ones
from bounds import checked_memory
from refcocom_kernels import reference
from refcocom_kernels.cuda.masks import mask_counts, rows_of_bytes
from refcocom_kernels.cuda.pairwise import pairwise_intersections
from test_kernels import KINDS, SIZES, draw, packed
from triton.runtime.errors import InterpreterError

SMALL = {"lanes": 64, "rounds": 2}  # 4,096 pixels a program


def stored(masks: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed words and their offsets; the bits of a last word that belong to no pixel are 0."""
    words, offsets = packed(masks)
    return torch.from_numpy(words.view(np.int64)), torch.from_numpy(offsets)


def placed(masks: np.ndarray, front: int, value: int | None = None) -> torch.Tensor:
    """Set pixels as `value`, or as any byte but 0, `front` bytes after a multiple of 64, among bytes that are set."""
    values = np.random.default_rng(front).integers(1, 256, masks.shape) if value is None else value
    buffer = torch.full((front + masks.size + 64,), 255, dtype=torch.uint8)
    inner = buffer[front : front + masks.size]
    inner.copy_(torch.from_numpy((masks * values).astype(np.uint8)).reshape(-1))
    return inner.view(masks.shape)


@pytest.mark.parametrize("size", SIZES)
def test_dense(size):
    targets = [draw(kind, *size, seed) for seed, kind in enumerate(KINDS)]
    masks = np.stack([draw(kind, *size, 9) for kind in reversed(KINDS)])
    sample = torch.tensor([3, 0, 5, 1, 2, 4])
    with checked_memory():
        found = mask_counts(placed(masks, front=17), sample, *stored(targets), **SMALL)
    expected = reference.mask_counts(
        torch.from_numpy(masks), torch.from_numpy(np.stack(targets))[sample]
    )
    assert torch.equal(found, expected)


@given(st.integers(1, 150), st.integers(0, 15), st.sampled_from([1, 255]), st.integers(0, 2**31))
@settings(max_examples=25)
def test_any_length_at_any_address(pixels, front, value, seed):
    rng = np.random.default_rng(seed)
    mask, target = rng.random((2, 1, pixels)) < rng.choice([0.0, 0.5, 1.0])
    dense = placed(mask[None], front, value)
    with checked_memory():
        found = mask_counts(
            dense, torch.zeros(1, dtype=torch.int64), *stored([target]), lanes=4, rounds=2
        )
    assert found.tolist() == [[int((mask & target).sum()), int(mask.sum())]]


@pytest.mark.parametrize("tile", [{"lanes": 4, "rounds": 1}, {"lanes": 256, "rounds": 7}, {}])
def test_full_tiles_do_not_overflow(tile):
    """The most a program may count at once is close to the 16 bits it counts in."""
    full = np.ones((1, 2 * 16 * 4) if tile.get("lanes") == 4 else (8, 7175), bool)
    dense = placed(full[None], 1, 255)
    found = mask_counts(dense, torch.zeros(1, dtype=torch.int64), *stored([full]), **tile)
    assert found.tolist() == [[full.size, full.size]]


def test_tiles_too_large_to_count_in_are_refused():
    words, offsets = stored([np.ones((4, 4), bool)])
    with pytest.raises(InterpreterError, match="AssertionError"):
        mask_counts(
            torch.ones(1, 4, 4, dtype=torch.bool), torch.tensor([0]), words, offsets, rounds=16
        )


def test_order_and_tiles_change_nothing():
    size = (19, 67)
    targets = [draw(kind, *size, seed) for seed, kind in enumerate(KINDS)]
    predicted = torch.from_numpy(np.stack([draw(k, *size, 9) for k in KINDS]))
    words, offsets = stored(targets)
    sample = torch.arange(6)
    expected = mask_counts(predicted, sample, words, offsets)
    order = torch.tensor([4, 2, 0, 5, 3, 1, 1, 0])
    for lanes, rounds in [(16, 1), (32, 3)]:
        found = mask_counts(
            predicted[order], sample[order], words, offsets, lanes=lanes, rounds=rounds
        )
        assert torch.equal(found, expected[order])


def test_strides():
    target = draw("blob", 12, 31)
    words, offsets = stored([target])
    one = torch.from_numpy(draw("noise", 12, 31, 4))
    expected = reference.mask_counts(one, torch.from_numpy(target))
    apart = one.expand(6, 12, 31).clone()[::3]
    for masks in (
        one.expand(2, 12, 31),
        apart,
        torch.stack([one.T, one.T]).mT,
        torch.stack([one, ~one], dim=-1)[None, ..., 0].expand(2, 12, 31),
    ):
        found = mask_counts(masks, torch.zeros(2, dtype=torch.int64), words, offsets, **SMALL)
        assert found.tolist() == [expected.tolist()] * 2
    assert rows_of_bytes(apart).data_ptr() == apart.data_ptr()
    assert rows_of_bytes(one.expand(5, 12, 31)).stride(0) == 0


def test_masks_beyond_2_31_bytes():
    size, apart = (10, 20), 2**30 + 7
    drawn = np.stack([draw("noise", *size, seed) for seed in range(3)])
    target = draw("blob", *size)
    with checked_memory() as memory:
        rows = memory.vast(torch.uint8, 2 * apart + 200)
        masks = rows.as_strided((3, *size), (apart, size[1], 1))
        masks.copy_(torch.from_numpy(drawn))
        found = mask_counts(masks, torch.zeros(3, dtype=torch.int64), *stored([target]), **SMALL)
        assert max(memory.touched) == 2 * apart + 199
    expected = reference.mask_counts(torch.from_numpy(drawn), torch.from_numpy(target))
    assert torch.equal(found, expected)


def test_nothing_to_count():
    words, offsets = stored([np.ones((2, 3), bool)])
    none = mask_counts(torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.int64), words, offsets)
    assert none.shape == (0, 2)
    assert none.dtype == torch.int64


def test_other_types_are_refused():
    words, offsets = stored([np.ones((2, 3), bool)])
    with pytest.raises(TypeError, match="float32"):
        mask_counts(torch.zeros(1, 2, 3), torch.tensor([0]), words, offsets)


@pytest.mark.parametrize("size", [(1, 1), (1, 65), (37, 129)])
@pytest.mark.parametrize("tile", [(1, 2, 16, 1), (4, 4, 8, 3), (2, 8, 128, 8)])
def test_pairs(size, tile):
    first = [draw(kind, *size, 3) for kind in KINDS[:5]]
    second = [draw(kind, *size, 7) for kind in KINDS[1:4]]
    words, offsets = stored([draw("full", 2, 40), *second])  # not all of a store
    rows, columns, lanes, rounds = tile
    with checked_memory():
        found = pairwise_intersections(
            *stored(first),
            words,
            offsets[1:],
            -(-size[0] * size[1] // 64),
            rows=rows,
            columns=columns,
            lanes=lanes,
            rounds=rounds,
        )
    expected = reference.pairwise_intersections(
        torch.from_numpy(np.stack(first)), torch.from_numpy(np.stack(second))
    )
    assert torch.equal(found, expected)


def test_no_pairs():
    words, offsets = stored([np.ones((2, 3), bool)])
    none = pairwise_intersections(words, offsets[:1], words, offsets, 1)
    assert none.shape == (0, 1)


INTEGERS = {"stride": "i32", "pixels": "i32", "tiles": "i32"}
COUNT_MASKS = {
    "masks": "*u8",
    **INTEGERS,
    "sample": "*i64:16",
    "halves": "*i16:16",
    "word_offsets": "*i64:16",
    "counts": "*i64:16",
    "LANES": 128,
    "ROUNDS": 4,
}
COUNT_PAIRS = {
    "first": "*i64",
    "first_offsets": "*i64",
    "n_first": "i32",
    "second": "*i64",
    "second_offsets": "*i64",
    "n_second": "i32",
    "n_words": "i32",
    "intersections": "*i64:16",
    "tiles": "i32",
    "stretches": "i32",
    "ROWS": 4,
    "COLUMNS": 4,
    "LANES": 128,
    "ROUNDS": 8,
}


CASES = [
    Case("refcocom_kernels.cuda.masks", "_count_masks", COUNT_MASKS),
    Case("refcocom_kernels.cuda.masks", "_count_masks", {**COUNT_MASKS, "stride": "i64:16"}),
    Case("refcocom_kernels.cuda.pairwise", "_count_pairs", COUNT_PAIRS),
]


def test_compiled(compiled):
    """On every architecture: wide loads at any alignment, population counts, nothing in local memory."""
    built = compiled(CASES)
    assert len(built) == len(CASES) * len(ARCHITECTURES)
    for kernel in built:
        assert kernel.stack == kernel.local_accesses == 0, str(kernel)
        if kernel.kernel == "_count_masks":
            assert kernel.registers <= 64, str(kernel)  # half of the threads a processor can hold
            assert kernel.load_bits[128] == 8, str(kernel)
            assert kernel.popcounts == 2 * 4 + 2, str(kernel)
        else:
            assert kernel.registers <= 96, str(kernel)
            # A mask begins at a multiple of 8 bytes: these are as wide as can be.
            assert kernel.load_bits == {64: 16}, str(kernel)
            assert kernel.popcounts == 32, str(kernel)


def test_compiled_where_numbers_are_1(compiled):
    assert len(compiled(list(map(ones, CASES)), [ONES_ARCHITECTURE])) == len(CASES)
