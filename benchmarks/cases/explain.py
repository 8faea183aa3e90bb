"""All slices, causes and conventions of 5,598 counted examples: what a table says beyond the scores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import N_EXAMPLES, Workload

if TYPE_CHECKING:
    from refcocom_gpu.scores.result import Result

TARGET_MS = 300
"""Milliseconds that all three may take together."""


def cases(w: Workload) -> Iterator[Case]:
    """Each part alone and all together, from stored counts; nothing is kept from call to call but the counts."""
    import refcocom_gpu as rc
    from refcocom_gpu.scores.conventions import METRICS
    from refcocom_gpu.scores.explain import explain

    with tempfile.TemporaryDirectory(prefix="refcocom-explain-") as folder:
        dataset = rc.load_dataset(w.write_dataset(Path(folder) / "dataset.jsonl"))
        store = rc.MaskStore.build(dataset, cache=False)
    predictions = [w.rle(w.predictions, row, s) for row, s in enumerate(w.sample.tolist())]
    counted = rc.score(list(enumerate(predictions)), store, metrics=["causes", *METRICS])

    def fresh() -> Result:
        # A result and a store keep what they computed, so every call begins with new ones.
        vars(store).pop("perimeters", None)
        return rc.Result(counted.per_example, counted.info)

    def slices(result: Result | None = None) -> dict[str, Any]:
        result = (result or fresh()).with_slices("all", store=store)
        return {name: result.slice_rows(name) for name in result.sliced}

    def causes(result: Result | None = None) -> dict[str, Any]:
        return (result or fresh()).cause_summary

    def conventions(result: Result | None = None) -> list[Any]:
        return [row.summary() for row in explain(result or fresh())]

    def together() -> None:
        result = fresh()
        slices(result), causes(result), conventions(result)

    parts = {"all slices": slices, "causes": causes, "convention=all": conventions}
    yield Case(
        f"slices, causes and conventions of {N_EXAMPLES:,} counted examples",
        [
            Contender(f"{OURS}: all three", together, 1000, "ours"),
            *(Contender(f"{OURS}: {name}", run, 1000, "ours") for name, run in parts.items()),
        ],
        notes={"target": f"{TARGET_MS} ms for all three"},
        unit="ms",
        compare=False,
    )
