"""The parser of eight characters a step against one of single characters: the same runs, the same fault and place."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding, ir
from refcocom_kernels import cpu, rle_status

LARGEST = 2**30


def parse(data: bytes, pixels: int) -> tuple[int, int] | list[int]:
    """Run lengths of one string, or (status, detail) of its first fault."""
    runs, at = [], 0
    while at < len(data):
        value = shift = 0
        while True:
            if at == len(data):
                return rle_status.TRUNCATED, len(runs)
            digit = data[at] - 48
            if not 0 <= digit < 64:
                return rle_status.FOREIGN, at
            if shift == 5 * rle_status.MAX_CHARACTERS:
                return rle_status.HUGE, len(runs)
            value += (digit & 31) << shift
            shift += 5
            at += 1
            if digit < 32:
                break
        value -= (digit >= 16) << shift
        value += runs[-2] if len(runs) > 2 else 0
        if value < 0:
            return rle_status.NEGATIVE, len(runs)
        runs.append(value)
        if value > pixels:
            return rle_status.LONG, sum(runs)
    if sum(runs) != pixels:
        return (rle_status.SHORT if sum(runs) < pixels else rle_status.LONG), sum(runs)
    return runs


def characters(value: int, at_least: int = 1) -> bytes:
    """One number, on `at_least` characters or as many as it needs."""
    out = b""
    while True:
        digit, value = value & 31, value >> 5
        ended = value == -(digit >> 4) and len(out) + 1 >= at_least
        out += bytes([48 + digit + 32 * (not ended)])
        if ended:
            return out


def string(runs: list[int], widths: list[int]) -> bytes:
    """Runs as COCO writes them, some numbers on more characters than they need."""
    numbers = [run - (runs[k - 2] if k > 2 else 0) for k, run in enumerate(runs)]
    return b"".join(map(characters, numbers, widths))


lengths = st.one_of(st.integers(0, 20), st.integers(0, 700), st.integers(0, 50_000))
widths = st.lists(st.sampled_from([1, 1, 1, 1, 2, 2, 3, 7]), min_size=40, max_size=40)
right = st.builds(
    lambda runs, w: (string(runs, w), sum(runs)), st.lists(lengths, max_size=40), widths
)
numbers = st.one_of(
    st.integers(-16, 15), st.integers(-512, 511), st.integers(-LARGEST - 2, LARGEST + 2), st.integers(-(2**42), 2**42)
)  # fmt: skip
any_numbers = st.builds(
    lambda values, pixels: (b"".join(map(characters, values)), pixels),
    st.lists(numbers, max_size=24),
    st.one_of(st.integers(0, 3000), st.integers(0, LARGEST)),
)


@st.composite
def damaged(draw):
    """A right string with one byte replaced, left out or put in, and perhaps another size."""
    data, pixels = draw(right)
    at = draw(st.integers(0, len(data)))
    byte = draw(st.sampled_from([b"", b"/", b"0", b"o", b"p", b"\x00", b"\xff", b"P", b"oooooooo"]))
    cut = draw(st.integers(0, 1))
    return data[:at] + byte + data[at + cut :], max(
        0, pixels + draw(st.sampled_from([0, 0, -1, 1]))
    )


@given(st.lists(st.one_of(right, any_numbers, damaged()), min_size=1, max_size=4))
def test_runs_and_faults_are_those_of_the_plain_parser(rows):
    data = np.frombuffer(b"".join(row for row, _ in rows), np.uint8)
    offsets = cpu.offsets_from(np.array([len(row) for row, _ in rows], np.int64))
    pixels = np.array([size for _, size in rows], np.int64)
    parsed = cpu.rle_parse(data, offsets, pixels, threads=1)
    # Every row is scored against a mask of its size whose pixels 3…H·W/2 are set.
    halves = [[min(3, n // 2), n // 2, n] for n in pixels.tolist()]
    counts, status, detail = cpu.rle_counts(
        data, offsets, np.arange(len(rows)), np.array(halves, np.int32).reshape(-1),
        np.arange(0, 3 * len(rows) + 1, 3), pixels, threads=1,
    )  # fmt: skip
    for k, (row, size) in enumerate(rows):
        expected = parse(row, size)
        ends = parsed.ends[parsed.offsets[k] : parsed.offsets[k + 1]]
        found = [
            (int(x.status[k]), int(x.detail[k]))
            for x in (parsed, SimpleNamespace(status=status, detail=detail))
        ]
        if isinstance(expected, tuple):
            assert found == [expected, expected]
            assert not ends.any()
            assert counts[k].tolist() == [0, 0]
            continue
        assert found == [(0, 0), (0, 0)]
        totals = np.cumsum(expected, dtype=np.int64)
        assert ends.tolist() == totals.tolist()
        low, high, _ = halves[k]
        shared = [
            max(0, min(stop, high) - max(start, low))
            for start, stop in zip(totals[0::2].tolist(), totals[1::2].tolist(), strict=False)
        ]
        assert counts[k].tolist() == [sum(shared), sum(expected[1::2])]


@pytest.mark.parametrize("n", [7, 8, 9, 15, 16, 17, 24])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 8])
def test_a_number_across_every_boundary_of_a_block(n, width):
    """`n` numbers of one character, then one of `width`: its characters fall on both sides of a block's end."""
    data = b"0" * n + b"P" * (width - 1) + b"1"
    value = 1 << 5 * (width - 1)
    for size in (value, value + 1):
        expected = parse(data, size)
        runs = cpu.rle_parse(
            np.frombuffer(data, np.uint8), np.array([0, len(data)]), np.array([size]), threads=1
        )
        if isinstance(expected, tuple):
            assert (runs.status[0], runs.detail[0]) == expected
        else:
            assert np.diff(runs.ends, prepend=np.int32(0)).tolist() == expected


def test_a_plain_processor_gives_the_same():
    """Without SSSE3 the bytes of a block are chosen one by one; `NUMBA_CPU_NAME` is how Numba is told."""
    tests = [f"{Path(__file__).name}::{name}" for name in (
        "test_runs_and_faults_are_those_of_the_plain_parser", "test_a_number_across_every_boundary_of_a_block"
    )]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests],
        cwd=Path(__file__).parent,
        env=os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("triple", "features", "instruction"),
    [
        ("x86_64-unknown-linux-gnu", "+ssse3", "pshufb"),
        ("aarch64-unknown-linux-gnu", "+neon", "tbl"),
        ("arm64-apple-darwin", "+neon", "tbl"),
        ("x86_64-unknown-linux-gnu", "", "movzbl"),
    ],
)
def test_bytes_are_chosen_in_one_instruction_if_there_is_one(triple, features, instruction):
    """Compiled for processors that this machine need not be."""
    from refcocom_kernels.cpu.numba.runs import _select_bytes

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = triple
    vector = ir.VectorType(ir.IntType(8), 16)
    function = ir.Function(module, ir.FunctionType(vector, [vector, vector]), "select_bytes")
    builder = ir.IRBuilder(function.append_basic_block())
    context = SimpleNamespace(
        codegen=lambda: SimpleNamespace(magic_tuple=lambda: (triple, "", features))
    )
    builder.ret(_select_bytes(context, builder, *function.args))
    target = binding.Target.from_triple(triple).create_target_machine(features=features)
    assembly = target.emit_assembly(binding.parse_assembly(str(module)))
    assert instruction in assembly
    assert ("pshufb" in assembly) == (instruction == "pshufb")
