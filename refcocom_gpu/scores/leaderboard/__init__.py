"""Scored prediction files in, one leaderboard out: `leaderboard.csv`, `.json`, `.md` and `.parquet`.

`rows` makes one table of scores, uncertainty and completeness; `formats` writes that table in four ways. The files are
a function of the results, the seed and the version of this package: not of their order, the time or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refcocom_gpu.scores.leaderboard.formats import to_csv, to_json, to_markdown
from refcocom_gpu.scores.leaderboard.rows import FileResult, make_leaderboard
from refcocom_gpu.scores.uncertainty.resampling import REPLICATES
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.files import parquet_bytes, write_files
from refcocom_gpu.utils.text import as_text

FILES = tuple(f"leaderboard.{ending}" for ending in ("csv", "json", "md", "parquet"))


def write_leaderboard(
    results: Sequence[FileResult],
    store: MaskStore,
    folder: str | Path,
    *,
    convention: str = "official",
    precision_strict: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Path]:
    """Write `FILES`; each appears whole or not at all, and those of an earlier run are replaced.

    Args:
        results: One per prediction file, in any order; those with an error come last and unranked.
        store: What all of them were scored against; N examples.
        folder: Made where absent.
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X instead of IoU ≥ X.
        replicates: Of the bootstrap, B.
        seed: Of the bootstrap.

    Returns:
        The four paths.

    Raises:
        UsageError: For an unknown convention, too few replicates (`uncertainty.quantile_place` tells beforehand),
            counts that are not those of N examples, or a folder that cannot be written.
    """
    board = make_leaderboard(
        results,
        store,
        convention=convention,
        precision_strict=precision_strict,
        replicates=replicates,
        seed=seed,
    )
    texts = [as_text(write(board)).encode() for write in (to_csv, to_json, to_markdown)]
    return write_files(folder, dict(zip(FILES, [*texts, parquet_bytes(board.table)], strict=True)))
