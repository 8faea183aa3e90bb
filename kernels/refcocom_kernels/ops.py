"""The ops as torch custom operators, `torch.ops.refcocom.*`: tensors in, integer counts out, on the tensors' device.

This and `curve_ops.py` are the only places that choose a device: tensors in host memory go to Numba (`cpu/`), CUDA
tensors to Triton (`cuda/`). Both are imported at the first call. The operators are opaque to
`torch.compile(fullgraph=True)`, autocast and inference mode, and work under each. Only `mask_runs` and `logit_runs`
wait for the device: the length of their result is the number of runs.

Letters: `B` predictions, `H` × `W` pixels, `h` × `w` logit cells, `M` stored masks, `P` words of 64 bits held in int64
(torch has no operations on uint64), `R` runs, `D` characters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refcocom_kernels import cpu, rle_status
from refcocom_kernels.arrays import array_of, bytes_of, floats_of, words_of


def _counts_like(rows: Tensor, *_: Any) -> Tensor:
    """The shape of counts, [B, 2], for tracing."""
    return rows.new_empty((len(rows), 2), dtype=torch.int64)


def _runs_like(rows: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """The shapes of run ends and offsets, [R] and [B + 1], for tracing; R is known only when the operator runs."""
    n_runs = torch.library.get_ctx().new_dynamic_size()
    return (
        rows.new_empty(n_runs, dtype=torch.int32),
        rows.new_empty(len(rows) + 1, dtype=torch.int64),
    )


# Dense masks --------------------------------------------------------------------------------------


@torch.library.custom_op("refcocom::mask_counts", mutates_args=(), device_types="cpu")
def mask_counts(masks: Tensor, sample: Tensor, words: Tensor, word_offsets: Tensor) -> Tensor:
    """Count dense masks of one size against packed stored masks.

    Args:
        masks: [B, H, W] bool or uint8; what is not 0 is set.
        sample: [B] int64 the stored mask each is scored against, of the same size.
        words: [P] int64 packed bits of the stored masks, row-major, low bit first.
        word_offsets: [M + 1] int64 where a stored mask's words begin.

    Returns:
        [B, 2] int64 intersection and predicted area.

    >>> words, word_offsets = torch.tensor([0b0110]), torch.tensor([0, 1])
    >>> mask_counts(torch.tensor([[[1, 7], [0, 0]]], dtype=torch.uint8), torch.tensor([0]), words, word_offsets)
    tensor([[1, 2]])
    """
    pixels = bytes_of(masks).reshape(len(masks), masks.shape[1] * masks.shape[2])
    result = cpu.mask_counts(pixels, array_of(sample), words_of(words), array_of(word_offsets))
    return torch.from_numpy(result.counts)


@mask_counts.register_kernel("cuda")
def _(*arguments: Any) -> Tensor:
    from refcocom_kernels.cuda import masks as cuda

    return cuda.mask_counts(*arguments)


mask_counts.register_fake(_counts_like)


@torch.library.custom_op("refcocom::mask_boundary_counts", mutates_args=(), device_types="cpu")
def mask_boundary_counts(
    masks: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    boundaries: Tensor,
    distances: Tensor,
    contours: Tensor,
    wide: Tensor,
    reaches: Tensor,
    word_offsets: Tensor,
) -> Tensor:
    """Count the boundaries and contours of dense masks in one tensor against stored ones.

    Args:
        masks: [B, h, w] bool or uint8; what is not 0 is set. Each image is at the top left; what lies beyond it is not
            read.
        sample: [B] int64 the stored mask each is scored against; none may be larger than h × w.
        heights: [M] int64 H of the stored masks.
        widths: [M] int64 W.
        boundaries: [P] int64 packed boundaries of the stored masks, from `cpu.boundaries`.
        distances: [M] int64 width of the boundary in pixels.
        contours: [P] int64 packed contours of the stored masks, from `cpu.contours`.
        wide: [P] int64 the same, widened.
        reaches: [M] int64 how far apart contour pixels may be that match.
        word_offsets: [M + 1] int64 where a stored mask's words begin.

    Returns:
        [B, 5] int64 intersection and predicted area of the boundaries; pixels of the predicted contour, those of them
        that match, and the pixels of the true contour that match.
    """
    # The areas of what is stored are not read, so the distances fill their place.
    size = array_of(distances)
    result = cpu.mask_boundary_counts(
        bytes_of(masks),
        array_of(sample),
        array_of(heights),
        array_of(widths),
        cpu.Boundaries(words_of(boundaries), size, size),
        cpu.Contours(words_of(contours), words_of(wide), size, array_of(reaches)),
        array_of(word_offsets),
    )
    return torch.from_numpy(result.counts)


@mask_boundary_counts.register_kernel("cuda")
def _(*arguments: Any) -> Tensor:
    from refcocom_kernels.cuda import boundary as cuda

    return cuda.mask_boundary_counts(*arguments)


@mask_boundary_counts.register_fake
def _(masks: Tensor, *_: Any) -> Tensor:
    return masks.new_empty((len(masks), 5), dtype=torch.int64)


@torch.library.custom_op("refcocom::pairwise_intersections", mutates_args=(), device_types="cpu")
def pairwise_intersections(
    first: Tensor, first_offsets: Tensor, second: Tensor, second_offsets: Tensor, n_words: int
) -> Tensor:
    """Intersections of all pairs of packed masks of one image.

    Args:
        first: [P] int64 packed bits of A masks.
        first_offsets: [A + 1] int64 where each begins.
        second: [P] int64 packed bits of B masks of the same size.
        second_offsets: [B + 1] int64 where each begins.
        n_words: Words of each mask, ⌈H·W / 64⌉.

    Returns:
        [A, B] int64.

    >>> one, two = torch.tensor([0b11]), torch.tensor([0b01, 0b11])
    >>> pairwise_intersections(one, torch.tensor([0, 1]), two, torch.tensor([0, 1, 2]), 1)
    tensor([[1, 2]])
    """
    counts = cpu.pairwise_intersections(
        words_of(first), array_of(first_offsets), words_of(second), array_of(second_offsets)
    )
    return torch.from_numpy(counts)


@pairwise_intersections.register_kernel("cuda")
def _(*arguments: Any) -> Tensor:
    from refcocom_kernels.cuda import pairwise as cuda

    return cuda.pairwise_intersections(*arguments)


@pairwise_intersections.register_fake
def _(
    first: Tensor, first_offsets: Tensor, second: Tensor, second_offsets: Tensor, n_words: int
) -> Tensor:
    return first.new_empty((len(first_offsets) - 1, len(second_offsets) - 1), dtype=torch.int64)


# Logits -------------------------------------------------------------------------------------------


@torch.library.custom_op("refcocom::logit_counts", mutates_args=(), device_types="cpu")
def logit_counts(
    logits: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    words: Tensor,
    word_offsets: Tensor,
    max_height: int,
    max_width: int,
    threshold: float = 0.0,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Resize logits to the stored masks' sizes, threshold and count; equal to `reference.logit_counts`.

    Args:
        logits: [B, h, w] float32, float16 or bfloat16.
        sample: [B] int64 the stored mask each is scored against.
        heights: [M] int64 H of the stored masks.
        widths: [M] int64 W.
        words: [P] int64 packed bits of the stored masks.
        word_offsets: [M + 1] int64 where a stored mask's words begin.
        max_height: At least the largest H of the batch; given, so that no launch waits for the device.
        max_width: At least the largest W of the batch.
        threshold: Values strictly above it are set.
        valid: [B, 2] float64 rows and columns of cells that hold content, from the top left; all by default.

    Returns:
        [B, 2] int64 intersection and predicted area, 0 where a logit is not finite, and [B] int8 what the
        values look like, as `codes` says.
    """
    result = cpu.logit_counts(
        floats_of(logits),
        array_of(sample),
        array_of(heights),
        array_of(widths),
        words_of(words),
        array_of(word_offsets),
        threshold=threshold,
        valid=None if valid is None else array_of(valid),
    )
    return torch.from_numpy(result.counts), torch.from_numpy(result.kinds)


@logit_counts.register_kernel("cuda")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    from refcocom_kernels.cuda import logits as cuda

    return cuda.logit_counts(*arguments)


@logit_counts.register_fake
def _(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _counts_like(logits), logits.new_empty(len(logits), dtype=torch.int8)


@torch.library.custom_op("refcocom::logit_masks", mutates_args=(), device_types="cpu")
def logit_masks(
    logits: Tensor,
    sample: Tensor,
    heights: Tensor,
    widths: Tensor,
    max_height: int,
    max_width: int,
    threshold: float = 0.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Resize logits to the stored masks' sizes and threshold: the pixels that `logit_counts` counts.

    Args:
        logits: [B, h, w] as for `logit_counts`; finite.
        sample: [B] int64 the stored mask whose size each gets.
        heights: [M] int64 H of the stored masks.
        widths: [M] int64 W.
        max_height: At least the largest H of the batch.
        max_width: At least the largest W of the batch.
        threshold: Values strictly above it are set.
        valid: As for `logit_counts`.

    Returns:
        [B, max_height, max_width] bool, each image at the top left, False beyond it.
    """
    masks = cpu.logit_masks(
        floats_of(logits),
        array_of(sample),
        array_of(heights),
        array_of(widths),
        max_height,
        max_width,
        threshold=threshold,
        valid=None if valid is None else array_of(valid),
    )
    return torch.from_numpy(masks).view(torch.bool)


@logit_masks.register_kernel("cuda")
def _(*arguments: Any) -> Tensor:
    from refcocom_kernels.cuda import drawn as cuda

    return cuda.logit_masks(*arguments)


@logit_masks.register_fake
def _(
    logits: Tensor, sample: Tensor, heights: Tensor, widths: Tensor, max_height: int, max_width: int, *_: Any
) -> Tensor:  # fmt: skip
    return logits.new_empty((len(logits), max_height, max_width), dtype=torch.bool)


# RLE ----------------------------------------------------------------------------------------------


@torch.library.custom_op("refcocom::rle_counts", mutates_args=(), device_types="cpu")
def rle_counts(
    data: Tensor,
    offsets: Tensor,
    sample: Tensor,
    target_ends: Tensor,
    target_ranks: Tensor,
    target_offsets: Tensor,
    pixels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Intersect a column of COCO RLE strings with stored masks, without decoding to pixels.

    Args:
        data: [D] uint8 the characters of all strings, one after the other.
        offsets: [B + 1] int64 where each string begins.
        sample: [B] int64 the stored mask each string is scored against.
        target_ends: [R] int32 run ends of the stored masks.
        target_ranks: [R] int32 set pixels before each run end, from `run_ranks`; the CPU does not read them.
        target_offsets: [M + 1] int64 where a stored mask's runs begin.
        pixels: [M] int64 H·W of each stored mask.

    Returns:
        [B, 2] int64 intersection and predicted area, and [B] bool whether the string is valid. Counts are 0 where it
        is not; `cpu.rle_parse` says why.
    """
    counts, status, _ = cpu.rle_counts(
        array_of(data),
        array_of(offsets),
        array_of(sample),
        array_of(target_ends),
        array_of(target_offsets),
        array_of(pixels),
    )
    return torch.from_numpy(counts), torch.from_numpy(status == rle_status.OK)


@rle_counts.register_kernel("cuda")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    from refcocom_kernels.cuda import rle as cuda

    return cuda.rle_counts(*arguments)


@rle_counts.register_fake
def _(data: Tensor, offsets: Tensor, sample: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _counts_like(sample), sample.new_empty(len(sample), dtype=torch.bool)


def run_ranks(ends: Tensor, run_offsets: Tensor) -> Tensor:
    """Set pixels of a mask before the end of each of its runs; plain torch, computed once per store.

    Args:
        ends: [R] int32 run ends of the masks.
        run_offsets: [M + 1] int64 where a mask's runs begin.

    Returns:
        [R] int32.

    >>> run_ranks(torch.tensor([1, 3, 6, 0, 4]), torch.tensor([0, 3, 5])).tolist()
    [0, 2, 2, 0, 4]
    """
    n_runs = len(ends)
    first = torch.repeat_interleave(run_offsets[:-1], run_offsets.diff(), output_size=n_runs)  # [R]
    place = torch.arange(n_runs, device=ends.device) - first
    # At a mask's first run the difference is taken with the end of the mask before. It is not added: that run is of 0.
    total = torch.cumsum(torch.diff(ends.long(), prepend=ends.new_zeros(1)) * (place % 2), 0)
    # So the total at the first run is the area of all masks before.
    return (total - total[first]).int()


# Encoding -----------------------------------------------------------------------------------------


@torch.library.custom_op("refcocom::mask_runs", mutates_args=(), device_types="cpu")
def mask_runs(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Run ends of dense masks of one size, down the columns, as `cpu.rle_write` takes them.

    Args:
        masks: [B, H, W] bool or uint8; what is not 0 is set.

    Returns:
        [R] int32 run ends and [B + 1] int64 where a mask's runs begin.

    >>> mask_runs(torch.tensor([[[True, False], [True, True]]]))
    (tensor([0, 2, 3, 4], dtype=torch.int32), tensor([0, 4]))
    """
    ends, offsets = cpu.mask_runs(bytes_of(masks))
    return torch.from_numpy(ends), torch.from_numpy(offsets)


@mask_runs.register_kernel("cuda")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    from refcocom_kernels.cuda import encode as cuda

    return cuda.mask_runs(*arguments)


mask_runs.register_fake(_runs_like)


@torch.library.custom_op("refcocom::logit_runs", mutates_args=(), device_types="cpu")
def logit_runs(
    logits: Tensor,
    height: int,
    width: int,
    threshold: float = 0.0,
    valid: list[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Resize logits to one size, threshold, and return the runs.

    Args:
        logits: [B, h, w] float32, float16 or bfloat16; finite.
        height: H.
        width: W.
        threshold: Values strictly above it are set.
        valid: Rows and columns of cells that hold content, from the top left; all by default.

    Returns:
        [R] int32 run ends and [B + 1] int64 where a mask's runs begin.
    """
    ends, offsets = cpu.logit_runs(
        floats_of(logits), height, width, threshold=threshold, valid=valid
    )
    return torch.from_numpy(ends), torch.from_numpy(offsets)


@logit_runs.register_kernel("cuda")
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    from refcocom_kernels.cuda import encode as cuda

    return cuda.logit_runs(*arguments)


logit_runs.register_fake(_runs_like)
