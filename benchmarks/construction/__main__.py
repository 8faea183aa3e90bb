"""`python -m benchmarks.construction`: how much closer refined masks are to the truth, and when agreement misleads.

Writes `docs/construct.png`, and `benchmarks/results/construct.json` with the numbers in `docs/construct.md`. Thresholds
were set with `--tune`, on another seed than the reported one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.construction.study import ENSEMBLES, Scene, construct_scene, scene_of_file
from refcocom_gpu.construct.curves import plot_curves
from refcocom_gpu.construct.rules import Rules

ROOT = Path(__file__).parents[2]
REPORTED, TUNED = 0, 101
"""Seeds of the reported results, and of those on which thresholds were set."""

N_IMAGES = 240


def main() -> None:
    """Construct each set, judge it, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.construction", description=__doc__)
    parser.add_argument("--tune", action="store_true", help="print thresholds on the tuning seed")
    parser.add_argument("--real", help="image records with exact masks to study as well (JSONL)")
    parser.add_argument(
        "--images", type=int, default=N_IMAGES, help="scenes of the built-in sample"
    )
    arguments = parser.parse_args()
    seed = TUNED if arguments.tune else REPORTED
    scenes: list[tuple[str, Scene]] = [("drawn scenes", Scene.drawn(seed, arguments.images))]
    if arguments.real:
        scenes.append(("real masks", scene_of_file(arguments.real, seed)))
    results: dict[str, Any] = {
        "seed": seed,
        "images": arguments.images,
        "rules": Rules().identity(),
    }
    curves = []
    for scene_name, scene in scenes:
        for name, models in ENSEMBLES.items():
            judgement = construct_scene(scene, models)
            title = f"{scene_name}, {name} errors"
            curves.append((title, judgement.curves()))
            results[title] = {
                **judgement.summary(),
                "at the default threshold": {
                    measure: judgement.at(Rules().confidence, measure)
                    for measure in ("iou", "boundary_iou")
                },
                "thresholds": {str(s): judgement.threshold(s) for s in (0.9, 0.8, 0.7, 0.6, 0.5)},
            }
            print(f"\n{title}")
            print(json.dumps(results[title], indent=1))
    if not arguments.tune:
        (ROOT / "benchmarks" / "results" / "construct.json").write_text(
            json.dumps(results, indent=1) + "\n", "utf-8"
        )
        (ROOT / "docs" / "construct.png").write_bytes(plot_curves(curves))


if __name__ == "__main__":
    main()
