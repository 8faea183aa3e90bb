"""Rows of a table and their examples in; what a file says of each prediction, in columns of its own, out.

Only columns that were asked for are kept, and where none is, no reader does anything for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.batches import Where


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
        self._is_kept = np.zeros(n if self.names else 0, np.bool_)

    def __bool__(self) -> bool:
        return bool(self.names)

    def see(self, names: Iterable[str]) -> None:
        """Note columns that a table or a row has."""
        self.seen.update(dict.fromkeys(names))

    def keep(
        self,
        index: NDArray[np.int64],
        rows: Sequence[Mapping[str, Any]],
        where: Where,
        problems: Problems,
    ) -> None:
        """Keep the values of a batch; a row that repeats a prediction and says otherwise is a problem.

        Args:
            index: [B] examples, −1 for a row that is left out.
            rows: B rows under the names of the file.
            where: Place of each row.
            problems: Collects what disagrees.
        """
        for k, (example, row) in enumerate(zip(index.tolist(), rows, strict=True)):
            if example < 0:
                continue
            for name in self.names:
                before, value = self.values[name][example], row.get(name)
                if self._is_kept[example] and before != value:
                    text = (
                        f"{name} is {value!r}, and {before!r} in an earlier row of the same example"
                    )
                    problems.add("conflicting column", where(k), text)
                self.values[name][example] = value
            self._is_kept[example] = True
