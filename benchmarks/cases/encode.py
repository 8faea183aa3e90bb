"""Dense masks, row-major as models give them, to canonical COCO strings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from refcocom_kernels import cpu

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import Workload

ROWS = 256


def cases(w: Workload) -> Iterator[Case]:
    """Ours beside the usual loop, whose transposition is timed too."""
    from pycocotools import mask as coco

    rows = np.flatnonzero((w.heights[w.sample] == 480) & (w.widths[w.sample] == 640))[:ROWS]
    masks = np.stack(w.dense(rows)).view(np.uint8)

    def ours() -> list[bytes]:
        data, offsets = cpu.rle_write(*cpu.mask_runs(masks, threads=1), threads=1)
        raw = data.tobytes()
        return [raw[a:b] for a, b in itertools.pairwise(offsets)]

    def loop() -> list[bytes]:
        return [coco.encode(np.asfortranarray(mask))["counts"] for mask in masks]

    if ours() != loop():
        raise AssertionError("our strings differ from pycocotools'")
    yield Case(
        "encode dense 480×640 → COCO strings, 1 thread",
        [
            Contender(OURS, ours, len(rows), "ours"),
            Contender("pycocotools encode loop", loop, len(rows)),
        ],
        unit="µs/mask",
    )
