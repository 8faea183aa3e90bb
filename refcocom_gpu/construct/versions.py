"""An original set and a refined one in, the `Versions` that a page shows out: what stayed, how it changed, why not.

What `construct` wrote holds its own reasons, in its audit. Other sets are paired by `truth_noise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from refcocom_gpu.construct.audit import EXPRESSIONS as EXPRESSION_COLUMNS
from refcocom_gpu.construct.audit import INSTANCES as INSTANCE_COLUMNS
from refcocom_gpu.construct.folder import SUMMARY
from refcocom_gpu.construct.keep import CAUSES, EXPRESSION_CAUSES
from refcocom_gpu.construct.truth_noise import truth_noise
from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import DatasetError
from refcocom_gpu.report.before_after import EXPRESSIONS, INSTANCES, KEPT, Versions
from refcocom_gpu.store.match import SAMPLE_RULES, SENTENCE_RULES
from refcocom_gpu.utils.files import VERIFIED, regular
from refcocom_gpu.utils.text import base_name

INSTANCE = "instance"
"""The cause of expressions whose instance was removed."""


def before_after(original: Dataset | str | Path, refined: Dataset | str | Path) -> Versions:
    """Hold an original set against a refined one.

    Args:
        original: The original set, or its name or path.
        refined: The refined set, or its name or path; of a folder that `construct` wrote, the audit says what was
            removed and why.

    Raises:
        DatasetError: A set cannot be used, or the audit is not one of the original.
        DataError: The two have no example in common.
        UsageError: There is no such set.

    >>> before_after("sample", "sample")
    Versions('sample' → 'sample': 105 of 105 instances, 297 of 297 expressions)
    """
    before = original if isinstance(original, Dataset) else load_dataset(original)
    if not isinstance(refined, Dataset):
        if (folder := Path(refined).expanduser()).joinpath(SUMMARY).is_file():
            return of_audit(before, folder)
        refined = load_dataset(refined)
    return _of_match(before, refined)


def of_audit(original: Dataset, folder: Path) -> Versions:
    """Return the two versions of a set that `construct` wrote.

    Raises:
        DatasetError: The audit cannot be read, or is not one of `original`.
    """
    rows, expressions = (
        _table(folder / "audit" / f"{name}.parquet", columns)
        for name, columns in (("instances", INSTANCE_COLUMNS), ("expressions", EXPRESSION_COLUMNS))
    )
    if [row["sample_id"] for row in rows] != original.sample_ids.tolist():
        raise DatasetError(f"{folder} was not made of {original.source}: their samples differ")
    # What went with its instance is not harmful, and tells what the instance is.
    shown: dict[int, list[str]] = {}
    for row in expressions:
        if row["cause"] in {"", INSTANCE}:
            shown.setdefault(row["sample_id"], []).append(row["sentence"])
    instances = [
        {
            "sample": k,
            "sentences": _joined(shown.get(row["sample_id"], [])),
            "after": row["counts"],
            "fate": row["cause"] or KEPT,
            "reason": row["reason"],
            "iou": row["original_iou"] if row["counts"] else None,
            "boundary_iou": row["original_boundary_iou"] if row["counts"] else None,
            "after_area": row["area"] if row["counts"] else None,
        }
        for k, row in enumerate(rows)
    ]
    gone = [
        {"key": f"{row['sample_id']}_{row['sentence_idx']}", "cause": row["cause"]}
        for row in expressions
        if not row["kept"]
    ]
    return Versions(
        original,
        (base_name(original.source), base_name(str(folder))),
        pa.Table.from_pylist(instances, INSTANCES),
        pa.Table.from_pylist(gone, EXPRESSIONS),
        {**CAUSES, **EXPRESSION_CAUSES, INSTANCE: "its instance was removed"},
        (len(expressions), len(expressions) - len(gone)),
    )


def _of_match(original: Dataset, refined: Dataset) -> Versions:
    noise = truth_noise(original, refined)
    match, masks = noise.match, noise.masks.to_pylist()
    by_sample = dict(zip(np.flatnonzero(match.source_sample >= 0).tolist(), masks, strict=True))
    texts = original.examples["sentence"].to_pylist()
    instances, gone = [], []
    for k, rule in enumerate(match.sample_rule):
        pair, counterpart = by_sample.get(k), int(match.source_sample[k])
        examples = range(*original.first_example[k : k + 2].tolist())
        stays = [i for i in examples if match.source_index[i] >= 0]
        instances.append(
            {
                "sample": k,
                "sentences": _joined([texts[i] for i in stays]),
                "after": None if pair is None else refined.counts.row(counterpart).decode("ascii"),
                "fate": rule if pair is None else KEPT,
                "reason": SAMPLE_RULES[rule].meaning if pair is None else "",
                "iou": pair and pair["iou"],
                "boundary_iou": pair and pair["boundary_iou"],
                "after_area": pair and pair["truth_area"],
            }
        )
        gone += [
            {"key": f"{original.sample_ids[k]}_{i - examples.start}", "cause": match.rule[i]}
            for i in examples
            if match.source_index[i] < 0
        ]
    meanings = {name: rule.meaning for name, rule in (SAMPLE_RULES | SENTENCE_RULES).items()}
    return Versions(
        original,
        (base_name(original.source), base_name(refined.source)),
        pa.Table.from_pylist(instances, INSTANCES),
        pa.Table.from_pylist(gone, EXPRESSIONS),
        meanings,
        (original.n_examples, match.n_matched),
    )


def _joined(sentences: list[str]) -> str:
    return " · ".join(sentences) or "(no expression)"


def _table(path: Path, columns: Mapping[str, pa.DataType]) -> list[dict[str, Any]]:
    try:
        table = pq.ParquetFile(regular(path), **VERIFIED).read()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    if lacking := [name for name in columns if name not in table.column_names]:
        raise DatasetError(f"{path} is no audit of a construction: it lacks {', '.join(lacking)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
