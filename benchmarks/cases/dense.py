"""Dense bool masks against stored masks: more of them than the last-level cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from benchmarks import limits
from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import Workload

ROWS = 384
"""480×640 masks: 118 MB of bytes."""


def cases(w: Workload) -> Iterator[Case]:
    """One thread, then all."""
    rows = np.flatnonzero((w.heights[w.sample] == 480) & (w.widths[w.sample] == 640))[:ROWS]
    sample = w.sample[rows]
    masks = np.stack(w.dense(rows))
    truth = np.stack(w.dense_targets(sample))
    packed = np.packbits(truth.reshape(len(rows), -1), axis=1, bitorder="little")
    words = packed.reshape(-1).view(np.uint64)
    word_offsets = np.arange(len(rows) + 1) * (words.size // len(rows))
    areas = truth.reshape(len(rows), -1).sum(axis=1)
    index = np.arange(len(rows))
    flat = masks.view(np.uint8).reshape(len(rows), -1)

    def ours(threads: int, looks: bool = False) -> Any:
        def run() -> NDArray[np.int64]:
            counted = cpu.mask_counts(
                flat, index, words, word_offsets, looks=looks, threads=threads
            )
            return np.column_stack([counted.counts, areas])

        return run

    contenders = [
        Contender(OURS, ours(1), len(rows), "ours"),
        # Bools are not looked at, because they cannot hold another value.
        Contender(f"{OURS}, looking for bytes of another value", ours(1, True), len(rows), "limit"),
    ]
    peers, absent = _peers(masks, truth, packed, areas)
    contenders += peers
    library = limits.compiled()
    if library is None:
        absent["C read"] = "no C compiler"
    else:
        contenders.append(
            Contender("read the bytes once, C", limits.reader(library, masks), len(rows), "limit")
        )
    yield Case("dense bool 480×640, 1 thread", contenders, absent)
    threads = cpu.available_threads()
    yield Case(
        f"dense bool 480×640, {threads} threads",
        [
            Contender(OURS, ours(threads), len(rows), "ours"),
            Contender(f"{OURS}, 1 thread", ours(1), len(rows), "limit"),
        ],
    )


def _peers(
    masks: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    packed: NDArray[np.uint8],
    areas: NDArray[np.int64],
) -> tuple[list[Contender], dict[str, str]]:
    n = len(masks)

    def per_mask(count: Any) -> Any:
        def run() -> NDArray[np.int64]:
            return np.array(
                [(*count(m, t), a) for m, t, a in zip(masks, truth, areas, strict=True)], np.int64
            )

        return run

    def packbits() -> NDArray[np.int64]:
        rows = []
        for m, t, a in zip(masks, packed, areas, strict=True):
            bits = np.packbits(m.reshape(-1), bitorder="little").view(np.uint64)
            both = bits & t.view(np.uint64)
            rows.append((np.bitwise_count(both).sum(), np.bitwise_count(bits).sum(), a))
        return np.array(rows, np.int64)

    contenders = [
        Contender(
            "numpy logical_and().sum()",
            per_mask(lambda m, t: (np.logical_and(m, t).sum(), m.sum())),
            n,
        ),
        Contender(
            "numpy count_nonzero(m & t)",
            per_mask(lambda m, t: (np.count_nonzero(m & t), np.count_nonzero(m))),
            n,
        ),
        Contender("numpy packbits + bitwise_count, truth packed", packbits, n),
    ]
    absent = {}
    try:
        import cv2

        cv2.setNumThreads(1)

        def opencv(m: Any, t: Any) -> tuple[int, int]:
            m, t = m.view(np.uint8), t.view(np.uint8)
            return cv2.countNonZero(cv2.bitwise_and(m, t)), cv2.countNonZero(m)

        contenders.append(Contender("OpenCV bitwise_and + countNonZero", per_mask(opencv), n))
    except ImportError as error:
        absent["OpenCV"] = str(error)
    import torch

    torch.set_num_threads(1)
    tensors, targets = torch.from_numpy(masks), torch.from_numpy(truth)

    def eager() -> NDArray[np.int64]:
        rows = [
            (int((m & t).sum()), int(m.sum()), a)
            for m, t, a in zip(tensors, targets, areas, strict=True)
        ]
        return np.array(rows, np.int64)

    contenders.append(Contender("torch (m & t).sum()", eager, n))
    try:
        from torchmetrics.classification import BinaryJaccardIndex

        metric = BinaryJaccardIndex(validate_args=False)

        def torchmetrics() -> None:
            # Its IoU is float32, so it is timed but not compared.
            for k in range(64):
                metric(tensors[k].int(), targets[k].int())

        contenders.append(Contender("torchmetrics BinaryJaccardIndex", torchmetrics, 64))
    except ImportError as error:
        absent["torchmetrics"] = str(error)
    return contenders, absent
