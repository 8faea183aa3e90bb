"""Counts of many prediction files in, one table out: a row per file with its scores, their uncertainty and its rank.

Scores and differences come from `metrics` on the counts. Only standard errors and the widths of intervals come from the
bootstrap, which rounds IoUs to a grid so that its sums are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu._version import __version__
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import boundary, consistency, metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.about import about_dataset
from refcocom_gpu.scores.conventions import OFFICIAL, check_official
from refcocom_gpu.scores.leaderboard.best import best_of_each, check_best_per
from refcocom_gpu.scores.leaderboard.columns import (
    BOUNDARY_MEANING,
    BOUNDARY_RESERVED,
    MEANING,
    NAMES,
    RESERVED,
    SELECTION,
    SIZES,
    score_columns,
)
from refcocom_gpu.scores.leaderboard.scored import FileResult
from refcocom_gpu.scores.leaderboard.typed import typed_columns
from refcocom_gpu.scores.leaderboard.views import Leaderboard as Leaderboard
from refcocom_gpu.scores.metrics import Floats, Ints
from refcocom_gpu.scores.slices.groupings import GROUPINGS
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.arrow import from_numpy
from refcocom_gpu.utils.text import as_text

SCHEMA_VERSION = 1

NONE = np.zeros(0, np.int64)

BLOCK = 64
"""Models whose IoUs are held at a time; afterwards one sum per image is kept of each."""


def make_leaderboard(
    results: Sequence[FileResult],
    store: MaskStore,
    *,
    convention: str = "official",
    precision_strict: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
    best_per: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Leaderboard:
    """Score, compare and sort the files; see `write_leaderboard` for the other arguments and the errors.

    `options` says how the predictions were read, for `about`.
    """
    check_official(convention, "a leaderboard")
    un.quantile_place(LEVEL, replicates)
    check_best_per(best_per, (result.columns for result in results))
    image = store.dataset.image_ids[store.dataset.sample_image[store.example_sample]]
    sizes = size_rows(store)
    scored: list[tuple[dict[str, Any], Floats]] = []
    readable = [result for result in results if result.error is None]
    for first in range(0, len(readable), BLOCK):
        pairs = [
            _scored(result, store, image, sizes, precision_strict)
            for result in readable[first : first + BLOCK]
        ]
        sums, n = un.per_image(np.stack([ious for _, ious in pairs], axis=1), image)
        scored += [(row, of_model.copy()) for (row, _), of_model in zip(pairs, sums.T, strict=True)]
    # All fields in turn, so that even rows alike in most of them have an order that does not depend on the input's.
    scored.sort(key=lambda pair: (-pair[0]["miou"], *_identity(pair[0]["result"])))
    failed = sorted((r for r in results if r.error is not None), key=_identity)
    rows = [row for row, _ in scored]
    best_of = best_of_each([row["result"] for row in rows], best_per)
    kept = list(best_of)
    for k, size in best_of.items():
        rows[k]["best_of"] = size
    critical = None
    if rows:
        sums = np.stack([of_model for _, of_model in scored], axis=1)
        critical = _add_ranks(rows, kept, sums, n[:, None].astype(np.float64), replicates, seed)
    others = [row["result"] for k, row in enumerate(rows) if k not in kept]
    rows = [rows[k] for k in kept]
    rows += [{"result": result, "error": as_text(str(result.error))} for result in failed]
    place = {id(result): k for k, result in enumerate(results)}
    selection = None if best_per is None else SELECTION.format(best_per)
    about = {
        "schema": "refcocom-leaderboard",
        "version": SCHEMA_VERSION,
        "refcocom_gpu": __version__,
        "convention": convention,
        "precision": ">" if precision_strict else ">=",
        "dataset": about_dataset(store.dataset),
        "n_models": len(kept),
        "n_failed": len(failed),
        **({"options": dict(options)} if options else {}),
        "best_per": best_per,
        "selection": selection,
        "uncertainty": {
            "level": LEVEL,
            "replicates": replicates,
            "seed": seed,
            "critical_value": critical,
            "meaning": MEANING | (BOUNDARY_MEANING if _has_boundaries(results) else {}),
        },
    }
    order = tuple(place[id(row["result"])] for row in rows)
    columns = {
        name: column.take(pa.array(order, pa.int64()))
        for name, column in manifest_columns(results).items()
    }
    return Leaderboard(
        _table(rows, columns, score_columns(boundaries=_has_boundaries(results)), selection),
        about,
        order,
        tuple(place[id(result)] for result in others),
    )


def manifest_columns(results: Sequence[FileResult]) -> dict[str, pa.Array]:
    """Return the columns of the manifest, each of one type, a value per result.

    Their names, types and order do not depend on the order of the results.
    """
    order = sorted(range(len(results)), key=lambda k: _identity(results[k]))
    reserved = RESERVED | (BOUNDARY_RESERVED if _has_boundaries(results) else set())
    columns = typed_columns([results[k].columns for k in order], reserved)
    back = pa.array(np.argsort(order), pa.int64())
    return {name: column.take(back) for name, column in columns.items()}


def _has_boundaries(results: Sequence[FileResult]) -> bool:
    return any(result.measured for result in results)


def _identity(result: FileResult) -> tuple[str, ...]:
    columns = json.dumps(dict(result.columns), default=str)
    return result.model, result.path, result.digest or "", columns, str(result.error)


def _scored(
    result: FileResult,
    store: MaskStore,
    image: Ints,
    sizes: Mapping[str, NDArray[np.bool_]],
    strict: bool,
) -> tuple[dict[str, Any], Floats]:
    """Return a row without the columns that depend on other rows, and [N] IoUs."""
    counts = result.counts
    if counts is None or counts.shape != (len(store), 2):
        actual = "no counts" if counts is None else f"counts of shape {counts.shape}"
        raise UsageError(f"{result.path}: {actual} where [{len(store)}, 2] is expected")
    triple = counts[:, 0], counts[:, 1], store.areas[store.example_sample]
    empty = OFFICIAL.empty
    ious = metrics.iou(*triple, empty=empty)
    precision = metrics.precision_at(ious, strict=strict)
    absent = np.zeros(len(store), np.bool_)
    absent[NONE if result.absent is None else result.absent] = True
    row = {
        "result": result,
        "miou": metrics.mean(ious),
        "ciou": metrics.ciou(*triple, empty=empty),
        **{f"pr{round(100 * x)}": share for x, share in precision.items()},
        "miou_per_instance": metrics.mean([*metrics.mean_by(ious, store.example_sample).values()]),
        "hard_pass_rate": consistency.hard_pass_rate(ious, store.example_sample, strict=strict),
        **{name: metrics.mean(ious[rows]) for name, rows in sizes.items()},
        **(_boundary_row(result, ious, image) if result.measured else {}),
        "n_examples": len(store),
        "n_missing": int(absent.sum()),
        "n_empty": int(((counts[:, 1] == 0) & ~absent).sum()),
    }
    return row, ious


def size_rows(store: MaskStore) -> dict[str, NDArray[np.bool_]]:
    """Return [N] which examples each of the columns `SIZES` is a mean over; sizes of no example are left out."""
    areas = pa.table({"target_area": from_numpy(store.areas[store.example_sample])})
    groups = zip(SIZES, GROUPINGS["size"].slicing(areas).groups(), strict=True)
    return {name: rows for (name, _), (_, rows) in groups if rows.any()}


def _boundary_row(result: FileResult, ious: Floats, image: Ints) -> dict[str, float]:
    """Return the columns `BOUNDARY` of a row; without standard errors where all examples are of one image."""
    values = boundary.boundary_values(result.measured, ious, OFFICIAL.empty)
    row = {name: metrics.mean(of_examples) for name, of_examples in values.items()}
    if len(np.unique(image)) > 1:
        ratio = un.ratio_by_image(image, np.stack([*values.values()], axis=1))
        ses = un.cluster_se(ratio).tolist()
        row |= {f"{name}_se": se for name, se in zip(values, ses, strict=True)}
    return row


def _add_ranks(
    rows: list[dict[str, Any]],
    kept: list[int],
    sums: Floats,
    n: Floats,
    replicates: int,
    seed: int,
) -> float | None:
    """Add to each row that stays its rank and its difference from the best, with their uncertainty.

    Args:
        rows: M, best first.
        kept: Which of them stay. The intervals hold for all M at once, also for those that were chosen among them.
        sums: [G, M] IoUs summed within each image, in the same order.
        n: [G, 1] examples of each image.
        replicates: B.
        seed: Of the bootstrap.

    Returns:
        The critical value. None where there is one model, or one image, which tells nothing of other images.
    """
    shown = [rows[k] for k in kept]
    scores = [row["miou"] for row in shown]
    for row in shown:
        # Rows of equal score share the better rank.
        row["rank"] = 1 + scores.index(row["miou"])
        row["difference"] = row["miou"] - scores[0]
    if len(n) < 2:
        return None
    ratio = un.Ratio(sums, n)
    pairs = un.pairwise_intervals(ratio, n_replicates=replicates, seed=seed)
    if len(kept) < len(rows):
        pairs = replace(pairs, estimate=pairs.estimate[kept], se=pairs.se[np.ix_(kept, kept)])
    reach = pairs.critical * pairs.se[:, 0]
    columns = zip(
        un.cluster_se(ratio)[kept].tolist(),
        un.rank_intervals(pairs).tolist(),
        un.like_best(pairs).tolist(),
        reach.tolist(),
        strict=True,
    )
    for row, (se, (low, high), like_best, width) in zip(shown, columns, strict=True):
        row.update(miou_se=se, rank_low=low, rank_high=high, like_best=like_best)
        row.update(
            difference_low=row["difference"] - width, difference_high=row["difference"] + width
        )
    return pairs.critical if len(rows) > 1 else None


def _table(
    rows: list[dict[str, Any]],
    manifest: Mapping[str, pa.Array],
    scores: Sequence[tuple[str, pa.DataType]],
    selection: str | None,
) -> pa.Table:
    results: list[FileResult] = [row.pop("result") for row in rows]
    for row, result in zip(rows, results, strict=True):
        row.update(
            model=as_text(result.model),
            path=as_text(result.path),
            digest=as_text(result.digest) if result.digest else None,
            warnings=as_text("\n".join(result.warnings)) or None,
        )
    arrays = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in NAMES}
    arrays |= manifest
    arrays |= {name: pa.array([row.get(name) for row in rows], kind) for name, kind in scores}
    table = pa.table(arrays)
    metadata = {"schema": "refcocom-leaderboard", "version": str(SCHEMA_VERSION)}
    return table.replace_schema_metadata(metadata | ({"selection": selection} if selection else {}))
