"""A whole file of results of detectron2 or MMDetection, a pickle, in; predictions for `score` and `convert` out.

The pickle is a list with one entry for each expression. An entry is a dict with the key of its example, as rows of
prediction files have it, and its masks:

| written by | an entry holds |
|---|---|
| detectron2's evaluators | `instances`, a list of {`segmentation`, `score`} |
| loops of one's own | `masks` and `scores`, or one `segmentation` |
| MMDetection 2, `tools/test.py --out` | no key: (boxes, masks), each a list per class; `keys=order` |

Pickles are read by `pickles.load`, which executes nothing in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refcocom_gpu.adapters import pickles
from refcocom_gpu.adapters.fields import field, records
from refcocom_gpu.adapters.files import example_of
from refcocom_gpu.errors import DataError, Problems, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.answers import Answers
from refcocom_gpu.predictions.combine import combine_masks, plain_mask
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.normalise import is_rle
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.read import expand_paths
from refcocom_gpu.predictions.shards import PICKLES
from refcocom_gpu.utils.changes import unchanged

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

HOLDERS = ("segmentation", "masks", "instances")
"""The names under which an entry may carry its masks."""


def read_results(
    path: str | Path | list[str | Path],
    dataset: Dataset,
    *,
    combine: str | None = None,
    keys: str | None = None,
    fields: dict[str, str] | None = None,
) -> Answers:
    """Read pickles of results.

    Args:
        path: A `.pkl` file, a glob or a list; several files are the shards of one set.
        dataset: What the results are for.
        combine: `union` or `best`, for entries that hold several masks; without it these are errors.
        keys: How entries name their examples, as for `score`.
        fields: What entries call the fields of their key, as for `score`.

    Returns:
        The predictions, as COCO RLE; an entry without a mask is an empty mask. `score` takes them whole.

    Raises:
        PredictionError: An entry has no key or no masks, its key is unknown or repeated, or its masks do not fit.
        DataError: A pickle is not plain, or holds something else than a list.
        UsageError: A file is absent or no pickle, or an option is unknown.

    >>> import pickle, tempfile, refcocom_gpu as rc
    >>> dataset = rc.load_dataset("sample")
    >>> path = Path(tempfile.mkdtemp()) / "results.pkl"
    >>> entry = {"sample_id": 20002, "sentence_idx": 0, "masks": np.ones((1, 221, 246), bool), "scores": [0.9]}
    >>> _ = path.write_bytes(pickle.dumps([entry]))
    >>> read_results(path, dataset)
    Answers(source=pickle: 1 read, 0 of them combined, 0 without an object; 0 unread)
    """
    ReadOptions(combine=combine, keys=keys)
    files = expand_paths(path)
    for file in files:
        if not is_pickle(file):
            raise UsageError(f"{file}: a pickle of results ends in {', '.join(sorted(PICKLES))}")
    with unchanged(files):
        answers = Answers.of(files, {"source": "pickle", "combine": combine})
        _fill(answers, dataset, keys, fields)
    return answers


def _fill(
    answers: Answers, dataset: Dataset, keys: str | None, fields: dict[str, str] | None
) -> None:
    """Read the entries of the files, as `read_results` says."""
    problems = Problems()
    resolver = Keys(dataset, problems, keys, fields=fields)
    seen: set[str] = set()
    for file in answers.files:
        for number, entry in enumerate(records(pickles.load(file), f"{file}: a file of results")):
            where = f"{file}, entry {number}"
            held = _row(entry)
            seen |= held.keys()
            row = resolver.renames.row(held)
            index = example_of(row, resolver, where, held)
            if index is None or index < 0:
                continue
            sample = int(dataset.example_sample[index])
            size = int(dataset.heights[sample]), int(dataset.widths[sample])
            try:
                masks, scores = _masks(entry)
                mask = combine_masks(masks, scores, combine=answers.adapter["combine"])
            except UsageError as error:
                problems.add("several masks", where, str(error))
                continue
            except DataError as error:
                problems.add("malformed mask", where, str(error))
                continue
            try:
                encoded = _encoded(mask, size)
            except (DataError, UsageError) as error:
                problems.add("malformed mask", where, str(error))
                continue
            answers.n_combined += len(masks) > 1
            answers.n_none += not len(masks)
            answers.pairs.append((dataset.key_of(index), encoded))
    if reason := resolver.renames.unseen(seen):
        problems.add("no column", answers.name, f"{reason}: no entry holds it")
    if resolver.form is not None:
        resolver.form.finish(answers.name, problems)
    problems.raise_if_any()


def is_pickle(path: str | Path) -> bool:
    """Return whether a file is a pickle by its name."""
    return Path(path).suffix.lower() in PICKLES


def _row(entry: Any) -> dict[str, Any]:
    """Return what an entry may name its example with; numbers of NumPy become those of Python."""
    if not isinstance(entry, Mapping):
        return {}
    return {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in entry.items()
        if name not in HOLDERS
    }


def _masks(entry: Any) -> tuple[Any, Any]:
    """Return the masks of an entry and their scores, None if it has none.

    Raises:
        DataError: It has none of `HOLDERS`, or several, or is something else.
    """
    if isinstance(entry, tuple) and len(entry) == 2:
        return _of_classes(*entry)
    held = [name for name in HOLDERS if isinstance(entry, Mapping) and name in entry]
    if len(held) != 1:
        has = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        raise DataError(
            f"an entry is a dict with one of {', '.join(HOLDERS)}, or a tuple (boxes, masks); this has {has}"
        )
    if held == ["segmentation"]:
        value = entry["segmentation"]
        return [] if value is None else [value], None
    if held == ["masks"]:
        masks = [] if entry["masks"] is None else entry["masks"]
        is_one = is_rle(masks) or getattr(masks, "ndim", 3) == 2
        return [masks] if is_one else masks, entry.get("scores")
    instances = records(entry["instances"], "instances of detectron2")
    masks = [field(instance, "segmentation", "an instance") for instance in instances]
    scores = [instance.get("score") for instance in instances]
    return masks, None if None in scores else scores


def _of_classes(boxes: Any, masks: Any) -> tuple[list[Any], list[float]]:
    """Return the masks of all classes, and their scores, the last column of their boxes."""
    boxes, masks = records(boxes, "boxes of MMDetection"), records(masks, "masks of MMDetection")
    if len(boxes) != len(masks) or any(
        np.shape(b) != (len(m), 5) for b, m in zip(boxes, masks, strict=True)
    ):
        raise DataError(
            "an entry (boxes, masks) of MMDetection holds, for each class, [K, 5] boxes and K masks"
        )
    joined = [mask for of_class in masks for mask in of_class]
    return joined, [float(box[4]) for of_class in boxes for box in of_class]


def _encoded(mask: Any, size: tuple[int, int]) -> Any:
    """Return a mask as a COCO RLE object of the size of its image; None for an empty mask."""
    mask = plain_mask(mask)
    if mask is None:
        return None
    mask = mask if is_rle(mask) else rle.encode(mask)
    return rle.encode_ends([rle.ends_of(mask, *size)], [size])[0]
