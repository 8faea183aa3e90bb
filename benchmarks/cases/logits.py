"""Low-resolution logits, 256×256 float16, to masks at 480×640 and their counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from benchmarks import limits
from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import Workload

ROWS, CELLS, HEIGHT, WIDTH = 256, 256, 480, 640


def cases(w: Workload) -> Iterator[Case]:
    """Smooth logits as models give them, and noise, where every cell must be interpolated."""
    rng = np.random.default_rng(1)
    rows = np.flatnonzero((w.heights[w.sample] == HEIGHT) & (w.widths[w.sample] == WIDTH))[:ROWS]
    truth = np.stack(w.dense_targets(w.sample[rows]))
    # Row by row in memory, as a model's output is: indexing the masks gives arrays stored column by column.
    smooth = np.ascontiguousarray([_smooth(mask, rng) for mask in np.stack(w.dense(rows))])
    yield from _both("smooth", smooth, truth)
    yield from _both("noise", rng.normal(size=(ROWS, CELLS, CELLS)).astype(np.float16), truth)


def _smooth(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float16]:
    """A mask as logits of a model: averaged over neighbouring cells, saturated inside and outside, with some ripple."""
    y = np.arange(CELLS) * HEIGHT // CELLS
    x = np.arange(CELLS) * WIDTH // CELLS
    field = mask[y][:, x].astype(np.float32)
    for axis in (0, 1):
        for _ in range(3):
            field = (np.roll(field, 1, axis) + field + np.roll(field, -1, axis)) / 3
    ripple = 0.3 * np.sin(np.arange(CELLS) * rng.uniform(0.05, 0.2))[:, None]
    return (16 * (field - 0.5) + ripple).astype(np.float16)


def _both(name: str, logits: NDArray[np.float16], truth: NDArray[np.bool_]) -> Iterator[Case]:
    n = len(logits)
    words = np.packbits(truth.reshape(n, -1), axis=1, bitorder="little").reshape(-1).view(np.uint64)
    word_offsets = np.arange(n + 1) * (words.size // n)
    index, heights, widths = np.arange(n), np.full(n, HEIGHT), np.full(n, WIDTH)

    def ours(threads: int) -> Any:
        def run() -> NDArray[np.int64]:
            return cpu.logit_counts(
                logits, index, heights, widths, words, word_offsets, threads=threads
            ).counts

        return run

    result = cpu.logit_counts(logits, index, heights, widths, words, word_offsets)
    peers, absent, flips = _peers(logits, truth, result.counts)
    contenders = [Contender(OURS, ours(1), n, "ours"), *peers]
    library = limits.compiled()
    if library is None:
        absent["C read"] = "no C compiler"
    else:
        contenders.append(
            Contender("read the logits once, C", limits.reader(library, logits), n, "limit")
        )
    notes = {
        "share of cells interpolated": float(result.mixed_cells.mean()) / CELLS**2,
        "pixels that differ from F.interpolate": flips,
        "pixels": n * HEIGHT * WIDTH,
    }
    # The peers round differently; the notes give the number of pixels they flip.
    yield Case(
        f"logits {name} 256² float16 → 480×640, 1 thread", contenders, absent, notes, compare=False
    )
    threads = cpu.available_threads()
    yield Case(
        f"logits {name} 256² float16 → 480×640, {threads} threads",
        [
            Contender(OURS, ours(threads), n, "ours"),
            Contender(f"{OURS}, 1 thread", ours(1), n, "limit"),
        ],
    )


def _peers(
    logits: NDArray[np.float16], truth: NDArray[np.bool_], counts: NDArray[np.int64]
) -> tuple[list[Contender], dict[str, str], int]:
    import torch
    import torch.nn.functional as F  # noqa: N812

    torch.set_num_threads(1)
    tensors, targets = torch.from_numpy(logits), torch.from_numpy(truth)
    few = 48

    def interpolate(k: int) -> Any:
        full = F.interpolate(
            tensors[k][None, None].float(), (HEIGHT, WIDTH), mode="bilinear", align_corners=False
        )
        return full[0, 0] > 0

    def idiom() -> NDArray[np.int64]:
        rows = []
        for k in range(few):
            mask = interpolate(k)
            rows.append((int((mask & targets[k]).sum()), int(mask.sum())))
        return np.array(rows, np.int64)

    from refcocom_kernels import reference

    flips = 0
    for k in range(len(logits)):
        mine = reference.resize_logits(tensors[k], HEIGHT, WIDTH) > 0
        flips += int((mine != interpolate(k)).sum())
        if reference.mask_counts(mine, targets[k]).tolist() != counts[k].tolist():
            raise AssertionError(f"the kernel differs from the reference at row {k}")
    contenders = [Contender("torch F.interpolate > 0, and, sum", idiom, few)]
    absent = {}
    try:
        import cv2

        cv2.setNumThreads(1)
        true_bytes = truth.view(np.uint8)

        def opencv() -> NDArray[np.int64]:
            rows = []
            for k in range(len(logits)):
                full = cv2.resize(
                    logits[k].astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR
                )
                mask = cv2.compare(full, 0, cv2.CMP_GT)
                rows.append(
                    (cv2.countNonZero(cv2.bitwise_and(mask, true_bytes[k])), cv2.countNonZero(mask))
                )
            return np.array(rows, np.int64)

        contenders.append(Contender("cv2.resize, compare, countNonZero", opencv, len(logits)))
    except ImportError as error:
        absent["OpenCV"] = str(error)
    return contenders, absent, flips
