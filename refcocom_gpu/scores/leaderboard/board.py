"""What a leaderboard holds: its table and what the table is about. `formats` and `latex` write it as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from refcocom_gpu.scores import boundary
from refcocom_gpu.scores.leaderboard.columns import NAMES, SCORES


@dataclass(frozen=True, eq=False, repr=False)
class Board:
    """Scored files, best first.

    Attributes:
        table: Columns `NAMES`, those of the manifest, then `score_columns`; one row per file, files with an error last.
        about: What the scores are scores of and what their uncertainty means, ready for JSON.
        order: For each row of the table, the place of its file among the results.
        others: The places of files that were scored and are not the best of theirs, best first.
    """

    table: pa.Table
    about: dict[str, Any]
    order: tuple[int, ...] = ()
    others: tuple[int, ...] = ()

    @property
    def manifest(self) -> list[str]:
        """Names of the columns of the manifest."""
        names: list[str] = self.table.column_names
        return names[len(NAMES) : names.index(SCORES[0][0])]

    @property
    def has_boundaries(self) -> bool:
        """Whether the table has the columns `BOUNDARY`."""
        return boundary.NAMES[0] in self.table.column_names[len(NAMES) + len(self.manifest) :]

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The rows of files that were scored, best first."""
        return [row for row in self.table.to_pylist() if row["error"] is None]
