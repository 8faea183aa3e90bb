"""Groups of masks: pairs and votes equal the naive torch definition, whatever the sizes, weights and threads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refcocom_kernels import cpu, reference
from test_kernels import KINDS, SIZES, draw, packed


def groups_of(seed: int) -> list[list[np.ndarray]]:
    """Groups of one to five masks each, a size to a group, some of them empty or full."""
    rng = np.random.default_rng(seed)
    groups = []
    for height, width in rng.permutation(SIZES)[: rng.integers(1, 6)].tolist():
        kinds = rng.choice(KINDS, rng.integers(1, 6)).tolist()
        groups.append([draw(kind, height, width, int(rng.integers(99))) for kind in kinds])
    return groups


def laid_out(groups: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    words, offsets = packed([mask for group in groups for mask in group])
    return words, offsets, cpu.offsets_from(np.array([len(group) for group in groups]))


@given(seed=st.integers(0, 2**31), threads=st.sampled_from([1, 3]))
def test_pairs_equal_the_reference(seed: int, threads: int) -> None:
    groups = groups_of(seed)
    found = cpu.group_intersections(*laid_out(groups), threads=threads)
    expected = [
        reference.pairwise_intersections(stacked, stacked).reshape(-1)
        for stacked in (torch.from_numpy(np.stack(group)) for group in groups)
    ]
    np.testing.assert_array_equal(found, torch.cat(expected).numpy())


@given(seed=st.integers(0, 2**31), threads=st.sampled_from([1, 3]), heaviest=st.integers(0, 9))
def test_votes_equal_the_reference(seed: int, threads: int, heaviest: int) -> None:
    groups = groups_of(seed)
    rng = np.random.default_rng(seed)
    words, offsets, group_offsets = laid_out(groups)
    weights = rng.integers(0, heaviest + 1, len(offsets) - 1)
    voted, voted_offsets = cpu.group_votes(words, offsets, group_offsets, weights, threads=threads)
    expected = [
        reference.vote(
            torch.from_numpy(np.stack(group)), torch.from_numpy(weights[first : first + len(group)])
        ).numpy()
        for group, first in zip(groups, group_offsets[:-1].tolist(), strict=True)
    ]
    expected_words, expected_offsets = packed(expected)
    np.testing.assert_array_equal(voted, expected_words)
    np.testing.assert_array_equal(voted_offsets, expected_offsets)


@pytest.mark.parametrize("k", [1, 2, 3, 40])
def test_a_vote_of_equal_masks_is_the_mask(k: int) -> None:
    mask = draw("noise", 63, 65)
    words, offsets, group_offsets = laid_out([[mask] * k])
    voted, _ = cpu.group_votes(words, offsets, group_offsets, np.ones(k, np.int64))
    np.testing.assert_array_equal(voted, packed([mask])[0])


def test_many_groups_over_many_threads() -> None:
    groups = [group for seed in range(40) for group in groups_of(seed)]
    one = cpu.group_intersections(*laid_out(groups), threads=1)
    np.testing.assert_array_equal(cpu.group_intersections(*laid_out(groups), threads=4), one)


def test_no_group() -> None:
    none = (np.zeros(0, np.uint64), np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert not len(cpu.group_intersections(*none))
    assert not len(cpu.group_votes(*none, np.zeros(0, np.int64))[0])
