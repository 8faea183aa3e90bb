"""A result or a comparison in; what a person sees of it out: one line, a few lines, or a table of a notebook.

`ResultViews` and `ComparisonViews` are the base classes of both. They are written against protocols, because
the classes themselves come later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import boundary, boxes
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.about import left_out, missing
from refcocom_gpu.scores.breakdown import Difference
from refcocom_gpu.scores.conventions import OFFICIAL, get_convention
from refcocom_gpu.scores.example_table import IOU, SHOWN_COLUMNS
from refcocom_gpu.scores.slices import MIN_IMAGES
from refcocom_gpu.utils.arrow import from_numpy, to_numpy
from refcocom_gpu.utils.frames import Frames
from refcocom_gpu.utils.html import table_html

SHOWN = 10
"""Examples that `worst` and `best` return unless another number is asked for."""


class Scored(Protocol):
    """What is shown of a result."""

    @property
    def info(self) -> dict[str, Any]:
        """What the scores are scores of."""

    @property
    def convention(self) -> str:
        """Name of the convention."""

    @property
    def per_example(self) -> pa.Table:
        """One row per example."""

    @property
    def iou(self) -> NDArray[np.float64]:
        """[N] IoU."""

    @property
    def is_counted(self) -> NDArray[np.bool_]:
        """[N] whether the convention scores an example."""

    @property
    def miou(self) -> float:
        """Mean IoU."""

    @property
    def ciou(self) -> float:
        """Cumulative IoU."""

    @property
    def precision_at(self) -> Mapping[float, float]:
        """Threshold to share."""

    @property
    def is_strict(self) -> bool:
        """Whether Pr@X counts IoU > X."""

    @property
    def miou_per_instance(self) -> float:
        """Mean over samples."""

    @property
    def boundary_scores(self) -> dict[str, float]:
        """Boundary scores by name; none if they were not counted."""

    @property
    def box_scores(self) -> dict[str, Any]:
        """Box scores by name; none if they were not counted."""

    @property
    def n_examples(self) -> int:
        """Examples in the denominator."""

    @property
    def n_missing(self) -> int:
        """Examples without a prediction."""

    @property
    def n_empty(self) -> int:
        """Examples whose predicted mask has no pixel."""


class Compared(Protocol):
    """What is shown of a comparison."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of both results."""

    @property
    def a(self) -> Scored:
        """The first result."""

    @property
    def b(self) -> Scored:
        """The second."""

    @property
    def miou(self) -> Difference:
        """Difference in mIoU."""

    @property
    def ciou(self) -> Difference:
        """Difference in cIoU."""

    @property
    def boundaries(self) -> dict[str, Difference]:
        """Differences in boundary scores."""

    @property
    def level(self) -> float:
        """Probability that an interval covers."""

    @property
    def won(self) -> int:
        """Examples on which the first is better."""

    @property
    def lost(self) -> int:
        """Examples on which the second is."""

    @property
    def tied(self) -> int:
        """Examples of equal IoU."""


class ResultViews(Frames):
    """What a person sees of a result, and the examples to look at first."""

    per_example: pa.Table

    def __repr__(self: Scored) -> str:
        other = "" if self.convention == OFFICIAL.name else f", convention={self.convention!r}"
        if not boxes.are_given(self.per_example):
            scores = f"miou={self.miou:.4f}, ciou={self.ciou:.4f}"
        else:
            of_boxes = self.box_scores
            names = ("box_iou", "box_accuracy")
            scores = ", ".join(f"{name}={of_boxes[name]:.4f}" for name in names)
        return (
            f"Result({scores}, n_examples={self.n_examples}, "
            f"missing={self.n_missing}, model={model_of(self)!r}{other})"
        )

    def __str__(self: Scored) -> str:
        shown = ", ".join(f"{name} {value}" for name, value in _scores(self)[:3])
        return f"{model_of(self)}: {shown}, in percent\n{_completeness(self)}"

    def _repr_html_(self: Scored) -> str:
        notes = [*left_out(self.info.get("predictions", {})), "In percent."]
        if miou_se(self) is not None:
            notes[-1] += " ± is the standard error over other images like these."
        return table_html(
            f"{model_of(self)}: {_completeness(self)}",
            _scores(self),
            head=("score", "value"),
            notes=notes,
        )

    def to_arrow(self) -> pa.Table:
        """Return `per_example`."""
        return self.per_example

    def worst(self: Scored, n: int = SHOWN) -> pa.Table:
        """Return the examples of lowest IoU, the lowest first; equal ones in the order of their indices.

        Args:
            n: How many.

        Returns:
            Key, sentence, category and `iou`, of the examples that the convention counts and as it defines IoU.

        Raises:
            UsageError: `n` is negative.

        >>> import refcocom_gpu as rc
        >>> worst = rc.score("sample", "sample").worst(20)
        >>> len(worst), worst.column_names[-3:], worst["iou"][0].as_py() == min(worst["iou"].to_pylist())
        (20, ['sentence', 'category', 'iou'], True)
        """
        return _first(self, n, self.iou)

    def best(self: Scored, n: int = SHOWN) -> pa.Table:
        """Return the examples of highest IoU, the highest first; otherwise as `worst`."""
        return _first(self, n, -self.iou)


class ComparisonViews(Frames):
    """What a person sees of a comparison."""

    per_example: Any

    def __repr__(self: Compared) -> str:
        miou = self.miou
        interval = "" if miou.low is None else f", low={miou.low:+.4f}, high={miou.high or 0:+.4f}"
        return (
            f"ResultComparison(a={self.names[0]!r}, b={self.names[1]!r}, "
            f"miou={miou.difference:+.4f}{interval}, n_examples={miou.n_examples})"
        )

    def __str__(self: Compared) -> str:
        return (
            f"A {self.names[0]}, B {self.names[1]}: mIoU A − B {_difference(self.miou)} percentage points\n"
            f"{_outcome(self)}"
        )

    def _repr_html_(self: Compared) -> str:
        rows = [
            (
                score.label,
                _percent(score.a),
                _percent(score.b),
                f"{100 * score.difference:+.2f}",
                _interval(score),
            )
            for score in (self.miou, self.ciou, *self.boundaries.values())
        ]
        sides = (
            f"{letter}: {name}, {_completeness(result)}"
            for letter, name, result in zip("AB", self.names, (self.a, self.b), strict=True)
        )
        return table_html(
            f"{self.names[0]} (A) and {self.names[1]} (B)",
            rows,
            head=("score", "A", "B", "A − B", f"{100 * self.level:g} % interval"),
            notes=[
                *sides,
                f"{_outcome(self)} In percent; intervals are over other images like these.",
            ],
        )

    def to_arrow(self) -> pa.Table:
        """Return `per_example`: key, sentence and category, `iou_a`, `iou_b` and `difference`."""
        table: pa.Table = self.per_example
        return table


def model_of(result: Scored) -> str:
    """Return a name of what was scored: the row of a sweep, or else where the predictions are from."""
    sweep, about = result.info.get("sweep", {}), result.info.get("predictions", {})
    return str(sweep.get("name") or about.get("model") or about.get("source", "predictions"))


def miou_se(result: Scored) -> float | None:
    """Return the standard error of mIoU, clustered by image; None of few images or under another convention."""
    image = to_numpy(result.per_example.column("image_id"))
    few = len(np.unique(image)) < MIN_IMAGES
    if result.convention != OFFICIAL.name or few or boxes.are_given(result.per_example):
        return None
    return float(un.cluster_se(un.ratio_by_image(image, result.iou))[0])


def _first(result: Scored, n: int, order: NDArray[np.float64]) -> pa.Table:
    if n < 0:
        raise UsageError(f"the number of examples must be 0 or more, not {n}")
    counted = np.flatnonzero(result.is_counted)
    # A stable sort puts the lower index first among equal ones.
    rows = counted[np.argsort(order[counted], kind="stable")[:n]]
    table = result.per_example.select(SHOWN_COLUMNS).take(from_numpy(rows))
    return table.append_column(IOU, from_numpy(result.iou[rows]))


def _scores(result: Scored) -> list[tuple[str, str]]:
    """Return the names and values of the headline scores, in percent."""
    if boxes.are_given(result.per_example):
        of_boxes = result.box_scores
        return [
            ("box IoU", _percent(of_boxes["box_iou"])),
            ("box accuracy@0.5", _percent(of_boxes["box_accuracy"])),
        ]
    sign, se = (">" if result.is_strict else "≥"), miou_se(result)
    rows = [("mIoU", _percent(result.miou) + ("" if se is None else f" ± {_percent(se)}"))]
    if get_convention(result.convention).names[1]:
        rows.append(("cIoU", _percent(result.ciou)))
    rows += [(f"Pr@{x} ({sign})", _percent(share)) for x, share in result.precision_at.items()]
    rows.append(("mIoU per instance", _percent(result.miou_per_instance)))
    of_boundaries = result.boundary_scores
    rows += [
        (label, _percent(of_boundaries[name]))
        for label, name in zip(boundary.LABELS, boundary.NAMES, strict=True)
        if name in of_boundaries
    ]
    return rows


def _completeness(result: Scored) -> str:
    """Say of how many examples the scores are."""
    source = result.info.get("dataset", {}).get("source")
    n_missing = missing(result.n_missing, result.convention) or "none missing"
    of_all = len(result.per_example)
    n = f"{result.n_examples:,}" + (f" of {of_all:,}" if of_all > result.n_examples else "")
    empty = f", {result.n_empty:,} predicted empty" if result.n_empty else ""
    origin = f" of {source}" if source else ""
    return f"{n} examples{origin}, {n_missing}{empty}; convention {result.convention}"


def _outcome(comparison: Compared) -> str:
    return (
        f"A is better on {comparison.won:,} examples, worse on {comparison.lost:,}, "
        f"equal on {comparison.tied:,}."
    )


def _difference(score: Difference) -> str:
    interval = _interval(score)
    return f"{100 * score.difference:+.2f}" + (f" ({interval})" if interval else "")


def _interval(score: Difference) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{100 * score.low:+.2f} … {100 * score.high:+.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
