"""Predictions that are boxes in, the columns of the metric `boxes` out: nothing is counted, and nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.counting.measures import IOU, METRICS, PRED_BOX
from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.boxes import judge_boxes
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.read import Source, read_boxes

if TYPE_CHECKING:
    from refcocom_gpu.store.store import MaskStore

BOXES = "boxes"
"""The one metric of predictions that are boxes."""


def only_boxes(metrics: str | Sequence[str]) -> tuple[str, ...]:
    """Return the metrics of predictions that are boxes.

    Args:
        metrics: What was asked for; `iou` stands for nothing in particular, because it is the default.

    Raises:
        UsageError: For a metric of masks.

    >>> only_boxes("iou"), only_boxes(["iou", "boxes"])
    (('boxes',), ('boxes',))
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if others := [name for name in names if name not in (IOU, BOXES)]:
        raise UsageError(
            f"these predictions are boxes, whose metric is {BOXES}; {', '.join(others)} needs masks"
        )
    return (BOXES,)


def count_boxes(
    source: Source,
    store: MaskStore,
    options: ReadOptions,
    problems: Problems,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, NDArray[Any]], Keys]:
    """Read all boxes of a set.

    Args:
        source: Where they are.
        store: Ground truth.
        options: Declare their form.
        problems: Collects what is wrong; check it afterwards.
        progress: Called with the number of examples of each batch.

    Returns:
        [N] columns of the metric `boxes`: float64 for those of predicted boxes in pixels, 0, 0, 0, 0 where there is
        none; and the `Keys` that know which examples were given.

    Raises:
        UsageError: The predictions have a format that holds masks.
    """
    boxes = np.zeros((len(store), 4))
    batches, keys = read_boxes(source, store.dataset, options, problems)
    for batch in batches:
        boxes[batch.index] = batch.boxes
        if progress is not None:
            progress(len(batch.index))
    sample = store.example_sample
    judge_boxes(boxes, store.dataset, options, source.name, problems)
    stored = {name: column[sample] for name, column in METRICS[BOXES].stored(store).items()}
    return {**dict(zip(PRED_BOX, boxes.T, strict=True)), **stored}, keys
