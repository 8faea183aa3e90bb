"""Many prediction files: time per file and memory as the files grow in number, with serial, threads and Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_EXAMPLES, Workload

FEW = 12
"""Files of a timed sweep."""

GROWTH = (10, int(os.environ.get("REFCOCOM_SWEEP_FILES", "300")))
"""Files of the sweeps whose time per file is compared; set the variable for a shorter trial."""

# Run in a separate process. It prints the time of a sweep of n files until the last is kept, the time of the end, the
# peak memory and a hash of all counts. Not ru_maxrss: Linux hands a child the peak of the process that started it.
SWEEP = """
import json, os, sys, time
import refcocom_gpu as rc
import numpy as np, xxhash
from refcocom_gpu.engines import make_engine
from refcocom_gpu.sweep.inputs import read_inputs
from refcocom_gpu.sweep.run import run_sweep
dataset, pattern, n, output, engine, workers = sys.argv[1:7]
store = rc.MaskStore.build(rc.load_dataset(dataset))
items = read_inputs(pattern)[: int(n)]
begin = time.perf_counter()
engine = make_engine(engine, int(workers))
# Workers start, kernels are loaded.
run_sweep(items[:2], store, output + "-first", engine=engine)
start = time.perf_counter()
last = start
def settled(_):
    global last
    last = time.perf_counter()
outcome = run_sweep(items, store, output, engine=engine, settled=settled)
end = time.perf_counter()
engine.close()
assert outcome.n_failed == 0 and outcome.n_scored == len(items), outcome
counts = xxhash.xxh3_64_hexdigest(np.stack([r.counts for r in outcome.results]).tobytes())
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"start-up s": start - begin, "ms/file": 1e3 * (last - start) / len(items),
    "end ms/file": 1e3 * (end - last) / len(items), "peak MB": peak / 976.5625, "counts": counts}))
"""


def cases(w: Workload) -> Iterator[Case]:
    """The engines, then growth."""
    import refcocom_gpu as rc
    from refcocom_gpu.engines import make_engine
    from refcocom_gpu.sweep.inputs import read_inputs
    from refcocom_gpu.sweep.run import run_sweep

    folder = Path(tempfile.mkdtemp(prefix="refcocom-sweep-"))
    try:
        dataset = w.write_dataset(folder / "dataset.jsonl")
        store = rc.MaskStore.build(rc.load_dataset(dataset), cache=folder / "cache")
        files = write_files(w, folder / "files", max(FEW, *GROWTH))
        fresh = count()

        def sweep(engine: str) -> Any:
            def run() -> Any:
                output = folder / f"out-{next(fresh)}"
                items = read_inputs(files[:FEW])
                outcome = run_sweep(items, store, output, engine=make_engine(engine))
                shutil.rmtree(output)
                return np.concatenate([r.counts for r in outcome.results])  # type: ignore[misc]

            return run

        yield Case(
            f"sweep of {FEW} files to their results and leaderboard, store warm",
            [
                Contender(f"{OURS}: engine=threads", sweep("threads"), FEW * N_EXAMPLES, "ours"),
                Contender(f"{OURS}: engine=serial", sweep("serial"), FEW * N_EXAMPLES),
            ],
        )
        yield growth(folder, dataset)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_files(w: Workload, folder: Path, n: int) -> list[str]:
    """Write `n` files of the workload's predictions; in file k, prediction k is the true mask."""
    folder.mkdir()
    rows = w.prediction_rows()
    # The files differ in one row, so one table is cut and joined.
    table = pa.Table.from_pylist(rows)
    files = []
    for k in range(n):
        sample = int(w.sample[k])
        mask = w.rle(w.targets, sample, sample)
        exact = {**rows[k], "segmentation": {**mask, "counts": mask["counts"].decode()}}
        other = pa.Table.from_pylist([exact], schema=table.schema)
        path = folder / f"model-{k:04}.parquet"
        changed = pa.concat_tables([table[:k], other, table[k + 1 :]]).combine_chunks()
        pq.write_table(changed, path, compression="zstd")
        files.append(str(path))
    return files


def growth(folder: Path, dataset: Path) -> Case:
    """Few and many files, and many with Ray, each in a process of its own; the counts of all engines must be equal."""
    few, many = GROWTH
    runs = [("threads", few), ("serial", few), ("threads", many), ("serial", many)]
    absent = {}
    try:
        import ray  # noqa: F401

        runs.append(("ray", many))
    except ImportError as error:
        absent["ray"] = str(error)
    environment = {**os.environ, "REFCOCOM_CACHE": str(folder / "cache")}
    notes: dict[str, Any] = {}
    counts: dict[int, set[str]] = {}
    for number, (engine, n) in enumerate([("threads", few), *runs]):
        output = folder / f"grown-{number}"
        words = [str(dataset), f"{folder}/files/*.parquet", str(n), str(output), engine, "2"]
        done = subprocess.run(
            [sys.executable, "-c", SWEEP, *words],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for written in (output, folder / f"{output.name}-first"):
            shutil.rmtree(written)
        measured = json.loads(done.stdout.splitlines()[-1])
        counts.setdefault(n, set()).add(measured.pop("counts"))
        # The first run fills the caches.
        if number:
            notes[f"{n:,} files, engine={engine}, 2 workers"] = measured
    if any(len(hashes) > 1 for hashes in counts.values()):
        raise AssertionError("the engines do not give the same counts")
    for n in GROWTH:
        serial, threads = (
            notes[f"{n:,} files, engine={engine}, 2 workers"]["ms/file"]
            for engine in ("serial", "threads")
        )
        notes[f"{n:,} files: serial / threads"] = serial / threads
    return Case("growth of a sweep", [], absent=absent, notes=notes)
