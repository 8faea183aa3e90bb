"""`refcocom score`: a config in; a table or JSON, and the files of a result, out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from refcocom_gpu.cli.config import ScoreConfig
from refcocom_gpu.cli.resolved import resolved
from refcocom_gpu.cli.verbs import (
    forget_page,
    is_strict,
    load,
    page_in,
    print_,
    progress,
    write_page,
)
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import refuse_boxes
from refcocom_gpu.predictions.value_options import ValueOptions
from refcocom_gpu.utils.options import part_of
from refcocom_gpu.utils.run_config import check_config


def run(config: ScoreConfig) -> None:
    """Score one set of predictions."""
    from refcocom_gpu.cli.tables.conventions import conventions_table
    from refcocom_gpu.cli.tables.result import cause_lines, score_table, slice_lines
    from refcocom_gpu.cli.tables.thresholds import interpolation_lines, threshold_lines
    from refcocom_gpu.counting.measures import chosen_metrics
    from refcocom_gpu.predictions.read import find_source
    from refcocom_gpu.scorer import score
    from refcocom_gpu.scores.about import about_dataset
    from refcocom_gpu.scores.conventions import ALL, METRICS, OFFICIAL
    from refcocom_gpu.scores.explain import explain
    from refcocom_gpu.scores.folder import MASKS, PER_EXAMPLE, SUMMARY, check_output
    from refcocom_gpu.scores.publish import check_path, check_target, write_eval_results
    from refcocom_gpu.scores.saved_masks import refuse_source
    from refcocom_gpu.scores.slices import chosen, groupings_for, of_predictions, read_tags
    from refcocom_gpu.store.store import MaskStore
    from refcocom_gpu.utils.devices import resolve_device

    if config.predictions is None:
        raise UsageError(
            "no predictions: refcocom score PREDS (refcocom score --help lists the keys)"
        )
    strict = is_strict(config.precision)
    options = part_of(config, ValueOptions)
    for key in ("slices", "tags", "eval_results", "save_masks", "report"):
        if getattr(config, key):
            refuse_boxes(options, f"{key}=")
    if config.convention == ALL:
        refuse_boxes(options, f"convention={ALL}")
    output = None if config.output_dir is None else Path(config.output_dir)
    page = page_in(config.output_dir, wanted=config.report, overwrite=config.overwrite)
    save_masks = config.save_masks or config.report
    names = (SUMMARY, PER_EXAMPLE, *([MASKS] if save_masks else []))
    if output is not None:
        check_output(output, overwrite=config.overwrite, names=names)
        check_config(output, "score")
    elif save_masks:
        raise UsageError("save_masks=true writes a file of masks: pass output_dir=DIR")
    published = None if config.eval_results is None else Path(config.eval_results)
    if published is not None:
        check_path(published, overwrite=config.overwrite)
    metrics = chosen_metrics(config.metrics)
    device = resolve_device(config.device)
    source = find_source(config.predictions)  # a wrong path is told before a dataset is fetched
    if output is not None:
        refuse_source(output / MASKS, source.files)
    dataset = load(config.dataset)
    dataset_id = None if config.dataset.path is None else config.dataset.name
    convention = OFFICIAL.name if config.convention == ALL else config.convention
    if published is not None:
        check_target(about_dataset(dataset), convention, dataset_id)
    tags = None if config.tags is None else read_tags(config.tags, dataset.described)
    known = [*groupings_for(metrics), *(tags.columns if tags else ())]
    columns = of_predictions(config.slices, metrics, tags.columns if tags else ())
    requested = [config.slices] if isinstance(config.slices, str) else config.slices or []
    slices = chosen([name for name in requested if name not in columns], known)
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    if config.convention == ALL:
        metrics = (*metrics, *METRICS)
    with progress(dataset.n_examples, shown=not (config.quiet or config.json)) as counted:
        result = score(
            config.predictions,
            store,
            convention=convention,
            precision_strict=strict,
            missing=config.missing,
            metrics=metrics,
            slices=columns,
            box_truth=config.box_truth,
            save_masks=save_masks,
            progress=counted,
            **asdict(options),
        )
    if slices or tags is not None:
        result = result.with_slices(slices, tags=tags, store=store)
    written: list[Path] = []
    if output is not None:
        result.save(output, overwrite=config.overwrite, config=resolved(config))
        written += [output / name for name in names]
    shown = not (config.quiet or config.json)
    forget_page(output, page)
    written += write_page(result, page, shown=shown, truth=store, images=config.images)
    if published is not None:
        write_eval_results(result, published, dataset_id=dataset_id, overwrite=config.overwrite)
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
    if "thresholds" in result.reading_scores:
        print_(threshold_lines(result))
    if "interpolations" in result.reading_scores:
        print_(interpolation_lines(result))
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
