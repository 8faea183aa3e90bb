"""Two results of the same examples in, their differences out: overall, within groups, and example by example.

Every difference is the first minus the second on the same expression, and images are the unit of uncertainty.
`breakdown` splits the differences by category, size and length, and by other slices if asked to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.errors import ComparisonError, UsageError
from refcocom_gpu.scores import boundary
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.breakdown import BREAKDOWNS, Difference, breakdowns
from refcocom_gpu.scores.conventions import OFFICIAL
from refcocom_gpu.scores.example_table import KEY_COLUMNS, SHOWN_COLUMNS
from refcocom_gpu.scores.folder import check_output
from refcocom_gpu.scores.leaderboard.formats import shown
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.no_target import LABELS, NAMES, rejections_of
from refcocom_gpu.scores.result import Result, load_result
from refcocom_gpu.scores.slices import (
    CAUSE,
    MIN_IMAGES,
    PERIMETER,
    TAG,
    Tags,
    chosen,
    names_of,
    read_tags,
)
from refcocom_gpu.scores.sweep_results import find_result
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES
from refcocom_gpu.scores.under import counts_of
from refcocom_gpu.scores.views import ComparisonViews
from refcocom_gpu.utils.arrow import from_numpy, to_numpy
from refcocom_gpu.utils.files import parquet_bytes, write_files
from refcocom_gpu.utils.run_config import config_file
from refcocom_gpu.utils.text import as_text

SCHEMA_VERSION = 1
JSON, PARQUET = "comparison.json", "comparison.parquet"
TOP = 10


@dataclass(frozen=True, eq=False, repr=False)
class ResultComparison(ComparisonViews):
    """The differences between two results, the first minus the second.

    Attributes:
        names: Names of the two, for people.
        a: The first result; N examples.
        b: The second result, of the same examples.
        miou: Difference in mIoU with its interval.
        ciou: Difference in cIoU with its interval.
        boundaries: The differences in the three boundary scores with their intervals, by name; none where one of the
            results does not hold them.
        no_target: The differences in N-acc and T-acc likewise, each over the examples that it is a share of; none where
            every example has a target.
        breakdowns: `category`, `size`, `length` and other slices that were asked for: the difference in mIoU within
            each group. The intervals of one breakdown hold jointly.
        level: Probability that an interval covers; for a breakdown, that all its intervals do.
        replicates: Number of bootstrap replicates behind `miou` and `ciou`.
        seed: Seed of the bootstrap.
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
    boundaries: dict[str, Difference] = field(default_factory=dict)
    no_target: dict[str, Difference] = field(default_factory=dict)

    @property
    def without_boundaries(self) -> list[str]:
        """Which of the two, `a` or `b`, does not hold boundaries; none of them where neither does."""
        held = {
            "a": boundary.are_counted(self.a.per_example),
            "b": boundary.are_counted(self.b.per_example),
        }
        return [side for side, is_held in held.items() if not is_held] if any(held.values()) else []

    @cached_property
    def difference(self) -> Floats:
        """[N] IoU of the first minus IoU of the second."""
        return self.a.iou - self.b.iou

    @property
    def won(self) -> int:
        """Number of examples on which the first has the higher IoU."""
        return int((self.difference > 0).sum())

    @property
    def lost(self) -> int:
        """Number of examples on which the second has the higher IoU."""
        return int((self.difference < 0).sum())

    @property
    def tied(self) -> int:
        """Number of examples of equal IoU."""
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
        # A stable sort puts the lower index first among equal differences.
        won = np.argsort(-self.difference, kind="stable")[: min(self.top, self.won)]
        lost = np.argsort(self.difference, kind="stable")[: min(self.top, self.lost)]
        return {
            name: self.per_example.take(from_numpy(rows)).to_pylist()
            for name, rows in (("won", won), ("lost", lost))
        }

    def summary(self) -> dict[str, Any]:
        """Return everything but the table of examples, ready for JSON."""
        lacking = self.without_boundaries
        named = ["mIoU", "cIoU", *["boundary scores"][: len(self.boundaries)]]
        named += [difference.label for difference in self.no_target.values()]
        scores = " and of ".join([", of ".join(named[:-1]), named[-1]])
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
            **{
                name: asdict(difference)
                for name, difference in (self.boundaries | self.no_target).items()
            },
            **({"without_boundaries": lacking} if lacking else {}),
            "won": self.won,
            "lost": self.lost,
            "tied": self.tied,
            "largest": self.largest,
            **({"tags": self.a.info["tags"]} if "tags" in self.a.info else {}),
            "breakdowns": {
                name: [asdict(group) for group in groups]
                for name, groups in self.breakdowns.items()
            },
            "uncertainty": {
                "level": self.level,
                "replicates": self.replicates,
                "seed": self.seed,
                "meaning": "Differences are A minus B of the same expressions. Images are the unit, because "
                f"expressions of one image are not independent. The intervals of {scores} hold each by "
                "itself, those of one breakdown jointly, with the probability `level`. Groups whose results differ "
                f"in fewer than {MIN_IMAGES} images have null for standard error and interval.",
            },
        }

    def save(
        self, folder: str | Path, *, overwrite: bool = False, config: bytes | None = None
    ) -> Path:
        """Write `comparison.json` and `comparison.parquet`, each whole or not at all.

        Args:
            folder: Made where absent; other files in it are left alone.
            overwrite: Replace an existing comparison.
            config: Content of `config.yaml`, the keys of the command that made the comparison.

        Returns:
            The folder.

        Raises:
            UsageError: When the folder holds a comparison and `overwrite` is False, or when it cannot be written.
        """
        check_output(folder, overwrite=overwrite, names=(JSON, PARQUET))
        text = json.dumps(self.summary(), indent=2, ensure_ascii=False) + "\n"
        files = {PARQUET: parquet_bytes(self.per_example), **config_file(folder, config)}
        write_files(folder, {**files, JSON: as_text(text).encode()})
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
    slices: str | Iterable[str] = (),
    tags: str | Path | Tags | None = None,
) -> ResultComparison:
    """Compare two results example by example.

    Args:
        a: A result, the folder that `Result.save` wrote, or a row of a sweep as in `sweep:1`. Prediction files are
            scored first, with `score`.
        b: Likewise, of the same dataset and convention.
        level: Probability that an interval covers; for a breakdown, that all its intervals do.
        replicates: Number of replicates of the bootstrap over images, for mIoU and cIoU.
        seed: Seed of the bootstrap.
        top: How many examples to name in either direction.
        names: Names of the two, for people; by default the paths they come from.
        slices: Breakdowns beside category, size and length: names of what `Result.slices` has, or `all` of them.
        tags: A file of tags, as for `Result.with_slices`; each of its columns is a breakdown too.

    Returns:
        The comparison. Swapping the results changes every sign and nothing else.

    Raises:
        ComparisonError: When the results are of different datasets or conventions, or have other tags of one name.
        ResultsError: When a folder holds no result, or what a sweep wrote is damaged.
        TagsError: When the file of tags does not fit the examples.
        UsageError: For a level outside 0…1, too few replicates for it, a negative `top`, or an unknown slice.

    >>> import refcocom_gpu as rc
    >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    >>> comparison = rc.compare(rc.score("sample", store), rc.score("sample-coarse", store))
    >>> miou = comparison.miou
    >>> comparison.won > comparison.lost, 0 < miou.low < miou.difference < miou.high
    (True, True)
    """
    un.quantile_place(level, replicates)
    slices = [slices] if isinstance(slices, str) else [*slices]
    if top < 0:
        raise UsageError(f"top must be 0 or more, not {top}")
    first, second = (_result(given) for given in (a, b))
    names = names or (name_of(a, first, "A"), name_of(b, second, "B"))
    check_alike(first, second, names)
    if tags is not None:
        read = tags if isinstance(tags, Tags) else read_tags(tags, first.per_example)
        first, second = (result.with_slices(tags=read) for result in (first, second))
        slices = [*slices, *read.columns]
    table = _sliceable(first.per_example, second.per_example)
    if CAUSE in slices:
        raise UsageError("slices by cause are of one result: of two, each has causes of its own")
    known = [name for name in names_of(table) if name != CAUSE]
    wanted = [*dict.fromkeys([*BREAKDOWNS, *chosen(slices, known)])]
    _check_tags(first, second, names, wanted)
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
    groups = breakdowns(table, wanted, first.iou, second.iou, level)
    settings = level, replicates, seed
    boundaries = _boundaries(first, second, image, settings)
    untargeted = _no_target(first, second, image, settings)
    return ResultComparison(
        names, first, second, miou, ciou, groups, *settings, top, boundaries, untargeted
    )


def _boundaries(
    a: Result, b: Result, image: NDArray[np.int64], settings: tuple[float, int, int]
) -> dict[str, Difference]:
    """Return the differences in boundary scores by name; none where a result does not hold them."""
    if not (a.boundary_scores and b.boundary_scores):
        return {}
    found = {}
    for name, label in zip(boundary.NAMES, boundary.LABELS, strict=True):
        values = np.stack([a.boundary_values[name], b.boundary_values[name]], axis=1)
        scores = a.boundary_scores[name], b.boundary_scores[name]
        found[name] = _overall(label, *scores, image, (values,), settings)
    return found


def _no_target(
    a: Result, b: Result, image: NDArray[np.int64], settings: tuple[float, int, int]
) -> dict[str, Difference]:
    """Return the differences in N-acc and T-acc by name; none where every example has a target."""
    if not a.n_no_target:
        return {}
    rejected = np.stack([rejections_of(result.per_example) for result in (a, b)], axis=1)
    without = to_numpy(a.per_example.column("target_area")) == 0
    found = {}
    for name, label, is_right, is_one in zip(
        NAMES, LABELS, (rejected, ~rejected), (without, ~without), strict=True
    ):
        if is_one.any():
            scores = getattr(a, name), getattr(b, name)
            found[name] = _overall(label, *scores, image[is_one], (is_right[is_one],), settings)
    return found


def _overall(
    label: str,
    a: float,
    b: float,
    image: NDArray[np.int64],
    sums: Iterable[NDArray[Any]],
    settings: tuple[float, int, int],
) -> Difference:
    """Return the scores as printed and their difference, with the bootstrap's interval around it."""
    level, replicates, seed = settings
    n_images = len(np.unique(image))
    try:
        pair = un.pairwise_intervals(
            un.ratio_by_image(image, *sums), level=level, n_replicates=replicates, seed=seed
        )
    except UsageError:
        # One image, or nearly all unions empty: there are scores, but no uncertainty can be estimated.
        return Difference(label, len(image), n_images, a, b, a - b)
    se = float(pair.se[0, 1])
    reach = pair.critical * se
    return Difference(label, len(image), n_images, a, b, a - b, se, a - b - reach, a - b + reach)


def _areas(result: Result) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return [N] intersections and [N] unions."""
    intersection, pred, target = counts_of(result.per_example)
    return intersection, pred + target - intersection


def check_alike(a: Result, b: Result, names: tuple[str, str]) -> None:
    """Refuse results that are not of the same examples, or not under the official convention.

    Args:
        a: A result.
        b: Another.
        names: Names of the two, for the message.

    Raises:
        ComparisonError: Their datasets, conventions or examples differ.
    """
    datasets = [result.info.get("dataset", {}) for result in (a, b)]
    fingerprints = [dataset.get("fingerprint") for dataset in datasets]
    if fingerprints[0] != fingerprints[1]:
        origins = " and ".join(
            f"{name} of {dataset.get('source')} (fingerprint {fingerprint})"
            for name, dataset, fingerprint in zip(names, datasets, fingerprints, strict=True)
        )
        raise ComparisonError(f"results of different datasets cannot be compared: {origins}")
    if a.convention != b.convention:
        raise ComparisonError(
            f"results of different conventions cannot be compared: {names[0]} follows {a.convention}, "
            f"{names[1]} {b.convention}; score one of them again"
        )
    if a.convention != OFFICIAL.name:
        raise ComparisonError(
            f"results under the convention {a.convention} are not compared, because it need not score every "
            "example; score with convention=official, or pass result.under('official')"
        )
    for column in (*KEY_COLUMNS, "target_area"):
        if not a.per_example.column(column).equals(b.per_example.column(column)):
            raise ComparisonError(
                f"{names[0]} and {names[1]} are not of the same examples: their columns {column} differ"
            )


def _result(given: Result | str | Path) -> Result:
    if isinstance(given, Result):
        return given
    found = find_result(given)
    return load_result(given) if found is None else found


def name_of(given: Result | str | Path, result: Result, default: str = "") -> str:
    """Return a name for people: of a row of a sweep its model and the columns of its manifest.

    Args:
        given: How the result was named: by itself or by a path.
        result: The result.
        default: For a result that does not say what it is of.
    """
    name = None if isinstance(given, Result) else str(given)
    if row := result.info.get("sweep"):
        columns = (f"{column} {shown(v)}" for column, v in row["columns"].items() if v is not None)
        described = ", ".join((row["model"], *columns))
        return f"{described} ({name})" if name else described
    return name or str(result.info.get("predictions", {}).get("source", default))


def _sliceable(a: pa.Table, b: pa.Table) -> pa.Table:
    """Return the first table with the columns for slices that only the second has."""
    for name in b.column_names:
        if name not in a.column_names and (name == PERIMETER or name.startswith(TAG)):
            a = a.append_column(name, b.column(name))
    return a


def _check_tags(a: Result, b: Result, names: tuple[str, str], wanted: list[str]) -> None:
    tables = a.per_example, b.per_example
    for name in wanted:
        if all(TAG + name in table.column_names for table in tables):
            first, second = (table.column(TAG + name) for table in tables)
            if not first.equals(second):
                raise ComparisonError(
                    f"{names[0]} and {names[1]} hold different tags {name}; tags=FILE gives both the same"
                )


def _side(name: str, result: Result) -> dict[str, Any]:
    return {
        "name": name,
        "miou": result.miou,
        "ciou": result.ciou,
        **result.boundary_scores,
        "n_missing": result.n_missing,
        "n_empty": result.n_empty,
        "predictions": result.info.get("predictions"),
        **({"sweep": result.info["sweep"]} if "sweep" in result.info else {}),
    }
