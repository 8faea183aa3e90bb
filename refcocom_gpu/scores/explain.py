"""A result in, its scores under every convention out, each with the reasons why it differs from the official one.

The way from the official convention to another is walked one property at a time. The change that a step makes is the
size of its reason, so the sizes of all reasons add up to the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.masks.squash import SIDE, SQUASHED
from refcocom_gpu.masks.warp import THRESHOLD, WARPED
from refcocom_gpu.scores import under
from refcocom_gpu.scores.conventions import CONVENTIONS, OFFICIAL, Convention
from refcocom_gpu.scores.metrics import PRECISION_THRESHOLDS
from refcocom_gpu.scores.no_target import rejections_of
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.under import Scores


@dataclass(frozen=True, slots=True)
class Reason:
    """One property of a convention and what it does to the scores of these predictions.

    Attributes:
        text: A sentence without its subject, which is the evaluator.
        changes: Score to the change that the property makes, 0…1; only of scores that the evaluator prints.
    """

    text: str
    changes: dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """The scores under one convention, and why they are not the official ones.

    Attributes:
        convention: Which.
        scores: Computed from counts; with `PRECISION_THRESHOLDS`, printed by the evaluator or not.
        reasons: Those that change a score.
        caveat: Why the scores are not exactly what the evaluator prints; nothing if they are.
        resized: How many predictions were resized for it; nothing if none were.
    """

    convention: Convention
    scores: Scores
    reasons: tuple[Reason, ...]
    caveat: str = ""
    resized: str = ""

    @property
    def printed(self) -> dict[str, float]:
        """The scores that the evaluator prints, by our names."""
        named = _named(self.scores, self.convention.thresholds)
        hidden = {
            ours
            for ours, theirs in zip(("mIoU", "cIoU"), self.convention.names, strict=True)
            if theirs is None
        }
        return {name: value for name, value in named.items() if name not in hidden}

    def summary(self) -> dict[str, Any]:
        """Return the row, ready for JSON; a score that is not a number is null."""
        c = self.convention
        return {
            "convention": c.name,
            "about": c.about,
            "source": c.source,
            "files": list(c.files),
            "prints": {"miou": c.names[0], "ciou": c.names[1], "percent": c.percent},
            "n_examples": self.scores.n_examples,
            "scores": _finite(self.printed),
            "approximate": bool(self.caveat),
            "caveat": self.caveat or None,
            "resized": self.resized or None,
            "resolution": c.resolution,
            "reasons": [{"text": r.text, "changes": _finite(r.changes)} for r in self.reasons],
            "notes": list(c.notes),
        }


def _finite(named: dict[str, float]) -> dict[str, float | None]:
    """Replace what is not a number, which JSON cannot say, by None."""
    return {name: None if math.isnan(value) else value for name, value in named.items()}


def explain(result: Result) -> list[Row]:
    """Score a result's counts under every convention.

    Args:
        result: Under any convention; only its counts matter.

    Returns:
        A row per convention, the official one first.

    >>> import refcocom_gpu as rc
    >>> result = rc.score("sample", rc.MaskStore.build(rc.load_dataset("sample"), cache=False))
    >>> rows = {row.convention.name: row for row in explain(result)}
    >>> rows["official"].scores.miou == result.miou, rows["cris"].reasons[0].text
    (True, 'scores the first sentence of each instance: 105 of 297 examples')
    """
    table = result.per_example

    @cache
    def scores(convention: Convention) -> Scores:
        # The ways to the conventions share most of their steps.
        return under.scores(convention, table, thresholds=PRECISION_THRESHOLDS)

    return [_row(convention, table, scores) for convention in CONVENTIONS.values()]


def _row(convention: Convention, table: pa.Table, scores: Callable[[Convention], Scores]) -> Row:
    at, before = OFFICIAL, scores(OFFICIAL)
    reasons = []
    for properties, tell in STEPS:
        values = {name: getattr(convention, name) for name in properties}
        following = replace(at, **values)
        if following == at:
            continue
        after = scores(following)
        changes = {
            name: value - _named(before, convention.thresholds)[name]
            for name, value in _named(after, convention.thresholds).items()
            if name != "cIoU" or convention.names[1]
        }
        changes = {name: change for name, change in changes.items() if change != 0}
        if changes:
            reasons.append(Reason(tell(convention, table, at), changes))
        at, before = following, after
    about = under.caveat(convention, table), under.resized(convention, table)
    return Row(convention, before, tuple(reasons), *about)


def _named(scores: Scores, thresholds: tuple[float, ...]) -> dict[str, float]:
    shares = {f"Pr@{x}": scores.precision_at[x] for x in thresholds}
    return {"mIoU": scores.miou, "cIoU": scores.ciou, **shares}


Tell = Callable[[Convention, pa.Table, Convention], str]


def _missing(_: Convention, table: pa.Table, __: Convention) -> str:
    n = table.column("status").to_pylist().count(under.MISSING)
    return f"leaves out {counted(n, 'example')} without a prediction"


def _sentences(convention: Convention, table: pa.Table, at: Convention) -> str:
    n = int(np.count_nonzero(under.chosen(replace(at, sentences=convention.sentences), table)))
    which = {
        "first": "the first sentence of each instance",
        "distinct": "equal sentences of an instance once",
    }[convention.sentences]
    return f"scores {which}: {n:,} of {len(table):,} examples"


def _empty(convention: Convention, table: pa.Table, at: Convention) -> str:
    _, pred_area, target_area = under.counts_of(table)
    n = int(np.count_nonzero((pred_area + target_area == 0) & under.chosen(at, table)))
    return f"gives {counted(n, 'example')} whose two masks are empty {convention.empty:g}, not 1"


def _label(_: Convention, table: pa.Table, at: Convention) -> str:
    __, pred_area, target_area = under.counts_of(table)
    scored = under.chosen(at, table)
    n = int(np.count_nonzero((target_area > 0) & scored))
    told = f"takes Pr@X over the {counted(n, 'example')} that have a target"
    kept = (pred_area + target_area == 0) & ~rejections_of(table) & scored
    if n_kept := int(np.count_nonzero(kept)):
        told += f", gives {counted(n_kept, 'empty mask')} labelled as a target 0"
    return told


def _arithmetic(convention: Convention, _: pa.Table, __: Convention) -> str:
    parts = ["divides in float32"] if convention.float32 else []
    parts += [
        f"adds {epsilon:g} to {what}".replace("e-0", "e-")
        for epsilon, what in (
            (convention.epsilon, "each union"),
            (convention.sum_epsilon, "ΣU"),
            (convention.count_epsilon, "the number of examples"),
        )
        if epsilon
    ]
    return ", ".join(parts)


def _strict(convention: Convention, *_: Any) -> str:
    rounded = ", with X in float32" if convention.float32_thresholds else ""
    return f"counts Pr@X where IoU > X, not ≥ X{rounded}"


def _compared(convention: Convention, *_: Any) -> str:
    return {
        SQUASHED: f"compares masks of {SIDE}² without the aspect ratio",
        WARPED: f"warps sigmoids to the image and cuts them at > {THRESHOLD}",
    }[str(convention.metric)]


STEPS: tuple[tuple[tuple[str, ...], Tell], ...] = (
    (("counts_missing",), _missing),
    (("sentences",), _sentences),
    (("empty", "empty_sum"), _empty),
    (("by_label",), _label),
    (("epsilon", "sum_epsilon", "count_epsilon", "float32"), _arithmetic),
    (("strict", "float32_thresholds"), _strict),
    (("metric",), _compared),
)
"""The properties of a convention that change scores, in the order in which they are changed, and how each is told."""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "example"), counted(2080, "example")
    ('1 example', '2,080 examples')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
