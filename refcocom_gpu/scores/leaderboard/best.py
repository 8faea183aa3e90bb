"""Scored files, best first, in; which of them have a row when only the best of each model is ranked, out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.leaderboard.scored import FileResult


def check_best_per(best_per: str | None, columns: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a column that no file has, before any work.

    Args:
        best_per: `model`, a column of the manifest, or None.
        columns: Those of each file.

    Raises:
        UsageError: There is no such column.
    """
    if best_per in (None, "model"):
        return
    names = dict.fromkeys(name for of_file in columns for name in of_file)
    if best_per not in names:
        raise UsageError(
            f"best_per={best_per}: there is no such column; choose {' or '.join(['model', *names])}"
        )


def best_of_each(results: Sequence[FileResult], best_per: str | None) -> dict[int, int | None]:
    """Return the places of the files that have a row, in order, and of how many each is the best.

    Args:
        results: Best first.
        best_per: As for `check_best_per`; with None, every file has a row and is the best of nothing.
    """
    if best_per is None:
        return dict.fromkeys(range(len(results)))
    groups: dict[str, list[int]] = {}
    for k, result in enumerate(results):
        value = result.model if best_per == "model" else result.columns.get(best_per)
        groups.setdefault(json.dumps(value, default=str), []).append(k)
    return {members[0]: len(members) for members in groups.values()}
