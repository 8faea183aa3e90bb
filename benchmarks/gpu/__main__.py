"""`python -m benchmarks.gpu`: exactness, then timings on one CUDA device, written to `benchmarks/results/`.

`--dry-run` runs the same code on the CPU with a few small masks and writes nothing. It shows that the script works, and
nothing about a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import time
from typing import Any

import torch

from benchmarks.__main__ import RESULTS, table
from benchmarks.gpu import exactness, speed
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.inputs import Inputs
from benchmarks.timing import machine


def main() -> int:
    """Run the checks and timings and write the results; return 1 if anything was not exact."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument(
        "--rounds", type=int, default=20, help="timings of each contender (default 20)"
    )
    parser.add_argument("--name", default="gpu", help="name of the result files (default gpu)")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, small, nothing written")
    arguments = parser.parse_args()
    if arguments.dry_run:
        arguments.device, arguments.rounds = "cpu:0", 2
        # Triton reads it when it is first imported, for a peer written in it.
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --dry-run shows that the script works")
    device = torch.device(arguments.device)
    start = time.perf_counter()
    inputs = Inputs(device, small=arguments.dry_run)
    checks = exactness.run(inputs)
    for check in checks:
        print(f"{'exact' if check['wrong'] == 0 else 'WRONG':>6}  {check['check']}: {check['of']}")
    cases = []
    for case in speed.run(inputs, Clock(device, arguments.rounds)):
        cases.append(case)
        print(table(case), flush=True)
    wrong = sum(check["wrong"] > 0 for check in checks)
    content = {
        "date": datetime.date.today().isoformat(),
        "machine": {**machine(), **about(device)},
        "seconds": round(time.perf_counter() - start, 1),
        "checks": checks,
        "cases": cases,
    }
    if arguments.dry_run:
        print(f"{len(checks)} checks, {wrong} wrong; {len(cases)} cases; nothing is written")
        return int(wrong > 0)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{arguments.name}.json"
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    target.with_suffix(".md").write_text(report(content, arguments.rounds), "utf-8")
    print(f"wrote {target} and {target.with_suffix('.md').name} after {content['seconds']} s")
    return int(wrong > 0)


def report(content: dict[str, Any], rounds: int) -> str:
    """All results as Markdown."""
    about = content["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    exact = [
        f"| {c['check']} | {c['of']} | {c['wrong']} | {c.get('note', '')} |"
        for c in content["checks"]
    ]
    return "\n".join(
        [
            "# Benchmarks: GPU",
            "",
            f"`python -m benchmarks.gpu`, {content['date']}, {about['device']}, driver {about['driver']}, CUDA "
            f"{about['cuda']}, Triton {about['triton']}; {about['cpu']}, {about['cores']} cores; {versions}. "
            f"{content['seconds']} s in all.",
            "",
            "## Exactness",
            "",
            "| compared with the CPU | of | wrong | |",
            "|---|---:|---:|---|",
            *exact,
            "",
            f"Medians of {rounds} alternating rounds between CUDA events; ×ours is the median ratio to the first row.",
            "",
            *map(table, content["cases"]),
        ]
    )


def about(device: torch.device) -> dict[str, Any]:
    """The device and the versions that the timings were taken with."""
    if device.type != "cuda":
        return {"device": "none"}
    import triton

    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    return {
        "device": torch.cuda.get_device_name(device),
        "driver": driver[0] if driver else "unknown",
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }


if __name__ == "__main__":
    raise SystemExit(main())
