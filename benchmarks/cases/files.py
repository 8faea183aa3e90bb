"""A prediction file to its summary, with a warm store: what a sweep repeats for every checkpoint."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_SAMPLES, Workload
from refcocom_gpu.predictions.native import FILE

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
        native, jsonl, results = (folder / f"preds.{kind}" for kind in ("parquet", "jsonl", "json"))
        with rc.PredictionWriter(native, store.dataset) as writer:
            keys = np.array([[row["sample_id"], row["sentence_idx"]] for row in rows])
            writer.write(keys, [row["segmentation"] for row in rows])
        jsonl.write_text("\n".join(map(json.dumps, rows)))
        results.write_text(json.dumps(rows))
        n = len(rows)

        def ours(what: str, path: Path, threads: int) -> Contender:
            threads_named = "1 thread" if threads == 1 else "all threads"
            return Contender(
                f"{OURS}: {what} → summary, {threads_named}",
                lambda: rc.score(path, store, threads=threads).summary(),
                n,
                "ours",
            )

        contenders = [ours("Parquet", native, 1), ours("Parquet", native, 0)]
        megabytes = {"as written": native.stat().st_size / 1e6}
        for pages in ("zstd", "none"):
            path = folder / f"{pages}.parquet"
            pq.write_table(pq.read_table(native), path, **{**FILE, "compression": pages})
            contenders.append(ours(f"Parquet, {pages} instead of LZ4", path, 1))
            megabytes[pages] = path.stat().st_size / 1e6
        contenders.append(ours("JSONL", jsonl, 0))
        few = folder / "few.json"
        few.write_text(json.dumps(rows[:NAIVE_ROWS]))
        peers, absent = _peers(w, results, few)
        expected = rc.score(native, store).miou
        for peer in peers:
            if peer.rows == n and abs(peer.run() - expected) > 1e-12:
                raise AssertionError(f"{peer.name} gives another mIoU")
        yield Case(
            "prediction file → summary, store warm",
            [*contenders, *peers],
            absent,
            {"Parquet, MB": megabytes},
            compare=False,
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

    def in_memory(iou: Any) -> Callable[[], float]:
        predictions = [w.rle(w.predictions, k, s) for k, s in enumerate(w.sample.tolist())]
        bounds = zip(w.first_example[:-1].tolist(), w.first_example[1:].tolist(), strict=True)
        groups = [(predictions[a:b], [targets[s]]) for s, (a, b) in enumerate(bounds) if b > a]
        return lambda: float(np.mean(np.concatenate([iou(*group, [0])[:, 0] for group in groups])))

    n = len(w.sample)
    contenders = [Contender("json + pycocotools decode + numpy", naive, NAIVE_ROWS)]
    absent = {}
    try:
        from hotcoco import mask as hotcoco

        contenders += [
            Contender("hotcoco iou, grouped in memory, no file", in_memory(hotcoco.iou), n),
            Contender("json + hotcoco iou, grouped", grouped(hotcoco.iou), n),
        ]
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
