"""`refcocom compare A B`: a config in, a comparison printed and written out; predictions are scored first."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from refcocom_gpu.cli.config import CompareConfig, DatasetConfig
from refcocom_gpu.cli.resolved import resolved
from refcocom_gpu.cli.verbs import forget_page, load, page_in, print_, progress, say, write_page
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions, refuse_boxes
from refcocom_gpu.scores.folder import check_output
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.slices import ALL, GROUPINGS
from refcocom_gpu.utils.options import part_of
from refcocom_gpu.utils.run_config import check_config

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore


def run(config: CompareConfig) -> None:
    """Compare A and B; write and print the comparison as the config says."""
    from refcocom_gpu.cli.tables.comparison import comparison_table
    from refcocom_gpu.counting.measures import RANKED, chosen_metrics
    from refcocom_gpu.scores.comparison import JSON, PARQUET, compare, name_of
    from refcocom_gpu.scores.uncertainty import quantile_place

    options = part_of(config, ReadOptions)
    refuse_boxes(options, "compare")
    pair = config.pair if isinstance(config.pair, list) else [config.pair]
    if len(pair) != 2 or None in pair:
        given = 0 if config.pair is None else len(pair)
        raise UsageError(
            f"compare takes two, A and B, not {given}: refcocom compare A B (a glob in quotes is one set)"
        )
    metrics = chosen_metrics(config.metrics, known=RANKED, where="compare")
    quantile_place(config.level, config.replicates)
    output = None if config.output_dir is None else Path(config.output_dir)
    if output is not None:
        check_output(output, overwrite=config.overwrite, names=(JSON, PARQUET))
        check_config(output, "compare")
    page = page_in(config.output_dir, wanted=config.report, overwrite=config.overwrite)
    a, b = _results(pair, config, options)
    comparison = compare(
        a,
        b,
        level=config.level,
        replicates=config.replicates,
        seed=config.seed,
        top=config.top,
        names=(name_of(pair[0], a), name_of(pair[1], b)),
        slices=config.slices or (),
        tags=config.tags,
    )
    if len(metrics) > 1 and not (comparison.boundaries or comparison.without_boundaries):
        say(
            "warning: boundaries were counted in neither A nor B; score them with metrics=[iou,boundary]"
        )
    if output is not None:
        comparison.save(output, overwrite=config.overwrite, config=resolved(config))
    shown = not (config.quiet or config.json)
    forget_page(output, page)
    pages = write_page(comparison, page, shown=shown, images=config.images)
    if config.json:
        print_(json.dumps(comparison.summary(), indent=2))
        return
    if config.quiet:
        return
    print_(comparison_table(comparison))
    if output is None:
        print_(
            "\nNothing was written; output_dir=DIR keeps the comparison and every example's IoUs."
        )
    else:
        written = [output / JSON, output / PARQUET, *pages]
        print_("\nWrote " + "\n      ".join(map(str, written)))


def _results(pair: list[str], config: CompareConfig, options: ReadOptions) -> list[Result]:
    from refcocom_gpu.scores.sweep_results import find_result

    found = {path: find_result(path) for path in dict.fromkeys(pair)}
    results = {path: result for path, result in found.items() if result is not None}
    wanted = dict.fromkeys(path for path in pair if path not in results)
    if wanted:
        from refcocom_gpu.predictions.read import find_source
        from refcocom_gpu.scorer import score
        from refcocom_gpu.utils.devices import resolve_device

        requested = [config.slices] if isinstance(config.slices, str) else config.slices or []
        ours = [name for name in requested if name in {*GROUPINGS, ALL}]
        device = resolve_device(config.device)
        for path in wanted:
            find_source(path)  # a wrong path is told before a dataset is fetched
        store = _store(config, next(iter(results.values()), None)).to(device)
        shown = not (config.quiet or config.json)
        with progress(len(wanted) * len(store), shown=shown) as counted:
            for path in wanted:
                results[path] = score(
                    path,
                    store,
                    convention=config.convention,
                    missing=config.missing,
                    metrics=config.metrics,
                    save_masks=config.report,
                    progress=counted,
                    **asdict(options),
                )
                # Tags are not read yet; here the true masks are at hand.
                if ours:
                    results[path] = results[path].with_slices(ours, store=store)
    return [results[path] for path in pair]


def _store(config: CompareConfig, result: Result | None) -> MaskStore:
    """Return the true masks of the dataset that was asked for, or else of the one that a result is of."""
    from refcocom_gpu.report.truth import truth_of
    from refcocom_gpu.store.store import MaskStore

    if result is None or config.dataset != DatasetConfig():
        return MaskStore.build(load(config.dataset), threads=config.threads)
    store, problem = truth_of(result)
    if store is None:
        raise UsageError(f"{problem}; pass dataset=…")
    return store
