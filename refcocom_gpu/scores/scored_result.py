"""A result in, what a leaderboard takes for a scored file out: its counts are those of the result's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.scores import boxes, consistency
from refcocom_gpu.scores.leaderboard.columns import EXTRAS
from refcocom_gpu.scores.no_target import PRED_NO_TARGET, label_codes
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.under import MISSING
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.text import base_name


@dataclass(frozen=True, eq=False)
class ScoredResult:
    """A result as a row of a leaderboard; see `leaderboard.scored.FileResult`.

    Attributes:
        result: The result, of masks.
        model: Its name.
        columns: Those of the manifest, for a row of a sweep.
    """

    result: Result
    model: str
    columns: Mapping[str, Any]
    error: None = None

    @classmethod
    def of(cls, result: Result, name: str = "") -> ScoredResult:
        """Return a result as a row.

        Args:
            result: The result.
            name: Of its model; by default that of the row of a sweep, or of the file of its predictions.
        """
        sweep = result.info.get("sweep", {})
        source = base_name(str(result.info.get("predictions", {}).get("source", "predictions")))
        declared = result.info.get("predictions", {}).get("model")
        model = name or sweep.get("model") or declared or PurePath(source).stem
        return cls(result, model, {} if name else sweep.get("columns", {}))

    @property
    def path(self) -> str:
        """The file of its predictions without the folders of this machine."""
        return base_name(str(self.result.info.get("predictions", {}).get("source", self.model)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """[N, 2] intersection and predicted area."""
        table = self.result.per_example
        return np.stack([to_numpy(table.column(n)) for n in ("intersection", "pred_area")], axis=1)

    @property
    def absent(self) -> NDArray[np.int64]:
        """Indices of the examples without a prediction."""
        return np.flatnonzero(np.array(self.result.per_example["status"].to_pylist()) == MISSING)

    @property
    def measured(self) -> Mapping[str, NDArray[Any]]:
        """Columns of metrics besides IoU, as they were counted."""
        table = self.result.per_example
        names = [*dict.fromkeys(n for extra in EXTRAS.values() for n in extra.counts)]
        names += boxes.STATED_COLUMNS
        if self.result.box_truth == boxes.TIGHT:
            names = [name for name in names if name not in boxes.STATED_COLUMNS]
        found = {name: _values(table, name) for name in names if name in table.column_names}
        codes = label_codes(table)
        return found if codes is None else {**found, PRED_NO_TARGET: codes}

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the predictions look misread."""
        return tuple(self.result.info.get("warnings", ()))

    @property
    def digest(self) -> str | None:
        """Hash of the predictions."""
        digest = self.result.info.get("predictions", {}).get("xxh3_128")
        return None if digest is None else str(digest)


def _values(table: pa.Table, name: str) -> NDArray[Any]:
    if name == consistency.PAIRS:
        return consistency.pair_columns(table)[0]
    return to_numpy(table.column(name))
