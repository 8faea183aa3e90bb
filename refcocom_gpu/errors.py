"""Every error that this package raises on purpose, and the collector of one file's mistakes.

The command line turns the two branches into exit codes: `UsageError` is 2 (the request was wrong),
`DataError` is 3 (the data was wrong). Both are `ValueError`s, so a caller need not import them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 20
"""How many problems an error message prints; all are counted."""

KEPT = 10_000
"""How many problems `PredictionError.problems` keeps: a bound on memory for a file that is wrong throughout."""


MOST = 1_000_000
"""Problems after which reading ends: a small compressed file can hold mistakes for hours."""


class RefCOCOMError(ValueError):
    """Base of every error raised on purpose by this package."""


class UsageError(RefCOCOMError):
    """The request was wrong: an unknown option, a missing file, an unavailable device."""


class UnknownNameError(UsageError, KeyError):
    """There is nothing of this name; the message lists the names there are. A `KeyError` too, as of any mapping."""

    # KeyError would print the message in quotes.
    __str__ = ValueError.__str__


class DataError(RefCOCOMError):
    """The data was wrong: a dataset, a prediction file or a mask that cannot be scored."""


class DatasetError(DataError):
    """A dataset does not hold what its schema promises; the message names the record."""


class ContentError(DataError):
    """A file of predictions is something else than its name says, or is damaged; nothing after that place is read."""


class RLEError(DataError):
    """A run-length encoding cannot be decoded; the message names the row and the reason."""


class NotFoundError(DataError):
    """A name fits no example of a dataset, or several; the message lists what it could be."""


class AbsentError(NotFoundError):
    """A name fits no example of a dataset."""


class OutsideError(RLEError):
    """A polygon lies so far outside its image that it is not drawn."""


class AnswerError(DataError):
    """A model's answer holds no mask that can be read; it is never taken for an empty mask."""


class ResultsError(DataError):
    """A folder does not hold a complete result of a schema version this package reads."""


class ComparisonError(DataError):
    """Two results cannot be compared: their examples differ, or they were scored differently."""


class TagsError(DataError):
    """A file of tags does not fit the examples it is for; the message names the first row that does not."""


class SyncError(RefCOCOMError):
    """The ranks of a run could not combine their counts: one is gone, is late, or scores something else."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a prediction file.

    Attributes:
        kind: What is wrong: one of a fixed set of words such as `"duplicate"`. Problems are counted by kind.
        where: The file and the line, row, entry or member in it.
        message: What was found, what was expected, what to do.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}"


class PredictionError(DataError):
    """A prediction file has mistakes; this error holds all that one pass found.

    Attributes:
        problems: The first `KEPT` problems, in the order of the file.
        counts: The total number of problems of each kind.
    """

    def __init__(self, problems: list[Problem], counts: Counter[str]) -> None:
        self.problems = problems
        self.counts = counts
        total = counts.total()
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts.most_common())
        lines = [f"{total:,} problem{'s' if total != 1 else ''} ({kinds}); nothing was scored"]
        lines += [f"  {problem}" for problem in problems[:SHOWN]]
        if total > SHOWN:
            lines.append(f"  … and {total - SHOWN:,} more")
        if total >= MOST:
            lines.append("  Reading ended here")
        super().__init__("\n".join(lines))


@dataclass(slots=True)
class Problems:
    """Collects the mistakes of one pass, so that a user sees them all at once, and what is only worth a warning.

    Attributes:
        kept: The first `KEPT` mistakes.
        counts: The total number of mistakes of each kind.
        warnings: Sentences that belong beside the score.
    """

    kept: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def add(self, kind: str, where: str, message: str) -> None:
        """Record one problem; see `Problem` for the arguments.

        Raises:
            PredictionError: It is the last of `MOST`.
        """
        self.counts[kind] += 1
        if len(self.kept) < KEPT:
            self.kept.append(Problem(kind, where, message))
        elif self.counts.total() >= MOST:
            self.raise_if_any()

    def __bool__(self) -> bool:
        return bool(self.counts)

    def raise_if_any(self) -> None:
        """Raise `PredictionError` if anything was recorded."""
        if self.counts:
            raise PredictionError(self.kept, self.counts)
