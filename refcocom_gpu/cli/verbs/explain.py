"""`refcocom explain RESULT`: a config in; scores under every convention, or on another truth, and why they differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from refcocom_gpu.cli.config import ExplainConfig
from refcocom_gpu.cli.verbs import load, print_, progress
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.built_in import is_built_in
from refcocom_gpu.predictions.options import ReadOptions, refuse_boxes
from refcocom_gpu.scores.folder import holds_result
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.sweep_results import find_result
from refcocom_gpu.utils.options import part_of


def run(config: ExplainConfig) -> None:
    """Print the scores under every convention, the reasons, and what a published number may be; or a truth's noise."""
    from refcocom_gpu.cli.tables.conventions import explain_table, reported_table
    from refcocom_gpu.scores.explain import explain
    from refcocom_gpu.scores.reported import read_reported, search

    options = part_of(config, ReadOptions)
    refuse_boxes(options, "explain")
    if config.truth is not None:
        _explain_truth(config, options)
        return
    if config.truth_split is not None:
        raise UsageError("truth_split is the split of truth, which is not given")
    if config.result is None:
        raise UsageError(
            "nothing to explain: refcocom explain RESULT (refcocom explain --help lists the keys)"
        )
    if config.reported is None and config.tolerance is not None:
        raise UsageError("tolerance is that of a published number: reported=…")
    number = None
    if config.reported is not None:
        number = read_reported(config.reported, config.tolerance)
    result = _result(config, options)
    if config.quiet and not config.json:
        return
    rows = explain(result)
    found = None if number is None else search(result, number, rows)
    if config.json:
        summary = {
            "schema": "refcocom-explanation",
            "version": 1,
            "predictions": result.info.get("predictions"),
            "dataset": result.info.get("dataset"),
            "n_missing": result.n_missing,
            "conventions": [row.summary() for row in rows],
            "search": None if found is None else found.summary(),
        }
        print_(json.dumps(summary, indent=2))
        return
    # A published number was asked about: the answer stands alone.
    print_(explain_table(result, rows) if found is None else reported_table(result, found))


def _result(config: ExplainConfig, options: ReadOptions) -> Result:
    """Load the result, or score the predictions.

    Raises:
        UsageError: There are several results.
    """
    if isinstance(config.result, list) and any(map(holds_result, config.result)):
        raise UsageError(f"explain takes one result, not {len(config.result)}")
    if isinstance(config.result, str) and (found := find_result(config.result)) is not None:
        return found
    from refcocom_gpu.predictions.read import find_source
    from refcocom_gpu.scorer import score
    from refcocom_gpu.scores.conventions import METRICS
    from refcocom_gpu.store.store import MaskStore
    from refcocom_gpu.utils.devices import resolve_device

    device = resolve_device(config.device)
    find_source(config.result)  # a wrong path is told before a dataset is fetched
    dataset = load(config.dataset)
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    with progress(dataset.n_examples, shown=not (config.quiet or config.json)) as counted:
        return score(
            config.result,
            store,
            missing=config.missing,
            metrics=METRICS,
            progress=counted,
            **asdict(options),
        )


def _explain_truth(config: ExplainConfig, options: ReadOptions) -> None:
    """Print how far two versions of the masks differ, and what that does to scores and ranks."""
    from refcocom_gpu.cli.tables.truth_noise import truth_noise_table
    from refcocom_gpu.construct.truth_noise import truth_noise
    from refcocom_gpu.dataset.table import load_dataset
    from refcocom_gpu.store.store import MaskStore
    from refcocom_gpu.utils.devices import resolve_device

    if config.reported is not None or config.tolerance is not None:
        raise UsageError("reported= and truth= are two questions: ask one at a time")
    device = resolve_device(config.device)
    runs = _runs(config.result)
    dataset = load(config.dataset)
    truth = load_dataset(
        str(config.truth),
        split=config.truth_split or config.dataset.split,
        key=dataset.key,
        invalid_references=config.dataset.invalid_references,
    )
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    total = 2 * len(runs) * len(store)
    with progress(total, shown=not (config.quiet or config.json)) as counted:
        noise = truth_noise(
            store, truth, runs, missing=config.missing, progress=counted, **asdict(options)
        )
    if config.json:
        print_(json.dumps(noise.summary(), indent=2))
    elif not config.quiet:
        print_(truth_noise_table(noise))


def _runs(result: Any) -> dict[str, list[str]]:
    """Return the files of each set of predictions by name: given as they are, or by what was scored of them."""
    from refcocom_gpu.scores.sweep_results import SweepResults, holds_sweep
    from refcocom_gpu.sweep.inputs import read_inputs

    if result is None:
        return {}
    entries: list[Any] = []
    for entry in result if isinstance(result, list) else [result]:
        if holds_result(entry):
            entries.append(_scored_files(entry))
        elif holds_sweep(entry):
            entries += [row["path"] for row in SweepResults(entry).rows if row["row"] is not None]
        else:
            entries.append(entry)
    return {item.place: list(item.files) for item in read_inputs(entries)}


def _scored_files(folder: str) -> list[str]:
    """Return the files whose score is in a folder, which holds counts but no masks."""
    from refcocom_gpu.scores.result import load_result

    about = load_result(folder).info.get("predictions", {})
    files = about.get("files") or ([about["source"]] if is_built_in(about.get("source")) else [])
    if not files:
        raise UsageError(
            f"{folder} does not name the files of its predictions, whose masks are needed for truth=; name them"
        )
    return list(files)
