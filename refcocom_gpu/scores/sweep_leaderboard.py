"""The folder of a sweep in, its leaderboard out, as the sweep made it.

Scores, ranks and intervals are those of `leaderboard.parquet`. The differences between the first rows stand in no file:
they follow from the counts of each example and the critical value, without another bootstrap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refcocom_gpu.errors import ResultsError
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.leaderboard.rows import PAIRED, SCHEMA_VERSION, Leaderboard
from refcocom_gpu.scores.sweep_results import SweepResults
from refcocom_gpu.utils.arrow import reader_of, to_numpy
from refcocom_gpu.utils.files import VERIFIED, regular

JSON, PARQUET = "leaderboard.json", "leaderboard.parquet"

_AGAIN = "run the sweep again, which writes it anew"


def load_leaderboard(folder: str | Path) -> Leaderboard:
    """Read the leaderboard that a sweep wrote.

    Args:
        folder: Of the sweep.

    Raises:
        ResultsError: The folder holds no whole sweep, or its leaderboard is not the one of its results.

    >>> import tempfile
    >>> import refcocom_gpu as rc
    >>> folder = tempfile.mkdtemp()
    >>> made = rc.sweep(["sample", "sample-coarse"], "sample", folder, replicates=99).leaderboard
    >>> read = load_leaderboard(folder)
    >>> read.table.equals(made.table), read.pairs.better.tolist()
    (True, [[False, True], [False, False]])
    """
    folder = Path(folder)
    results = SweepResults(folder)
    table, about = _table(folder / PARQUET), _about(folder / JSON)
    ranked = [row for row in results.rows if row["row"] is not None]
    scored = table.filter(table.column("rank").is_valid())
    named = list(
        zip(*(scored.column(name).to_pylist() for name in ("path", "digest")), strict=True)
    )
    if named != [(row["path"], row["predictions"]) for row in ranked]:
        raise ResultsError(
            f"{folder / PARQUET} is not the leaderboard of the results beside it; {_AGAIN}"
        )
    return Leaderboard(table, about, pairs=_pairs(results, ranked[:PAIRED], about, scored))


def _pairs(
    results: SweepResults, rows: list[dict[str, Any]], about: dict[str, Any], scored: pa.Table
) -> un.Pairwise | None:
    of_all = about["uncertainty"]
    known = scored.num_rows and scored.column("miou_se").null_count == 0
    if not known:
        return None
    read = [results.result(row) for row in rows]
    for row, result, miou in zip(rows, read, scored.column("miou").to_pylist(), strict=False):
        if result.miou != miou:
            raise ResultsError(
                f"{results.folder / PARQUET} has another mIoU for {row['path']} than its counts; {_AGAIN}"
            )
    image = to_numpy(read[0].per_example.column("image_id"))
    ratio = un.ratio_by_image(image, np.stack([result.iou for result in read], axis=1))
    return un.Pairwise(
        ratio.estimate, un.pair_se(ratio), of_all["critical_value"] or 0.0, of_all["level"]
    )


def _table(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(reader_of(regular(path).read_bytes()), **VERIFIED).read()
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{path} cannot be read: {error}; {_AGAIN}") from None
    metadata = table.schema.metadata or {}
    if metadata.get(b"schema") != b"refcocom-leaderboard":
        raise ResultsError(f"{path} is no leaderboard of this package")
    version = int(metadata[b"version"])
    if version > SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has schema version {version}; this package reads up to {SCHEMA_VERSION}"
        )
    return table


def _about(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(regular(path).read_text("utf-8"))
        return {key: value for key, value in content.items() if key != "rows"}
    except (OSError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path} cannot be read: {error}; {_AGAIN}") from None
