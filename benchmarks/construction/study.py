"""A set of exact masks in, a judgement of the masks constructed from its coarse version out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import refcocom_gpu as rc
from benchmarks.construction.simulate import CORRELATED, INDEPENDENT, Model, coarsen, propose
from refcocom_gpu.construct.judge import Judgement, judge
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.construct.run import construct
from refcocom_gpu.construct.write import Output
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.masks import rle

ENSEMBLES = {"independent": INDEPENDENT, "correlated": CORRELATED}


@dataclass(frozen=True)
class Scene:
    """Image records with exact masks, and the seed of everything random."""

    records: list[dict[str, Any]]
    seed: int

    @staticmethod
    def drawn(seed: int, n_images: int) -> Scene:
        """Scenes of the built-in sample, drawn from another seed than the shipped ones."""
        return Scene(make_records(seed=1000 + seed, n_images=n_images), seed)


def scene_of_file(path: str | Path, seed: int) -> Scene:
    """Records of a JSONL file, without masks below 200 pixels and images left without masks."""
    records = []
    for line in Path(path).read_text("utf-8").splitlines():
        record = json.loads(line)
        samples = [s for s in record["samples"] if rle.decode(s["mask"]).sum() >= 200]
        if samples:
            records.append({**record, "samples": samples})
    return Scene(records, seed)


def construct_scene(scene: Scene, models: Sequence[Model], rules: Rules | None = None) -> Judgement:
    """Coarsen the masks, let the models propose, construct, and judge by the exact masks."""
    coarse, predictions = [], [[] for _ in models]  # type: ignore[var-annotated]
    for record in scene.records:
        rng = np.random.default_rng([scene.seed, int(record["image_id"])])
        masks = [rle.decode(sample["mask"]) for sample in record["samples"]]
        drawn = [coarsen(mask, rng) for mask in masks]
        samples = [
            {**sample, "mask": rle.encode(mask), "bbox": None}
            for sample, mask in zip(record["samples"], drawn, strict=True)
        ]
        coarse.append({**record, "samples": samples})
        for sample, proposed in zip(samples, propose(masks, models, rng), strict=True):
            for rows, mask in zip(predictions, proposed, strict=True):
                rows += [
                    {
                        "sample_id": sample["id"],
                        "sentence_idx": k,
                        "segmentation": rle.encode(mask),
                    }
                    for k in range(len(sample["sentences"]))
                ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = rc.load_dataset(_write(folder / "truth.jsonl", scene.records), cache=False)
        original = rc.load_dataset(_write(folder / "coarse.jsonl", coarse), cache=False)
        proposers = [
            FileProposer(model.name, _write(folder / f"{k}.jsonl", rows), original)
            for k, (model, rows) in enumerate(zip(models, predictions, strict=True))
        ]
        output = Output(folder / "out", pictures="none")
        construction = construct(original, output, proposers, rules=rules)
        return judge(construction.audit, truth)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path
