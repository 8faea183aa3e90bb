"""The naive torch definition of every op: tensors in, integer counts out, on any device.

These functions are slow and plain on purpose. The Numba and Triton kernels must equal them exactly; tests and
benchmarks compare them. Shapes: `B` masks, `H` × `W` pixels, `h` × `w` logit cells, `P` words, `R` runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from refcocom_kernels import codes
from refcocom_kernels.tables import axis_table

UNSEEN = -1
"""The counts of an example that no batch has held yet."""


def tally(state: Tensor, index: Tensor, rows: Tensor, conflict: int = 1) -> None:
    """Add a batch of counted predictions to a state, in place, without waiting for the device.

    The columns are intersection, predicted area, fault, traits, conflict, and C − 5 more counts. An example keeps the
    counts it was first given, and the largest of the others. Where it comes again with other counts, its conflict
    becomes `conflict`.

    Args:
        state: [N, C] int64; the first two columns are `UNSEEN` for an example that no batch has held yet.
        index: [B] int64 rows of the state; where one comes twice, the first counts in the batch are kept.
        rows: [B, C] int64.
        conflict: A bit.

    >>> state = torch.tensor([[-1, -1, 0, 0, 0], [-1, -1, 0, 0, 0]])
    >>> tally(state, torch.tensor([1, 1]), torch.tensor([[3, 4, 0, 1, 0], [3, 5, 0, 1, 0]]))
    >>> state.tolist()
    [[-1, -1, 0, 0, 0], [3, 4, 0, 1, 1]]
    """
    # For each row of the batch, the first row with the same example: its counts are the ones to keep.
    n_rows = len(index)
    place = torch.arange(n_rows, device=state.device)
    first = place.new_full((len(state),), n_rows).scatter_reduce_(0, index, place, "amin")[index]
    counts, before = _counts_of(rows), _counts_of(state[index])
    kept = torch.where(before[:, :1] < 0, counts[first], before)
    marks = rows[:, 2:5].clone()
    marks[:, 2] |= (counts != kept).any(1) * conflict
    # Rows of one example write equal counts, so their order does not matter.
    state[:, :2].index_copy_(0, index, kept[:, :2])
    if state.shape[1] > 5:
        state[:, 5:].index_copy_(0, index, kept[:, 2:])
    state[:, 2:5].scatter_reduce_(0, index[:, None].expand(marks.shape), marks, "amax")


def _counts_of(rows: Tensor) -> Tensor:
    """[B, C] rows to their [B, C − 3] counts."""
    return rows[:, :2] if rows.shape[1] == 5 else torch.cat([rows[:, :2], rows[:, 5:]], 1)


def decode_runs(ends: Tensor, height: int, width: int) -> Tensor:
    """Run ends of one valid mask to pixels.

    Args:
        ends: [R] int, running totals of runs of 0 and 1 down the columns, the last equal to H·W.
        height: H.
        width: W.

    Returns:
        [H, W] bool.

    >>> decode_runs(torch.tensor([1, 3, 6]), 2, 3).int()
    tensor([[0, 1, 0],
            [1, 0, 0]], dtype=torch.int32)
    """
    lengths = torch.diff(ends.long(), prepend=ends.new_zeros(1).long())
    value = torch.arange(len(ends), device=ends.device) % 2 == 1
    return torch.repeat_interleave(value, lengths).reshape(width, height).T


def unpack(words: Tensor, height: int, width: int) -> Tensor:
    """Packed bits of one mask to pixels.

    Args:
        words: [P] int64 (the bits of uint64), row-major, low bit first.
        height: H.
        width: W.

    Returns:
        [H, W] bool.

    >>> unpack(torch.tensor([0b100110]), 2, 3).int()
    tensor([[0, 1, 1],
            [0, 0, 1]], dtype=torch.int32)
    """
    shifts = torch.arange(64, device=words.device)
    bits = (words[:, None] >> shifts[None, :]) & 1  # [P, 64]
    return bits.reshape(-1)[: height * width].reshape(height, width).bool()


def mask_counts(masks: Tensor, targets: Tensor) -> Tensor:
    """Intersection and predicted area.

    Args:
        masks: [..., H, W] bool or any number; what is not 0 is set.
        targets: [..., H, W] bool.

    Returns:
        [..., 2] int64.

    >>> mask_counts(torch.tensor([[[3, 0, 1]]]), torch.tensor([[[True, True, False]]]))
    tensor([[1, 2]])
    """
    set_pixels = masks != 0
    intersection = (set_pixels & targets).sum(dim=(-2, -1))
    return torch.stack([intersection, set_pixels.sum(dim=(-2, -1))], dim=-1)


def resize_logits(
    logits: Tensor, height: int, width: int, valid: tuple[float, float] | None = None
) -> Tensor:
    """Bilinear resize in fp32, each product and each sum rounded by itself.

    `F.interpolate` rounds differently from build to build and from CPU to CUDA; these lines do not.
    Half types are converted to fp32 first. Columns are interpolated before rows.

    Args:
        logits: [h, w] float of any kind.
        height: H.
        width: W.
        valid: Cells (rows, columns) from the top left that hold content; all of them by default.

    Returns:
        [H, W] float32.

    >>> resize_logits(torch.tensor([[0.0, 1.0]]), 1, 4)
    tensor([[0.0000, 0.2500, 0.7500, 1.0000]])
    """
    source = logits.float()
    valid_h, valid_w = valid or (float(logits.shape[0]), float(logits.shape[1]))
    y_low, y_high, y_weight_low, y_weight_high = (
        torch.from_numpy(a.copy()).to(source.device) for a in axis_table(valid_h, height)[:4]
    )
    x_low, x_high, x_weight_low, x_weight_high = (
        torch.from_numpy(a.copy()).to(source.device) for a in axis_table(valid_w, width)[:4]
    )
    # Each rounded step has a name, so that a compiler sees no expression to fuse.
    left = source[:, x_low] * x_weight_low  # [h, W]
    right = source[:, x_high] * x_weight_high  # [h, W]
    rows = left + right  # [h, W]
    above = rows[y_low] * y_weight_low[:, None]  # [H, W]
    below = rows[y_high] * y_weight_high[:, None]  # [H, W]
    return above + below


def resize_logits_sam(
    logits: Tensor, height: int, width: int, side: int, inner: tuple[int, int]
) -> Tensor:
    """Resize as SAM's `postprocess_masks` does: to the padded input, cropped, then to the image.

    Args:
        logits: [h, w] float of any kind, covering the whole padded square.
        height: H.
        width: W.
        side: Side of the padded square input in pixels.
        inner: Height and width of the image inside it.

    Returns:
        [H, W] float32.
    """
    padded = resize_logits(logits, side, side)
    return resize_logits(padded[: inner[0], : inner[1]], height, width)


def logit_counts(
    logits: Tensor,
    target: Tensor,
    threshold: float = 0.0,
    valid: tuple[float, float] | None = None,
) -> Tensor:
    """Resize to the target's size, threshold, count.

    Args:
        logits: [h, w] float of any kind, finite.
        target: [H, W] bool.
        threshold: Values strictly above it are set: 0 for logits, 0.5 for probabilities.
        valid: As in `resize_logits`.

    Returns:
        [2] int64: intersection, predicted area.

    >>> logit_counts(torch.tensor([[-1.0, 1.0]]), torch.tensor([[True, True, True, True]]))
    tensor([2, 2])
    """
    height, width = target.shape
    return mask_counts(resize_logits(logits, height, width, valid) > threshold, target)


def threshold_counts(values: Tensor, target: Tensor, thresholds: Tensor) -> Tensor:
    """Intersection and predicted area at each of several thresholds.

    Args:
        values: [H, W] float32.
        target: [H, W] bool.
        thresholds: [T] float32; at each, the values strictly above it are set.

    Returns:
        [T, 2] int64.

    >>> threshold_counts(torch.tensor([[1.0, 2.0]]), torch.tensor([[True, False]]), torch.tensor([0.0, 1.0])).tolist()
    [[1, 2], [0, 1]]
    """
    return torch.stack([mask_counts(values > threshold, target) for threshold in thresholds])


def logit_curve(
    logits: Tensor,
    target: Tensor,
    thresholds: Tensor,
    valid: tuple[float, float] | None = None,
) -> Tensor:
    """Resize to the target's size once, and count at each of several thresholds.

    Args:
        logits: [h, w] float of any kind, finite.
        target: [H, W] bool.
        thresholds: As of `threshold_counts`.
        valid: As in `resize_logits`.

    Returns:
        [T, 2] int64, each row equal to `logit_counts` at its threshold.

    >>> one = torch.tensor([[True, True, True, True]])
    >>> logit_curve(torch.tensor([[-1.0, 1.0]]), one, torch.tensor([-2.0, 0.0])).tolist()
    [[4, 4], [2, 2]]
    """
    height, width = target.shape
    return threshold_counts(resize_logits(logits, height, width, valid), target, thresholds)


def value_kind(values: Tensor) -> int:
    """What the values of one float prediction look like.

    Args:
        values: [h, w] float of any kind.

    Returns:
        A kind of `refcocom_kernels.codes`.

    >>> value_kind(torch.tensor([[-3.0, 7.0]])) == codes.SIGNED, value_kind(torch.tensor([[0.0, 0.3]])) == codes.SOFT
    (True, True)
    """
    values = values.float()
    largest = float(values.abs().max())
    if not bool(values.isfinite().all()):
        return codes.NON_FINITE
    if largest >= codes.FAINT and float(values.min()) < -codes.CLEAR * min(largest, 1.0):
        return codes.SIGNED
    if largest > 1 + codes.CLEAR:
        return codes.LARGE
    if largest == 0:
        return codes.ZERO
    is_binary = bool(((values == 0) | (values == 1)).all())
    return codes.BINARY if is_binary else codes.SOFT


def run_ends(mask: Tensor) -> Tensor:
    """Pixels to run ends, the inverse of `decode_runs`.

    Args:
        mask: [H, W] bool.

    Returns:
        [R] int64 running totals of runs of 0 and 1 down the columns; the first run may be empty.

    >>> run_ends(torch.tensor([[True, False], [True, True]]))
    tensor([0, 2, 3, 4])
    """
    flat = mask.T.reshape(-1)
    before = torch.cat([flat.new_zeros(1), flat[:-1]])
    starts = torch.nonzero(flat != before)[:, 0]
    return torch.cat([starts, starts.new_tensor([len(flat)])])


def pairwise_intersections(first: Tensor, second: Tensor) -> Tensor:
    """Intersections of all pairs of masks of one image.

    Args:
        first: [A, H, W] bool.
        second: [B, H, W] bool.

    Returns:
        [A, B] int64.

    >>> pairwise_intersections(torch.tensor([[[True, True]]]), torch.tensor([[[True, False]], [[True, True]]]))
    tensor([[1, 2]])
    """
    return (first[:, None] & second[None]).sum(dim=(-2, -1))


def vote(masks: Tensor, weights: Tensor) -> Tensor:
    """The pixels set in masks that hold more than half of the weight.

    Args:
        masks: [K, H, W] bool.
        weights: [K] int64, 0 or more.

    Returns:
        [H, W] bool.

    >>> vote(torch.tensor([[[True, True]], [[True, False]], [[False, False]]]), torch.tensor([1, 1, 1]))
    tensor([[ True, False]])
    """
    return 2 * (masks * weights[:, None, None]).sum(dim=0) > weights.sum()


def boundary(mask: Tensor, distance: int) -> Tensor:
    """The pixels that an erosion by `distance` pixels removes; nothing is set outside the image.

    boundary-iou-api, `boundary_iou/utils/boundary_utils.py`: 3×3 erosion, `distance` times, after a border of zeros.

    Args:
        mask: [H, W] bool.
        distance: Pixels, at least 1.

    Returns:
        [H, W] bool.

    >>> boundary(torch.ones(3, 3, dtype=torch.bool), 1).int()
    tensor([[1, 1, 1],
            [1, 0, 1],
            [1, 1, 1]], dtype=torch.int32)
    """
    eroded = mask.float()[None, None]
    for _ in range(distance):
        # A pixel survives if all of its 3×3 neighbours are inside the image and 1.
        gone = F.pad(1 - eroded, (1, 1, 1, 1), value=1.0)
        eroded = 1 - F.max_pool2d(gone, 3, stride=1)
    return mask & (eroded[0, 0] == 0)


def boundary_counts(mask: Tensor, target: Tensor, distance: int) -> Tensor:
    """Intersection and predicted area of the boundaries of two masks.

    Args:
        mask: [H, W] bool.
        target: [H, W] bool.
        distance: Pixels.

    Returns:
        [2] int64.

    >>> boundary_counts(torch.ones(3, 3, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool), 1)
    tensor([8, 8])
    """
    return mask_counts(boundary(mask, distance), boundary(target, distance))


def contour(mask: Tensor) -> Tensor:
    """The set pixels with a neighbour, of eight, that is not set; outside the image nothing is.

    Args:
        mask: [H, W] bool.

    Returns:
        [H, W] bool.
    """
    return boundary(mask, 1)


def widened(mask: Tensor, reach: int) -> Tensor:
    """The pixels with a set pixel in the square of (2·reach + 1)² around them.

    Args:
        mask: [H, W] bool.
        reach: Pixels, 0 or more.

    Returns:
        [H, W] bool.

    >>> widened(torch.tensor([[True, False, False, False]]), 2).int()
    tensor([[1, 1, 1, 0]], dtype=torch.int32)
    """
    around = F.pad(mask.float()[None, None], (reach,) * 4)
    # The largest of a square is the largest of its rows' largest.
    along_rows = F.max_pool2d(around, (1, 2 * reach + 1), stride=1)
    return F.max_pool2d(along_rows, (2 * reach + 1, 1), stride=1)[0, 0] > 0


def contour_counts(mask: Tensor, target: Tensor, reach: int) -> Tensor:
    """Pixels of the contours of two masks that match: the other contour has a pixel within `reach`.

    Args:
        mask: [H, W] bool.
        target: [H, W] bool.
        reach: Pixels along rows and columns.

    Returns:
        [3] int64: pixels of the mask's contour; those that match; pixels of the target's contour that match.

    >>> contour_counts(torch.ones(3, 3, dtype=torch.bool), torch.eye(3, dtype=torch.bool), 1)
    tensor([8, 8, 3])
    """
    mine, other = contour(mask), contour(target)
    pairs = ((mine, mine), (mine, widened(other, reach)), (other, widened(mine, reach)))
    return torch.stack([(a & b).sum() for a, b in pairs])
