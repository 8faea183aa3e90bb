"""What a leaderboard holds: its table and what the table is about. `formats` and `latex` write it as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.leaderboard.columns import EXTRAS, NAMES, SCORES, UNTARGETED


@dataclass(frozen=True, eq=False, repr=False)
class Board:
    """Scored files, best first.

    Attributes:
        table: Columns `NAMES`, those of the manifest, then `score_columns`; one row per file, files with an error last.
        about: What the scores are scores of and what their uncertainty means, ready for JSON.
        order: For each row of the table, the place of its file among the results.
        others: The places of files that were scored and are not the best of theirs, best first.
        pairs: The differences between the first rows, whose intervals hold for all files at once; None where they have
            none. In no file: `load_leaderboard` computes them again.
    """

    table: pa.Table
    about: dict[str, Any]
    order: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    pairs: un.Pairwise | None = None

    @property
    def manifest(self) -> list[str]:
        """Names of the columns of the manifest."""
        names: list[str] = self.table.column_names
        return names[len(NAMES) : names.index(SCORES[0][0])]

    @property
    def heads(self) -> dict[str, str]:
        """The columns of metrics besides IoU that people are shown, with their heads; see `columns.EXTRAS`."""
        ours = {*self.table.column_names[len(NAMES) + len(self.manifest) :]}
        heads = (pair for extra in (*EXTRAS.values(), UNTARGETED) for pair in extra.heads.items())
        return {name: head for name, head in heads if name in ours}

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The rows of files that were scored, best first."""
        return [row for row in self.table.to_pylist() if row["error"] is None]
