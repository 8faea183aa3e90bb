"""Scored prediction files in, one leaderboard out: `leaderboard.csv`, `.json`, `.md` and `.parquet`.

`rows` makes one table of scores, uncertainty and completeness; `formats` and `latex` write it as text,
`views` shows it. The files depend on the results, the seed and the version of this package only, and not on order, time
or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refcocom_gpu.scores.leaderboard.formats import to_csv, to_json, to_markdown
from refcocom_gpu.scores.leaderboard.rows import Leaderboard, make_leaderboard
from refcocom_gpu.scores.leaderboard.scored import FileResult
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
    best_per: str | None = None,
) -> list[Path]:
    """Write `FILES`. Each appears whole or not at all, and replaces the file of an earlier run.

    Args:
        results: One per prediction file, in any order. Files with an error come last, without a rank.
        store: The ground truth of all of them; N examples.
        folder: Made where absent.
        convention: Name of the convention the scores follow.
        precision_strict: Pr@X counts IoU > X instead of IoU ≥ X.
        replicates: Number of bootstrap replicates, B.
        seed: Seed of the bootstrap.
        best_per: `model` or a column of the manifest: of the files alike in it, only the best has a row.

    Returns:
        The four paths.

    Raises:
        UsageError: For an unknown convention or column, too few replicates (`uncertainty.quantile_place` can check
            beforehand), counts of another number of examples, or a folder that cannot be written.
    """
    board = make_leaderboard(
        results,
        store,
        convention=convention,
        precision_strict=precision_strict,
        replicates=replicates,
        seed=seed,
        best_per=best_per,
    )
    return write_files(folder, leaderboard_files(board))


def leaderboard_files(board: Leaderboard) -> dict[str, bytes]:
    """Return the content of each of `FILES`."""
    texts = [as_text(write(board)).encode() for write in (to_csv, to_json, to_markdown)]
    return dict(zip(FILES, [*texts, parquet_bytes(board.table)], strict=True))
