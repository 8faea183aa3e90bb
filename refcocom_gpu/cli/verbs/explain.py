"""`refcocom explain RESULT`: a config in; scores under every convention, and why they differ, out."""

from __future__ import annotations

import json
from dataclasses import asdict

from refcocom_gpu.cli.config import ExplainConfig
from refcocom_gpu.cli.verbs import load, print_, progress
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.sweep_results import find_result
from refcocom_gpu.utils.options import part_of


def run(config: ExplainConfig) -> None:
    """Print the scores under every convention, the reasons, and what a published number may be."""
    from refcocom_gpu.cli.tables.conventions import explain_table, reported_table
    from refcocom_gpu.scores.explain import explain
    from refcocom_gpu.scores.reported import read_reported, search

    if config.result is None:
        raise UsageError(
            "nothing to explain: refcocom explain RESULT (refcocom explain --help lists the keys)"
        )
    if config.reported is None and config.tolerance is not None:
        raise UsageError("tolerance is that of a published number: reported=…")
    number = None
    if config.reported is not None:
        number = read_reported(config.reported, config.tolerance)
    options = part_of(config, ReadOptions)
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
    """Load the result, or score the predictions."""
    if isinstance(config.result, str) and (found := find_result(config.result)) is not None:
        return found
    from refcocom_gpu.scorer import score
    from refcocom_gpu.store.store import MaskStore
    from refcocom_gpu.utils.devices import resolve_device

    device = resolve_device(config.device)
    dataset = load(config.dataset)
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    with progress(dataset.n_examples, shown=not (config.quiet or config.json)) as counted:
        return score(
            config.result, store, missing=config.missing, progress=counted, **asdict(options)
        )
