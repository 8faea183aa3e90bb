"""Ground truth and predictions in, the `samples.json` and `metadata.json` of a `FiftyOneDataset` folder out.

The fields are those of Voxel51's copy of RefCOCO-M: a sample per image with `image_id` and `file_name`, and in
`detections` one per expression, whose `label` is the expression. Ours are `sample_id` and `sentence_idx` in each, and
`predictions` with the `iou` of each. FiftyOne reads both files as the extended JSON of MongoDB: bytes are
`{"$binary": …}`, and a mask is the zlib-compressed `.npy` of its pixels within the box.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.masks import rle
from refcocom_gpu.report.export.content import Content, Ints

VERSION = "0.25.0"
"""The version of FiftyOne whose files these are; later ones bring them up to date when they load them."""

TRUE, PREDICTED = "detections", "predictions"
"""The fields of a sample that hold its detections."""


def fiftyone_files(content: Content, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the content of `samples.json` and `metadata.json`.

    Args:
        content: What is exported.
        paths: The path of each picture below the folder, by row of `dataset.images`.
    """
    document = {
        "version": VERSION,
        "name": "refcocom",
        "media_type": "image",
        "tags": [],
        "info": content.info,
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": _schema(has_predictions=content.predicted is not None),
    }
    samples = {"samples": _samples(content, paths)}
    # The document comes last, because without it there is no dataset.
    return {
        "samples.json": json.dumps(samples).encode(),
        "metadata.json": json.dumps(document).encode(),
    }


# Samples ------------------------------------------------------------------------------------------


def _samples(content: Content, paths: Sequence[str]) -> list[dict[str, Any]]:
    dataset = content.store.dataset
    first = np.searchsorted(dataset.sample_image, np.arange(dataset.n_images + 1))
    names = dataset.images["file_name"].to_pylist()
    samples = []
    for row, path in enumerate(paths):
        of_image = range(first[row], first[row + 1])
        if not of_image:
            continue
        sample = {
            "_id": _object_id(content, "image", row),
            "_rand": xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogateescape")) / 2**64,
            "_media_type": "image",
            "filepath": path,
            "tags": [],
            "metadata": {
                "_cls": "ImageMetadata",
                "width": int(dataset.widths[of_image[0]]),
                "height": int(dataset.heights[of_image[0]]),
            },
            "image_id": int(dataset.image_ids[row]),
            "file_name": names[row],
            TRUE: _held(_true(content, of_image)),
        }
        if content.predicted is not None:
            sample[PREDICTED] = _held(_predicted(content, of_image))
        samples.append(sample)
    return samples


def _held(detections: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Detections", "detections": detections}


def _true(content: Content, of_image: range) -> list[dict[str, Any]]:
    store, dataset = content.store, content.store.dataset
    found = []
    for sample in of_image:
        shape = _shape(content, sample, content.true_strings.row(sample), store.boxes[sample])
        for index in range(*dataset.first_example[sample : sample + 2].tolist()):
            found.append(_detection(content, TRUE, index, shape))
    return found


def _predicted(content: Content, of_image: range) -> list[dict[str, Any]]:
    predicted, dataset = content.predicted, content.store.dataset
    assert predicted is not None
    found = []
    for sample in of_image:
        for index in range(*dataset.first_example[sample : sample + 2].tolist()):
            if predicted.given[index]:
                counts, box = predicted.strings.row(index), predicted.boxes[index]
                shape = _shape(content, sample, counts, box)
                iou = float(predicted.iou[index])
                found.append({**_detection(content, PREDICTED, index, shape), "iou": iou})
    return found


def _detection(content: Content, field: str, index: int, shape: dict[str, Any]) -> dict[str, Any]:
    dataset = content.store.dataset
    sample = int(dataset.example_sample[index])
    sample_id = int(dataset.sample_ids[sample])
    ref_id = dataset.fact(index, "ref_id")
    return {
        "_id": _object_id(content, field, index),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": dataset.fact(index, "sentence"),
        **shape,
        "confidence": 1.0,
        "category": dataset.fact(index, "category"),
        "supercategory": dataset.fact(index, "supercategory"),
        "ref_id": sample_id if ref_id is None else ref_id,
        "sample_id": sample_id,
        "sentence_idx": int(dataset.example_sentence_idx[index]),
    }


def _shape(content: Content, sample: int, counts: bytes, box: Ints) -> dict[str, Any]:
    """Return the box, as shares of width and height, and the pixels in it; none where the mask is empty."""
    height, width = int(content.store.heights[sample]), int(content.store.widths[sample])
    x0, y0, x1, y1 = box.tolist()
    mask = rle.decode({"size": [height, width], "counts": counts})[y0:y1, x0:x1]
    return {
        "bounding_box": [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
        "mask": packed(mask) if mask.size else None,
    }


def packed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return an array as FiftyOne keeps it: the zlib-compressed bytes of its `.npy` file, in extended JSON.

    >>> packed(np.ones((1, 2), bool))["$binary"]["subType"]
    '00'
    """
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(mask), allow_pickle=False)
    text = base64.b64encode(zlib.compress(file.getvalue())).decode("ascii")
    return {"$binary": {"base64": text, "subType": "00"}}


def _object_id(content: Content, kind: str, number: int) -> dict[str, str]:
    """Return an id that is the same whenever the same is exported; its time, the first eight digits, is none."""
    text = f"{content.info['fingerprint']}/{kind}/{number}"
    return {"$oid": f"00000000{xxhash.xxh3_64_hexdigest(text.encode())}"}


# Schema -------------------------------------------------------------------------------------------


def _schema(*, has_predictions: bool) -> list[dict[str, Any]]:
    """Return the fields of a sample, as FiftyOne describes them."""
    metadata = [
        _field("size_bytes", "Int"),
        _field("mime_type", "String"),
        *(_field(name, "Int") for name in ("width", "height", "num_channels")),
    ]
    return [
        _field("id", "ObjectId", db_field="_id"),
        _field("filepath", "String"),
        _field("tags", "List", subfield="String"),
        _field("metadata", "EmbeddedDocument", document="metadata.ImageMetadata", inner=metadata),
        _field("image_id", "Int"),
        _field("file_name", "String"),
        _detections(TRUE, []),
        *([_detections(PREDICTED, [_field("iou", "Float")])] if has_predictions else []),
    ]


def _detections(name: str, more: list[dict[str, Any]]) -> dict[str, Any]:
    inner = [
        _field("id", "ObjectId", db_field="_id"),
        _field("attributes", "Dict", subfield="EmbeddedDocument", document="labels.Attribute"),
        _field("tags", "List", subfield="String"),
        _field("label", "String"),
        _field("bounding_box", "List", subfield="Float"),
        _field("mask", "Array"),
        _field("confidence", "Float"),
        _field("index", "Int"),
        *(_field(text, "String") for text in ("category", "supercategory")),
        *(_field(number, "Int") for number in ("ref_id", "sample_id", "sentence_idx")),
        *more,
    ]
    held = _field(
        "detections", "List", subfield="EmbeddedDocument", document="labels.Detection", inner=inner
    )
    return _field(name, "EmbeddedDocument", document="labels.Detections", inner=[held])


def _field(
    name: str,
    kind: str,
    *,
    subfield: str | None = None,
    document: str | None = None,
    inner: Sequence[dict[str, Any]] = (),
    db_field: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": f"fiftyone.core.fields.{kind}Field",
        "embedded_doc_type": None if document is None else f"fiftyone.core.{document}",
        "subfield": None if subfield is None else f"fiftyone.core.fields.{subfield}Field",
        "fields": list(inner),
        "db_field": db_field or name,
        "description": None,
        "info": None,
    }
