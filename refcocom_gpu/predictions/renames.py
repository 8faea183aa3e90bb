"""What a file calls our fields in: `fields.sample_id=ann_id`. Columns and rows under our names out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from refcocom_gpu.dataset.facts import FACTS
from refcocom_gpu.errors import UsageError

FIELDS = (*FACTS, "segmentation", "box", "no_target", "score", "response")
"""Our names of what a row may carry."""


class Renames:
    """The names that a file has for our fields.

    A column that is renamed has lost its own name: with `fields.sample_id=image_id` a file has no `image_id`, and where
    it also has a `sample_id`, that column is not read.

    Args:
        given: The file's name for each of ours that differs; None for none.

    Raises:
        UsageError: A name of ours is unknown, or two of them have the same column.

    >>> renames = Renames({"sample_id": "image_id"})
    >>> renames.column("sample_id"), renames.column("image_id"), renames.column("sentence")
    ('image_id', None, 'sentence')
    >>> renames.row({"image_id": 7, "sample_id": 1, "sentence_idx": 0})
    {'sample_id': 7, 'sentence_idx': 0}
    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self.given: dict[str, str] = dict(given or {})
        self._ours = {theirs: ours for ours, theirs in self.given.items()}
        for ours, theirs in self.given.items():
            if ours not in FIELDS:
                close = get_close_matches(str(ours), FIELDS, 1)
                hint = (
                    f"did you mean fields.{close[0]}?" if close else f"ours are {', '.join(FIELDS)}"
                )
                raise UsageError(f"fields.{ours}={theirs}: rows have no field {ours!r}; {hint}")
            if not isinstance(theirs, str) or not theirs:
                raise UsageError(
                    f"fields.{ours} is the name of a column of the file, not {theirs!r}"
                )
            if self._ours[theirs] != ours:
                raise UsageError(
                    f"fields.{ours}={theirs} and fields.{self._ours[theirs]}={theirs} name one column"
                )
        if self.column("segmentation") is None:
            raise UsageError(
                f"fields.{self._ours['segmentation']}=segmentation leaves no column of masks; "
                "fields.segmentation=… names it"
            )

    def __bool__(self) -> bool:
        return bool(self.given)

    def column(self, name: str) -> str | None:
        """Return what a file calls a field of ours; None where that column is read as another field."""
        return self.given.get(name, None if name in self._ours else name)

    def called(self, name: str) -> str:
        """Return a field of ours as messages call it."""
        return f"{self.given[name]} (fields.{name})" if name in self.given else name

    def row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row of a file under our names; what is no field of ours stays."""
        if not self.given:
            return row
        return {
            self._ours.get(name, name): value
            for name, value in row.items()
            if name in self._ours or name not in self.given
        }

    def unseen(self, names: Collection[str]) -> str | None:
        """Say which renamed columns a file lacks, given the names that it has; None where it has all."""
        absent = [
            f"{self.given[ours]} (fields.{ours})"
            for ours in self.given
            if self.given[ours] not in names
        ]
        return f"{', '.join(absent)} not found" if absent else None
