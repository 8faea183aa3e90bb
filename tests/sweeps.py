"""What tests of sweeps share: small prediction files, a sweep over them, and all that it wrote."""

import functools
import json
from pathlib import Path

import pytest
from helpers import sample_case

from refcocom_gpu.dataset.sample import make_predictions, make_records
from refcocom_gpu.sweep.inputs import read_inputs
from refcocom_gpu.sweep.run import run_sweep

try:
    import ray
except ImportError:
    ray = None

needs_ray = pytest.mark.skipif(ray is None, reason="Ray is not installed")
# Ray opens sockets, pipes and processes that it leaves to the garbage collector.
quiet_ray = pytest.mark.filterwarnings("ignore")

STORE = sample_case().store


@functools.cache
def base(seed):
    return make_predictions(make_records(), "coarse" if seed else "good", seed)


def rows_of(seed):
    """Predictions that no other seed below 300 has: drawn from one of two, which takes long, and one mask less."""
    rows = list(base(seed % 2))
    rows[seed] = {**rows[seed], "segmentation": None}
    return rows


def lines(seed):
    return "\n".join(json.dumps(row) for row in rows_of(seed))


def made_runs(folder, n):
    """`n` small prediction files, `folder/step-k/preds.jsonl`."""
    files = []
    for k in range(n):
        file = folder / f"step-{k:02}" / "preds.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(lines(k))
        files.append(str(file))
    return files


def sweep(predictions, folder, *, manifest=None, **options):
    return run_sweep(read_inputs(predictions, manifest), STORE, folder, **options)


def contents(folder):
    """Everything a sweep wrote for its users, byte for byte, but for its keys, which name the folder.

    What helps it to go on is hidden.
    """
    files = [p for p in Path(folder).rglob("*") if p.is_file() and not p.name.startswith(".")]
    files = [p for p in files if p.name != "config.yaml"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
