"""`rc.construct`: an original set and predictions in, a refined set in a folder out: what `refcocom construct` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from refcocom_gpu.construct.filter import ExpressionFilter
from refcocom_gpu.construct.instances import Proposer
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.construct.run import Construction, Settled
from refcocom_gpu.construct.run import construct as run
from refcocom_gpu.construct.write import Output
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.engines import make_engine
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.built_in import is_built_in
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.sweep.contents import is_url
from refcocom_gpu.sweep.inputs import Entry, read_inputs
from refcocom_gpu.sweep.item import Item


def construct(
    predictions: Entry | Iterable[Entry] | None,
    dataset: Dataset | str | Path,
    output_dir: str | Path,
    *,
    proposers: Sequence[Proposer] = (),
    missing: str = "error",
    rules: Rules | None = None,
    expression_filter: ExpressionFilter | None = None,
    images: Images | None = None,
    pictures: str = "auto",
    engine: str = "threads",
    workers: int = 0,
    settled: Settled | None = None,
    **reading: Any,
) -> Construction:
    """Make a refined dataset of an original one; interrupted, the same call goes on.

    Args:
        predictions: Prediction files, each the masks of one model; a list within the list is one set. None where only
            `proposers` propose.
        dataset: The original set, or its name or path.
        output_dir: Made where absent. What is known of an image is not asked again.
        proposers: Who proposes besides: `GrabCutProposer` and `SamProposer` of `refcocom_gpu.construct.propose`, or any
            `Proposer`.
        missing: For examples without a prediction: `error`, or `skip`.
        rules: The thresholds; the defaults of `Rules` where absent.
        expression_filter: Finds harm in expressions; without one, nothing is harmful.
        images: The pictures, where a proposer looks at them or the written set must hold them.
        pictures: `auto`, `embed`, `path` or `none`, as for the command.
        engine: `serial`, `threads` or `ray`; the set is the same.
        workers: Images at a time; 0 for one per core.
        settled: Called with the result of each image as soon as it is known, in any order.
        reading: Fields of `ReadOptions`, as for `score`.

    Returns:
        The summary, the audit and where they are.

    Raises:
        UsageError: The request is wrong, or the folder cannot be written.
        DataError: Predictions, a proposer or a picture cannot be used. Nothing is written then.

    >>> import tempfile
    >>> import refcocom_gpu as rc
    >>> made = rc.construct(["sample", "sample-coarse"], "sample", tempfile.mkdtemp(), pictures="none")
    >>> made.summary["counts"]["instances"]["original"]
    105
    """
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset)
    items = read_inputs(predictions) if predictions is not None else []
    from_files = file_proposers(items, dataset, ReadOptions(**reading), missing)
    with contextlib.closing(make_engine(engine, workers)) as made:
        return run(
            dataset,
            Output(output_dir, pictures),
            [*from_files, *proposers],
            rules=rules,
            expression_filter=expression_filter,
            images=images,
            engine=made,
            settled=settled,
        )


def file_proposers(
    items: Sequence[Item],
    dataset: Dataset,
    options: ReadOptions,
    missing: str,
) -> list[Proposer]:
    """Return a proposer for each set of predictions.

    Raises:
        UsageError: A file is absent or at an address.
        PredictionError: Predictions have mistakes.
    """
    proposers: list[Proposer] = []
    for item in items:
        if remote := [file for file in item.files if is_url(file)]:
            raise UsageError(f"{remote[0]}: download predictions before a construction")
        files: Any = item.path if is_built_in(item.path) else [Path(file) for file in item.files]
        proposers.append(FileProposer(item.place, files, dataset, options, missing))
    return proposers
