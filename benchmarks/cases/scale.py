"""The cost of a million predictions: bytes read and kept, CPU-seconds of every step, and the sums at two scales.

CPU-seconds are of the whole process (`time.process_time`), with one file at a time on one thread; divide by the cores.
The leaderboard is the case `board`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save_file

from benchmarks.timing import Case
from benchmarks.workload import N_EXAMPLES, N_SAMPLES, Workload

REPEATS = 5

FEW = 512
"""Predictions of a dense file: 157 MB of bool masks."""

MODELS = 10_000
"""Models of the large sweep."""

MASKS = 100_000_000
"""Samples of the large set, each predicted once."""

MILLION = 1_000_000


def cases(w: Workload) -> Iterator[Case]:
    """Predictions in every form, the files that a sweep keeps, and the store."""
    import refcocom_gpu as rc

    folder = Path(tempfile.mkdtemp(prefix="refcocom-scale-"))
    try:
        dataset = rc.load_dataset(w.write_dataset(folder / "dataset.jsonl"))
        store = rc.MaskStore.build(dataset, cache=folder / "cache")
        store.pack()
        costs = {
            **_predictions(w, folder, store),
            **_kept(w, folder, store),
            **_ground_truth(dataset, folder, store),
        }
        yield Case("a million of each, one core", [], notes=costs)
        yield Case(
            f"{MODELS:,} models of {N_EXAMPLES:,} predictions", [], notes=_models(costs, len(store))
        )
        yield Case(f"a set of {MASKS:,} masks, sharded by image", [], notes=_masks(costs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cpu_seconds(run: Callable[[], Any]) -> float:
    """Median CPU-seconds of the process, after a first run that fills the caches."""
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def _million(run: Callable[[], Any], rows: int, size: int) -> dict[str, float]:
    return {
        "CPU-seconds": _cpu_seconds(run) / rows * MILLION,
        "GB": size / rows * MILLION / 1e9,
    }


def _predictions(w: Workload, folder: Path, store: Any) -> dict[str, dict[str, float]]:
    """Each form of prediction file: read, checked and counted."""
    from refcocom_gpu.predictions.options import ReadOptions
    from refcocom_gpu.scorer import count

    rows = w.prediction_rows()
    names = [f"{row['sample_id']}_{row['sentence_idx']}" for row in rows[:FEW]]
    masks = w.dense(np.arange(FEW))
    rng = np.random.default_rng(0)
    # Smooth blobs, as the low-resolution output of a decoder is.
    coarse = rng.normal(size=(FEW, 12, 12)).astype(np.float32)
    logits = np.stack([
        np.asarray(Image.fromarray(one).resize((256, 256), Image.Resampling.BICUBIC))
        for one in coarse
    ]).astype(np.float16)  # fmt: skip
    files = {
        "RLE, Parquet": (folder / "p.parquet", N_EXAMPLES),
        "RLE, JSONL": (folder / "p.jsonl", N_EXAMPLES),
        "PNG folder": (folder / "png", FEW),
        "bool masks, safetensors": (folder / "p.safetensors", FEW),
        "logits 256² float16, safetensors": (folder / "l.safetensors", FEW),
    }
    pq.write_table(pa.Table.from_pylist(rows), folder / "p.parquet", compression="zstd")
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "png").mkdir()
    for name, mask in zip(names, masks, strict=True):
        Image.fromarray(mask).save(folder / "png" / f"{name}.png")
    save_file(dict(zip(names, masks, strict=True)), folder / "p.safetensors")
    save_file(dict(zip(names, logits, strict=True)), folder / "l.safetensors")
    costs = {}
    for form, (path, n) in files.items():
        size = sum(f.stat().st_size for f in (path.iterdir() if path.is_dir() else [path]))
        costs[f"predictions, {form}"] = _million(
            lambda path=path: count(path, store, ReadOptions(threads=1), missing="zero"), n, size
        )
    return costs


def _kept(w: Workload, folder: Path, store: Any) -> dict[str, dict[str, float]]:
    """The time of a sweep, and the files that it keeps, for a million predictions."""
    from refcocom_gpu.engines import make_engine
    from refcocom_gpu.sweep.inputs import read_inputs
    from refcocom_gpu.sweep.run import run_sweep

    output = folder / "sweep"
    first = read_inputs(str(folder / "p.parquet"))

    def sweep() -> None:
        shutil.rmtree(output, ignore_errors=True)
        run_sweep(first, store, output, engine=make_engine("serial"))

    def again() -> None:
        run_sweep(first, store, output, engine=make_engine("serial"))

    whole = _cpu_seconds(sweep)
    resumed = _cpu_seconds(again)
    size = {
        name: sum(f.stat().st_size for f in (output / name).rglob("*") if f.is_file())
        for name in ("results", "per_example")
    }
    scale = MILLION / N_EXAMPLES
    return {
        "a sweep's file, whole (RLE, Parquet)": {"CPU-seconds": whole * scale},
        "a sweep's file, known already": {"CPU-seconds": resumed * scale},
        "counts kept": {"GB": size["results"] * scale / 1e9},
        "per-example rows": {"GB": size["per_example"] * scale / 1e9},
    }


def _ground_truth(dataset: Any, folder: Path, store: Any) -> dict[str, dict[str, float]]:
    """A million masks of ground truth: time to build the store, and its size."""
    import refcocom_gpu as rc

    def build() -> None:
        built = rc.MaskStore.build(dataset, cache=False, threads=1)
        built.pack()

    sizes = {path.stem[:4]: path.stat().st_size for path in store.folder.glob("*.safetensors")}
    return {
        "masks, runs and bits built": {"CPU-seconds": _cpu_seconds(build) / N_SAMPLES * MILLION},
        "masks, as runs": {"GB": sizes["runs"] / N_SAMPLES * MILLION / 1e9},
        "masks, as bits": {"GB": sizes["bits"] / N_SAMPLES * MILLION / 1e9},
        "masks, records as JSONL": {
            "GB": (folder / "dataset.jsonl").stat().st_size / N_SAMPLES * MILLION / 1e9
        },
    }


def _models(costs: dict[str, dict[str, float]], n_examples: int) -> dict[str, Any]:
    """A sweep of very many models over the published set."""
    millions = MODELS * n_examples / MILLION
    names = (
        "predictions, RLE, Parquet",
        "predictions, logits 256² float16, safetensors",
        "a sweep's file, whole (RLE, Parquet)",
        "counts kept",
        "per-example rows",
    )
    return {name: _carried(costs[name], millions) for name in names}


def _masks(costs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """One prediction for each mask of a very large set."""
    millions = MASKS / MILLION
    return {name: _carried(cost, millions) for name, cost in costs.items() if "known" not in name}


def _carried(cost: dict[str, float], millions: float) -> dict[str, float]:
    """A cost for that many millions, in core-hours and terabytes."""
    carried = {}
    if "CPU-seconds" in cost:
        carried["core-hours"] = cost["CPU-seconds"] * millions / 3600
    if "GB" in cost:
        carried["TB"] = cost["GB"] * millions / 1000
    return carried
