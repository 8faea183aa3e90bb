"""`refcocom compare A B`: a config in, a comparison printed and written out; predictions are scored first."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from refcocom_gpu.cli.config import CompareConfig
from refcocom_gpu.cli.verbs import load, print_, progress
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scores.folder import check_output, holds_result
from refcocom_gpu.scores.result import Result, load_results
from refcocom_gpu.utils.options import part_of


def run(config: CompareConfig) -> None:
    """Compare A and B; write and print the comparison as the config says."""
    from refcocom_gpu.cli.tables import comparison_table
    from refcocom_gpu.scores.comparison import JSON, PARQUET, compare
    from refcocom_gpu.scores.uncertainty import quantile_place

    options = part_of(config, ReadOptions)
    pair = config.pair if isinstance(config.pair, list) else [config.pair]
    if len(pair) != 2 or None in pair:
        given = 0 if config.pair is None else len(pair)
        raise UsageError(
            f"compare takes two, A and B, not {given}: refcocom compare A B (a glob in quotes is one set)"
        )
    quantile_place(config.level, config.replicates)
    output = None if config.output_dir is None else Path(config.output_dir)
    if output is not None:
        check_output(output, overwrite=config.overwrite, names=(JSON, PARQUET))
    comparison = compare(
        *_results(pair, config, options),
        level=config.level,
        replicates=config.replicates,
        seed=config.seed,
        top=config.top,
        names=(str(pair[0]), str(pair[1])),
    )
    if output is not None:
        comparison.save(output, overwrite=config.overwrite)
    if config.quiet:
        return
    if config.json:
        print_(json.dumps(comparison.summary(), indent=2))
        return
    print_(comparison_table(comparison))
    if output is None:
        print_(
            "\nNothing was written; output_dir=DIR keeps the comparison and every example's IoUs."
        )
    else:
        print_(f"\nWrote {output / JSON}\n      {output / PARQUET}")


def _results(pair: list[str], config: CompareConfig, options: ReadOptions) -> list[Result]:
    results = {path: load_results(path) for path in pair if holds_result(path)}
    wanted = dict.fromkeys(path for path in pair if path not in results)
    if wanted:
        from refcocom_gpu.predictions.read import find_source
        from refcocom_gpu.scorer import score
        from refcocom_gpu.store.store import MaskStore
        from refcocom_gpu.utils.devices import resolve_device

        device = resolve_device(config.device)
        for path in wanted:
            find_source(path)  # a wrong path is told before a dataset is fetched
        store = MaskStore.build(load(config.dataset), threads=config.threads).to(device)
        shown = not (config.quiet or config.json)
        with progress(len(wanted) * len(store), shown=shown) as counted:
            for path in wanted:
                results[path] = score(
                    path,
                    store,
                    convention=config.convention,
                    missing=config.missing,
                    progress=counted,
                    **asdict(options),
                )
    return [results[path] for path in pair]
