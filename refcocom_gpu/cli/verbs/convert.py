"""`refcocom convert IN OUT`: a config in; a native prediction file, and what became of each prediction, out."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.cli.config import ConvertConfig, RawAnswers
from refcocom_gpu.cli.verbs import load, print_, progress
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.options import part_of

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

TAKEN = ("keys", "fields", "combine")
"""The reading options that raw answers and pickles of results take; the others are about arrays and native files."""


def run(config: ConvertConfig) -> None:
    """Write native predictions.

    Raises:
        UsageError: For a wrong request, before any work.
        DataError: When a dataset or the predictions cannot be used.
    """
    from refcocom_gpu.adapters.results import is_pickle
    from refcocom_gpu.cli.tables.conversion import conversion_table
    from refcocom_gpu.predictions.convert import convert

    files, out = _in_and_out(config)
    options = part_of(config, ReadOptions)
    given = {
        name: value
        for name, value in asdict(part_of(config, RawAnswers)).items()
        if value is not None
    }
    pickled = all(map(is_pickle, files))
    if given and config.source is None:
        raise UsageError(f"{', '.join(given)} is for raw answers; say whose: source=…")
    if config.source is not None and config.from_dataset is not None:
        raise UsageError(
            "source= reads raw answers and from_dataset= carries predictions; convert the answers first, with "
            "dataset= that they are for, then carry the file that was written"
        )
    if config.from_split is not None and config.from_dataset is None:
        raise UsageError("from_split is the split of from_dataset, which is not given")
    if config.source is not None or pickled:
        _refuse_others(options, "a pickle of results" if pickled else f"source={config.source}")
    dataset = load(config.dataset)
    of_run = _of_run(config, options)
    predictions: Any = files
    if config.source is not None:
        from refcocom_gpu.adapters.files import read

        predictions = read(
            files,
            dataset,
            combine=options.combine,
            keys=options.keys,
            fields=options.fields,
            **given,
        )
    elif pickled:
        from refcocom_gpu.adapters.results import read_results

        predictions = read_results(
            files,
            dataset if of_run is None else of_run,
            combine=options.combine,
            keys=options.keys,
            fields=options.fields,
        )
    elif len(files) == 1:
        # The name of a built-in set is no list.
        (predictions,) = files
    total = (dataset if of_run is None else of_run).n_examples
    with progress(total, shown=not (config.quiet or config.json)) as advance:
        made = convert(
            predictions,
            out,
            dataset,
            from_dataset=of_run,
            missing=config.missing,
            overwrite=config.overwrite,
            progress=advance,
            **asdict(options),
        )
    if config.json:
        print_(json.dumps(made.summary(), indent=2))
    elif not config.quiet:
        print_(conversion_table(made))


def _in_and_out(config: ConvertConfig) -> tuple[list[str | Path], Path]:
    paths = config.paths if isinstance(config.paths, list) else [config.paths]
    if len(paths) < 2 or None in paths:
        raise UsageError(
            "convert takes what to read and the file to write: refcocom convert IN OUT.parquet "
            "(refcocom convert --help lists the keys)"
        )
    return list(paths[:-1]), Path(paths[-1])


def _of_run(config: ConvertConfig, options: ReadOptions) -> Dataset | None:
    """Return the dataset that the predictions are for, if it is another one."""
    if config.from_dataset is None:
        return None
    from refcocom_gpu.dataset.table import load_dataset

    return load_dataset(
        config.from_dataset,
        split=config.from_split or config.dataset.split,
        key="image_position" if options.keys == "position" else "sample_id",
        invalid_references=config.dataset.invalid_references,
    )


def _refuse_others(options: ReadOptions, what: str) -> None:
    """Refuse options that have no effect."""
    neutral = ReadOptions(batch_size=options.batch_size, threads=options.threads)
    for entry in fields(ReadOptions):
        value = getattr(options, entry.name)
        if entry.name not in TAKEN and value != getattr(neutral, entry.name):
            raise UsageError(
                f"{entry.name}={value} has no effect on {what}, which takes {', '.join(TAKEN)}"
            )
