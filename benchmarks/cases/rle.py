"""RLE strings against stored masks: 5,598 pairs, as a prediction file holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from benchmarks import limits
from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_SAMPLES, Workload

NAIVE_ROWS = 300
"""Rows on which peers that take a millisecond a pair are timed."""


def cases(w: Workload) -> Iterator[Case]:
    """One thread, then all."""
    n = len(w.sample)
    areas = cpu.rle_counts(
        w.targets.data, w.targets.offsets, np.arange(N_SAMPLES), w.targets.ends, w.targets.run_offsets, w.pixels
    )[0][:, 1]  # fmt: skip
    peers, absent = _peers(w)
    threads = cpu.available_threads()
    ours = [Contender(OURS, _ours(w, areas, 1), n, "ours")]
    bounds: dict[int, list[Contender]] = {1: [], threads: []}
    library = limits.compiled()
    if library is None:
        absent["plain C loop"] = "no C compiler"
    else:
        table, table_offsets = limits.rank_tables(w.targets.ends, w.targets.run_offsets, w.pixels)
        arrays = [
            w.predictions.data,
            w.predictions.offsets,
            w.sample,
            table,
            table_offsets,
            w.pixels,
        ]
        for count, loops in bounds.items():
            run = limits.parse_and_rank(library, arrays, n, count)
            loops.append(
                Contender(
                    f"plain C loop, rank table made beforehand, {count} threads".replace(
                        ", 1 threads", ""
                    ),
                    lambda run=run: _with_area(run(), areas, w),  # type: ignore[misc]
                    n,
                    "limit",
                )
            )
    notes = {
        "runs a target": len(w.targets.ends) / N_SAMPLES,
        "characters a prediction": len(w.predictions.data) / n,
    }
    yield Case("RLE counts, 1 thread", ours + peers + bounds[1], absent, notes)
    yield Case(
        f"RLE counts, {threads} threads",
        [
            Contender(OURS, _ours(w, areas, threads), n, "ours"),
            Contender(f"{OURS}, 1 thread", _ours(w, areas, 1), n, "limit"),
            # The same C loop on one thread and on all shows what the threads of the machine gain.
            *bounds[1],
            *(bounds[threads] if threads > 1 else []),
        ],
    )


def _with_area(
    counts: NDArray[np.int64], areas: NDArray[np.int64], w: Workload
) -> NDArray[np.int64]:
    return np.column_stack([counts, areas[w.sample]])


def _ours(w: Workload, areas: NDArray[np.int64], threads: int) -> Callable[[], NDArray[np.int64]]:
    def run() -> NDArray[np.int64]:
        counts, status, _ = cpu.rle_counts(
            w.predictions.data, w.predictions.offsets, w.sample, w.targets.ends, w.targets.run_offsets,
            w.pixels, threads=threads,
        )  # fmt: skip
        assert not status.any()
        return _with_area(counts, areas, w)

    return run


def _peers(w: Workload) -> tuple[list[Contender], dict[str, str]]:
    n = len(w.sample)
    targets = [w.rle(w.targets, s, s) for s in range(N_SAMPLES)]
    predictions = [w.rle(w.predictions, k, s) for k, s in enumerate(w.sample.tolist())]
    groups = list(zip(w.first_example[:-1].tolist(), w.first_example[1:].tolist(), strict=True))

    def grouped(iou: Any) -> Callable[[], NDArray[np.float64]]:
        def run() -> NDArray[np.float64]:
            parts = [
                iou(predictions[a:b], [targets[s]], [0]) for s, (a, b) in enumerate(groups) if b > a
            ]
            return np.concatenate(parts)[:, 0]

        return run

    from pycocotools import mask as coco

    def naive() -> NDArray[np.int64]:
        rows = []
        for k in range(NAIVE_ROWS):
            p, t = coco.decode(predictions[k]), coco.decode(targets[w.sample[k]])
            rows.append((np.logical_and(p, t).sum(), p.sum(), t.sum()))
        return np.array(rows, np.int64)

    contenders = [
        Contender("pycocotools decode + numpy", naive, NAIVE_ROWS),
        Contender("pycocotools iou, grouped", grouped(coco.iou), n),
    ]
    absent = {}
    try:
        from hotcoco import mask as hotcoco

        contenders.append(Contender("hotcoco iou, grouped", grouped(hotcoco.iou), n))
    except ImportError as error:
        absent["hotcoco"] = str(error)
    try:
        from ultrafast_pycocotools import mask as ultrafast

        contenders.append(
            Contender("ultrafast-pycocotools iou, grouped", grouped(ultrafast.iou), n)
        )
    except ImportError as error:
        absent["ultrafast-pycocotools"] = str(error)
    try:
        from faster_coco_eval.core import mask as faster

        contenders.append(Contender("faster-coco-eval iou, grouped", grouped(faster.iou), n))
    except ImportError as error:
        absent["faster-coco-eval"] = str(error)
    try:
        from rlemasklib import RLEMask

        cached = [RLEMask.from_dict(t) for t in targets]

        def rlemasklib() -> NDArray[np.float64]:
            return np.array(
                [
                    RLEMask.from_dict(p).iou(cached[s])
                    for p, s in zip(predictions, w.sample.tolist(), strict=True)
                ]
            )

        contenders.append(Contender("rlemasklib, truth cached", rlemasklib, n))
    except ImportError as error:
        absent["rlemasklib"] = str(error)
    return contenders, absent
