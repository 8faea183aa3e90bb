"""A prediction file to its summary, with a warm store: what a sweep repeats for every checkpoint."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_SAMPLES, Workload

NAIVE_ROWS = 300


def cases(w: Workload) -> Iterator[Case]:
    """Parquet and JSONL, beside what users write with json."""
    import refcocom_gpu as rc

    folder = Path(tempfile.mkdtemp(prefix="refcocom-files-"))
    try:
        store = rc.MaskStore.build(
            rc.load_dataset(w.write_dataset(folder / "dataset.jsonl")), cache=folder / "cache"
        )
        rows = w.prediction_rows()
        parquet, jsonl, results = (
            folder / "preds.parquet",
            folder / "preds.jsonl",
            folder / "preds.json",
        )
        pq.write_table(pa.Table.from_pylist(rows), parquet, compression="zstd")
        jsonl.write_text("\n".join(map(json.dumps, rows)))
        results.write_text(json.dumps(rows))
        n = len(rows)
        contenders = [
            Contender(
                f"{OURS}: Parquet → summary, all threads",
                lambda: rc.score(parquet, store).summary(),
                n,
                "ours",
            ),
            Contender(
                f"{OURS}: JSONL → summary, all threads",
                lambda: rc.score(jsonl, store).summary(),
                n,
                "ours",
            ),
        ]
        few = folder / "few.json"
        few.write_text(json.dumps(rows[:NAIVE_ROWS]))
        peers, absent = _peers(w, results, few)
        expected = rc.score(parquet, store).miou
        for peer in peers:
            if peer.rows == n and abs(peer.run() - expected) > 1e-12:
                raise AssertionError(f"{peer.name} gives another mIoU")
        yield Case(
            "prediction file → summary, store warm", [*contenders, *peers], absent, compare=False
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _peers(w: Workload, path: Path, few: Path) -> tuple[list[Contender], dict[str, str]]:
    from pycocotools import mask as coco

    targets = [w.rle(w.targets, s, s) for s in range(N_SAMPLES)]

    def naive() -> float:
        ious = []
        for row in json.loads(few.read_text()):
            p = coco.decode(row["segmentation"])
            t = coco.decode(targets[row["sample_id"] - 10_000])
            ious.append(np.logical_and(p, t).sum() / np.logical_or(p, t).sum())
        return float(np.mean(ious))

    def grouped(iou: Any) -> Callable[[], float]:
        def run() -> float:
            groups: dict[int, list[Any]] = {}
            for row in json.loads(path.read_text()):
                groups.setdefault(row["sample_id"] - 10_000, []).append(row["segmentation"])
            return float(
                np.mean(
                    np.concatenate([iou(p, [targets[s]], [0])[:, 0] for s, p in groups.items()])
                )
            )

        return run

    n = len(w.sample)
    contenders = [Contender("json + pycocotools decode + numpy", naive, NAIVE_ROWS)]
    absent = {}
    try:
        from hotcoco import mask as hotcoco

        contenders.append(Contender("json + hotcoco iou, grouped", grouped(hotcoco.iou), n))
    except ImportError as error:
        absent["hotcoco"] = str(error)
    try:
        from ultrafast_pycocotools import mask as ultrafast

        contenders.append(
            Contender("json + ultrafast-pycocotools iou, grouped", grouped(ultrafast.iou), n)
        )
    except ImportError as error:
        absent["ultrafast-pycocotools"] = str(error)
    return contenders, absent
