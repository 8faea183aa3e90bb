"""A leaderboard and the files of its rows in; an index of the folder of a sweep, and what its rows share, out.

`sweep.json` names the file and its hash for every set of predictions that was scored, `examples.parquet` holds what all
of them are scored against. `sweep_results` reads both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from refcocom_gpu.scores.example_table import IOU, per_example
from refcocom_gpu.scores.leaderboard.formats import shown
from refcocom_gpu.scores.leaderboard.rows import Leaderboard, manifest_columns
from refcocom_gpu.scores.leaderboard.scored import FileResult
from refcocom_gpu.utils.files import parquet_bytes
from refcocom_gpu.utils.text import as_text

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

INDEX, EXAMPLES, PER_EXAMPLE, MASKS = "sweep.json", "examples.parquet", "per_example", "masks"
SCHEMA_NAME, SCHEMA_VERSION = "refcocom-sweep", 1

CARRIED = (
    "index", "sample_id", "sentence_idx", "image_id", "intersection", "pred_area", "target_area", "status",
)  # fmt: skip
"""Columns of a single result that the file of each row repeats; `examples.parquet` holds the others."""

OF_PREDICTIONS = ["intersection", "pred_area", "status"]
"""Columns of a single result that depend on the predictions."""

CHECK = "xxh3_128"
"""Key of the index that holds a hash of all its other content."""


class Product(NamedTuple):
    """A file that a sweep wrote.

    Attributes:
        file: Its path below the folder of the sweep.
        digest: 32 hex digits, the xxh3 hash of its bytes.
    """

    file: str
    digest: str


def index_files(
    results: Sequence[FileResult],
    board: Leaderboard,
    products: Sequence[Product | None],
    masks: Sequence[Product | None],
    store: MaskStore,
    options: Mapping[str, Any],
) -> dict[str, bytes]:
    """Return the content of `EXAMPLES` and `INDEX`.

    Args:
        results: All of the sweep.
        board: The leaderboard of them.
        products: For each result the file of its examples.
        masks: For each result the file of its masks, if they are kept.
        store: Ground truth.
        options: How the predictions were read.
    """
    n = len(store)
    unpredicted = per_example(store, np.zeros((n, 2), np.int64), np.zeros(0, np.int64))
    examples = parquet_bytes(unpredicted.drop_columns([*OF_PREDICTIONS, IOU]))
    manifest = {name: column.to_pylist() for name, column in manifest_columns(results).items()}
    # First the rows of the leaderboard with their numbers, then what it leaves out.
    numbered = [*enumerate(board.order, 1), *((None, place) for place in board.others)]
    rows = []
    for number, place in numbered:
        result, product, kept = results[place], products[place], masks[place]
        if product is not None:
            rows.append(
                {
                    "row": number,
                    "model": as_text(result.model),
                    "path": as_text(result.path),
                    "columns": {name: values[place] for name, values in manifest.items()},
                    "predictions": result.digest,
                    "warnings": list(result.warnings),
                    "per_example": as_text(product.file),
                    "per_example_xxh3_128": product.digest,
                    **({"masks": kept.file, "masks_xxh3_128": kept.digest} if kept else {}),
                }
            )
    about = board.about
    content = {
        "schema": SCHEMA_NAME,
        "version": SCHEMA_VERSION,
        **{key: about[key] for key in ("refcocom_gpu", "dataset", "convention", "precision")},
        "options": dict(options),
        "best_per": about["best_per"],
        "examples_xxh3_128": xxhash.xxh3_128_hexdigest(examples),
        "rows": [
            {"name": name, **row} for name, row in zip(names_of_rows(rows), rows, strict=True)
        ],
    }
    # As it will be read: a name that is not Unicode is escaped.
    content = json.loads(as_text(json.dumps(content, ensure_ascii=False)))
    text = json.dumps({**content, CHECK: check_of(content)}, indent=2, ensure_ascii=False) + "\n"
    return {EXAMPLES: examples, INDEX: text.encode()}


def names_of_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each row: its model, and for a model of several rows, after an @, the first column that tells these apart.

    Where no column does so by itself, all that differ follow, and where these do not either, the path.

    >>> rows = [{"model": m, "path": p, "columns": {"step": s}} for m, p, s in ("aA1", "aB2", "bC2", "bD2", "cE3")]
    >>> names_of_rows(rows)
    ['a@1', 'a@2', 'b@C', 'b@D', 'c']
    """
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(row["model"], []).append(row)
    names = []
    for row in rows:
        group = alike[row["model"]]
        names.append(row["model"] if len(group) == 1 else f"{row['model']}@{_label(row, group)}")
    return names


def _label(row: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> str:
    columns = list(row["columns"])
    differing = [n for n in columns if len({shown(other["columns"][n]) for other in group}) > 1]
    for names in (*([name] for name in differing), differing):
        labels = [",".join(shown(other["columns"][name]) for name in names) for other in group]
        if len(set(labels)) == len(group):
            return ",".join(shown(row["columns"][name]) for name in names)
    return str(row["path"])


def check_of(content: Mapping[str, Any]) -> str:
    """Return a hash of all but `CHECK` of an index."""
    others = {key: value for key, value in content.items() if key != CHECK}
    return xxhash.xxh3_128_hexdigest(json.dumps(others, sort_keys=True).encode())
