"""Results in; what their owner may publish out: a section of a model card, a file for the Hub, and two tables.

Nothing is uploaded. The tables are those of a leaderboard, made from the tables of the results. The file for the Hub
(`publish`) and the metadata of the card (`model_card`) are of the first result only: the card is its model's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refcocom_gpu.errors import ComparisonError, UsageError
from refcocom_gpu.scores import boxes
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.about import left_out, missing
from refcocom_gpu.scores.comparison import check_alike
from refcocom_gpu.scores.conventions import OFFICIAL, check_official
from refcocom_gpu.scores.folder import check_output
from refcocom_gpu.scores.leaderboard.examples import Examples
from refcocom_gpu.scores.leaderboard.formats import to_markdown
from refcocom_gpu.scores.leaderboard.latex import to_latex
from refcocom_gpu.scores.leaderboard.rows import Leaderboard, make_leaderboard
from refcocom_gpu.scores.model_card import model_card
from refcocom_gpu.scores.publish import Entries, eval_results, hub_id_of, write_eval_results
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.scored_result import ScoredResult
from refcocom_gpu.scores.sweep_results import SweepResults, load_results
from refcocom_gpu.scores.uncertainty.resampling import LEVEL
from refcocom_gpu.utils.files import write_files
from refcocom_gpu.utils.text import as_text, base_name

CARD, LATEX, MARKDOWN = "model_card.md", "table.tex", "table.md"
FOLDER = ".eval_results"
"""The folder in a model's repository where the Hub looks for scores."""

Given = Result | SweepResults | str | Path


def publish(
    results: Given | Sequence[Given],
    folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    dataset_id: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write what can be published of one or several results; nothing is uploaded.

    `model_card.md` is a section for the README of the first result's model, below the metadata that the Hub reads;
    `.eval_results/NAME.yaml` holds the same scores as the Hub reads them now. Both hold metadata only if the first
    result is complete and its dataset is known to be on the Hub; a warning says why not. `table.tex` (booktabs) and
    `table.md` hold all results, the best first: with several, their paired differences from the first row, with
    intervals that hold for all at once.

    Args:
        results: One or several: results, folders of them, rows of a sweep (`FOLDER:1`), or a sweep, which stands for
            its rows. They follow the official convention and are of the same examples.
        folder: Made where absent; other files in it are left alone.
        names: Names of the models, one for each result; by default those of a sweep, or of the files of predictions.
        dataset_id: The `owner/name` on the Hub of which a local copy was scored.
        overwrite: Replace the files of an earlier publication.

    Returns:
        The files that were written.

    Raises:
        ComparisonError: The results are of different datasets or conventions, or count Pr@X differently.
        ResultsError: A folder holds no result, or what it holds is damaged.
        UsageError: There is no result, the predictions are boxes, the convention is not the official one, two models
            have the same name, `dataset_id` is given and the score cannot be one of the Hub's, or a file exists.

    >>> import tempfile
    >>> import refcocom_gpu as rc
    >>> result = rc.score("sample", "sample")
    >>> written = rc.publish(result, tempfile.mkdtemp(), names=["mine"], dataset_id="me/copy-of-the-sample")
    >>> [path.name for path in written]
    ['copy-of-the-sample.yaml', 'table.tex', 'table.md', 'model_card.md']
    """
    folder = Path(folder)
    check_output(folder, overwrite=overwrite, names=(CARD, LATEX, MARKDOWN))
    given = [results] if isinstance(results, Given) else [*results]
    scored = _named([result for one in given for result in _results(one)], names)
    first = scored[0]
    entries, reason = _entries(first.result, dataset_id)
    dataset = first.result.info.get("dataset", {})
    public = entries[0]["dataset"]["id"] if entries else _public_source(dataset)
    file = folder / FOLDER / f"{base_name(public)}.yaml"
    if file.exists() and (not entries or not overwrite):
        raise UsageError(
            f"{file} already exists; choose another output_dir"
            + (f" (it would stay as it is: {reason})" if reason else ", or pass overwrite=True")
        )
    if stale := sorted(path.name for path in file.parent.glob("*.yaml") if path != file):
        raise UsageError(
            f"{file.parent} holds {', '.join(stale)} of another publication, which would be uploaded too; delete it, "
            "or choose another output_dir"
        )
    about = {**dataset, "source": public}
    examples = Examples.of_table(first.result.per_example, about)
    board = make_leaderboard(scored, examples, precision_strict=first.result.is_strict)
    notes = _notes(scored, board, examples)
    warned = [f"{one.model}: {text}." for one in scored for text in one.warnings]
    table = to_markdown(board, notes, differences=len(scored) > 1)
    texts = {
        LATEX: to_latex(board, (*notes, *warned)),
        MARKDOWN: table,
        CARD: model_card(first, examples, entries, table),
    }
    written = []
    if entries:
        written.append(
            write_eval_results(first.result, file, dataset_id=dataset_id, overwrite=overwrite)
        )
    else:
        warnings.warn(
            f"refcocom: no metadata for the Hub was written: {reason}", UserWarning, stacklevel=2
        )
    return written + write_files(folder, {k: as_text(v).encode() for k, v in texts.items()})


def _results(given: Given) -> Iterator[Result]:
    found = load_results(given) if isinstance(given, str | Path) else given
    if isinstance(found, Result):
        yield found
    else:
        yield from found.values()


def _named(results: Sequence[Result], names: Sequence[str] | None) -> list[ScoredResult]:
    """Return the results with their names, after checks that they can stand in one table."""
    if not results:
        raise UsageError("there is no result to publish")
    if names is not None and len(names) != len(results):
        raise UsageError(f"there are {len(results)} results, and {len(names)} names of them")
    for result in results:
        boxes.refuse_given(result.per_example)
    scored = [
        ScoredResult.of(result, name)
        for result, name in zip(results, names or [""] * len(results), strict=True)
    ]
    first = scored[0]
    for other in scored[1:]:
        check_alike(first.result, other.result, (first.model, other.model))
        if first.result.is_strict != other.result.is_strict:
            raise ComparisonError(
                f"Pr@X of {first.model} and of {other.model} counts IoU differently (> and ≥); score one again with "
                "another precision"
            )
    check_official(first.result.convention, "a publication")
    labels = [(one.model, *map(str, one.columns.items())) for one in scored]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(
                f"{labels.count(label)} results have the name {label[0]!r}; name each, as in names=[A,B]"
            )
    return scored


def _entries(result: Result, dataset_id: str | None) -> tuple[Entries, str]:
    """Return the scores for the Hub, or none and why; what was asked for and cannot be is an error."""
    try:
        return eval_results(result, dataset_id=dataset_id), ""
    except UsageError as error:
        if dataset_id is not None:
            raise
        return [], str(error).replace("dataset.name=", "dataset_id=")


def _public_source(dataset: dict[str, Any]) -> str:
    """Return the name of a dataset without the folders of this machine."""
    try:
        return hub_id_of(dataset)
    except UsageError:
        return base_name(str(dataset.get("source", "unknown dataset")))


def _notes(scored: Sequence[ScoredResult], board: Leaderboard, examples: Examples) -> list[str]:
    """Return what a caption says beside that of a leaderboard: split, completeness and what ± means."""
    dataset = examples.about
    revision = f", revision {dataset['revision']}" if dataset.get("revision") else ""
    notes = [f"Split {dataset.get('split')}{revision}; fingerprint {dataset.get('fingerprint')}."]
    for one in scored:
        result = one.result
        incomplete = missing(result.n_missing, OFFICIAL.name)
        about = [f"incomplete, {incomplete}"] if incomplete else []
        about += left_out(result.info.get("predictions", {}))
        if combine := result.info.get("options", {}).get("combine"):
            about.append(f"several masks for an expression were combined by {combine}")
        if about:
            notes.append(f"{one.model}: {'; '.join(about)}.")
    if any(row["miou_se"] is not None for row in board.ranked):
        reach = un.interval_reach(len(np.unique(examples.image)))
        notes.append(
            f"The {100 * LEVEL:g} % interval of a score, clustered by image, reaches {reach:.2f} standard errors to "
            "either side."
        )
    return notes
