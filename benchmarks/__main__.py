"""`python -m benchmarks [case …]`: run the cases, print their tables, write `benchmarks/results/`."""

from __future__ import annotations

import argparse
import datetime
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.timing import machine, run_case
from benchmarks.workload import Workload

CASES = (
    "rle", "dense", "logits", "boundary", "encode", "store", "files", "sweep", "processes", "bootstrap", "agree",
    "hook", "scale", "board", "explain",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the cases and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="case", help=f"any of {', '.join(CASES)}; all by default"
    )
    parser.add_argument(
        "--rounds", type=int, default=11, help="timings of each contender (default 11)"
    )
    parser.add_argument("--name", default="cpu", help="name of the result files (default cpu)")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"unknown case: {', '.join(unknown)}")
    workload = Workload()
    results = []
    for name in arguments.cases or CASES:
        for case in import_module(f"benchmarks.cases.{name}").cases(workload):
            results.append(run_case(case, arguments.rounds))
            print(table(results[-1]), flush=True)
    about = machine()
    RESULTS.mkdir(exist_ok=True)
    content = {"date": datetime.date.today().isoformat(), "machine": about, "cases": results}
    target = RESULTS / f"{arguments.name}.json"
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    head = (
        f"# Benchmarks: {arguments.name}\n\n`python -m benchmarks`, {content['date']}, {about['cpu']}, "
        f"{about['cores']} cores, Python {about['python']}; {versions}.\n\n"
        f"Medians of {arguments.rounds} alternating rounds; ×ours is the median ratio to the first row.\n\n"
    )
    (RESULTS / f"{arguments.name}.md").write_text(head + "\n".join(map(table, results)), "utf-8")
    print(f"wrote {target} and {target.with_suffix('.md').name}")


def table(result: dict[str, Any]) -> str:
    """One case as Markdown."""
    lines = [f"## {result['case']}", ""]
    if result["results"]:
        lines += [f"| | median {result['unit']} | q10 | q90 | ×ours |", "|---|---:|---:|---:|---:|"]
        for row in result["results"]:
            ratio = "" if row["times_ours"] is None else f"{row['times_ours']:.2f}"
            mark = "" if row["kind"] == "peer" else f" ({row['kind']})"
            lines.append(
                f"| {row['contender']}{mark} | {row['median']:.2f} | {row['q10']:.2f} | {row['q90']:.2f} | {ratio} |"
            )
        lines.append("")
    lines += [f"- absent: {name} ({reason})" for name, reason in result["absent"].items()]
    for name, value in result["notes"].items():
        shown = value if not isinstance(value, float) else f"{value:.4g}"
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v:.4g}" for k, v in value.items())
        lines.append(f"- {name}: {shown}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
