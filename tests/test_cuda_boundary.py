"""The Triton kernels for boundaries, contours and masks of logits equal the naive torch definition.

They are interpreted, so no GPU is needed.
"""

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
from refcocom_kernels.cuda.drawn import logit_masks
from test_cuda_masks import placed, stored
from test_kernels import KINDS, SIZES, boundary_counts, draw, field

WIDE = [1, 2, 5, 16, 17, 40]
"""Windows within 64 bits, of just 33, of more than 33, of more than 64."""


def reaches_of(distances: list[int]) -> list[int]:
    """A reach for each distance: also farther than a word, and other than the distance."""
    return [distance // 2 + 1 if distance < 40 else 70 for distance in distances]


def stored_truth(targets: list[np.ndarray], distances: list[int]) -> tuple[torch.Tensor, ...]:
    """What follows `sample` in the arguments: sizes, packed boundaries and contours, where each begins."""
    masks = [torch.from_numpy(target) for target in targets]
    reaches = reaches_of(distances)
    edges = [reference.boundary(m, d).numpy() for m, d in zip(masks, distances, strict=True)]
    drawn = [reference.contour(m) for m in masks]
    wide = [reference.widened(m, r).numpy() for m, r in zip(drawn, reaches, strict=True)]
    heights, widths = torch.tensor([target.shape for target in targets]).T.contiguous()
    words, word_offsets = stored(edges)
    contours, near = stored([m.numpy() for m in drawn])[0], stored(wide)[0]
    distances, reaches = torch.tensor(distances), torch.tensor(reaches)
    return heights, widths, words, distances, contours, near, reaches, word_offsets


def expected_counts(
    masks: np.ndarray, targets: list[np.ndarray], distances: list[int]
) -> torch.Tensor:
    rows = zip(masks, targets, distances, reaches_of(distances), strict=True)
    return torch.tensor([boundary_counts(*row) for row in rows])


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
            placed(masks, 5), own, *stored_truth(targets, WIDE), chunks=512, block=256
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
            *stored_truth([target], [distance]),
            chunks=256,
            block=128,
        )
    assert torch.equal(found, expected_counts(masks, [target], [distance]))


def test_order_and_tiles_change_nothing():
    size, distances = (13, 90), [3, 4, 1]
    targets = [draw("noise", *size, seed) for seed in range(3)]
    masks = np.stack([draw(kind, *size, 5) for kind in ("blob", "full", "noise")])
    expected = expected_counts(masks, targets, distances)
    truth = stored_truth(targets, distances)
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
        *stored_truth([full], [1]),
        chunks=4096,
        block=1024,
    )
    # Two rows: every pixel is on the contour.
    assert found.tolist() == [[full.size] * 5]


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
            masks, torch.zeros(3, dtype=torch.int64), *stored_truth([target], [1])
        )
    assert torch.equal(found, expected_counts(drawn, [target] * 3, [1] * 3))


def test_nothing_to_count():
    truth = stored_truth([np.ones((2, 3), bool)], [1])
    none = mask_boundary_counts(torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.int64), *truth)
    assert none.shape == (0, 5)
    assert none.dtype == torch.int64


def test_images_of_several_sizes_in_one_tensor():
    """Each image is at the top left of its mask; what lies beyond it does not matter."""
    sizes, distances = [(9, 40), (1, 1), (12, 70), (5, 33)], [2, 1, 3, 40]
    targets = [draw(kind, *size, 3) for kind, size in zip(KINDS[1:], sizes, strict=False)]
    masks = [draw(kind, *size, 4) for kind, size in zip(KINDS[2:], sizes, strict=False)]
    room = np.ones((len(sizes), 13, 75), bool)
    for whole, mask in zip(room, masks, strict=True):
        whole[: mask.shape[0], : mask.shape[1]] = mask
    with checked_memory():
        found = mask_boundary_counts(
            placed(room, 3), torch.arange(4), *stored_truth(targets, distances), block=64
        )
    assert torch.equal(found, expected_counts(masks, targets, distances))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("region", [None, (11.5, 9.0)])
def test_masks_of_logits(dtype, region):
    sizes = [(1, 1), (33, 70), (20, 65), (40, 3)]
    heights, widths = torch.tensor(sizes).T.contiguous()
    logits = torch.stack([torch.from_numpy(field(kind, 16, 20, 1)) for kind in ("noise", "ties")])
    logits = logits.to(dtype)[[0, 1, 0, 1]]
    order = [2, 0, 3, 1]
    valid = None if region is None else torch.tensor([region] * 4, dtype=torch.float64)
    with checked_memory():
        masks = logit_masks(
            logits, torch.tensor(order), heights, widths, 41, 70, 0.5, valid, tile=(8, 32)
        )
    assert masks.dtype == torch.bool
    for mask, row, sample in zip(masks, logits, order, strict=True):
        expected = torch.zeros(41, 70, dtype=torch.bool)
        height, width = sizes[sample]
        expected[:height, :width] = reference.resize_logits(row, height, width, region) > 0.5
        assert torch.equal(mask, expected)


def test_no_logits():
    sizes = torch.tensor([2]), torch.tensor([3])
    none = torch.zeros(0, 4, 4), torch.zeros(0, dtype=torch.int64)
    assert logit_masks(*none, *sizes, 2, 3).shape == (0, 2, 3)


BYTES = {"masks": "*u8", "stride": "i32"}
SIZES_OF = {"sample": "*i64", "heights": "*i64", "widths": "*i64"}
BITS = {"strings": "*i32:16", "max_height": "i32", "row_words": "i32", "tiles": "i32", "BLOCK": 512}
TRUTH = {"word_offsets": "*i64", "counts": "*i64:16"}
PASSES = {
    "_pack": {
        **BYTES,
        "pixels": "i32",
        "strings": "*i16:16",
        "n_chunks": "i32",
        "tiles": "i32",
        "CHUNKS": 512,
    },
    "_erode_rows": {
        **BYTES, **SIZES_OF, **BITS, "pitch": "i32", "distances": "*i64", "n_words": "i32", "eroded": "*i32:16",
    },
    "_erode_strips": {
        "sample": "*i64", "distances": "*i64", "eroded": "*i32:16", "strips": "*i32:16", **BITS,
    },
    "_count_boundaries": {
        **BYTES, **SIZES_OF, **BITS, **TRUTH, "pitch": "i32", "distances": "*i64", "n_string_words": "i32",
        "strips": "*i32:16", "truth": "*i32",
    },
    "draw_contours": {
        **BYTES, **SIZES_OF, **BITS, **TRUTH, "pitch": "i32", "n_string_words": "i32", "wide": "*i32",
        "drawn": "*i32:16",
    },
    "widen_rows": {
        "sample": "*i64", "reaches": "*i64", "drawn": "*i32:16", "widened": "*i32:16", **BITS,
    },
    "count_matched": {
        **SIZES_OF, **BITS, **TRUTH, "reaches": "*i64", "widened": "*i32:16", "contours": "*i32",
    },
}  # fmt: skip
"""Arguments of each kernel; those of `BITS` that a kernel does not take are left out."""
WITHOUT_STRINGS = {"_erode_strips", "widen_rows", "count_matched"}
CASES = [
    Case(
        f"refcocom_kernels.cuda.{'boundary' if kernel.startswith('_') else 'contours'}",
        kernel,
        {k: v for k, v in arguments.items() if k != "strings" or kernel not in WITHOUT_STRINGS},
    )
    for kernel, arguments in PASSES.items()
]
DRAWN = {
    **dict.fromkeys(["sample", "heights", "widths", "rows", "columns"], "*i64:16"),
    **dict.fromkeys(["cells", "w", "max_height", "max_width", "tiles_x", "tiles"], "i32"),
    "masks": "*i8:16",
    "threshold": "fp32",
    "TILE_Y": 8,
    "TILE_X": 64,
}
CASES += [
    Case(
        "refcocom_kernels.cuda.drawn",
        "draw_tiles",
        {**DRAWN, "logits": f"*{kind}:16"},
        {"enable_fp_fusion": False},
    )
    for kind in ("fp32", "fp16", "bf16")
]


def test_compiled(compiled):
    """On every architecture: the bytes are read in wide loads, and nothing lies in local memory."""
    built = compiled(CASES)
    assert len(built) == len(CASES) * len(ARCHITECTURES)
    for kernel in built:
        assert kernel.stack == kernel.local_accesses == 0, str(kernel)
        # Three rows of bits at once, or a tile of pixels with their four cells.
        most = 64 if kernel.kernel in {"draw_contours", "draw_tiles"} else 48
        assert kernel.registers <= most, str(kernel)
        if kernel.kernel == "_pack":
            assert kernel.load_bits[128] == 4, str(kernel)
        if kernel.kernel in {"_count_boundaries", "draw_contours"}:
            assert kernel.popcounts == 8, str(kernel)
        if kernel.kernel == "draw_tiles":
            assert kernel.fused == 0, str(kernel)


def test_compiled_where_numbers_are_1(compiled):
    assert len(compiled(list(map(ones, CASES)), [ONES_ARCHITECTURE])) == len(CASES)
