"""`refcocom score`: a config in; a table or JSON, and the files of a result, out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from refcocom_gpu.cli.config import ScoreConfig
from refcocom_gpu.cli.verbs import is_strict, load, print_, progress
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.options import part_of


def run(config: ScoreConfig) -> None:
    """Score one set of predictions."""
    from refcocom_gpu.cli.tables.conventions import conventions_table
    from refcocom_gpu.cli.tables.result import cause_lines, score_table, slice_lines
    from refcocom_gpu.counting.measures import chosen_metrics
    from refcocom_gpu.predictions.read import find_source
    from refcocom_gpu.scorer import score
    from refcocom_gpu.scores.conventions import ALL, METRICS, OFFICIAL
    from refcocom_gpu.scores.explain import explain
    from refcocom_gpu.scores.folder import check_output
    from refcocom_gpu.scores.publish import check_path, write_eval_results
    from refcocom_gpu.scores.slices import GROUPINGS, chosen, read_tags
    from refcocom_gpu.store.store import MaskStore
    from refcocom_gpu.utils.devices import resolve_device

    if config.predictions is None:
        raise UsageError(
            "no predictions: refcocom score PREDS (refcocom score --help lists the keys)"
        )
    strict = is_strict(config.precision)
    options = part_of(config, ReadOptions)
    output = None if config.output_dir is None else Path(config.output_dir)
    if output is not None:
        check_output(output, overwrite=config.overwrite)
    published = None if config.eval_results is None else Path(config.eval_results)
    if published is not None:
        check_path(published, overwrite=config.overwrite)
    device = resolve_device(config.device)
    find_source(config.predictions)  # a wrong path is told before a dataset is fetched
    dataset = load(config.dataset)
    tags = None if config.tags is None else read_tags(config.tags, dataset.described)
    slices = chosen(config.slices, [*GROUPINGS, *(tags.columns if tags else ())])
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    metrics = config.metrics
    if config.convention == ALL:
        metrics = [*chosen_metrics(metrics), *METRICS]
    with progress(dataset.n_examples, shown=not (config.quiet or config.json)) as counted:
        result = score(
            config.predictions,
            store,
            convention=OFFICIAL.name if config.convention == ALL else config.convention,
            precision_strict=strict,
            missing=config.missing,
            metrics=metrics,
            box_truth=config.box_truth,
            progress=counted,
            **asdict(options),
        )
    if slices or tags is not None:
        result = result.with_slices(slices, tags=tags, store=store)
    written: list[Path] = []
    if output is not None:
        result.save(output, overwrite=config.overwrite)
        written += [output / "summary.json", output / "per_example.parquet"]
    if published is not None:
        name = None if config.dataset.path is None else config.dataset.name
        write_eval_results(result, published, dataset_id=name, overwrite=config.overwrite)
        written.append(published)
    if config.json:
        # ASCII, so that no terminal or pipe can change a name.
        summary = result.summary()
        if config.convention == ALL:
            summary["conventions"] = [row.summary() for row in explain(result)]
        print_(json.dumps(summary, indent=2))
        return
    if config.quiet:
        return
    print_(score_table(result))
    if result.cause_summary:
        print_(cause_lines(result))
    for name in result.sliced:
        print_(slice_lines(result, name))
    if config.convention == ALL:
        print_(f"\n{conventions_table(explain(result))}\n  refcocom explain says why they differ.")
    if written:
        print_("\nWrote " + "\n      ".join(map(str, written)))
    else:
        print_(
            "\nNothing was written; output_dir=DIR keeps the summary and every example's counts."
        )
