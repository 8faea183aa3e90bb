"""Every CPU kernel equals the naive torch definition, to the last pixel: odd sizes, tails, empty, full, noisy."""

from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from refcocom_kernels import codes, cpu, reference, tables
from refcocom_kernels.cpu.numba.jit import Kernel

SIZES = [
    (1, 1),
    (1, 7),
    (7, 1),
    (1, 64),
    (64, 1),
    (63, 65),
    (64, 64),
    (100, 3),
    (37, 129),
    (128, 200),
]
KINDS = ["empty", "full", "noise", "sparse", "blob", "frame"]


def draw(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    return {
        "empty": lambda: np.zeros((height, width), bool),
        "full": lambda: np.ones((height, width), bool),
        "noise": lambda: rng.random((height, width)) < 0.5,
        "sparse": lambda: rng.random((height, width)) < 0.02,
        "blob": lambda: np.hypot((y - height * 0.4) / height, (x - width * 0.6) / width) < 0.35,
        "frame": lambda: (y == 0) | (x == 0) | (y == height - 1) | (x == width - 1),
    }[kind]()


def packed(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Packed as the store packs, by numpy alone."""
    offsets = cpu.word_offsets_for(np.array([m.size for m in masks]))
    words = np.zeros(offsets[-1], np.uint64)
    for mask, start in zip(masks, offsets[:-1], strict=True):
        bits = np.packbits(mask.reshape(-1), bitorder="little")
        words[start:].view(np.uint8)[: len(bits)] = bits
    return words, offsets


def runs_of(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    ends = [reference.run_ends(torch.from_numpy(m)).numpy().astype(np.int32) for m in masks]
    return np.concatenate(ends), cpu.offsets_from(np.array([len(e) for e in ends]))


def sizes_of(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([m.shape[k] for m in masks], np.int64) for k in (0, 1))


@pytest.fixture
def poison(monkeypatch):
    """Uninitialised memory is filled with ones, so that a kernel that forgets to write is found out."""
    # Compiled before: Numba would otherwise be handed the function below.
    for name in ("bits", "boundary", "contours", "logits", "masks", "rle"):
        for kernel in vars(import_module(f"refcocom_kernels.cpu.numba.{name}")).values():
            if isinstance(kernel, Kernel):
                kernel.compile()

    def filled(shape, dtype=float, **_):
        array = np.zeros(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xA5
        return array

    monkeypatch.setattr(np, "empty", filled)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_packing_and_runs(size, kind, poison):
    mask = draw(kind, *size)
    ends, offsets = runs_of([mask])
    words, _ = packed([mask])
    np.testing.assert_array_equal(cpu.rle_pack(ends, offsets, *sizes_of([mask])), words)
    back, back_offsets = cpu.mask_runs(mask[None].view(np.uint8))
    np.testing.assert_array_equal(back, ends)
    np.testing.assert_array_equal(back_offsets, offsets)
    decoded = reference.decode_runs(torch.from_numpy(back), *size).numpy()
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("size", SIZES)
def test_dense_packed_and_pairs(size, poison):
    masks = [draw(kind, *size, seed) for seed, kind in enumerate(KINDS)]
    rng = np.random.default_rng(5)
    predicted = [draw(kind, *size, 9 + k) for k, kind in enumerate(rng.permutation(KINDS))]
    words, offsets = packed(masks)
    own = np.arange(len(masks))
    expected = reference.mask_counts(
        torch.from_numpy(np.stack(predicted)), torch.from_numpy(np.stack(masks))
    ).numpy()
    # Whatever is not 0 is set.
    bytes_ = np.stack(predicted).astype(np.uint8) * rng.integers(
        1, 256, (len(masks), *size)
    ).astype(np.uint8)
    flat = bytes_.reshape(len(masks), -1)
    for threads in (1, 3):
        np.testing.assert_array_equal(
            cpu.mask_counts(flat, own, words, offsets, threads=threads).counts, expected
        )
    listed = cpu.mask_list_counts(list(bytes_), own, words, offsets)
    np.testing.assert_array_equal(listed.counts, expected)
    mine, my_offsets = packed(predicted)
    pixels = np.full(len(masks), size[0] * size[1])
    np.testing.assert_array_equal(
        cpu.packed_counts(mine, my_offsets, own, words, offsets, pixels), expected
    )
    np.testing.assert_array_equal(
        cpu.pairwise_intersections(mine, my_offsets, words, offsets),
        reference.pairwise_intersections(
            torch.from_numpy(np.stack(predicted)), torch.from_numpy(np.stack(masks))
        ).numpy(),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_rle_counts(size, kind, poison):
    masks = [draw(k, *size, seed) for seed, k in enumerate(KINDS)]
    mask = draw(kind, *size, 11)
    ends, offsets = runs_of(masks)
    string = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    data = np.frombuffer(string * len(masks), np.uint8)
    string_offsets = np.arange(len(masks) + 1) * len(string)
    pixels = np.full(len(masks), mask.size)
    # Rows come in any order of targets.
    order = np.random.default_rng(1).permutation(len(masks))
    counts, status, _ = cpu.rle_counts(data, string_offsets, order, ends, offsets, pixels)
    assert not status.any()
    for row, target in enumerate(order):
        expected = reference.mask_counts(torch.from_numpy(mask), torch.from_numpy(masks[target]))
        assert counts[row].tolist() == expected.tolist()


def boundary_counts(mask: np.ndarray, target: np.ndarray, distance: int, reach: int) -> list[int]:
    """The five columns, by the naive definitions."""
    pair = torch.from_numpy(mask), torch.from_numpy(target)
    counts = reference.boundary_counts(*pair, distance), reference.contour_counts(*pair, reach)
    return torch.cat(counts).tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [None, 1, 3, 40])
@pytest.mark.parametrize("target_kind", ["blob", "empty"])
def test_boundaries(size, kind, target_kind, distance, poison, monkeypatch):
    sizes = sizes_of([np.zeros(size)])
    reaches = cpu.boundary_distance(*sizes, cpu.REACH_RATIO)
    if distance is not None:
        monkeypatch.setattr(
            "refcocom_kernels.cpu.boundary.boundary_distance",
            lambda h, w: np.full(len(h), distance),
        )
        # As far as a word reaches, and farther.
        reaches = np.array([{1: 2, 3: 33, 40: 130}[distance]])
    mask, target = draw(kind, *size, 1), draw(target_kind, *size, 2)
    if target_kind != "empty":
        target |= draw("sparse", *size, 3)
    words, offsets = packed([target])
    truth = cpu.boundaries(words, offsets, *sizes)
    wide, reach = int(truth.distances[0]), int(reaches[0])
    expected_truth = reference.boundary(torch.from_numpy(target), wide).numpy()
    np.testing.assert_array_equal(truth.words, packed([expected_truth])[0])
    assert truth.areas.tolist() == [expected_truth.sum()]
    contours = cpu.contours(words, offsets, *sizes, reaches)
    contour = reference.contour(torch.from_numpy(target))
    np.testing.assert_array_equal(contours.words, packed([contour.numpy()])[0])
    np.testing.assert_array_equal(
        contours.wide, packed([reference.widened(contour, reach).numpy()])[0]
    )
    assert contours.areas.tolist() == [contour.sum()]
    expected = boundary_counts(mask, target, wide, reach)
    own = np.zeros(1, np.int64)
    stored = (*sizes, truth, contours, offsets)
    found = cpu.mask_boundary_counts(mask[None].view(np.uint8), own, *stored)
    assert found.counts[0].tolist() == expected
    # Beyond the image there may be anything.
    room = np.full((1, size[0] + 3, size[1] + 70), 7, np.uint8)
    room[0, : size[0], : size[1]] = mask
    assert cpu.mask_boundary_counts(room, own, *stored).counts[0].tolist() == expected
    ends, run_offsets = runs_of([mask])
    from_runs = cpu.run_boundary_counts(ends, run_offsets, own, *stored)
    assert from_runs.counts[0].tolist() == expected
    assert 0 <= found.cropped[0] <= 1


@given(st.integers(1, 30), st.integers(1, 140), st.integers(1, 70), st.integers(0, 2**31))
def test_contours_of_any_size_and_reach(height, width, reach, seed):
    """Few pixels, so that the box is smaller than the image and the reach goes beyond either."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros((height, width), bool) for _ in range(3)]
    for mask in masks[:2]:
        for _ in range(rng.integers(0, 4)):
            y, x = rng.integers(0, height), rng.integers(0, width)
            mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 90)] = True
    words, offsets = packed(masks)
    sizes, n = sizes_of(masks), len(masks)
    contours = cpu.contours(words, offsets, *sizes, np.full(n, reach))
    boundaries = cpu.boundaries(words, offsets, *sizes)
    pairs = np.array([[0, 1], [1, 0], [0, 2], [2, 1], [0, 0]])
    mine = np.stack([masks[k] for k in pairs[:, 0]]).view(np.uint8)
    found = cpu.mask_boundary_counts(
        mine, pairs[:, 1].copy(), *sizes, boundaries, contours, offsets
    )
    for counts, (mask, target) in zip(found.counts.tolist(), pairs, strict=True):
        distance = int(boundaries.distances[target])
        assert counts == boundary_counts(masks[mask], masks[target], distance, reach)


def field(kind: str, h: int, w: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    smooth = 8 * (0.35 - np.hypot(y - 0.4, x - 0.5)) + 0.2 * np.sin(19 * x)
    return {
        "smooth": lambda: smooth,
        "tiny": lambda: smooth * 1e-6,
        "subnormal": lambda: smooth * 1e-7,
        "huge": lambda: smooth * 5000,
        "noise": lambda: rng.normal(size=(h, w)),
        "ties": lambda: rng.choice([-0.0, 0.0, 0.5, -0.5, 1.0], size=(h, w)),
        "spots": lambda: np.where(rng.random((h, w)) < 0.03, -9.0, 1.0) * smooth,
        "zero": lambda: np.zeros((h, w)),
    }[kind]().astype(np.float32)


def as_kind(values: np.ndarray, dtype: str) -> tuple[np.ndarray, torch.Tensor]:
    tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    array = tensor.view(torch.uint16).numpy() if dtype == "bfloat16" else tensor.numpy()
    return array, tensor


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "kind", ["smooth", "tiny", "subnormal", "huge", "noise", "ties", "spots", "zero"]
)
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_logits(dtype, kind, threshold, poison):
    rng = np.random.default_rng(3)
    sizes = [((1, 1), (1, 1)), ((1, 5), (9, 130)), ((16, 16), (33, 65)), ((64, 64), (100, 127)), ((100, 130), (63, 40)),
             ((65, 127), (65, 127)), ((2, 200), (64, 64)), ((128, 128), (200, 301))]  # fmt: skip
    for seed, ((h, w), (height, width)) in enumerate(sizes):
        array, tensor = as_kind(field(kind, h, w, seed), dtype)
        target = rng.random((height, width)) < 0.5
        words, offsets = packed([target])
        for valid in (None, (max(0.4, 0.7 * h), max(0.3, 0.93 * w)), (float(h), max(1.0, w // 2))):
            found = cpu.logit_counts(
                array[None], np.zeros(1, np.int64), np.array([height]), np.array([width]), words, offsets,
                threshold=threshold, valid=None if valid is None else np.array([valid]), threads=1,
            )  # fmt: skip
            expected = reference.logit_counts(tensor, torch.from_numpy(target), threshold, valid)
            assert found.counts[0].tolist() == expected.tolist(), (h, w, height, width, valid)
            resized = reference.resize_logits(tensor, height, width, valid) > threshold
            ends, run_offsets = cpu.logit_runs(
                array[None], height, width, threshold=threshold, valid=valid, threads=1
            )
            assert run_offsets.tolist() == [0, len(ends)]
            np.testing.assert_array_equal(ends, reference.run_ends(resized).numpy())
            drawn = cpu.logit_masks(
                array[None], np.zeros(1, np.int64), np.array([height]), np.array([width]), height + 1, width + 2,
                threshold=threshold, valid=None if valid is None else np.array([valid]), threads=1,
            )[0]  # fmt: skip
            np.testing.assert_array_equal(drawn[:height, :width], resized)
            assert drawn.sum() == resized.sum()


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**31),
)
def test_logits_of_any_size(h, w, height, width, seed):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(h, w)) + rng.choice([-2, 0, 2])).astype(np.float32)
    target = rng.random((height, width)) < 0.5
    words, offsets = packed([target])
    found = cpu.logit_counts(
        values[None], np.zeros(1, np.int64), np.array([height]), np.array([width]), words, offsets
    )
    expected = reference.logit_counts(torch.from_numpy(values), torch.from_numpy(target))
    assert found.counts[0].tolist() == expected.tolist()


@pytest.mark.parametrize("units", [1, 3, 2**10, 2**24])
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_whose_products_round_to_nothing(units, sign):
    """Below the smallest normal number a share of the magnitude bounds no rounding: half of 2⁻¹⁴⁹ is 0."""
    values = np.full((8, 80), sign * units * 2.0**-149, np.float32)
    target = np.ones((4, 40), bool)
    words, offsets = packed([target])
    found = cpu.logit_counts(
        values[None], np.zeros(1, np.int64), np.array([4]), np.array([40]), words, offsets
    )
    expected = reference.logit_counts(torch.from_numpy(values), torch.from_numpy(target))
    assert found.counts[0].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0), (40, 69), (20, 64), (13, 3)])
def test_non_finite_logits_are_flagged_wherever_they_are(dtype, bad, place):
    values = field("smooth", 41, 70, 0)
    values[place] = bad
    array, _ = as_kind(values, dtype)
    words, offsets = packed([np.ones((9, 200), bool)])
    for height, width in [(9, 200), (1, 1800)]:
        found = cpu.logit_counts(
            array[None],
            np.zeros(1, np.int64),
            np.array([height]),
            np.array([width]),
            words,
            offsets,
        )
        assert found.kinds[0] == codes.NON_FINITE
        assert found.counts[0].tolist() == [0, 0]


@st.composite
def float_values(draw_):
    """Values of every kind, often just on either side of a bound, of a size that ends inside a vector."""
    shape = draw_(st.integers(1, 9)), draw_(st.integers(1, 150))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    scale = draw_(st.sampled_from([0.0, 1e-8, 2.0**-20, 0.3, 1.0, 1.5, 1.6, 30.0]))
    values = (rng.random(shape) - draw_(st.sampled_from([0.0, 0.1, 0.3, 0.5]))) * scale
    if draw_(st.booleans()):
        values = (rng.random(shape) < 0.5) * draw_(st.sampled_from([1.0, 0.5, 2.0]))
    odd = st.sampled_from(
        [np.nan, np.inf, -np.inf, -1e-9, 1.0000001, -0.5, -0.51, -1.0, -0.0, 1.5, 1.6]
    )
    for value in draw_(st.lists(odd, max_size=2)):
        values[tuple(rng.integers(shape))] = value
    return values.astype(np.float32)


@given(float_values(), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_kinds_of_values(values, dtype):
    """What values look like, wherever the telling one lies, also in the part that no pixel looks at."""
    array, tensor = as_kind(values, dtype)
    expected = reference.value_kind(tensor)
    assert cpu.value_kinds(array[None]).tolist() == [expected]
    words, offsets = packed([np.ones((20, 20), bool)])
    size, own, valid = np.array([20]), np.zeros(1, np.int64), np.array([[0.7, 0.6]])
    counted = cpu.logit_counts(array[None], own, size, size, words, offsets, valid=valid)
    assert counted.kinds.tolist() == [expected]


def test_kinds_of_values_by_example():
    kinds = {
        codes.SIGNED: [[-9.0, 4.0], [-0.6, 0.0], [-1e-3, 1e-3]],
        codes.LARGE: [[0.0, 255.0], [-0.4, 1.6]],
        codes.SOFT: [[0.0, 0.3], [-0.08, 1.08], [1.0, 1.0000001], [-1e-9, 1e-9], [0.25, 0.25]],
        codes.BINARY: [[0.0, 1.0], [1.0, 1.0], [-0.0, 1.0]],
        codes.ZERO: [[0.0, -0.0]],
    }
    for kind, examples in kinds.items():
        for values in examples:
            assert reference.value_kind(torch.tensor([values])) == kind, values


@given(st.integers(1, 200), st.data())
def test_masks_of_several_values_are_found(n_pixels, data):
    """Whichever pixels hold another value than the rest, and only then; the counts do not change."""
    pixels = st.lists(st.sampled_from([0, 0, 1, 3, 255]), min_size=n_pixels, max_size=n_pixels)
    masks = np.array([data.draw(pixels), [data.draw(st.sampled_from([0, 1, 255]))] * n_pixels])
    masks = masks.astype(np.uint8)
    words, offsets = packed([np.ones((1, n_pixels), bool)])
    own = np.zeros(2, np.int64)
    expected = [len(set(mask.tolist()) - {0}) > 1 for mask in masks]
    found = cpu.mask_counts(masks, own, words, offsets, looks=True)
    assert found.mixed.tolist() == expected
    listed = cpu.mask_list_counts(list(masks), own, words, offsets, looks=True)
    assert listed.mixed.tolist() == expected
    unseen = cpu.mask_counts(masks, own, words, offsets)
    assert not unseen.mixed.any()
    for result in (found, listed, unseen):
        np.testing.assert_array_equal(
            result.counts, np.count_nonzero(masks, axis=1)[:, None] * [1, 1]
        )


def test_flips_against_interpolate_stay_within_the_bound():
    """A pixel may differ from `F.interpolate` only where its value is within rounding of the threshold."""
    flips = 0
    for seed in range(6):
        logits = torch.from_numpy(field("noise", 96, 120, seed))
        theirs = torch.nn.functional.interpolate(
            logits[None, None], (427, 613), mode="bilinear", align_corners=False
        )[0, 0]
        mine = reference.resize_logits(logits, 427, 613)
        # Their source position is float32: off by up to 2⁻²⁴ of 120 cells, times the slope between cells.
        bound = 2.0**-24 * 120 * 4 * float(logits.abs().max())
        assert float((mine - theirs).abs().max()) <= bound
        differs = (mine > 0) != (theirs > 0)
        flips += int(differs.sum())
        assert not bool((differs & (mine.abs() > bound)).any())
    assert flips <= 6 * 5


def test_axis_table_refuses_nothing_to_resize():
    with pytest.raises(ValueError, match="cannot resize"):
        tables.axis_table(0, 5)
    with pytest.raises(ValueError, match="cannot resize"):
        tables.axis_table(5, 0)
