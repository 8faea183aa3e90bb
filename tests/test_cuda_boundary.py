"""The Triton kernels for boundaries of dense masks equal the naive torch definition; interpreted, so without a GPU."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from aot import ARCHITECTURES, ONES_ARCHITECTURE, Case, ones
from bounds import checked_memory
from refcocom_kernels import reference
from refcocom_kernels.cuda.boundary import mask_boundary_counts
from test_cuda_masks import placed, stored
from test_kernels import KINDS, SIZES, draw

WIDE = [1, 2, 5, 16, 17, 40]
"""Windows within 64 bits, of just 33, of more than 33, of more than 64."""


def stored_boundaries(
    targets: list[np.ndarray], distances: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed boundaries, where each begins, and how wide each is."""
    edges = [
        reference.boundary(torch.from_numpy(target), distance).numpy()
        for target, distance in zip(targets, distances, strict=True)
    ]
    return *stored(edges), torch.tensor(distances)


def expected_counts(
    masks: np.ndarray, targets: list[np.ndarray], distances: list[int]
) -> torch.Tensor:
    rows = zip(masks, targets, distances, strict=True)
    return torch.stack(
        [
            reference.boundary_counts(torch.from_numpy(mask), torch.from_numpy(target), distance)
            for mask, target, distance in rows
        ]
    )


@pytest.mark.parametrize("size", [*SIZES, (70, 100)])
def test_boundaries(size):
    """Each mask of a batch has a distance of its own."""
    targets = [draw(kind, *size, seed) for seed, kind in enumerate(KINDS)]
    masks = np.stack([draw(kind, *size, 9) for kind in ["full"] * 4 + ["noise", "full"]])
    # Holes on whose either side something survives, where the image is large enough.
    masks[1:, size[0] // 2, size[1] // 2] = False
    masks[1:, size[0] // 12, size[1] // 3] = False
    own = torch.arange(6)
    with checked_memory():
        found = mask_boundary_counts(
            placed(masks, 5), own, *stored_boundaries(targets, WIDE), chunks=512, block=256
        )
    assert torch.equal(found, expected_counts(masks, targets, WIDE))


@given(
    st.integers(1, 40),
    st.integers(1, 150),
    st.integers(1, 20),
    st.integers(0, 15),
    st.integers(0, 4),
    st.integers(0, 2**31),
)
@example(1, 17, 1, 15, 0, 0)  # ends with a word
@example(1, 18, 1, 15, 0, 0)  # ends with the first bit of a word
@example(40, 100, 16, 3, 1, 1)  # a window of 33 columns, some of which survive
@settings(max_examples=20)
def test_any_size_and_distance(height, width, distance, front, holes, seed):
    rng = np.random.default_rng(seed)
    masks = np.ones((1, height, width), bool)
    masks[0, rng.integers(0, height, holes), rng.integers(0, width, holes)] = False
    target = rng.random((height, width)) < 0.5
    with checked_memory():
        found = mask_boundary_counts(
            placed(masks, front),
            torch.tensor([0]),
            *stored_boundaries([target], [distance]),
            chunks=256,
            block=128,
        )
    assert torch.equal(found, expected_counts(masks, [target], [distance]))


def test_order_and_tiles_change_nothing():
    size, distances = (13, 90), [3, 4, 1]
    targets = [draw("noise", *size, seed) for seed in range(3)]
    masks = np.stack([draw(kind, *size, 5) for kind in ("blob", "full", "noise")])
    expected = expected_counts(masks, targets, distances)
    truth = stored_boundaries(targets, distances)
    order = torch.tensor([2, 0, 1, 1])
    for chunks, block in [(32, 16), (64, 128)]:
        found = mask_boundary_counts(
            torch.from_numpy(masks)[order], order, *truth, chunks=chunks, block=block
        )
        assert torch.equal(found, expected[order])


def test_a_full_tile_does_not_overflow():
    """Without survivors all pixels of a tile are counted; the most it may hold is close to 16 bits."""
    full = np.ones((2, 30000), bool)
    found = mask_boundary_counts(
        placed(full[None], 0, 255),
        torch.tensor([0]),
        *stored_boundaries([full], [1]),
        chunks=4096,
        block=1024,
    )
    assert found.tolist() == [[full.size, full.size]]


def test_masks_beyond_2_31_bytes():
    size, apart = (9, 40), 2**30 + 7
    drawn = np.stack([draw("blob", *size)] * 3)
    drawn[2, 4, 20] = False
    target = draw("blob", *size)
    with checked_memory() as memory:
        rows = memory.vast(torch.uint8, 2 * apart + 400)
        masks = rows.as_strided((3, *size), (apart, size[1], 1))
        masks.copy_(torch.from_numpy(drawn))
        found = mask_boundary_counts(
            masks, torch.zeros(3, dtype=torch.int64), *stored_boundaries([target], [1])
        )
    assert torch.equal(found, expected_counts(drawn, [target] * 3, [1] * 3))


def test_nothing_to_count():
    truth = stored_boundaries([np.ones((2, 3), bool)], [1])
    none = mask_boundary_counts(torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.int64), *truth)
    assert none.shape == (0, 2)
    assert none.dtype == torch.int64


BYTES = {"masks": "*u8", "stride": "i32"}
SIZE = {"height": "i32", "width": "i32"}
WIDTHS = {"sample": "*i64", "distances": "*i64"}
TILES = {"row_words": "i32", "tiles": "i32", "BLOCK": 512}
PACK = {
    **BYTES,
    "pixels": "i32",
    "strings": "*i16:16",
    "n_chunks": "i32",
    "tiles": "i32",
    "CHUNKS": 512,
}
ERODE_ROWS = {
    **BYTES,
    **SIZE,
    **WIDTHS,
    "strings": "*i32:16",
    "n_words": "i32",
    "eroded": "*i32:16",
    **TILES,
}
ERODE_STRIPS = {**WIDTHS, "eroded": "*i32:16", "strips": "*i32:16", "height": "i32", **TILES}
COUNT = {
    **BYTES,
    **SIZE,
    **WIDTHS,
    "strings": "*i32:16",
    "n_string_words": "i32",
    "strips": "*i32:16",
    "truth": "*i32",
    "word_offsets": "*i64",
    "n_truth_words": "i32",
    "counts": "*i64:16",
    **TILES,
}


CASES = [
    Case("refcocom_kernels.cuda.boundary", kernel, arguments)
    for kernel, arguments in {
        "_pack": PACK,
        "_erode_rows": ERODE_ROWS,
        "_erode_strips": ERODE_STRIPS,
        "_count_boundaries": COUNT,
    }.items()
]


def test_compiled(compiled):
    """On every architecture: the bytes are read in wide loads, and nothing lies in local memory."""
    built = compiled(CASES)
    assert len(built) == len(CASES) * len(ARCHITECTURES)
    for kernel in built:
        assert kernel.stack == kernel.local_accesses == 0, str(kernel)
        assert kernel.registers <= 48, str(kernel)
        if kernel.kernel == "_pack":
            assert kernel.load_bits[128] == 4, str(kernel)
        if kernel.kernel == "_count_boundaries":
            assert kernel.popcounts == 8, str(kernel)


def test_compiled_where_numbers_are_1(compiled):
    assert len(compiled(list(map(ones, CASES)), [ONES_ARCHITECTURE])) == len(CASES)
