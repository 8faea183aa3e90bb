"""True masks, or records, in memory in; a `MaskStore` whose example k is the mask k, or a `Dataset`, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refcocom_gpu.dataset import records
from refcocom_gpu.dataset.checks import check_columns
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import RLEError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.normalise import as_prediction, is_rle, is_tensor
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.store.store import MaskStore

SOURCE = "references"


def store_of_masks(masks: Sequence[Any]) -> MaskStore:
    """Make a store of true masks; nothing is kept on disk.

    Args:
        masks: N masks, each a COCO RLE object, or [H, W] of bools or of the integers 0 and one other. A mask without a
            pixel is the truth of an expression without a target.

    Returns:
        A store of N examples in this order, each of a sample and an image of its own.

    Raises:
        UsageError: There is no mask, or one is something else.

    >>> store = store_of_masks([np.eye(3, dtype=bool), {"size": [2, 3], "counts": [1, 2, 3]}])
    >>> len(store), store.areas.tolist()
    (2, [3, 2])
    """
    if not masks:
        raise UsageError(
            "no references: true masks, or the keys or indices of a dataset's examples"
        )
    rows = []
    for number, mask in enumerate(masks):
        encoded = _encoded(mask, f"reference {number}")
        sample = {"id": number, "sentences": [""], "mask": encoded}
        sample["no_target"] = not rle.decode(encoded).any()
        rows.append({"image_id": number, "file_name": "", "samples": [sample]})
    dataset = dataset_of(records.from_records(rows, SOURCE), SOURCE)
    return MaskStore.build(dataset, cache=False)


def dataset_of(columns: records.Columns, source: str) -> Dataset:
    """Return records in memory as a dataset without pictures, whose examples are named by sample id.

    Raises:
        DatasetError: They are invalid, or their ids repeat.
    """
    images, samples, examples, fingerprint = check_columns(columns, "sample_id", source)
    return Dataset(images, samples, examples, "sample_id", source, None, "validation", fingerprint)


def _encoded(mask: Any, where: str) -> Mapping[str, Any]:
    """Return a mask as an RLE object whose counts are a string."""
    try:
        if is_rle(mask):
            height, width, counts = rle.check(mask)
            rle.ends_of(mask, height, width)
            return {"size": [height, width], "counts": counts.decode()}
        array: Any = None if mask is None else as_prediction(mask, ReadOptions())
        if is_tensor(array):
            array = array.cpu().numpy()
        if array is None or array.ndim != 2 or array.dtype.kind not in "bui":
            raise UsageError("a true mask is COCO RLE or [H, W] of bools or integers")
        values = np.unique(array)
        if array.dtype.kind != "b" and np.count_nonzero(values) > 1:
            raise UsageError(f"a true mask holds 0 and one other value, not {values[:4].tolist()}")
        return rle.encode(array)
    except (RLEError, UsageError) as error:
        raise UsageError(f"{where}: {error}") from None
