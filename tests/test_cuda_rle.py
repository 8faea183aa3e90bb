"""The Triton op on COCO RLE counts what the CPU counts, and refuses what the CPU refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

pytest.importorskip("triton")

import aot
from bounds import checked_memory
from refcocom_kernels import cpu, ops, rle_status
from refcocom_kernels.cuda import rle as op
from test_kernels import KINDS, draw, runs_of


@pytest.fixture(autouse=True)
def memory():
    with checked_memory() as checked:
        yield checked


def number(value: int, characters: int = 0) -> bytes:
    """One number as COCO writes it, with at least so many characters."""
    written = []
    while not -16 <= value <= 15 or len(written) + 1 < characters:
        written.append(48 + 32 + (value & 31))
        value >>= 5
    return bytes([*written, 48 + (value & 31)])


def string_of(runs: list[int]) -> bytes:
    """Runs as COCO writes them, whatever they are."""
    return b"".join(number(n - runs[k - 2] if k > 2 else n) for k, n in enumerate(runs))


def column(strings: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(b"".join(strings), np.uint8).copy()
    return data, cpu.offsets_from(np.array([len(s) for s in strings], np.int64))


def check(strings, sample, ends, offsets, pixels, **blocks) -> np.ndarray:
    """Counts and verdicts against the CPU's; gives the CPU's status."""
    data, starts = column(strings)
    own = np.array(sample, np.int64)
    expected, status, _ = cpu.rle_counts(data, starts, own, ends, offsets, pixels)
    target_ends, target_offsets = torch.from_numpy(ends), torch.from_numpy(offsets)
    counts, valid = op.rle_counts(
        torch.from_numpy(data), torch.from_numpy(starts), torch.from_numpy(own), target_ends,
        ops.run_ranks(target_ends, target_offsets), target_offsets, torch.from_numpy(pixels), **blocks,
    )  # fmt: skip
    np.testing.assert_array_equal(valid.numpy(), status == rle_status.OK)
    np.testing.assert_array_equal(counts.numpy(), expected)
    assert valid.dtype == torch.bool
    return status


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (63, 65), (100, 3), (37, 29)])
@pytest.mark.parametrize("block", [16, 128])
def test_counts_equal_those_of_the_cpu(size, block):
    masks = [draw(kind, *size, seed) for seed, kind in enumerate(KINDS)]
    predicted = [draw(kind, *size, 11) for kind in KINDS]
    strings = [coco.encode(np.asfortranarray(m.astype(np.uint8)))["counts"] for m in predicted]
    if block == 16:
        # Few characters at a time make many steps of noise.
        strings = [s[:0] if len(s) > 700 else s for s in strings]
    sample = np.random.default_rng(1).permutation(len(masks))
    ends, offsets = runs_of(masks)
    pixels = np.full(len(masks), size[0] * size[1])
    check(strings, sample, ends, offsets, pixels, block=block)


def test_ranks():
    masks = [draw(kind, 13, 17, seed) for seed, kind in enumerate(KINDS)]
    ends, offsets = runs_of(masks)
    ranks = ops.run_ranks(torch.from_numpy(ends), torch.from_numpy(offsets))
    assert ranks.dtype == torch.int32
    for k, mask in enumerate(masks):
        own = slice(offsets[k], offsets[k + 1])
        filled = np.concatenate([[0], np.cumsum(mask.T.reshape(-1))])
        np.testing.assert_array_equal(ranks[own].numpy(), filled[ends[own]])


BIG = 2**30
MALFORMED = {
    "empty": b"",
    # Read without their bits above the sixth these two would be sound.
    "foreign below": b"/2" + number(5),
    "foreign above": number(100) + b"p",
    "foreign inside": number(40) + b"\xff" + number(60),
    "truncated": number(100) + b"P",
    "only truncated": b"o",
    "eight characters": number(100, 8),
    "eight characters, of which seven are sound": number(3200, 8),
    "short": number(99),
    "long": number(101),
    "negative": string_of([60, -10, 50]),
    "negative difference": string_of([10, 20, 30, -5, 45]),
    "larger than the mask, then back": string_of([200, -100]),
    "wraps to the total in 32 bits": string_of([100, BIG, 0, BIG, 0, BIG, 0, BIG]),
    "wraps from run to run": string_of([50, BIG, 50, 2 * BIG, 0, 3 * BIG, 0, 4 * BIG]),
    "a difference of 2**32": b"".join([number(50), number(25), number(25), number(2**32 - 25, 7)]),
    "a first number of 2**32": number(2**32 + 100),
    "a first number of -2**32": number(100 - 2**32),
    "least of seven characters": number(-(2**34)) + number(100),
    "most of seven characters": number(2**34 - 1),
}


@pytest.mark.parametrize("block", [8, 128])
def test_malformed_strings_are_refused(block):
    mask = draw("noise", 10, 10)
    ends, offsets = runs_of([mask])
    sound = [number(100), number(100, 7), string_of([0, 100]), string_of([0, 0, 0, 0, 100]),
             string_of([7, 30, 0, 2, 61]), string_of([100, 0, 0, 0])]  # fmt: skip
    strings = [*MALFORMED.values(), *sound]
    status = check(strings, [0] * len(strings), ends, offsets, np.array([100]), block=block)
    assert (status != rle_status.OK).tolist() == [True] * len(MALFORMED) + [False] * len(sound)


def test_the_largest_masks():
    """Runs, totals and differences of 2**30, where 32 bits leave no room."""
    runs = [[BIG], [0, BIG], [1, BIG - 1], [BIG - 1, 1], [BIG // 2, BIG // 4, BIG // 4]]
    ends = np.concatenate([np.cumsum(r) for r in runs]).astype(np.int32)
    offsets = cpu.offsets_from(np.array([len(r) for r in runs]))
    over = [[BIG + 1], [BIG, 1], [0, BIG, BIG], [0, BIG, 0, BIG], [0, 0, BIG, 0, 2 * BIG]]
    strings = [string_of(r) for r in runs + over] * len(runs)
    sample = np.repeat(np.arange(len(runs)), len(runs + over))
    status = check(strings, sample, ends, offsets, np.full(len(runs), BIG), block=32)
    assert (status == rle_status.OK).tolist() == ([True] * len(runs) + [False] * len(over)) * len(
        runs
    )


@settings(max_examples=12)
@given(st.data())
def test_verdicts_on_any_bytes(data):
    """Random characters, mostly of the alphabet, and sound strings that lost or changed one."""
    pixels = data.draw(st.sampled_from([1, 6, 100, 1 << 30]))
    alphabet = st.one_of(st.integers(48, 111), st.integers(48, 79), st.integers(0, 255))
    strings = data.draw(
        st.lists(st.lists(alphabet, max_size=12).map(bytes), min_size=1, max_size=6)
    )
    cuts = data.draw(st.lists(st.integers(0, pixels), max_size=9).map(sorted))
    sound = string_of(np.diff([0, *cuts, pixels]).tolist())
    place = data.draw(st.integers(0, len(sound) - 1))
    strings += [
        sound,
        sound[:place] + sound[place + 1 :],
        sound[:place] + bytes([data.draw(alphabet)]) + sound[place + 1 :],
    ]
    ends = np.array([pixels // 3, pixels], np.int32)
    status = check(strings, [0] * len(strings), ends, np.array([0, 2]), np.array([pixels]), block=8)
    assert status[-3] == rle_status.OK


def test_an_empty_column():
    ends, offsets = runs_of([draw("blob", 5, 5)])
    check([], [], ends, offsets, np.array([25]))


def test_offsets_beyond_32_bits(memory):
    stop = 2**33
    data = memory.vast(torch.uint8, stop)
    own, two = torch.zeros(1, dtype=torch.int64), torch.tensor([0, 2])
    ends = torch.tensor([1, 4], dtype=torch.int32)
    _, valid = op.rle_counts(
        data, torch.tensor([stop - 3, stop]), own, ends, ends - 1, two, torch.tensor([4]), block=8
    )
    assert memory.touched == {stop - 3, stop - 2, stop - 1}
    assert not valid.any()


def cases() -> list[aot.Case]:
    wide = ["offsets", "sample", "target_offsets", "pixels", "counts"]
    narrow = ["target_ends", "target_ranks"]
    arguments = {"data": "*u8:16", "valid": "*i8:16", "BLOCK": 128}
    arguments |= dict.fromkeys(wide, "*i64:16") | dict.fromkeys(narrow, "*i32:16")
    return [aot.Case(op.__name__, "intersect_strings", arguments, {"num_warps": 1})]


CASES = cases()


def test_compiled_kernel(compiled):
    for built in compiled(CASES):
        assert built.stack == 0, built
        assert built.local_accesses == 0, built
        assert built.registers <= 96, built
        # One warp needs neither shared memory nor a barrier.
        assert built.shared == 0, built
        assert "bar.sync" not in built.ptx, built
