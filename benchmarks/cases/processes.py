"""Whole processes: the command's start-up and its stages, and time and memory as predictions grow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_SAMPLES, Workload

GROWTH = (100, 1_000, 10_000, 100_000)
STAGE_RUNS = 9

# Not ru_maxrss: Linux hands a child the peak of the process that started it.
SCORE = """
import sys, time
import refcocom_gpu as rc
store = rc.MaskStore.build(rc.load_dataset(sys.argv[1]), cache=sys.argv[3])
start = time.perf_counter()
result = rc.score(sys.argv[2], store, missing="zero")
seconds = time.perf_counter() - start
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(len(store), seconds, 1024 * peak)
"""


def cases(w: Workload) -> Iterator[Case]:
    """Start-up of the command, then growth."""
    folder = Path(tempfile.mkdtemp(prefix="refcocom-command-"))
    try:
        dataset = w.write_dataset(folder / "dataset.jsonl")
        predictions = folder / "preds.jsonl"
        predictions.write_text("\n".join(map(json.dumps, w.prediction_rows())))
        environment = {**os.environ, "REFCOCOM_CACHE": str(folder / "cache")}
        # Installed packages have their bytecode; without this, ours would be compiled in every process.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def process(*words: str) -> Callable[[], None]:
            def run() -> None:
                subprocess.run(
                    [sys.executable, *words], check=True, capture_output=True, env=environment
                )

            return run

        command = ("-m", "refcocom_gpu")
        words = ("score", str(predictions), f"dataset.path={dataset}", "device=cpu")
        yield Case(
            "start-up of the command",
            [
                Contender(
                    f"{OURS}: refcocom --help", process(*command, "score", "--help"), 1000, "ours"
                ),
                Contender(
                    f"{OURS}: refcocom score of 5,598 RLE predictions",
                    process(*command, *words),
                    1000,
                    "ours",
                ),
                Contender('python -c "import torch"', process("-c", "import torch"), 1000),
                Contender(
                    'python -c "import torch, numba"', process("-c", "import torch, numba"), 1000
                ),
            ],
            unit="ms",
        )
        yield stages(words, environment)
        yield growth(folder, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stages(command: tuple[str, ...], environment: dict[str, str]) -> Case:
    """Where a warm command spends its time; the notes give each stage, and what all of them together take."""
    runs: list[dict[str, float]] = []
    for _ in range(1 + STAGE_RUNS):
        start = time.time()
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.stages", *command],
            check=True, capture_output=True, text=True, env=environment,
        ).stdout  # fmt: skip
        end = time.time()
        told = json.loads(out.splitlines()[-1])
        around = {"start of Python": told["begun"] - start, "end of Python": end - told["ended"]}
        runs.append({**told["stages"], **around, "all": end - start})
    medians = {name: float(np.median([run[name] for run in runs[1:]])) for name in runs[0]}
    notes = {
        name: {"ms": 1e3 * seconds, "%": 100 * seconds / medians["all"]}
        for name, seconds in sorted(medians.items(), key=lambda item: -item[1])
    }
    return Case("stages of a warm refcocom score of 5,598 RLE predictions", [], notes=notes)


def growth(folder: Path, environment: dict[str, str]) -> Case:
    """10² to 10⁵ predictions over the same 2,080 masks, one process each; the notes give its time and peak memory."""
    notes = {}
    for n in GROWTH:
        w = Workload(sentences=n / N_SAMPLES)
        dataset = w.write_dataset(folder / f"dataset-{n}.jsonl")
        predictions = folder / f"preds-{n}.jsonl"
        with predictions.open("w") as file:
            for row in w.prediction_rows():
                file.write(json.dumps(row) + "\n")
        words = [sys.executable, "-c", SCORE, str(dataset), str(predictions), str(folder / "cache")]
        runs = []
        for _ in range(4):
            out = subprocess.run(
                words, check=True, capture_output=True, text=True, env=environment
            ).stdout
            runs.append([float(x) for x in out.split()])
        examples, seconds, peak = np.median(np.array(runs[1:]), axis=0)
        notes[f"{int(examples):,} predictions"] = {
            "µs/pair": 1e6 * seconds / examples,
            "peak MB": peak / 1e6,
            "peak less 128 B an example, MB": (peak - 128 * examples) / 1e6,
        }
    return Case("growth", [], notes=notes)
