"""Every error that this package raises on purpose, and the collector of one file's mistakes.

The command line turns the two branches into exit codes: `UsageError` is 2 (the request was wrong),
`DataError` is 3 (the data was wrong). Both are `ValueError`s, so a caller need not import them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 20
"""How many things of one kind an error message lists; all are counted."""

LIKE = 3
"""How many problems of one cause an error message prints."""

CAUSES = 8
"""How many causes an error message lists: with their examples, they fit on a screen."""

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

    @property
    def cause(self) -> tuple[str, str]:
        """The kind, and the message without its values: equal for mistakes that are mended in the same way.

        >>> a = Problem("wrong size", "p.jsonl, line 1", "mask is 3×4, the image is 5×6")
        >>> b = Problem("wrong size", "p.jsonl, line 9", "mask is 30×40, the image is 7×8")
        >>> a.cause == b.cause
        True
        """
        return self.kind, _VALUE.sub("#", self.message)


_VALUE = re.compile(
    r"""(?<!\w)'(?:[^'\\]|\\.)*+' | (?<!\w)"(?:[^"\\]|\\.)*+" | -?\d[\d.,]*+""", re.VERBOSE
)
"""A text in quotes, or a number."""

MISSING = "missing"
"""The kind of an example without a prediction."""

_FILES = ("malformed", "no column", "header")
"""Kinds of problems that stand for a whole file or much of it: they are named first, and explain what is missing."""

_ROWS = ("unknown key", "bad key", "unknown file", "unsafe name", "duplicate")
"""Kinds of problems each of which may be the prediction of an example that is missing."""


class PredictionError(DataError):
    """A prediction file has mistakes; this error holds all that one pass found.

    The message groups them by cause: a few examples of each, and their number.

    Attributes:
        problems: The first `KEPT` problems, in the order of the file.
        counts: The total number of problems of each kind.
    """

    def __init__(
        self, problems: list[Problem], counts: Counter[str], hints: Sequence[str] = ()
    ) -> None:
        self.problems = problems
        self.counts = counts
        total = counts.total()
        ordered = sorted(counts.most_common(), key=lambda count: count[0] == MISSING)
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in ordered)
        lines = [f"{total:,} problem{_s(total)} ({kinds}); nothing was scored"]
        lines += [f"  {line}" for line in _by_cause(problems, counts)]
        lines += [f"  {hint}" for hint in hints]
        if total >= MOST:
            lines.append("  Reading ended here")
        super().__init__("\n".join(lines))


def _by_cause(problems: list[Problem], counts: Counter[str]) -> list[str]:
    """The lines of a message: whole files first, then the most frequent causes, and what is missing last."""
    causes: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        causes.setdefault(problem.cause, []).append(problem)
    groups = sorted(causes.values(), key=lambda like: (like[0].kind not in _FILES, -len(like)))
    others = [like for like in groups if like[0].kind != MISSING]
    lines = [line for like in others[:CAUSES] for line in _examples(like)]
    if rest := others[CAUSES:]:
        n = sum(map(len, rest))
        lines.append(f"… and {n:,} problem{_s(n)} of {len(rest):,} more cause{_s(len(rest))}")
    n_missing = counts[MISSING]
    if not others:
        return [line for like in groups for line in _examples(like)]
    if n_unkept := counts.total() - n_missing - sum(map(len, others)):
        lines.append(f"… and {n_unkept:,} more after these, not told apart")
    is_explained = (
        any(counts[kind] for kind in _FILES) or sum(counts[kind] for kind in _ROWS) >= n_missing
    )
    if not n_missing:
        return lines
    first = next((str(p) for p in problems if p.kind == MISSING), None)
    if is_explained or first is None:
        absent = f"{n_missing:,} example{'s have' if n_missing > 1 else ' has'} no prediction"
        lines.append(
            f"{MISSING}: {absent}{'; the mistakes above may be why' if is_explained else ''}"
        )
    else:
        lines.append(first + (f" (and {n_missing - 1:,} more)" if n_missing > 1 else ""))
    return lines


def _examples(like: list[Problem]) -> list[str]:
    """A line for each of a few problems of one cause, and one for the number of the others."""
    if len(like) <= LIKE + 1:
        return list(map(str, like))
    return [*map(str, like[:LIKE]), f"… and {len(like) - LIKE:,} more like these"]


def _s(n: int) -> str:
    return "" if n == 1 else "s"


@dataclass(slots=True)
class Problems:
    """Collects the mistakes of one pass, so that a user sees them all at once, and what is only worth a warning.

    Attributes:
        kept: The first `KEPT` mistakes.
        counts: The total number of mistakes of each kind.
        warnings: Sentences that belong beside the score.
        hints: Sentences that belong below the mistakes.
    """

    kept: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

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

    def extend(self, others: Problems) -> None:
        """Record what was collected apart, behind what is here."""
        self.kept += others.kept[: max(0, KEPT - len(self.kept))]
        self.counts += others.counts
        self.warnings += others.warnings
        self.hints += others.hints

    def __bool__(self) -> bool:
        return bool(self.counts)

    def raise_if_any(self) -> None:
        """Raise `PredictionError` if anything was recorded."""
        if self.counts:
            raise PredictionError(self.kept, self.counts, self.hints)
