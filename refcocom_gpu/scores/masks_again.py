"""A result without masks and its predictions given again in, their masks out, once they are known to be the same.

Reading needs the keys, sentences and sizes of the examples, which the table of a result holds, and no true mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.counting.choose import batch_counter
from refcocom_gpu.counting.mask_saver import MaskSaver
from refcocom_gpu.counting.rows import PRED_AREA, reject
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import Problems, ResultsError
from refcocom_gpu.masks.rle import Column
from refcocom_gpu.predictions.labels import NO_TARGET
from refcocom_gpu.predictions.options import refuse_boxes
from refcocom_gpu.predictions.read import find_source, read_predictions
from refcocom_gpu.predictions.value_options import ValueOptions
from refcocom_gpu.scores.saved_masks import has_mask, positions
from refcocom_gpu.scores.under import sample_numbers
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.utils.arrow import from_numpy, to_numpy
from refcocom_gpu.utils.changes import unchanged


def masks_again(
    table: pa.Table,
    info: Mapping[str, Any],
    predictions: Any,
    store: MaskStore | Dataset | None = None,
    **reading: Any,
) -> Column:
    """Read the masks of the predictions that a result was scored from; see `Result.with_masks`.

    Args:
        table: `per_example` of the result: N rows.
        info: What the result says of itself.
        predictions: As for `score`.
        store: Ground truth; None where the table says enough of the examples.
        reading: Options that are now others than those in `info`.
    """
    # Other thresholds and interpolations were counted beside the masks; they are no masks.
    known = {field.name for field in fields(ValueOptions)} - {"thresholds"}
    before = {k: v for k, v in info.get("options", {}).items() if k in known}
    options = ValueOptions(**{**before, **reading})
    options = replace(options, interpolation=options.interpolations[0])
    refuse_boxes(options, "with_masks")
    store = (
        MaskStore.build(_dataset_of(table, info), cache=False) if store is None else as_store(store)
    )
    if len(store) != len(table):
        raise ResultsError(f"the result has {len(table):,} examples, {store} has {len(store):,}")
    source, problems = find_source(predictions), Problems()
    with unchanged(source.files):
        _check_digest(info, source.about())
        batches, keys = read_predictions(source, store.dataset, options, problems)
        saver = MaskSaver(store, options.threads)
        counter = batch_counter(store, options, problems, saver=saver)
        for batch in batches:
            counter.add(batch)
        rows = counter.finish()
    reject(rows, keys.labels)
    rejected = np.flatnonzero(keys.labels == NO_TARGET)
    rows[rejected, -1] = saver.empty(store.example_sample[rejected])
    problems.raise_if_any()
    given, areas = has_mask(table), to_numpy(table.column("pred_area"))
    differ = (keys.given != given) | (given & (rows[:, PRED_AREA] != areas))
    if differ.any():
        first = int(differ.argmax())
        raise ResultsError(
            f"{source.name} is not what this result was scored from: {int(differ.sum()):,} predictions differ; "
            f"the first is that of {store.dataset.describe(first)}, of {rows[first, PRED_AREA]:,} pixels where the "
            f"result counted {areas[first]:,}"
        )
    return saver.strings(rows[:, -1])


def _check_digest(info: Mapping[str, Any], about: dict[str, Any]) -> None:
    """Compare the hash of files with that of the result, where both are known."""
    counted, given = info.get("predictions", {}).get("xxh3_128"), about.get("xxh3_128")
    if None not in (counted, given) and counted != given:
        raise ResultsError(
            f"{about['source']} is not what this result was scored from: its hash is {given}, and that of the "
            f"predictions that were scored is {counted}"
        )


def _dataset_of(table: pa.Table, info: Mapping[str, Any]) -> Dataset:
    """Return the examples of a result as a dataset whose masks are empty."""
    number = sample_numbers(table)
    image_ids = to_numpy(table.column("image_id"))
    firsts = np.flatnonzero(np.diff(number, prepend=0))
    of_image = _numbered(image_ids[firsts])
    begins = np.flatnonzero(np.diff(of_image, prepend=-1))
    heights, widths = (
        to_numpy(table.column(n))[firsts].astype(np.int64) for n in ("height", "width")
    )
    data, offsets = cpu.rle_write((heights * widths).astype(np.int32), np.arange(len(firsts) + 1))
    n = len(firsts)
    nothing = pa.nulls(n)
    sample_ids = to_numpy(table.column("sample_id"))[firsts]
    samples = {
        "sample_id": from_numpy(sample_ids),
        "image": from_numpy(of_image),
        "position": from_numpy(positions(number, image_ids)[firsts]),
        **{
            name: table.column(name).take(from_numpy(firsts))
            for name in ("category", "supercategory")
        },
        "height": from_numpy(heights),
        "width": from_numpy(widths),
        "counts": pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        ),
        "label": nothing.cast(pa.string()),
        "bbox": nothing.cast(pa.list_(pa.float64())),
        "ref_id": nothing.cast(pa.int64()),
        "ann_id": nothing.cast(pa.int64()),
        "no_target": pa.array([True] * n),
    }
    images = {
        "image_id": from_numpy(image_ids[firsts][begins]),
        "file_name": pa.nulls(len(begins), pa.string()),
    }
    examples = {
        "sample": from_numpy(number - 1),
        "sentence_idx": table.column("sentence_idx"),
        "sentence": table.column("sentence"),
        "sent_id": pa.nulls(len(table), pa.int64()),
    }
    about = info.get("dataset", {})
    return Dataset(
        pa.table(images),
        pa.table(samples),
        pa.table(examples),
        "sample_id" if len(np.unique(sample_ids)) == n else "image_position",
        str(about.get("source", "the examples of a result")),
        about.get("revision"),
        str(about.get("split", "")),
        str(about.get("fingerprint", "")),
    )


def _numbered(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number consecutive equal ids from 0."""
    return np.cumsum(np.diff(ids, prepend=ids[:1]) != 0)
