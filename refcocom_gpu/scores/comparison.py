"""Two results of the same examples in, what tells them apart out: overall, by kind of example, example by example.

Everything is the first minus the second, paired: differences of the same expression, images as the unit. `breakdown`
splits them by category, size and length; `table` prints them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import ComparisonError, UsageError
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.breakdown import MIN_IMAGES, Difference, breakdowns
from refcocom_gpu.scores.folder import check_output
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.result import Result, load_results
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES
from refcocom_gpu.utils.arrow import from_numpy, to_numpy
from refcocom_gpu.utils.files import parquet_bytes, write_files
from refcocom_gpu.utils.text import as_text

SCHEMA_VERSION = 1
JSON, PARQUET = "comparison.json", "comparison.parquet"
TOP = 10

KEY_COLUMNS = ("index", "sample_id", "sentence_idx", "image_id")
"""What names an example in a table of results; with its area these must agree row by row."""

SHOWN_COLUMNS = (*KEY_COLUMNS, "sentence", "category")


@dataclass(frozen=True, eq=False)
class ResultComparison:
    """What tells two results apart; differences are the first minus the second.

    Attributes:
        names: What to call each.
        a: The first result; N examples.
        b: The second, of the same examples.
        miou: Difference in mIoU with its interval.
        ciou: Difference in cIoU with its interval.
        breakdowns: `category`, `size` and `length`: the difference in mIoU within each group. The intervals of one
            breakdown hold jointly.
        level: Probability that an interval, or all those of one breakdown, cover.
        replicates: Of the bootstrap behind `miou` and `ciou`.
        seed: Of the bootstrap.
        top: How many examples `largest` names in either direction.
    """

    names: tuple[str, str]
    a: Result
    b: Result
    miou: Difference
    ciou: Difference
    breakdowns: dict[str, list[Difference]]
    level: float
    replicates: int
    seed: int
    top: int

    @cached_property
    def difference(self) -> Floats:
        """[N] IoU of the first minus IoU of the second."""
        return self.a.iou - self.b.iou

    @property
    def won(self) -> int:
        """Examples on which the first has the higher IoU."""
        return int((self.difference > 0).sum())

    @property
    def lost(self) -> int:
        """Examples on which the second has the higher IoU."""
        return int((self.difference < 0).sum())

    @property
    def tied(self) -> int:
        """Examples of equal IoU."""
        return int((self.difference == 0).sum())

    @cached_property
    def per_example(self) -> pa.Table:
        """Key, sentence and category, `iou_a`, `iou_b` and `difference` of every example; N rows."""
        table = self.a.per_example.select(SHOWN_COLUMNS)
        columns = {"iou_a": self.a.iou, "iou_b": self.b.iou, "difference": self.difference}
        for name, column in columns.items():
            table = table.append_column(name, from_numpy(column))
        return table.replace_schema_metadata(
            {"schema": "refcocom-comparison", "version": str(SCHEMA_VERSION)}
        )

    @cached_property
    def largest(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of `per_example` that differ most, `won` and `lost`: up to `top` each, the largest first."""
        # Stable, so that of equal differences the lower index comes first.
        down = np.argsort(-self.difference, kind="stable")[: min(self.top, self.won)]
        up = np.argsort(self.difference, kind="stable")[: min(self.top, self.lost)]
        return {
            name: self.per_example.take(from_numpy(rows)).to_pylist()
            for name, rows in (("won", down), ("lost", up))
        }

    def summary(self) -> dict[str, Any]:
        """All but the table of examples, ready for JSON."""
        return {
            "schema": "refcocom-comparison",
            "version": SCHEMA_VERSION,
            "a": _side(self.names[0], self.a),
            "b": _side(self.names[1], self.b),
            "dataset": self.a.info.get("dataset"),
            "convention": self.a.convention,
            "n_examples": self.a.n_examples,
            "miou": asdict(self.miou),
            "ciou": asdict(self.ciou),
            "won": self.won,
            "lost": self.lost,
            "tied": self.tied,
            "largest": self.largest,
            "breakdowns": {
                name: [asdict(group) for group in groups]
                for name, groups in self.breakdowns.items()
            },
            "uncertainty": {
                "level": self.level,
                "replicates": self.replicates,
                "seed": self.seed,
                "meaning": "Differences are A minus B of the same expressions. Images are the unit, because "
                "expressions of one image are not independent. The intervals of mIoU and of cIoU hold each by "
                "itself, those of one breakdown jointly, with the probability `level`. Groups whose results differ "
                f"in fewer than {MIN_IMAGES} images have null for standard error and interval.",
            },
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `comparison.json` and `comparison.parquet`, each whole or not at all.

        Args:
            folder: Made where absent; other files in it are left alone.
            overwrite: Replace a comparison that is there.

        Returns:
            The folder.

        Raises:
            UsageError: When the folder holds a comparison and `overwrite` is False, or cannot be written.
        """
        check_output(folder, overwrite=overwrite, names=(JSON, PARQUET))
        text = json.dumps(self.summary(), indent=2, ensure_ascii=False) + "\n"
        write_files(
            folder, {PARQUET: parquet_bytes(self.per_example), JSON: as_text(text).encode()}
        )
        return Path(folder)


def compare(
    a: Result | str | Path,
    b: Result | str | Path,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
    top: int = TOP,
    names: tuple[str, str] | None = None,
) -> ResultComparison:
    """Compare two results example by example.

    Args:
        a: A result, or the folder that `Result.save` wrote. Prediction files are scored first, with `score`.
        b: Likewise; of the same dataset and convention.
        level: Probability that the interval of a difference covers; of a breakdown, that all do.
        replicates: Of the bootstrap over images for mIoU and cIoU.
        seed: Of the bootstrap.
        top: How many examples to name in either direction.
        names: What to call the two; where they come from by default.

    Returns:
        The comparison; swapping the results changes every sign and nothing else.

    Raises:
        ComparisonError: When the results are of different datasets or conventions.
        ResultsError: When a folder holds no result.
        UsageError: For a level outside 0…1, too few replicates for it, or a negative `top`.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> found = rc.compare(rc.score("sample", store), rc.score("sample-coarse", store))
    >>> found.won > found.lost, 0 < found.miou.low < found.miou.difference < found.miou.high
    (True, True)
    """
    un.quantile_place(level, replicates)
    if top < 0:
        raise UsageError(f"top must be 0 or more, not {top}")
    names = names or (_name(a, "A"), _name(b, "B"))
    first = a if isinstance(a, Result) else load_results(a)
    second = b if isinstance(b, Result) else load_results(b)
    _check_alike(first, second, names)
    image = to_numpy(first.per_example.column("image_id"))
    unions = [np.stack(parts, axis=1) for parts in zip(_areas(first), _areas(second), strict=True)]
    overall = {
        "mIoU": (first.miou, second.miou, (np.stack([first.iou, second.iou], axis=1),)),
        "cIoU": (first.ciou, second.ciou, unions),
    }
    miou, ciou = (
        _overall(label, x, y, image, sums, (level, replicates, seed))
        for label, (x, y, sums) in overall.items()
    )
    groups = breakdowns(first.per_example, first.iou, second.iou, level)
    return ResultComparison(names, first, second, miou, ciou, groups, level, replicates, seed, top)


def _overall(
    label: str,
    a: float,
    b: float,
    image: NDArray[np.int64],
    sums: Iterable[NDArray[Any]],
    settings: tuple[float, int, int],
) -> Difference:
    """The scores as they are printed, and about their difference the interval of the bootstrap."""
    level, replicates, seed = settings
    n_images = len(np.unique(image))
    try:
        pair = un.pairwise_intervals(
            un.ratio_by_image(image, *sums), level=level, n_replicates=replicates, seed=seed
        )
    except UsageError:
        # One image, or unions that are nearly all empty: the scores are there, how sure they are cannot be told.
        return Difference(label, len(image), n_images, a, b, a - b)
    se = float(pair.se[0, 1])
    reach = pair.critical * se
    return Difference(label, len(image), n_images, a, b, a - b, se, a - b - reach, a - b + reach)


def _areas(result: Result) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[N] intersections and [N] unions."""
    intersection, pred, target = (
        to_numpy(result.per_example.column(name))
        for name in ("intersection", "pred_area", "target_area")
    )
    return intersection, pred + target - intersection


def _check_alike(a: Result, b: Result, names: tuple[str, str]) -> None:
    datasets = [result.info.get("dataset", {}) for result in (a, b)]
    prints = [dataset.get("fingerprint") for dataset in datasets]
    if prints[0] != prints[1]:
        said = " and ".join(
            f"{name} of {dataset.get('source')} (fingerprint {found})"
            for name, dataset, found in zip(names, datasets, prints, strict=True)
        )
        raise ComparisonError(f"results of different datasets cannot be compared: {said}")
    if a.convention != b.convention:
        raise ComparisonError(
            f"results of different conventions cannot be compared: {names[0]} follows {a.convention}, "
            f"{names[1]} {b.convention}; score one of them again"
        )
    for column in (*KEY_COLUMNS, "target_area"):
        if not a.per_example.column(column).equals(b.per_example.column(column)):
            raise ComparisonError(
                f"{names[0]} and {names[1]} are not of the same examples: their columns {column} differ"
            )


def _name(result: Result | str | Path, otherwise: str) -> str:
    if isinstance(result, Result):
        return str(result.info.get("predictions", {}).get("source", otherwise))
    return str(result)


def _side(name: str, result: Result) -> dict[str, Any]:
    return {
        "name": name,
        "miou": result.miou,
        "ciou": result.ciou,
        "n_missing": result.n_missing,
        "n_empty": result.n_empty,
        "predictions": result.info.get("predictions"),
    }
