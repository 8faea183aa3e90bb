"""A published number and a result in, the scores that come within its tolerance out.

They are those of every convention, and those of simple mistakes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import metrics, under
from refcocom_gpu.scores.conventions import OFFICIAL
from refcocom_gpu.scores.explain import Row, explain
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.result import Result
from refcocom_gpu.utils.arrow import to_numpy

SLACK = 1e-9
"""Added to a tolerance: 0.7125 is not exactly 0.0005 from 0.712 in binary, but meant to be within."""

NEAREST = 3
"""Scores shown where none comes within the tolerance."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A published number.

    Attributes:
        text: As it was given.
        value: 0…1.
        tolerance: In the unit of `value`.
        percent: Whether it was read as percent.
    """

    text: str
    value: float
    tolerance: float
    percent: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A score that the number may be.

    Attributes:
        score: Its name, such as `mIoU`.
        of: The convention or the mistake.
        value: 0…1.
        caveat: Why it is only approximate, or an empty text.
    """

    score: str
    of: str
    value: float
    caveat: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """What a published number may be.

    Attributes:
        reported: The number.
        matches: Candidates within the tolerance, the nearest first.
        nearest: The nearest candidates where nothing matches; otherwise empty.
    """

    reported: Reported
    matches: tuple[Candidate, ...]
    nearest: tuple[Candidate, ...]

    def summary(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        number = self.reported
        return {
            "reported": number.text,
            "read_as": "percent" if number.percent else "fraction",
            "value": number.value,
            "tolerance": number.tolerance,
            "matches": [_entry(c, number) for c in self.matches],
            "nearest": [_entry(c, number) for c in self.nearest],
        }


def read_reported(text: str, tolerance: str | None = None) -> Reported:
    """Read a published number: above 1 or with a percent sign it is percent, otherwise a fraction.

    Args:
        text: Such as `0.712`, `71.2` or `71.2%`.
        tolerance: In the same unit; by default half of the last digit of the number.

    Raises:
        UsageError: Either is no number, or the number lies outside 0…1 and 0…100 %.

    >>> read_reported("71.2"), read_reported("0.712").tolerance
    (Reported(text='71.2', value=0.712, tolerance=0.0005, percent=True), 0.0005)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.(\d*))?|\.(\d+))\s*(%?)\s*", text)
    if match is None:
        raise UsageError(f"reported must be a number such as 0.712, 71.2 or 71.2%, not {text!r}")
    number, decimals = Decimal(match[1]), len(match[2] or match[3] or "")
    percent = bool(match[4]) or number > 1
    if number > 100:
        raise UsageError(
            f"reported={text.strip()} is neither a fraction (0…1) nor a percentage (0…100)"
        )
    reach = Decimal(5).scaleb(-decimals - 1)
    if tolerance is not None:
        if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", tolerance.strip()):
            raise UsageError(f"tolerance must be a number, 0 or more, not {tolerance!r}")
        reach = Decimal(tolerance.strip())
    unit = Decimal(100 if percent else 1)
    return Reported(text.strip(), float(number / unit), float(reach / unit), percent)


def search(result: Result, reported: Reported, rows: list[Row] | None = None) -> Search:
    """Find the scores of a result that a published number may be.

    Args:
        result: Only its counts matter.
        reported: The number.
        rows: What `explain` gives for the result, if that is at hand.
    """
    found = candidates(result, explain(result) if rows is None else rows)
    # Rounded, so that values that differ in float32 only keep the order of the conventions.
    found = sorted(found, key=lambda c: round(abs(c.value - reported.value), 6))
    matches = [c for c in found if abs(c.value - reported.value) <= reported.tolerance + SLACK]
    return Search(reported, tuple(matches), () if matches else tuple(found[:NEAREST]))


def candidates(result: Result, rows: list[Row]) -> list[Candidate]:
    """Return every score that an evaluator prints, and those of simple mistakes, without NaN."""
    found = [
        Candidate(name, row.convention.name, value, row.caveat)
        for row in rows
        for name, value in row.printed.items()
    ]
    found += _mistakes(result.under(OFFICIAL.name))
    return [c for c in found if not math.isnan(c.value)]


def _mistakes(result: Result) -> list[Candidate]:
    """Scores of the official IoUs over other units or other examples."""
    table, iou = result.per_example, result.iou
    number = under.sample_numbers(table) - 1
    best = np.zeros(int(number[-1]) + 1 if len(number) else 0)
    np.maximum.at(best, number, iou)
    per_image = metrics.mean_by(iou, to_numpy(table.column("image_id")))
    found = [
        Candidate("mIoU", "the mean of instances", result.miou_per_instance),
        Candidate("mIoU", "the mean of images", metrics.mean(list(per_image.values()))),
        Candidate("mIoU", "the best sentence of each instance", metrics.mean(best)),
    ]
    others = {"the first sentence of each instance": replace(OFFICIAL, sentences="first")}
    if result.n_missing:
        others["without the missing examples"] = replace(OFFICIAL, counts_missing=False)
    for name, convention in others.items():
        scores = under.scores(convention, table, thresholds=PRECISION_THRESHOLDS)
        found += [Candidate("mIoU", name, scores.miou), Candidate("cIoU", name, scores.ciou)]
        found += [Candidate(f"Pr@{x}", name, y) for x, y in scores.precision_at.items()]
    for x, share in metrics.precision_at(iou, strict=True).items():
        if share != result.precision_at[x]:
            found.append(Candidate(f"Pr@{x}", "with > instead of ≥", share))
    return found


def _entry(candidate: Candidate, reported: Reported) -> dict[str, Any]:
    return {
        "score": candidate.score,
        "of": candidate.of,
        "value": candidate.value,
        "difference": candidate.value - reported.value,
        "caveat": candidate.caveat or None,
    }
