"""A result or a dataset and one example in, its picture with the masks drawn on it out: `rc.show`."""

from __future__ import annotations

import io
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.report.canvas import Canvas
from refcocom_gpu.report.overlay import LIGHT, Mask, Pixels, outlined, scored
from refcocom_gpu.report.truth import Truth, truth_of
from refcocom_gpu.scores.result import Result
from refcocom_gpu.store.store import MaskStore

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Key = int | str | tuple[int, int]


def show(
    what: Result | Dataset | MaskStore,
    example: Key,
    *,
    masks: Any = None,
    truth: Truth | None = None,
    images: str | Path | None = None,
) -> Picture:
    """Draw one example: the true mask as an outline, the prediction filled, what it missed striped.

    Args:
        what: A result that holds its masks (`save_masks=True`), or a dataset or its store.
        example: Its index, or its key `(sample_id, sentence_idx)`, which may be written `"17_0"`.
        masks: The predicted mask: [H, W] bool, or RLE with `size` and `counts`; or a mapping of such by index. By
            default that of the result; of a dataset, none is drawn.
        truth: The dataset of a result, or its store; by default the result's own is loaded.
        images: A folder that holds the pictures by `file_name`, where the dataset does not hold them.

    Returns:
        A picture of the image's size, whose `info` holds the `key`, the `sentence` and, where one is drawn, the `iou`
        of the prediction. Where no picture is at hand, the masks are drawn on grey, and `info["problem"]` says why.

    Raises:
        UsageError: There is no such example, the dataset of the result is not at hand, or Pillow is not installed.

    >>> import refcocom_gpu as rc
    >>> picture = rc.show(rc.load_dataset("sample"), 0)
    >>> picture.size, picture.info["sentence"]
    ((246, 221), 'red shape at the top')
    """
    store, said = _sides(what, masks, truth)
    dataset = store.dataset
    index = index_of(dataset, example)
    canvas = Canvas(dataset, images)
    picture = canvas.picture(int(dataset.sample_image[store.example_sample[index]]))
    true = store.mask(index)
    about: dict[str, Any] = {
        "key": "_".join(map(str, dataset.key_of(index))),
        "sentence": dataset.examples["sentence"][index].as_py(),
    }
    predicted = _predicted(said, index, true.shape)
    if predicted is None:
        drawn = outlined(picture, [(true, LIGHT)])
    else:
        drawn = scored(picture, true.view(np.uint8), predicted.view(np.uint8))
        union = int((true | predicted).sum())
        about["iou"] = int((true & predicted).sum()) / union if union else 1.0
    if canvas.problem:
        about["problem"] = canvas.problem
    return _as_picture(drawn, about)


def png(picture: Picture) -> bytes:
    """Return a picture as a PNG whose text fields hold its `info`."""
    from PIL.PngImagePlugin import PngInfo

    texts, buffer = PngInfo(), io.BytesIO()
    for name, value in picture.info.items():
        texts.add_itxt(str(name), str(value))
    picture.save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


def index_of(dataset: Dataset, example: Key) -> int:
    """Return the index of an example named by its index or its key.

    Raises:
        UsageError: There is no such example.

    >>> from refcocom_gpu.dataset.table import load_dataset
    >>> index_of(load_dataset("sample"), "20002_0")
    0
    """
    if isinstance(example, str):
        parts = example.split("_")
        if not all(part.lstrip("-").isdecimal() for part in parts):
            raise UsageError(
                f"{example!r} is neither an index nor a key SAMPLE_SENTENCE, as in 17_0"
            )
        example = int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))  # type: ignore[assignment]
    if isinstance(example, tuple):
        if len(example) != len(dataset.example_key_fields):
            fields = ", ".join(dataset.example_key_fields)
            raise UsageError(f"a key of {dataset.source} is ({fields}), not {example}")
        columns = [np.array([part], np.int64) for part in example]
        if (index := int(dataset.index_of_key(columns)[0])) < 0:
            raise UsageError(f"{dataset.source} has no example {'_'.join(map(str, example))}")
        return index
    index = operator.index(example)  # type: ignore[arg-type]
    if not 0 <= index < dataset.n_examples:
        raise UsageError(f"index {index} is not 0…{dataset.n_examples - 1} of {dataset.source}")
    return index


def _sides(what: Any, masks: Any, truth: Any) -> tuple[MaskStore, Any]:
    """Return the true masks and where the predicted ones are."""
    if isinstance(what, Result):
        store, problem = truth_of(what, truth)
        if store is None:
            raise UsageError(f"{problem}; pass truth=DATASET")
        if masks is None and what.masks is not None:
            masks = what.mask_of
        return store, masks
    if truth is not None:
        raise UsageError("truth= is that of a result; a dataset is its own")
    return (what if isinstance(what, MaskStore) else MaskStore.build(what)), masks


def _predicted(masks: Any, index: int, shape: tuple[int, ...]) -> Mask | None:
    """Return the predicted mask of an example, [H, W] bool, or None."""
    given = masks(index) if callable(masks) else masks
    if isinstance(given, Mapping) and "counts" not in given:
        given = given.get(index)
    if given is None:
        return None
    mask = rle.decode(given) if isinstance(given, Mapping) else np.asarray(given).astype(bool)
    if mask.shape != shape:
        raise UsageError(f"the mask has the shape {mask.shape}, its image {shape}")
    return mask


def _as_picture(pixels: Pixels, about: Mapping[str, Any]) -> Picture:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.info.update(about)
    return picture
