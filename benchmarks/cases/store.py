"""The store of 2,080 masks: built cold and opened warm, beside decoding them with pycocotools."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_SAMPLES, Workload


def cases(w: Workload) -> Iterator[Case]:
    """Cold and warm, runs alone and with packed bits; a warm open includes the fingerprint of the dataset."""
    import refcocom_gpu as rc

    folder = Path(tempfile.mkdtemp(prefix="refcocom-store-"))
    try:
        path = w.write_dataset(folder / "dataset.jsonl")
        dataset = rc.load_dataset(path)
        cold, warm = folder / "cold", folder / "warm"

        def build() -> None:
            shutil.rmtree(cold, ignore_errors=True)
            rc.MaskStore.build(dataset, cache=cold, threads=1).pack()

        def open_runs() -> None:
            rc.MaskStore.build(rc.load_dataset(path), cache=warm, threads=1)

        def open_bits() -> None:
            rc.MaskStore.build(rc.load_dataset(path), cache=warm, threads=1).pack()

        def open_runs_known() -> None:
            rc.MaskStore.build(dataset, cache=warm, threads=1)

        def open_bits_known() -> None:
            rc.MaskStore.build(dataset, cache=warm, threads=1).pack()

        open_bits()
        targets = [w.rle(w.targets, s, s) for s in range(N_SAMPLES)]
        from pycocotools import mask as coco

        def decode() -> None:
            for target in targets:
                coco.decode(target)

        store = rc.MaskStore.build(dataset, cache=warm)
        for index in range(0, len(store), 499):
            sample = int(store.example_sample[index])
            assert np.array_equal(store.mask(index), coco.decode(targets[sample]).astype(bool))
        yield Case(
            "store of 2,080 masks, 1 thread",
            [
                Contender(f"{OURS}: cold build, runs and bits", build, 1000, "ours"),
                Contender(f"{OURS}: warm open, runs, from the JSONL", open_runs, 1000, "ours"),
                Contender(
                    f"{OURS}: warm open, runs and bits, from the JSONL", open_bits, 1000, "ours"
                ),
                Contender(
                    f"{OURS}: warm open, runs, dataset loaded", open_runs_known, 1000, "ours"
                ),
                Contender(
                    f"{OURS}: warm open, runs and bits, dataset loaded",
                    open_bits_known,
                    1000,
                    "ours",
                ),
                Contender("pycocotools decode loop", decode, 1000),
            ],
            unit="ms",
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
