"""`rc.sweep`: predictions and ground truth in, an `Outcome` and a folder out, as `refcocom sweep` does it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from refcocom_gpu.counting.measures import IOU, OF_MASKS, chosen_metrics
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.engines import make_engine
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scores.uncertainty.resampling import REPLICATES
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.sweep.inputs import Entry, read_inputs
from refcocom_gpu.sweep.run import Outcome, Ranking, Settled, run_sweep
from refcocom_gpu.sweep.task import Options


def sweep(
    predictions: Entry | Iterable[Entry] | None,
    store: MaskStore | Dataset | str | Path,
    output_dir: str | Path,
    *,
    manifest: str | Path | None = None,
    missing: str = "error",
    convention: str = "official",
    precision_strict: bool = False,
    metrics: str | Sequence[str] = (IOU,),
    replicates: int = REPLICATES,
    seed: int = 0,
    best_per: str | None = None,
    save_masks: bool = False,
    verify: bool = False,
    engine: str = "threads",
    workers: int = 0,
    settled: Settled | None = None,
    **reading: Any,
) -> Outcome:
    """Score many sets of predictions into a folder and rank them; interrupted, the same call goes on.

    Args:
        predictions: Files, folders, globs and addresses, each a set of its own; a list within the list is one set. None
            where a manifest names them.
        store: Ground truth, on the device that counts; or a dataset, or its name or path.
        output_dir: Made where absent. What it holds already is not scored again.
        manifest: A CSV, JSONL or Parquet file with the columns `path`, `model` and any others, such as `step`.
        missing: As for `score`.
        convention: As for `score`.
        precision_strict: As for `score`.
        metrics: As for `score`; the leaderboard has their columns, and is ordered by mIoU.
        replicates: Resamples of the bootstrap behind the ranks.
        seed: Seed of the bootstrap.
        best_per: `model` or another column of the manifest: rank only the best of each.
        save_masks: As for `score`: `masks` in the folder holds them, and so do the results that `load_results` reads.
        verify: Hash every file anew, also where its size and times of change are as before.
        engine: `serial`, `threads` or `ray`; the counts are the same.
        workers: Sets at a time; 0 for one per core, or per GPU of a Ray cluster.
        settled: Called with each result as soon as it is known, in any order.
        reading: Fields of `ReadOptions`, as for `score`.

    Returns:
        The results in the order of the sets, the leaderboard, and what was written. A set that cannot be scored has an
        error and does not stop the others.

    Raises:
        UsageError: For a wrong request, or a folder that cannot be written or that another sweep is writing.

    >>> import tempfile
    >>> import refcocom_gpu as rc
    >>> folder = tempfile.mkdtemp()
    >>> outcome = rc.sweep(["sample", "sample-coarse"], "sample", folder, replicates=99)
    >>> outcome.n_scored, outcome.leaderboard.table["model"].to_pylist()
    (2, ['sample', 'sample-coarse'])
    >>> results = rc.load_results(folder)
    >>> len(results), results[1].miou == results["sample"].miou > results[2].miou
    (2, True)
    """
    ranking = Ranking(convention, precision_strict, replicates, seed, best_per)
    items = read_inputs(predictions, manifest)
    store = as_store(store)
    options = Options(
        ReadOptions(**{"threads": 1, **reading}),
        missing,
        chosen_metrics(metrics, known=OF_MASKS, where="a sweep"),
        save_masks,
        store.device,
    )
    with contextlib.closing(make_engine(engine, workers)) as made:
        return run_sweep(
            items,
            store,
            output_dir,
            options=options,
            engine=made,
            ranking=ranking,
            settled=settled,
            verify=verify,
        )
