"""Counts of many prediction files in, one table out: a row per file with its scores, their uncertainty and its rank.

Scores and differences come from `metrics` on the counts. Only standard errors and the widths of intervals come from the
bootstrap, which rounds IoUs to a grid so that its sums are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu._version import __version__
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores import consistency, metrics
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.conventions import OFFICIAL, check_official
from refcocom_gpu.scores.leaderboard.best import best_of_each, check_best_per
from refcocom_gpu.scores.leaderboard.columns import (
    MEANING,
    NAMES,
    SELECTION,
    SIZES,
    extras_of,
    reserved,
    score_columns,
)
from refcocom_gpu.scores.leaderboard.examples import Examples
from refcocom_gpu.scores.leaderboard.extras import extra_row
from refcocom_gpu.scores.leaderboard.scored import FileResult
from refcocom_gpu.scores.leaderboard.typed import typed_columns
from refcocom_gpu.scores.leaderboard.views import Leaderboard as Leaderboard
from refcocom_gpu.scores.metrics import Floats
from refcocom_gpu.scores.slices.groupings import GROUPINGS
from refcocom_gpu.scores.uncertainty.resampling import LEVEL, REPLICATES
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.arrow import from_numpy
from refcocom_gpu.utils.text import as_text

SCHEMA_VERSION = 1

Flags = NDArray[np.bool_]

NONE = np.zeros(0, np.int64)

BLOCK = 64
"""Models whose IoUs are held at a time; afterwards one sum per image is kept of each."""

PAIRED = 40
"""Rows whose differences from each other are kept: as many as a plot of all pairs can name."""


def make_leaderboard(
    results: Sequence[FileResult],
    truth: MaskStore | Examples,
    *,
    convention: str = "official",
    precision_strict: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
    best_per: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Leaderboard:
    """Score, compare and sort the files; see `write_leaderboard` for the other arguments and the errors.

    `truth` is the ground truth of all of them, or what `Examples` knows of it. `options` says how the predictions were
    read, for `about`.
    """
    examples = truth if isinstance(truth, Examples) else Examples.of_store(truth)
    check_official(convention, "a leaderboard")
    un.quantile_place(LEVEL, replicates)
    check_best_per(best_per, (result.columns for result in results))
    sizes = size_rows(examples)
    scored: list[tuple[dict[str, Any], Floats]] = []
    readable = [result for result in results if result.error is None]
    for first in range(0, len(readable), BLOCK):
        pairs = [
            _scored(result, examples, sizes, precision_strict)
            for result in readable[first : first + BLOCK]
        ]
        sums, n = un.per_image(np.stack([ious for _, ious in pairs], axis=1), examples.image)
        scored += [(row, of_model.copy()) for (row, _), of_model in zip(pairs, sums.T, strict=True)]
    # All fields in turn, so that even rows alike in most of them have an order that does not depend on the input's.
    scored.sort(key=lambda pair: (-pair[0]["miou"], *_identity(pair[0]["result"])))
    failed = sorted((r for r in results if r.error is not None), key=_identity)
    rows = [row for row, _ in scored]
    best_of = best_of_each([row["result"] for row in rows], best_per)
    kept = list(best_of)
    for k, size in best_of.items():
        rows[k]["best_of"] = size
    differences = None
    if rows:
        sums = np.stack([of_model for _, of_model in scored], axis=1)
        differences = _add_ranks(rows, kept, sums, n[:, None].astype(np.float64), replicates, seed)
    others = [row["result"] for k, row in enumerate(rows) if k not in best_of]
    rows = [rows[k] for k in kept]
    rows += [{"result": result, "error": as_text(str(result.error))} for result in failed]
    place = {id(result): k for k, result in enumerate(results)}
    selection = None if best_per is None else SELECTION.format(best_per)
    untargeted = bool((examples.target_area == 0).any())
    extras = extras_of(_counted(results), untargeted=untargeted)
    about = {
        "schema": "refcocom-leaderboard",
        "version": SCHEMA_VERSION,
        "refcocom_gpu": __version__,
        "convention": convention,
        "precision": ">" if precision_strict else ">=",
        "dataset": dict(examples.about),
        "n_models": len(kept),
        "n_failed": len(failed),
        **({"options": dict(options)} if options else {}),
        "best_per": best_per,
        "selection": selection,
        "uncertainty": {
            "level": LEVEL,
            "replicates": replicates,
            "seed": seed,
            "critical_value": differences.critical if differences and len(scored) > 1 else None,
            "meaning": {**MEANING, **{k: v for extra in extras for k, v in extra.meaning.items()}},
        },
    }
    order = tuple(place[id(row["result"])] for row in rows)
    columns = {
        name: column.take(pa.array(order, pa.int64()))
        for name, column in manifest_columns(results).items()
    }
    return Leaderboard(
        _table(rows, columns, score_columns(extras), selection),
        about,
        order,
        tuple(place[id(result)] for result in others),
        differences,
    )


def manifest_columns(results: Sequence[FileResult]) -> dict[str, pa.Array]:
    """Return the columns of the manifest, each of one type, a value per result.

    Their names, types and order do not depend on the order of the results.
    """
    order = sorted(range(len(results)), key=lambda k: _identity(results[k]))
    taken = reserved(_counted(results))
    columns = typed_columns([results[k].columns for k in order], taken)
    back = pa.array(np.argsort(order), pa.int64())
    return {name: column.take(back) for name, column in columns.items()}


def _counted(results: Sequence[FileResult]) -> set[str]:
    return {name for result in results for name in result.measured}


def _identity(result: FileResult) -> tuple[str, ...]:
    columns = json.dumps(dict(result.columns), default=str)
    return result.model, result.path, result.digest or "", columns, str(result.error)


def _scored(
    result: FileResult,
    examples: Examples,
    sizes: Mapping[str, NDArray[np.bool_]],
    strict: bool,
) -> tuple[dict[str, Any], Floats]:
    """Return a row without the columns that depend on other rows, and [N] IoUs."""
    counts = result.counts
    if counts is None or counts.shape != (len(examples), 2):
        actual = "no counts" if counts is None else f"counts of shape {counts.shape}"
        raise UsageError(f"{result.path}: {actual} where [{len(examples)}, 2] is expected")
    triple = counts[:, 0], counts[:, 1], examples.target_area
    empty = OFFICIAL.empty
    ious = metrics.iou(*triple, empty=empty)
    precision = metrics.precision_at(ious, strict=strict)
    absent = np.zeros(len(examples), np.bool_)
    absent[NONE if result.absent is None else result.absent] = True
    row = {
        "result": result,
        "miou": metrics.mean(ious),
        "ciou": metrics.ciou(*triple, empty=empty),
        **{f"pr{round(100 * x)}": share for x, share in precision.items()},
        "miou_per_instance": metrics.mean(metrics.mean_of_each(ious, examples.sample)),
        "hard_pass_rate": consistency.hard_pass_rate(ious, examples.sample, strict=strict),
        **{name: metrics.mean(ious[rows]) for name, rows in sizes.items()},
        **extra_row(result, absent, ious, examples, strict=strict),
        "n_examples": len(examples),
        "n_missing": int(absent.sum()),
        "n_empty": int(((counts[:, 1] == 0) & ~absent).sum()),
    }
    return row, ious


def size_rows(examples: Examples) -> dict[str, NDArray[np.bool_]]:
    """Return [N] which examples each of the columns `SIZES` is a mean over; sizes of no example are left out."""
    areas = pa.table({"target_area": from_numpy(examples.target_area)})
    groups = zip(SIZES, GROUPINGS["size"].slicing(areas).groups(), strict=True)
    return {name: rows for (name, _), (_, rows) in groups if rows.any()}


def _add_ranks(
    rows: list[dict[str, Any]],
    kept: list[int],
    sums: Floats,
    n: Floats,
    replicates: int,
    seed: int,
) -> un.Pairwise | None:
    """Add to each row that stays its rank and its difference from the best, with their uncertainty.

    Args:
        rows: M, best first.
        kept: Which of them stay. The intervals hold for all M at once, also for those that were chosen among them.
        sums: [G, M] IoUs summed within each image, in the same order.
        n: [G, 1] examples of each image.
        replicates: B.
        seed: Of the bootstrap.

    Returns:
        The differences between the first `PAIRED` of those that stay. None for one image, which tells nothing of
        other images.
    """
    shown = [rows[k] for k in kept]
    first: dict[float, int] = {}
    for k, row in enumerate(shown):
        # Rows of equal score share the better rank.
        row["rank"] = 1 + first.setdefault(row["miou"], k)
        row["difference"] = row["miou"] - shown[0]["miou"]
    if len(n) < 2:
        return None
    ratio = un.Ratio(sums, n)
    critical = un.critical_value(ratio, n_replicates=replicates, seed=seed)
    if len(kept) < len(rows):
        ratio = un.Ratio(sums[:, kept], n)
    columns = zip(
        un.cluster_se(ratio).tolist(),
        un.ranks_of(ratio, critical).tolist(),
        un.like_best_of(ratio, critical).tolist(),
        (critical * un.se_beside(ratio, 0)).tolist(),
        strict=True,
    )
    for row, (se, (low, high), like_best, width) in zip(shown, columns, strict=True):
        row.update(miou_se=se, rank_low=low, rank_high=high, like_best=like_best)
        row.update(
            difference_low=row["difference"] - width, difference_high=row["difference"] + width
        )
    named = un.Ratio(ratio.numerator[:, :PAIRED], n)
    return un.Pairwise(named.estimate, un.pair_se(named), critical, LEVEL)


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
