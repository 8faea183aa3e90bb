"""Items, a store and an engine in, an output folder out: every set is scored once, and its counts are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from refcocom_gpu.counting.measures import METRICS
from refcocom_gpu.engines import make_engine
from refcocom_gpu.engines.engine import Engine, Lost
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.formats import RLE_FORMATS
from refcocom_gpu.scorer import check_missing
from refcocom_gpu.scores.conventions import check_official
from refcocom_gpu.scores.leaderboard import leaderboard_files
from refcocom_gpu.scores.leaderboard.best import check_best_per
from refcocom_gpu.scores.leaderboard.rows import Leaderboard, make_leaderboard
from refcocom_gpu.scores.sweep_folder import MASKS, PER_EXAMPLE, index_files
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.contents import is_url
from refcocom_gpu.sweep.item import Item
from refcocom_gpu.sweep.ledger import Kept, Ledger
from refcocom_gpu.sweep.masks import MaskFiles
from refcocom_gpu.sweep.per_example import write_per_example
from refcocom_gpu.sweep.task import (
    FileResult,
    LocalHash,
    Options,
    Work,
    code_version,
    failed,
    key_of,
    message_of,
    score_file,
)
from refcocom_gpu.utils.changes import is_settled, token_of
from refcocom_gpu.utils.files import combine_hashes, hash_file, locked, regular, write_files
from refcocom_gpu.utils.run_config import CONFIG, config_file

Settled = Callable[[FileResult], None]


@dataclass(frozen=True)
class Ranking:
    """How a leaderboard is made: the keywords of `write_leaderboard`.

    Attributes:
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X instead of IoU ≥ X.
        replicates: Resamples of the bootstrap.
        seed: Seed of the bootstrap.
        best_per: `model` or a column of the manifest: of the sets alike in it, only the best is ranked.

    Raises:
        UsageError: The convention is not the official one.
    """

    convention: str = "official"
    precision_strict: bool = False
    replicates: int = 2_000
    seed: int = 0
    best_per: str | None = None

    def __post_init__(self) -> None:
        check_official(self.convention, "a sweep")


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """The outcome of a sweep.

    Attributes:
        results: One per item, in the order of the items.
        n_scored: Sets that were scored now. Counts of the others were kept before, or they equal another set.
        leaderboard: Of all of them.
        written: Files and folders that were written; those of the leaderboard come first.
        repaired: Files below the folder that an earlier sweep wrote, that were damaged or deleted since, and that were
            made again.
    """

    results: list[FileResult]
    n_scored: int
    leaderboard: Leaderboard
    written: list[Path]
    repaired: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sets, scored = len(self.results), self.n_scored
        return f"Outcome(sets={sets}, n_scored={scored}, leaderboard={self.leaderboard!r})"

    @property
    def n_failed(self) -> int:
        """Sets that could not be scored."""
        return sum(result.error is not None for result in self.results)


def run_sweep(
    items: Sequence[Item],
    store: MaskStore,
    output_dir: str | Path,
    *,
    options: Options | None = None,
    engine: Engine | None = None,
    ranking: Ranking | None = None,
    settled: Settled | None = None,
    verify: bool = False,
    config: bytes | None = None,
) -> Outcome:
    """Score many sets of predictions into a folder; sets whose counts it holds are not scored again.

    Args:
        items: From `read_inputs`.
        store: Ground truth.
        output_dir: Made where absent. After a kill, the next sweep into it goes on from the counts it holds.
        options: How predictions are counted.
        engine: Where they are counted, by default on threads. Counts do not depend on it.
        ranking: How the leaderboard is made.
        settled: Called with each result as soon as it is known, in any order.
        verify: Hash every file anew, of predictions and of what the folder holds. By default the hash of a file is
            trusted while its size and its times of change are what they were; counts are always verified.
        config: Content of `config.yaml`, the keys of the command that sweeps.

    Returns:
        Results in the order of the items. A set that cannot be scored has an error and does not stop the others.

    Raises:
        UsageError: For an unknown option, a folder that cannot be written, or one that another sweep is writing.
    """
    options = options or Options()
    engine = engine or make_engine("threads")
    ranking = ranking or Ranking()
    check_missing(options.missing)
    check_best_per(ranking.best_per, (item.columns for item in items))
    options = replace(options, device=engine.device(options.device), code=code_version())
    with locked(output_dir, "sweep") as folder:
        ledger = Ledger(folder)
        masks = MaskFiles(ledger, store, wanted=options.save_masks, verify=verify)
        sweep = _Sweep(items, store, ledger, masks, options, engine, settled, verify)
        results = sweep.run()
        masks.keep_only(result.masks_file for result in results)
        products = write_per_example(ledger, store, results, ranking.convention, verify=verify)
        ledger.compact()
        board = make_leaderboard(results, store, **asdict(ranking), options=options.deciding)
        kept_masks = [result.masks_file for result in results]
        index = index_files(results, board, products, kept_masks, store, options.deciding)
        files = {**config_file(folder, config), **leaderboard_files(board), **index}
        written = [path for path in write_files(folder, files) if path.name != CONFIG]
        folders = [folder / PER_EXAMPLE, *([folder / MASKS] if options.save_masks else [])]
    return Outcome(
        results,
        sweep.n_scored,
        board,
        [*written, *folders],
        tuple(sorted(ledger.damaged)),
    )


class _Sweep:
    """The state of one sweep: its results so far, by the number of their item."""

    def __init__(
        self,
        items: Sequence[Item],
        store: MaskStore,
        ledger: Ledger,
        masks: MaskFiles,
        options: Options,
        engine: Engine,
        settled: Settled | None,
        verify: bool,
    ) -> None:
        self.items, self.store, self.ledger, self.options = items, store, ledger, options
        self.masks, self.engine, self.verify = masks, engine, verify
        self._settled = settled or (lambda result: None)
        self._results: dict[int, FileResult] = {}
        self.n_scored = 0

    def run(self) -> list[FileResult]:
        """All results, in the order of the items."""
        self._pass(range(len(self.items)), self.ledger.finished)
        # Items that waited for an equal file that failed, and those whose kept counts are damaged.
        left = [n for n in range(len(self.items)) if n not in self._results]
        self._pass(left, None)
        return [self._results[n] for n in range(len(self.items))]

    def _pass(self, numbers: Iterable[int], finished: set[str] | None) -> None:
        """Settle items; with `finished`, an item whose counts are kept or under way is not scored."""
        waiting: dict[int, str] = {}
        shared = self._shared(finished)
        with closing(
            self._outcomes(self._to_score(numbers, finished, waiting), shared)
        ) as outcomes:
            for number, result in outcomes:
                self.ledger.note(result.known)
                if result.error is not None or result.digest is None:
                    self._settle(number, result)
                    continue
                waiting[number] = result.digest
                if result.counts is None or result.absent is None:
                    continue
                self.n_scored += 1
                kept = Kept(
                    result.counts,
                    result.absent,
                    result.header_model,
                    result.warnings,
                    result.measured,
                )
                identity = self._identity(number, result.digest)
                if result.masks is not None:
                    self.masks.put(key_of(identity), result)
                self.ledger.put(identity, kept)
                # The result maps the counts from the file, so that thousands of results need not stay in memory.
                self._join(waiting, number, kept)
        for number in list(waiting):
            self._join(waiting, number)

    def _to_score(
        self, numbers: Iterable[int], finished: set[str] | None, waiting: dict[int, str]
    ) -> Iterator[Work]:
        """Yield items that need a worker, hashing each when a worker is free; the others wait for the ledger."""
        under_way: set[str] = set()
        for number in numbers:
            item = self.items[number]
            try:
                hashes = tuple(self._hash(file) for file in item.files)
            except (OSError, UsageError) as error:
                self._settle(number, failed(item, message_of(error)))
                continue
            work = Work(number, item, hashes)
            local = [hashed.digest for hashed in hashes if hashed is not None]
            if len(local) < len(hashes) or finished is None:
                yield work
                continue
            digest = combine_hashes(local)
            key = key_of(self._identity(number, digest))
            if key in finished:
                waiting[number] = digest
                self._join(waiting, number)
            elif key in under_way:
                waiting[number] = digest
            else:
                under_way.add(key)
                yield work

    def _outcomes(
        self, works: Iterator[Work], shared: Any
    ) -> Generator[tuple[int, FileResult], None, None]:
        with closing(self.engine.map(_task, works, shared)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Lost):
                    reason = f"its worker died each time it was tried: {outcome.reason}"
                    yield outcome.item.number, failed(outcome.item.item, reason)
                else:
                    yield outcome

    def _shared(self, finished: set[str] | None) -> tuple[MaskStore, Options]:
        remote = {file for item in self.items for file in item.files if is_url(file)}
        options = replace(
            self.options,
            finished=frozenset(finished if finished and remote else ()),
            known={file: known for file, known in self.ledger.known.items() if file in remote},
        )
        if not self.engine.elsewhere:
            return self.store, options
        # Other machines may lack this cache or hold another state of it, so they get arrays instead of its path.
        if any(set(item.formats.split(",")) - RLE_FORMATS for item in self.items):
            self.store.pack()
        for name in self.options.metrics:
            METRICS[name].stored(self.store)
        if "causes" in self.options.metrics:
            _ = self.store.others
        return self.store.detached(), options

    def _hash(self, file: str) -> LocalHash | None:
        """Return the hash of a local file, the known one if the file is unchanged; None for an address."""
        if is_url(file):
            return None
        name = os.path.abspath(file)  # noqa: PTH100 (Path's raises if the working folder is gone)
        path = regular(Path(file))
        token = token_of(path)
        settled = is_settled(path)
        known_token, known_digest = self.ledger.known.get(name, ("", ""))
        if settled and token == known_token and not self.verify:
            return LocalHash(token, known_digest)
        digest = hash_file(path)
        # The hash is remembered only if the file did not change while it was read.
        if settled and token == token_of(path):
            self.ledger.note([(name, token, digest)])
        return LocalHash(token, digest)

    def _identity(self, number: int, digest: str) -> dict[str, str]:
        return self.options.identity(self.store.dataset, digest, self.items[number].formats)

    def _join(self, waiting: dict[int, str], number: int, fresh: Kept | None = None) -> None:
        """Settle an item from the ledger if its counts are kept there, else from `fresh` counts if there are any."""
        item, digest = self.items[number], waiting[number]
        identity = self._identity(number, digest)
        kept = self.ledger.get(identity) or fresh
        masks_file = self.masks.get(key_of(identity)) if kept is not None else None
        if kept is None or self.masks.lacks(masks_file):
            return
        del waiting[number]
        self._settle(
            number,
            FileResult(
                path=item.path,
                model=item.model or kept.model or item.place,
                columns=item.columns,
                counts=kept.counts,
                absent=kept.absent,
                measured=kept.measured,
                warnings=kept.warnings,
                digest=digest,
                header_model=kept.model,
                masks_file=masks_file,
            ),
        )

    def _settle(self, number: int, result: FileResult) -> None:
        self._results[number] = result
        self._settled(result)


def _task(shared: tuple[MaskStore, Options], work: Work) -> tuple[int, FileResult]:
    store, options = shared
    return work.number, score_file(store, work, options)
