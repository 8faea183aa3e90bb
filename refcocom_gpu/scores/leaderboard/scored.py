"""What a leaderboard needs to know of a scored prediction file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class FileResult(Protocol):
    """What a leaderboard needs to know of a scored prediction file."""

    @property
    def path(self) -> str:
        """The path as the user gave it."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Further columns of the manifest, such as the model's step."""

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """[N, 2] intersection and predicted area; None where `error` is set."""

    @property
    def absent(self) -> NDArray[np.int64] | None:
        """Indices of the examples that had no prediction and count as empty; None means that there are none."""

    @property
    def measured(self) -> Mapping[str, NDArray[Any]]:
        """Columns of metrics besides IoU, by name, as of `scorer.Counted`."""

    @property
    def error(self) -> str | None:
        """Why the file has no scores."""

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the predictions look misread."""

    @property
    def digest(self) -> str | None:
        """Hash of the predictions; None where nothing could be read."""
