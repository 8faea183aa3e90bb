"""Results of a sweep in, a leaderboard out: a stand-in with scores alone, until ranks are here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu import metrics
from refcocom_gpu.conventions import get_convention

if TYPE_CHECKING:
    from refcocom_gpu.store import MaskStore
    from refcocom_gpu.sweep import FileResult


def write_leaderboard(
    results: Sequence[FileResult],
    store: MaskStore,
    folder: Path,
    *,
    convention: str,
    precision_strict: bool,
    replicates: int,
    seed: int,
) -> list[Path]:
    """Write `leaderboard.json`: a row per set of predictions, best first, those with errors last."""
    empty = get_convention(convention).empty
    target = store.areas[store.example_sample]
    rows: list[dict[str, Any]] = []
    for result in results:
        row = {"model": result.model, "path": result.path, **result.columns, "error": result.error}
        if result.counts is not None:
            row["miou"] = metrics.mean(
                metrics.iou(result.counts[:, 0], result.counts[:, 1], target, empty=empty)
            )
        rows.append(row)
    rows.sort(key=lambda row: -row.get("miou", -1))
    temporary, path = folder / ".leaderboard.json.tmp", folder / "leaderboard.json"
    temporary.write_text(json.dumps(rows, indent=1, default=str) + "\n", "utf-8")
    temporary.replace(path)
    return [path]
