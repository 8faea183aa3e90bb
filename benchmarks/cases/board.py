"""The leaderboard of very many models: seconds and peak memory as models grow in number, each size in its own process.

Counts are mapped from a file, as those of a sweep are, so the peak holds their pages too: 90 KB a model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.timing import Case
from benchmarks.workload import N_EXAMPLES, Workload

MODELS = (1_000, 3_000, 10_000)

CHECKED = 1_000
"""Models up to which the board is compared with the whole matrices of pairs."""


def cases(w: Workload) -> Iterator[Case]:
    """A board of each number of models."""
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="refcocom-board-") as folder:
        examples = Path(folder) / "examples.npz"
        area = w.pixels[w.sample] // 10
        np.savez(examples, image=w.image[w.sample], sample=w.sample, target_area=area)
        for n in MODELS:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.cases.board", str(examples), str(n)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            notes[f"{n:,} models"] = json.loads(done.stdout.splitlines()[-1])
    yield Case(
        f"leaderboard of {N_EXAMPLES:,} examples, 2,000 replicates, all cores", [], notes=notes
    )


def measure(path: Path, n_models: int) -> dict[str, float]:
    """Make one board; return what it took and the peak memory of this process."""
    from refcocom_gpu.scores import uncertainty as un
    from refcocom_gpu.scores.leaderboard.examples import Examples
    from refcocom_gpu.scores.leaderboard.rows import make_leaderboard

    with np.load(path) as arrays:
        examples = Examples(**arrays, about={})
    counts = _counts(path.with_name(f"{n_models}.i8"), examples, n_models)
    files = [_file(k, of_model) for k, of_model in enumerate(counts)]
    # Kernels are loaded.
    make_leaderboard(files[:200], examples, replicates=19)
    spent = time.perf_counter(), time.process_time()
    board = make_leaderboard(files, examples)
    measured = {
        "s": time.perf_counter() - spent[0],
        "CPU-seconds": time.process_time() - spent[1],
        # Not ru_maxrss: Linux hands a child the peak of the process that started it.
        "peak MB": _status("VmHWM"),
        "of it mapped MB": counts.nbytes / 1e6,
        "critical value": board.about["uncertainty"]["critical_value"],
    }
    if n_models <= CHECKED:
        unions = counts[..., 1] + examples.target_area - counts[..., 0]
        ious = (counts[..., 0] / unions)[[*board.order]].T
        pairs = un.pairwise_intervals(un.ratio_by_image(examples.image, ious))
        ranks = [(row["rank_low"], row["rank_high"]) for row in board.ranked]
        if (
            pairs.critical != measured["critical value"]
            or (un.rank_intervals(pairs) != ranks).any()
        ):
            raise AssertionError("the board differs from the whole matrices of pairs")
    return measured


def _counts(path: Path, examples: Any, n_models: int) -> np.memmap[Any, np.dtype[np.int64]]:
    """Write and map [models, N, 2] intersection and predicted area, images being hard or easy for all models alike."""
    rng = np.random.default_rng(0)
    area = examples.target_area
    hard = rng.normal(1.8, 1, examples.image.max() + 1)[examples.image]
    with path.open("wb") as file:
        for skill in rng.normal(0, 0.1, n_models):
            iou = 1 / (1 + np.exp(-hard - skill - rng.normal(0, 1, len(area))))
            both = np.rint(2 * area * iou / (1 + iou)).astype(np.int64)
            np.stack([both, area], axis=1).tofile(file)
    return np.memmap(path, np.int64, "r", shape=(n_models, len(area), 2))


def _file(k: int, counts: Any) -> Any:
    about = {"columns": {}, "absent": None, "measured": {}, "warnings": (), "digest": None}
    return SimpleNamespace(path=f"{k}.parquet", model=str(k), counts=counts, error=None, **about)


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
