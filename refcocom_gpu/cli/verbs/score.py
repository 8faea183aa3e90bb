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
    from refcocom_gpu.cli.tables import score_table
    from refcocom_gpu.scorer import score
    from refcocom_gpu.scores.folder import check_output
    from refcocom_gpu.scores.publish import check_path, write_eval_results
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
    dataset = load(config.dataset)
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    with progress(dataset.n_examples, shown=not (config.quiet or config.json)) as counted:
        result = score(
            config.predictions,
            store,
            convention=config.convention,
            precision_strict=strict,
            missing=config.missing,
            metrics=config.metrics,
            progress=counted,
            **asdict(options),
        )
    written: list[Path] = []
    if output is not None:
        result.save(output, overwrite=config.overwrite)
        written += [output / "summary.json", output / "per_example.parquet"]
    if published is not None:
        name = None if config.dataset.path is None else config.dataset.name
        write_eval_results(result, published, dataset_id=name, overwrite=config.overwrite)
        written.append(published)
    if config.quiet:
        return
    if config.json:
        # ASCII, so that no terminal or pipe can change a name.
        print_(json.dumps(result.summary(), indent=2))
        return
    print_(score_table(result))
    if written:
        print_("\nWrote " + "\n      ".join(map(str, written)))
    else:
        print_(
            "\nNothing was written; output_dir=DIR keeps the summary and every example's counts."
        )
