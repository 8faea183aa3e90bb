"""Ground truth and predictions in, COCO's `instances.json` and results out, as pycocotools loads them.

An annotation is a sample, with all its expressions; a result is the prediction for one expression. Annotations and
categories are numbered from 1. Our keys (`sample_id`, `sentence_idx`, where needed `position`) stand beside theirs.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.report.export.content import Content, Ints, corner_box


def coco_files(content: Content) -> dict[str, bytes]:
    """Return the content of `instances.json` and, for a result, `predictions.json`."""
    dataset = content.store.dataset
    images, categories = image_numbers(dataset), category_numbers(dataset)
    files = {
        "instances.json": {
            "info": content.info,
            "licenses": [],
            "images": _images(content, images),
            "annotations": _annotations(content, images, categories),
            "categories": [
                {"id": number, "name": name, "supercategory": above}
                for (name, above), number in categories.items()
            ],
        }
    }
    contents = {name: json.dumps(held).encode() for name, held in files.items()}
    if content.predicted is not None:
        # Last, because its presence shows that both are there.
        results = _results(content, images, categories)
        contents["predictions.json"] = json.dumps(results).encode()
    return contents


def image_numbers(dataset: Dataset) -> Ints:
    """Return the id of each image: its `image_id`, or where one repeats, the numbers from 1."""
    ids = dataset.image_ids
    return ids if len(np.unique(ids)) == len(ids) else np.arange(1, len(ids) + 1)


def category_numbers(dataset: Dataset) -> dict[tuple[str, str], int]:
    """Return a number for each category with its supercategory, from 1, in the order of their names."""
    return {pair: number for number, pair in enumerate(sorted(set(_categories(dataset))), 1)}


def _categories(dataset: Dataset) -> list[tuple[str, str]]:
    names = (dataset.samples[name].to_pylist() for name in ("category", "supercategory"))
    return [(category or "", above or "") for category, above in zip(*names, strict=True)]


def _images(content: Content, images: Ints) -> list[dict[str, Any]]:
    dataset = content.store.dataset
    # The samples of an image are consecutive, and their masks have its size.
    rows, first = np.unique(dataset.sample_image, return_index=True)
    names = dataset.images["file_name"].to_pylist()
    return [
        {
            "id": int(images[row]),
            "file_name": names[row] or f"{dataset.image_ids[row]}",
            "height": int(dataset.heights[sample]),
            "width": int(dataset.widths[sample]),
        }
        for row, sample in zip(rows.tolist(), first.tolist(), strict=True)
    ]


def _annotations(
    content: Content, images: Ints, categories: dict[tuple[str, str], int]
) -> list[dict[str, Any]]:
    store, dataset = content.store, content.store.dataset
    pairs, strings, boxes = _categories(dataset), content.true_strings, store.boxes
    sentences = dataset.examples["sentence"].to_pylist()
    return [
        {
            "id": sample + 1,
            "image_id": int(images[dataset.sample_image[sample]]),
            "category_id": categories[pairs[sample]],
            "segmentation": _segmentation(content, sample, strings.row(sample)),
            "area": int(store.areas[sample]),
            "bbox": corner_box(boxes[sample]),
            "iscrowd": 0,
            "sample_id": int(dataset.sample_ids[sample]),
            "sentences": sentences[slice(*dataset.first_example[sample : sample + 2])],
        }
        for sample in range(dataset.n_samples)
    ]


def _results(
    content: Content, images: Ints, categories: dict[tuple[str, str], int]
) -> list[dict[str, Any]]:
    predicted, dataset = content.predicted, content.store.dataset
    assert predicted is not None
    pairs, sentences = _categories(dataset), dataset.examples["sentence"].to_pylist()
    rows = []
    for index in np.flatnonzero(predicted.given).tolist():
        sample = int(dataset.example_sample[index])
        rows.append(
            {
                "image_id": int(images[dataset.sample_image[sample]]),
                "category_id": categories[pairs[sample]],
                "segmentation": _segmentation(content, sample, predicted.strings.row(index)),
                "score": 1.0,
                "sample_id": int(dataset.sample_ids[sample]),
                **dict(zip(dataset.example_key_fields, dataset.key_of(index), strict=True)),
                "sentence": sentences[index],
                "iou": float(predicted.iou[index]),
                **({} if (label := predicted.labels[index]) is None else {"no_target": label}),
            }
        )
    return rows


def _segmentation(content: Content, sample: int, counts: bytes) -> dict[str, Any]:
    store = content.store
    size = [int(store.heights[sample]), int(store.widths[sample])]
    return {"size": size, "counts": counts.decode("ascii")}
