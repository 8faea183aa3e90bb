"""The torch operators: registered as torch demands, opaque to compile and autocast, equal to the naive definitions."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refcocom_kernels import cpu, ops, reference, tables
from test_kernels import KINDS, boundary_counts, draw, packed, runs_of, sizes_of

SIZE = (37, 71)
OPERATORS = [
    "mask_counts",
    "mask_boundary_counts",
    "pairwise_intersections",
    "logit_counts",
    "logit_masks",
    "rle_counts",
    "mask_runs",
    "logit_runs",
]


def words_of(masks):
    words, offsets = packed(masks)
    return torch.from_numpy(words.view(np.int64)), torch.from_numpy(offsets)


@pytest.fixture(scope="module")
def truth():
    return [draw(kind, *SIZE, seed) for seed, kind in enumerate(KINDS)]


@pytest.fixture(scope="module")
def predicted():
    return torch.from_numpy(np.stack([draw(kind, *SIZE, 9) for kind in reversed(KINDS)]))


@pytest.fixture(scope="module")
def calls(truth, predicted):
    """Arguments of every operator, and what the naive definition gives."""
    words, word_offsets = words_of(truth)
    n = len(truth)
    sample = torch.arange(n).flip(0)
    targets = torch.from_numpy(np.stack(truth))[sample]
    heights, widths = (torch.from_numpy(x) for x in sizes_of(truth))
    ends, run_offsets = runs_of(truth)
    distances = torch.arange(1, n + 1)
    # Reaches are twice the distances.
    true = [torch.from_numpy(m) for m in truth]
    contours = [reference.contour(m) for m in true]
    boundary_words, contour_words, wide_words = (
        words_of([m.numpy() for m in drawn])[0]
        for drawn in (
            [reference.boundary(m, k + 1) for k, m in enumerate(true)],
            contours,
            [reference.widened(m, 2 * k + 2) for k, m in enumerate(contours)],
        )
    )
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 16, 20)).astype(np.float32))
    data, offsets = cpu.rle_write(*cpu.mask_runs(predicted.numpy().view(np.uint8)))
    target_ends, target_offsets = torch.from_numpy(ends), torch.from_numpy(run_offsets)
    counts = reference.mask_counts(predicted, targets)
    found_runs = [reference.run_ends(mask) for mask in predicted]
    resized = torch.stack([reference.resize_logits(row, *SIZE) for row in logits]) > 0.5
    kinds = torch.tensor([reference.value_kind(row) for row in logits], dtype=torch.int8)
    resized_runs = [reference.run_ends(mask) for mask in resized]
    return {
        "mask_counts": ((predicted, sample, words, word_offsets), [counts]),
        "mask_boundary_counts": (
            (
                predicted, sample, heights, widths, boundary_words, distances, contour_words, wide_words,
                2 * distances, word_offsets,
            ),
            [
                torch.tensor([
                    boundary_counts(p.numpy(), t.numpy(), int(distances[s]), 2 * int(distances[s]))
                    for p, t, s in zip(predicted, targets, sample, strict=True)
                ])
            ],
        ),
        "pairwise_intersections": (
            (*words_of(list(predicted.numpy())), words, word_offsets, 42),
            [reference.pairwise_intersections(predicted, torch.from_numpy(np.stack(truth)))],
        ),
        "logit_counts": (
            (logits, sample, heights, widths, words, word_offsets, *SIZE, 0.5),
            [reference.mask_counts(resized, targets), kinds],
        ),
        "logit_masks": ((logits, sample, heights, widths, *SIZE, 0.5), [resized]),
        "rle_counts": (
            (
                torch.from_numpy(data),
                torch.from_numpy(offsets),
                sample,
                target_ends,
                ops.run_ranks(target_ends, target_offsets),
                target_offsets,
                heights * widths,
            ),
            [counts, torch.ones(n, dtype=torch.bool)],
        ),
        "mask_runs": ((predicted,), runs(found_runs)),
        "logit_runs": ((logits, *SIZE, 0.5), runs(resized_runs)),
    }  # fmt: skip


def runs(found):
    lengths = torch.tensor([0, *map(len, found)])
    return [torch.cat(found).int(), torch.cumsum(lengths, 0)]


def assert_equal(found, expected):
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    assert len(found) == len(expected)
    for mine, wanted in zip(found, expected, strict=True):
        assert mine.dtype == wanted.dtype
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("name", OPERATORS)
def test_equal_to_the_definition(name, calls):
    arguments, expected = calls[name]
    assert_equal(getattr(ops, name)(*arguments), expected)
    assert_equal(getattr(torch.ops.refcocom, name)(*arguments), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_what_a_cuda_device_runs(name, calls):
    """The registered Triton launchers on the operator's own arguments, interpreted, every address checked."""
    pytest.importorskip("triton")
    from bounds import checked_memory

    arguments, expected = calls[name]
    with checked_memory():
        assert_equal(getattr(ops, name)._backend_fns["cuda"](*arguments), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_registered_as_torch_demands(name, calls):
    """Schema, fake tensors and autograd registration, dynamic shapes included."""
    arguments, _ = calls[name]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.refcocom, name).default, arguments, test_utils=checks)


@pytest.mark.parametrize("name", OPERATORS)
def test_compiled_whole(name, calls):
    arguments, expected = calls[name]
    operator = getattr(torch.ops.refcocom, name)

    def step(*values):
        return operator(*values)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        assert_equal(compiled(*arguments), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_inference_mode_and_autocast(name, calls):
    arguments, expected = calls[name]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert_equal(getattr(ops, name)(*arguments), expected)


def test_a_model_in_training(calls):
    """Logits that carry a graph are counted; nothing flows back through counts."""
    (logits, *rest), expected = calls["logit_counts"]
    logits = logits.clone().requires_grad_()
    counts, kinds = ops.logit_counts(logits * 1, *rest)
    assert_equal([counts, kinds], expected)
    assert not counts.requires_grad


@pytest.mark.parametrize("name", ["mask_counts", "mask_boundary_counts", "mask_runs"])
def test_masks_in_any_layout(name, calls):
    (masks, *rest), expected = calls[name]
    operator = getattr(ops, name)
    columns_first = masks.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    apart = torch.stack([masks, ~masks], dim=3)[..., 0]
    assert not columns_first.is_contiguous()
    assert not apart.is_contiguous()
    for layout in (columns_first, apart, masks.to(torch.uint8) * 7):
        assert_equal(operator(layout, *rest), expected)
    with pytest.raises(TypeError, match=r"bool or uint8, not torch\.int64"):
        operator(masks.long(), *rest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_of_any_type(dtype, calls):
    (logits, sample, heights, widths, words, offsets, *bounds, _), _ = calls["logit_counts"]
    logits = logits.to(dtype)
    valid = torch.tensor([[9.5, 17.25]] * len(logits), dtype=torch.float64)
    counts, _ = ops.logit_counts(
        logits, sample, heights, widths, words, offsets, *bounds, valid=valid
    )
    for row, own in enumerate(sample.tolist()):
        start, stop = offsets[own : own + 2].tolist()
        target = reference.unpack(words[start:stop], *SIZE)
        expected = reference.logit_counts(logits[row], target, valid=(9.5, 17.25))
        assert counts[row].tolist() == expected.tolist()
    with pytest.raises(TypeError, match=r"not torch\.float64"):
        ops.logit_counts(logits.double(), sample, heights, widths, words, offsets, *bounds)


def test_indices_that_are_strided(calls):
    (masks, sample, *rest), expected = calls["mask_counts"]
    strided = torch.stack([sample, sample], dim=1)[:, 0]
    assert not strided.is_contiguous()
    assert_equal(ops.mask_counts(masks, strided, *rest), expected)


def test_nothing_to_count(calls):
    for name in ("mask_counts", "mask_boundary_counts"):
        (masks, sample, *rest), (expected,) = calls[name]
        assert getattr(ops, name)(masks[:0], sample[:0], *rest).shape == (0, *expected.shape[1:])
    (logits, sample, *rest), _ = calls["logit_counts"]
    counts, kinds = ops.logit_counts(logits[:0], sample[:0], *rest)
    assert (counts.shape, kinds.shape) == ((0, 2), (0,))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_examples_of_the_docstrings(name):
    function = getattr(ops, name)._init_fn
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(function, name, globs=vars(ops)):
        runner.run(test)
    assert runner.failures == 0


def test_tables_are_those_of_interpolate():
    """The weights of a resize are `F.interpolate`'s, which rounds its sums in its own way."""
    field = torch.linspace(-3, 5, 24 * 31).reshape(1, 1, 24, 31)
    theirs = torch.nn.functional.interpolate(field, (50, 47), mode="bilinear")[0, 0]
    mine = reference.resize_logits(field[0, 0], 50, 47)
    assert torch.allclose(mine, theirs, rtol=0, atol=2e-6)
    assert tables.axis_table(24.0, 50).low[-1] == 23


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_both_tallies_agree(data):
    """Repeated, conflicting and faulty rows, in any batches."""
    counts = st.tuples(st.integers(0, 2), st.integers(0, 2))
    row = st.tuples(counts, st.integers(0, 3), st.integers(0, 1), st.integers(0, 1))
    n_more = data.draw(st.integers(0, 2))
    more = st.tuples(*[st.integers(0, 1)] * n_more)
    states = tuple(torch.tensor([[-1, -1, 0, 0, 0, *[0] * n_more]] * 4) for _ in range(2))
    for _ in range(data.draw(st.integers(1, 4))):
        index = torch.tensor(data.draw(st.lists(st.integers(0, 3), max_size=6)), dtype=torch.int64)
        drawn = data.draw(st.lists(row, min_size=len(index), max_size=len(index)))
        added = data.draw(st.lists(more, min_size=len(index), max_size=len(index)))
        rows = torch.tensor(
            [[*c, *rest, *a] for (c, *rest), a in zip(drawn, added, strict=True)], dtype=torch.int64
        ).reshape(-1, 5 + n_more)
        reference.tally(states[0], index, rows)
        cpu.tally(states[1].numpy(), index.numpy(), rows.numpy())
    assert torch.equal(*states)
