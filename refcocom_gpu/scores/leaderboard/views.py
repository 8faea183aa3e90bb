"""A leaderboard in; what a person sees of it out: one line, a few lines, a table of a notebook, or one of a paper."""

from __future__ import annotations

import pyarrow as pa

from refcocom_gpu.scores.leaderboard.board import Board
from refcocom_gpu.scores.leaderboard.formats import cells, file_name, plain_caption, with_error
from refcocom_gpu.scores.leaderboard.latex import to_latex
from refcocom_gpu.utils.frames import Frames
from refcocom_gpu.utils.html import table_html

SHOWN = 20
"""Rows of a leaderboard that a notebook shows."""


class Leaderboard(Board, Frames):
    """Scored files, best first, as `make_leaderboard` makes it; see `Board` for what it holds."""

    def __repr__(self) -> str:
        n, failed = self.about["n_models"], self.about["n_failed"]
        best = next(iter(self.ranked), None)
        leads = "" if best is None else f", best={best['model']!r}, miou={best['miou']:.4f}"
        return f"Leaderboard(rows={n}{leads}, failed={failed})"

    def __str__(self) -> str:
        rows, dataset = self.ranked, self.about["dataset"]
        failed = f", {n} could not be scored" if (n := self.about["n_failed"]) else ""
        lines = [
            f"{len(rows):,} ranked{failed}, on {dataset['n_examples']:,} examples of {dataset['source']}"
        ]
        if rows:
            like_best = sum(bool(row["like_best"]) for row in rows) - 1
            also = f"; {like_best:,} more are not told from it" if like_best > 0 else ""
            lines.append(f"best: {rows[0]['model']}, mIoU {with_error(rows[0], 'miou')} %{also}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [cells(row, self) for row in self.ranked]
        notes = []
        if len(rows) > SHOWN:
            notes.append(f"… and {len(rows) - SHOWN:,} more")
        if selection := self.about["selection"]:
            notes.append(selection)
        failed = [row for row in self.table.to_pylist() if row["error"] is not None]
        notes += [f"Not scored: {file_name(row)}" for row in failed[:SHOWN]]
        return table_html(
            plain_caption(self.about),
            [[*row.values()] for row in rows[:SHOWN]],
            head=[*rows[0]] if rows else (),
            notes=notes,
        )

    def to_arrow(self) -> pa.Table:
        """Return `table`."""
        return self.table

    def to_latex(self) -> str:
        r"""Return the ranked rows as a LaTeX table (booktabs), in percent; columns that no row has are left out.

        Returns:
            A `table` environment with a caption that says what the scores are scores of.

        >>> import tempfile
        >>> import refcocom_gpu as rc
        >>> outcome = rc.sweep(["sample", "sample-coarse"], "sample", tempfile.mkdtemp(), replicates=99)
        >>> text = outcome.leaderboard.to_latex()
        >>> text.count(r"\midrule"), "sample-coarse & $54.24" in text
        (1, True)
        """
        return to_latex(self)
