"""`refcocom sweep`: a config in; a folder of results, the progress, and a line per failed file out."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from refcocom_gpu.cli.config import SweepConfig
from refcocom_gpu.cli.failures import PartFailedError
from refcocom_gpu.cli.resolved import resolved
from refcocom_gpu.cli.tables.leaderboard import TOP_ROWS, leaderboard_table
from refcocom_gpu.cli.verbs import is_strict, load, page_in, print_, resumable, say, write_page
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.folders import check_writable
from refcocom_gpu.utils.options import part_of
from refcocom_gpu.utils.run_config import check_config

if TYPE_CHECKING:
    from refcocom_gpu.sweep.run import Outcome
    from refcocom_gpu.sweep.task import FileResult

SECONDS_A_LINE = 10.0
"""Seconds between lines of progress where stderr is not a terminal."""


def run(config: SweepConfig) -> None:
    """Score many sets of predictions.

    Raises:
        UsageError: For a wrong request, before any work.
        PartFailedError: When a set could not be scored, after everything else is done and written.
    """
    from refcocom_gpu.counting.measures import OF_MASKS, chosen_metrics
    from refcocom_gpu.engines import make_engine
    from refcocom_gpu.scores.leaderboard.best import check_best_per
    from refcocom_gpu.store.store import MaskStore
    from refcocom_gpu.sweep.inputs import read_inputs
    from refcocom_gpu.sweep.run import Ranking, run_sweep
    from refcocom_gpu.sweep.task import Options

    # A wrong request is refused before a dataset is loaded or a cluster started.
    if config.output_dir is None:
        raise UsageError("a sweep keeps its results in a folder: pass output_dir=DIR")
    check_writable(Path(config.output_dir))
    check_config(config.output_dir, "sweep")
    ranking = Ranking(
        config.convention,
        bool(is_strict(config.precision)),
        config.replicates,
        config.seed,
        config.best_per,
    )
    reading = part_of(config, ReadOptions)
    items = read_inputs(config.predictions, config.manifest)
    check_best_per(config.best_per, (item.columns for item in items))
    metrics = chosen_metrics(config.metrics, known=OF_MASKS, where="a sweep")
    options = Options(reading, config.missing, metrics, config.save_masks, config.device)
    # A sweep goes on where it was, and its page with it.
    page = page_in(config.output_dir, wanted=config.report, overwrite=True)
    store = MaskStore.build(load(config.dataset))
    engine = make_engine(config.engine.name, config.engine.workers, config.engine.address)
    start = time.perf_counter()
    with (
        resumable(config.output_dir),
        contextlib.closing(engine),
        _progress(len(items), shown=not (config.quiet or config.json)) as settled,
    ):
        outcome = run_sweep(
            items,
            store,
            str(config.output_dir),
            options=options,
            engine=engine,
            ranking=ranking,
            settled=settled,
            verify=config.verify,
            config=resolved(config),
        )
    pages = write_page(outcome.leaderboard, page, shown=False)
    outcome = replace(outcome, written=[*outcome.written, *pages])
    seconds = time.perf_counter() - start
    if not (config.json or config.quiet):
        _print_summary(outcome, seconds)
    if outcome.n_failed:
        raise PartFailedError(
            f"{outcome.n_failed:,} of {len(items):,} sets of predictions could not be scored; "
            "the leaderboard lists them with their errors. Mend them and run the sweep again",
            _summary(outcome, seconds),
        )
    if config.json:
        print_(json.dumps(_summary(outcome, seconds), indent=2))


def _summary(outcome: Outcome, seconds: float) -> dict[str, object]:
    return {
        "n_files": len(outcome.results),
        "n_scored": outcome.n_scored,
        "n_failed": outcome.n_failed,
        "seconds": round(seconds, 3),
        "warnings": {r.path: list(r.warnings) for r in outcome.results if r.warnings},
        "failed": {r.path: r.error for r in outcome.results if r.error is not None},
        "repaired": list(outcome.repaired),
        "best": outcome.leaderboard.table.slice(0, TOP_ROWS).to_pylist(),
        "selection": outcome.leaderboard.about["selection"],
        "written": [str(path) for path in outcome.written],
    }


def _print_summary(outcome: Outcome, seconds: float) -> None:
    n, failed = len(outcome.results), outcome.n_failed
    kept = n - failed - outcome.n_scored
    parts = [f"{outcome.n_scored:,} scored in {seconds:.1f} s"]
    parts += [f"{kept:,} known already"] if kept else []
    parts += [f"{failed:,} failed"] if failed else []
    lines = [f"{n:,} sets of predictions: {', '.join(parts)}."]
    if outcome.repaired:
        first, more = outcome.repaired[0], len(outcome.repaired) - 1
        others = f" and {more:,} more" if more else ""
        lines.append(f"Damaged or deleted since it was written, and made again: {first}{others}")
    if table := leaderboard_table(outcome.leaderboard):
        lines += ["", table, ""]
    lines += [f"{'Wrote ' if k == 0 else '      '}{path}" for k, path in enumerate(outcome.written)]
    print_("\n".join(lines))


@contextlib.contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[FileResult], None]]:
    """Yield a function for each result: it advances a bar or prints a line now and then, and says what went wrong."""
    if not shown:
        yield _say_trouble
    elif sys.stderr is not None and sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, unit=" files", leave=False, delay=0.5) as bar:

            def on_terminal(result: FileResult) -> None:
                if result.error is not None or result.warnings:
                    with bar.external_write_mode(file=sys.stderr):
                        _say_trouble(result)
                bar.update()

            yield on_terminal
    else:
        yield _Lines(total)


class _Lines:
    """Prints every `SECONDS_A_LINE` how far a sweep is."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.start = self.last = time.monotonic()

    def __call__(self, result: FileResult) -> None:
        _say_trouble(result)
        self.done += 1
        now = time.monotonic()
        if now - self.last >= SECONDS_A_LINE and self.done < self.total:
            self.last = now
            rate = self.done / (now - self.start)
            left = (self.total - self.done) / rate
            say(f"{self.done:,} of {self.total:,} files, {rate:.1f} a second, {left:.0f} s left")


def _say_trouble(result: FileResult) -> None:
    for text in result.warnings:
        say(f"warning: {result.path}: {text}")
    if result.error is not None:
        # One line: the number of problems, and the first of them.
        first, *more = (line.strip() for line in result.error.splitlines() or [""])
        say(f"failed: {result.path}: {first}{': ' + more[0] if more else ''}")
