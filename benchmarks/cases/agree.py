"""Agreement of the candidates of every instance: RLE strings in, IoUs, boundary IoUs and votes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from refcocom_kernels import cpu

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import SIZE_SHARES, SIZES, _column, _outline, _runs

N_INSTANCES, N_CANDIDATES = 3811, 5
"""The validation split of RefCOCO, and four models beside a refined mask."""

FEW = 60
"""Instances on which a slow peer is timed."""


def cases(_: Any) -> Iterator[Case]:
    """One thread each, because pycocotools has one; then ours on two."""
    from refcocom_gpu.construct.agree import agree, pack_runs

    rng = np.random.default_rng(0)
    sizes = np.array(SIZES, np.int64)[rng.choice(len(SIZES), N_INSTANCES, p=SIZE_SHARES)]
    runs = []
    for height, width in sizes.tolist():
        outline = _outline(rng, height, width)
        runs += [_runs(rng, *outline, offset=int(rng.integers(-3, 4))) for _ in range(N_CANDIDATES)]
    column = _column(runs)
    pixels = np.repeat(sizes[:, 0] * sizes[:, 1], N_CANDIDATES)
    counts = np.full(N_INSTANCES, N_CANDIDATES)
    strings = column.strings()

    def ours(threads: int) -> Any:
        def run() -> Any:
            parsed = cpu.rle_parse(column.data, column.offsets, pixels, threads=threads)
            masks = pack_runs(parsed.ends, parsed.offsets, sizes, counts, threads=threads)
            agreement = agree(masks, threads=threads)
            areas = np.add.reduceat(
                np.bitwise_count(agreement.consensus.words), agreement.consensus.word_offsets[:-1]
            )
            voted = np.where(agreement.is_medoid, -1, areas)
            return np.stack([agreement.iou, agreement.boundary_iou, voted], axis=1).round(9)

        return run

    def loop() -> Any:
        return np.array([_by_loop(strings, sizes, g) for g in range(FEW)]).round(9)

    contenders = [
        Contender(f"{OURS}, 1 thread", ours(1), N_INSTANCES, "ours"),
        Contender(f"{OURS}, 2 threads", ours(2), N_INSTANCES, "limit"),
        Contender("pycocotools, cv2.erode, numpy: a loop", loop, FEW),
    ]
    yield Case(
        f"agreement of {N_INSTANCES:,} instances × {N_CANDIDATES} candidates",
        contenders,
        unit="µs/instance",
    )


def _by_loop(strings: list[bytes], sizes: Any, g: int) -> tuple[float, float, float]:
    """Mean IoU and boundary IoU of the pairs, and the area of the vote, as users write it with pycocotools."""
    from pycocotools import mask as coco

    size = sizes[g].tolist()
    rles = [{"size": size, "counts": s} for s in strings[N_CANDIDATES * g : N_CANDIDATES * (g + 1)]]
    apart = ~np.eye(N_CANDIDATES, dtype=bool)
    ious = coco.iou(rles, rles, [0] * N_CANDIDATES)
    dense = coco.decode(rles)
    edges = [coco.encode(np.asfortranarray(_boundary(dense[:, :, k]))) for k in range(N_CANDIDATES)]
    edge_ious = coco.iou(edges, edges, [0] * N_CANDIDATES)
    vote = 2 * dense.sum(axis=2) > N_CANDIDATES
    rle = coco.encode(np.asfortranarray(vote.astype(np.uint8)))
    with_vote = coco.iou(rles, [rle], [0])[:, 0].mean()
    # The vote is kept unless the medoid is more like the candidates.
    medoid = int((ious * apart).sum(axis=1).argmax())
    area = -1.0 if with_vote < ious[medoid].mean() else float(vote.sum())
    return float(ious[apart].mean()), float(edge_ious[apart].mean()), area


def _boundary(mask: Any) -> Any:
    """The boundary by boundary-iou-api's definition, with OpenCV."""
    import cv2

    height, width = mask.shape
    distance = max(1, round(0.02 * float(np.hypot(height, width))))
    bordered = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(bordered, np.ones((3, 3), np.uint8), iterations=distance)
    return mask - eroded[1:-1, 1:-1]
