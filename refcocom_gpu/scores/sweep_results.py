"""The folder of a result or of a sweep in, results out: of a sweep a `Result` for each row, as named in `sweep:1`.

Whatever takes a result by its path asks `find_result`. `sweep_folder` writes what is read here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from refcocom_gpu.counting.measures import METRICS
from refcocom_gpu.errors import ResultsError, UsageError
from refcocom_gpu.scores.example_table import SCHEMA, with_iou
from refcocom_gpu.scores.folder import holds_result
from refcocom_gpu.scores.leaderboard.formats import shown
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.scores.result import Result, load_result
from refcocom_gpu.scores.saved_masks import MasksFile
from refcocom_gpu.scores.sweep_folder import (
    CHECK,
    EXAMPLES,
    INDEX,
    OF_PREDICTIONS,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    check_of,
)
from refcocom_gpu.utils.arrow import reader_of
from refcocom_gpu.utils.files import VERIFIED, regular

LISTED = 5
"""Most names that a message lists."""

_AGAIN = "run the sweep again, which makes damaged files anew"


class SweepResults(Mapping[int | str, Result]):
    """The results in the folder of a sweep, each read when it is asked for.

    A key is the number of a row of the leaderboard, from 1, or what `find` takes. Iterating gives the numbers.

    Attributes:
        folder: Of the sweep.
        about: What all rows have in common: dataset, convention, options.
        rows: Name, model, path and columns of the manifest for each set that was scored: the rows of the leaderboard
            first, then those that `best_per` left out, whose `row` is None.

    Raises:
        ResultsError: The folder holds no whole sweep of a version that this package reads.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        content = _read_index(self.folder)
        self.rows: list[dict[str, Any]] = content.pop("rows")
        self.about = content
        self._ranked: dict[int, dict[str, Any]] = {
            row["row"]: row for row in self.rows if row["row"] is not None
        }

    def __len__(self) -> int:
        return len(self._ranked)

    def __repr__(self) -> str:
        return f"SweepResults({str(self.folder)!r}, rows={len(self)})"

    def __iter__(self) -> Iterator[int]:
        return iter(self._ranked)

    def __getitem__(self, key: int | str) -> Result:
        try:
            row = self.find(str(key))
        except UsageError as error:
            raise KeyError(str(error)) from None
        return self.result(row)

    def find(self, text: str) -> dict[str, Any]:
        """Return the row that a text names.

        Args:
            text: The number of a row, the name of a row, a model, a path, or `MODEL@VALUE` with a value of any column.

        Raises:
            UsageError: No row is named so, or several are.

        Example:
            `find("1")`, `find("lisa@6000")`, `find("runs/a/preds.jsonl")`
        """
        if text.isdecimal() and int(text) in self._ranked:
            return self._ranked[int(text)]
        for matches in (
            [row for row in self.rows if row["name"] == text],
            [row for row in self.rows if text in _labels(row)],
        ):
            if len(matches) == 1:
                (match,) = matches
                return match
            if matches:
                raise UsageError(
                    f"{self.folder} holds {len(matches)} rows {text!r}: {_listed(matches)}"
                )
        close = get_close_matches(text, [row["name"] for row in self.rows], LISTED, 0.3)
        near = [row for row in self.rows if row["name"] in close] or self.rows
        raise UsageError(
            f"{self.folder} holds no row {text!r}; rows are 1 to {len(self)}, or by name: {_listed(near)}"
        )

    def result(self, row: Mapping[str, Any]) -> Result:
        """Return the result of a row.

        Args:
            row: One of `rows`.

        Raises:
            ResultsError: A file is absent or damaged.
        """
        counts = _verified(self.folder, row["per_example"], row["per_example_xxh3_128"])
        examples = _verified(self.folder, EXAMPLES, self.about["examples_xxh3_128"])
        about = self.about
        metrics = about["options"].get("metrics", [])
        columns = (c for name in metrics if name in METRICS for c in METRICS[name].columns)
        measured = [name for name in columns if name in counts.column_names]
        for name in OF_PREDICTIONS:
            examples = examples.append_column(name, counts.column(name))
        info = {
            "dataset": about["dataset"],
            "predictions": {"source": row["path"], "xxh3_128": row["predictions"]},
            "sweep": {key: row[key] for key in ("row", "name", "model", "columns")},
            "options": about["options"],
            **({"metrics": metrics} if metrics else {}),
            "warnings": row["warnings"],
            "versions": {"refcocom-gpu": about["refcocom_gpu"]},
        }
        table = with_iou(examples.select(SCHEMA.names).cast(SCHEMA))
        for name in (*measured, *({PRED_NO_TARGET} & {*counts.column_names})):
            table = table.append_column(name, counts.column(name))
        masks = row.get("masks")
        held = None if masks is None else MasksFile(self.folder / masks, row["masks_xxh3_128"])
        return Result(table, info, about["convention"], about["precision"] == ">", held_masks=held)


def load_results(path: str | Path) -> Result | SweepResults:
    """Read back what `Result.save` or a sweep wrote; every score is computed again from the counts of each example.

    Args:
        path: The folder of a result; the folder of a sweep; or a row of a sweep, as `find_result` takes it.

    Returns:
        A result, or for the folder of a sweep a mapping of results by row.

    Raises:
        ResultsError: When a file is absent, altered since it was written, or of a newer schema version.
        UsageError: The folder of a sweep holds no such row.
    """
    if not holds_result(path) and holds_sweep(path):
        return SweepResults(path)
    result = find_result(path)
    return load_result(path) if result is None else result


def find_result(path: str | Path) -> Result | None:
    """Return the result that a text names; None if it names none, and may be the path of predictions.

    Args:
        path: The folder of a result, or `FOLDER:ROW`: the folder of a sweep and what `SweepResults.find` takes. A path
            that exists is always taken for that path.

    Raises:
        ResultsError: A file is absent or damaged.
        UsageError: The folder of a sweep is named without a row, or holds no such row.
    """
    text = os.fspath(path)
    if holds_result(path):
        return load_result(path)
    if holds_sweep(path):
        results = SweepResults(path)
        raise UsageError(
            f"{path} holds the results of a sweep: name one of them, as in {path}:1 or {path}:{results.rows[0]['name']}"
            if results.rows
            else f"{path} holds a sweep in which nothing could be scored"
        )
    if os.path.exists(text):  # noqa: PTH110 (Path's raises for a name that is too long)
        return None
    for colon in (k for k, character in enumerate(text) if character == ":"):
        folder, row = text[:colon], text[colon + 1 :]
        if holds_sweep(folder):
            results = SweepResults(folder)
            return results.result(results.find(row))
    return None


def holds_sweep(folder: str | Path) -> bool:
    """Return whether a sweep wrote this folder, even if its files have been damaged since."""
    return os.path.exists(os.path.join(folder, INDEX))  # noqa: PTH110, PTH118


def _labels(row: Mapping[str, Any]) -> set[str]:
    values = {row["path"], *map(shown, row["columns"].values())}
    return {row["model"], row["path"], *(f"{row['model']}@{value}" for value in values)}


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    more = f", and {len(rows) - LISTED:,} more" if len(rows) > LISTED else ""
    return ", ".join(row["name"] for row in rows[:LISTED]) + more


def _verified(folder: Path, name: str, digest: str) -> pa.Table:
    path = folder / name
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}; {_AGAIN}") from None
    if xxhash.xxh3_128_hexdigest(content) != digest:
        raise ResultsError(f"{path} is not the file that {INDEX} was written with; {_AGAIN}")
    # Not read_table, which takes the folder `model=…` for a column.
    return pq.ParquetFile(reader_of(content), **VERIFIED).read()


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        content = json.loads(regular(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}; {_AGAIN}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA_NAME:
        raise ResultsError(f"{path} is no index of a sweep of this package")
    version = content.get("version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has schema version {version}; this package reads up to {SCHEMA_VERSION}"
        )
    if content.get(CHECK) != check_of(content):
        raise ResultsError(f"{path} was altered since it was written; {_AGAIN}")
    return content
