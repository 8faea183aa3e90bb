"""What candidates agree on, and how well, equals what the words say; refining is connected components."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks import blobs, edge, iou

from refcocom_gpu.construct.agree import agree, boundaries_of, iou_with, pack_groups
from refcocom_gpu.construct.refine import refine
from refcocom_gpu.masks import rle


@given(seed=st.integers(0, 10_000), consensus=st.sampled_from(["majority", "weighted", "medoid"]))
def test_agreement_is_what_its_words_say(seed: int, consensus: str) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 70, (3, 2))
    groups = [blobs(seed + g, int(rng.integers(1, 5)), tuple(size)) for g, size in enumerate(sizes)]
    masks = pack_groups(
        [rle.run_ends(m) for group in groups for m in group],
        sizes.astype(np.int64),
        np.array([len(group) for group in groups]),
    )
    agreement = agree(masks, consensus=consensus)
    at = 0
    for g, group in enumerate(groups):
        k = len(group)
        pairs = np.array([[iou(a, b) for b in group] for a in group])
        edges = np.array([[iou(edge(a), edge(b)) for b in group] for a in group])
        others = ~np.eye(k, dtype=bool)
        if k > 1:
            assert agreement.iou[g] == pytest.approx(pairs[others].mean())
            assert agreement.boundary_iou[g] == pytest.approx(edges[others].mean())
        else:
            assert math.isnan(agreement.iou[g])
            assert math.isnan(agreement.boundary_iou[g])
        likeness = np.array([pairs[m][others[m]].mean() if k > 1 else 0 for m in range(k)])
        medoid = int(agreement.medoid[g]) - at
        assert likeness[medoid] == pytest.approx(likeness.max())
        chosen = agreement.consensus.row(g)
        mean = np.mean([iou(chosen, m) for m in group])
        # Whatever the vote, it is never less like the candidates than their medoid is.
        assert mean >= np.mean([iou(group[medoid], m) for m in group]) - 1e-12
        if consensus == "medoid" or agreement.is_medoid[g]:
            np.testing.assert_array_equal(chosen, group[medoid])
        elif consensus == "majority":
            votes = 2 * np.sum(group, axis=0)
            expected = (votes > k) | ((votes == k) & group[medoid])
            np.testing.assert_array_equal(chosen, expected)
        for m in range(k):
            assert agreement.consensus_iou[at + m] == pytest.approx(iou(chosen, group[m]))
        at += k


def test_iou_with_one_mask_a_group() -> None:
    masks = blobs(1, 6, (40, 50))
    sizes = np.array([[40, 50]] * 2)
    ends = [rle.run_ends(m) for m in masks]
    three = pack_groups(ends, sizes, np.array([3, 3]))
    one = pack_groups([ends[0], ends[5]], sizes, np.array([1, 1]))
    expected = [iou(m, masks[0] if k < 3 else masks[5]) for k, m in enumerate(masks)]
    np.testing.assert_allclose(iou_with(three, one), expected)
    expected = [iou(edge(m), edge(masks[0 if k < 3 else 5])) for k, m in enumerate(masks)]
    np.testing.assert_allclose(iou_with(boundaries_of(three), boundaries_of(one)), expected)


def test_refine_is_connected_components() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = ndimage.gaussian_filter(rng.normal(size=(60, 80)), 2) > 0.05
        labels, n = ndimage.label(mask, np.ones((3, 3)))
        areas = ndimage.sum_labels(mask, labels, range(1, n + 1))
        kept = np.isin(labels, 1 + np.flatnonzero(areas >= 0.05 * areas.max()))
        holes, n = ndimage.label(~np.pad(kept, 1))
        sizes = ndimage.sum_labels(np.ones_like(holes), holes, range(n + 1))
        small = np.flatnonzero(sizes < 0.05 * areas.max())
        filled = np.isin(holes, small[(small > 0) & (small != holes[0, 0])])[1:-1, 1:-1]
        refined = refine(mask, islands=0.05, holes=0.05)
        np.testing.assert_array_equal(refined, kept | filled)
        np.testing.assert_array_equal(refine(mask, islands=0, holes=0), mask)
    empty = np.zeros((4, 4), bool)
    assert not refine(empty).any()
