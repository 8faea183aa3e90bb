"""The examples as a reader runs them, small: what the hook gives is what scoring the saved predictions gives."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ("--epochs", "2", "--images", "2")
"""As few steps as leave some predictions with pixels: a comparison of zeros would say little."""

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

TIMEOUT = 300
"""Seconds: processes that wait for each other are an error here, and no hang."""

OURS = ("plain", "accelerate_loop", "reference_model", "plot_training")
"""Scripts in which a warning is ours to mend; trainers have their own."""


def run(*words: str) -> str:
    # A thread each: two processes share two cores.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if any(f"examples/{name}.py" in words for name in OURS):
        environment["PYTHONWARNINGS"] = "error"
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def is_offline(out: str) -> float:
    inside, offline = re.findall(
        r"^mIoU (?:in the loop|of the saved predictions): +(\S+)$", out, re.M
    )
    assert inside == offline
    assert 0 <= float(inside) < 1
    return float(inside)


TRAINERS = (
    "accelerate_loop",
    "lightning_callback",
    "transformers_trainer",
    "mmengine_runner",
)


@pytest.mark.parametrize(
    "script", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in TRAINERS)]
)
def test_one_process(script):
    out = run(f"examples/{script}.py", *TINY)
    assert len(re.findall(r"^epoch \d", out, re.M)) == 2
    is_offline(out)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["plain", "accelerate_loop", "transformers_trainer"])
def test_two_processes(script):
    out = run(*TORCHRUN, f"examples/{script}.py", *TINY)
    assert len(re.findall(r"^epoch \d", out, re.M)) == 2  # one of them prints
    is_offline(out)


@pytest.mark.slow
def test_lightning_starts_its_own_processes():
    out = run("examples/lightning_callback.py", *TINY, "--devices", "2")
    assert len(re.findall(r"^epoch \d", out, re.M)) == 2
    is_offline(out)


@pytest.mark.slow
def test_the_picture(tmp_path):
    path = tmp_path / "docs" / "training.png"
    out = run("examples/plot_training.py", *TINY, "--output", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    for miou, estimate in re.findall(r"mIoU ([\d.]+), estimate ([\d.]+)", out):
        assert abs(float(miou) - float(estimate)) < 0.2


@pytest.mark.slow
def test_training_helps():
    out = run("examples/reference_model.py", "--epochs", "5", "--images", "100")
    miou = [float(found) for found in re.findall(r"mIoU ([\d.]+)", out)]
    assert len(miou) == 5
    assert miou[-1] > miou[0] + 0.03
