"""Rows of a table and their examples in; what a file says of each prediction, in columns of its own, out.

Only columns that were asked for are kept, and where none is, no reader does anything for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OwnColumns:
    """Columns of a file beside those of every prediction.

    Args:
        names: Those that are kept, as the file calls them.
        n: N examples.

    Attributes:
        names: As given.
        seen: Names of all columns that the file has, in their order, where any is asked for.
        values: [N] for each name, None for an example without a value.
    """

    def __init__(self, names: Iterable[str], n: int) -> None:
        self.names = tuple(names)
        self.seen: dict[str, None] = {}
        self.values: dict[str, list[Any]] = {name: [None] * n for name in self.names}

    def __bool__(self) -> bool:
        return bool(self.names)

    def see(self, names: Iterable[str]) -> None:
        """Note columns that a table or a row has."""
        self.seen.update(dict.fromkeys(names))

    def keep(self, index: NDArray[np.int64], rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the values of a batch.

        Args:
            index: [B] examples, −1 for a row that is left out.
            rows: B rows under the names of the file.
        """
        for example, row in zip(index.tolist(), rows, strict=True):
            if example >= 0:
                for name in self.names:
                    self.values[name][example] = row.get(name)
