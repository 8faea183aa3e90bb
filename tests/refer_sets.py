"""Small sets with the ids of the original ones, for tests of how predictions name their examples."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Case, coco_encode, make_case

import refcocom_gpu as rc
from refcocom_gpu.dataset.known import KNOWN, Counts

SIZE = (12, 17)


def instances(sentences: list[list[str]], ann_ids: list[int] | None = None) -> list[dict[str, Any]]:
    """Rows of a copy: an instance for each list of sentences, two in an image; ids of every kind differ."""
    rng = np.random.default_rng(len(sentences))
    rows, n_sentences = [], 0
    for k, texts in enumerate(sentences):
        rows.append(
            {
                "ref_id": 40 + 3 * k,
                "ann_id": 900 - k if ann_ids is None else ann_ids[k],
                "image_id": 7 + k // 2,
                "file_name": f"COCO_{7 + k // 2}.jpg",
                "split": "val",
                "sentences": texts,
                "sent_ids": [5000 + 2 * n for n in range(n_sentences, n_sentences + len(texts))],
                "segmentation": coco_encode(rng.random(SIZE) < 0.5),
            }
        )
        n_sentences += len(texts)
    return rows


def refer_case(folder: Path, rows: list[dict[str, Any]]) -> Case:
    """The set of these rows, with predictions and their counts."""
    path = folder / "refer.json"
    path.write_text(json.dumps(rows))
    return make_case(rc.MaskStore.build(rc.load_dataset(path), cache=False))


def publish(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    images: int | None,
    samples: int | None,
    examples: int | None,
    **where: str,
) -> None:
    """Make these the published counts of a known set: of `split=` of `split_by=`, or of its only split."""
    known = KNOWN[name]
    split_by = where.get("split_by", next(iter(known.splits)))
    splits = known.splits[split_by]
    counts = {where.get("split", next(iter(splits))): Counts(images, samples, examples)}
    changed = replace(known, splits={**known.splits, split_by: {**splits, **counts}})
    monkeypatch.setitem(KNOWN, name, changed)


def facts(case: Case, names: Any, indices: Any = None) -> list[dict[str, Any]]:
    """Rows that state these facts of their examples."""
    dataset = case.dataset
    indices = range(dataset.n_examples) if indices is None else indices
    return [
        {
            **{name: dataset.fact(k, name) for name in names},
            "segmentation": coco_encode(case.masks[k]),
        }
        for k in indices
    ]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Any:
    """Rows in the format of the ending; `.saved` is a folder of `save_to_disk`, `.folder` one of JSON lines."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet as pq
    from helpers import write_jsonl

    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix == ".folder":
        path.mkdir()
        half = len(rows) // 2
        write_jsonl(path / "a.jsonl", rows[:half])
        write_jsonl(path / "b.jsonl", rows[half:])
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path)
    else:
        import datasets

        dataset = datasets.Dataset.from_list(rows)
        if path.suffix != ".saved":
            return dataset
        dataset.save_to_disk(path)
    return path


TABLES = [".jsonl", ".json", ".parquet", ".feather", ".folder", ".saved", ".memory"]


def write_release(folder: Path, *names: str, splits: tuple[str, ...] = ("val",)) -> Path:
    """A release of four instances in two images in each split, in the files of these names beside `instances.json`.

    The references of each file are those of its split, so a `split` tells which file was read only by its ids: those of
    the second file are 1000 higher than those of the first.
    """
    folder.mkdir(exist_ok=True)
    rows = instances([["left one", "it"], ["thé"], ["dog"], ["the dog", "a dog", "dog"]])
    for k, name in enumerate(names):
        refs = [
            {
                **{key: row[key] for key in ("ann_id", "image_id", "file_name")},
                "ref_id": row["ref_id"] + 1000 * k + 100 * s,
                "split": split,
                "sentences": [{"sent": text} for text in row["sentences"]],
            }
            for s, split in enumerate(splits)
            for row in rows
        ]
        file = folder / name
        file.write_bytes(
            json.dumps(refs).encode() if file.suffix == ".json" else pickle.dumps(refs, 2)
        )
    height, width = SIZE
    images = {row["image_id"]: row["file_name"] for row in rows}
    known = {
        "images": [
            {"id": k, "height": height, "width": width, "file_name": name}
            for k, name in images.items()
        ],
        "annotations": [
            {"id": row["ann_id"], "category_id": 1, **{k: row[k] for k in ("image_id", "segmentation")}}
            for row in rows
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(known))
    return folder
