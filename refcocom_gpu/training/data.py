"""A loaded dataset in, batches out for a validation loop, each with the `index` of its examples.

`index` says which masks a batch is counted against. So it stays with each example through transforms, collators,
samplers and worker processes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data._utils.collate import collate as torch_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from refcocom_gpu.dataset.images import Images
from refcocom_gpu.errors import UsageError
from refcocom_gpu.training.subset import draw_subset
from refcocom_gpu.utils.text import first_line

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

KEPT_PICTURES = 4
"""Decoded pictures that each process keeps; one suffices for a pass in order, the others serve mixed orders."""


class Item(dict[str, Any]):
    """An item of `ExpressionDataset`: a dict whose type tells torch's default collation who asks; see `_by_default`."""


class ExpressionDataset(torch.utils.data.Dataset[Item]):
    """The examples of a dataset for torch's `DataLoader`, a picture and a sentence each.

    Item `i` is the dict `{"image": RGB picture, "sentence": str, "index": int}`, where `index` is the
    example's row number. With a `transform` it is what that returns, plus `index`. The picture is a
    copy, so a transform may change it in place. Use `collate` to make batches.

    Each process decodes a picture once for all its examples in a batch, and once in a pass that
    takes the examples in order.

    Args:
        dataset: From `load_dataset`.
        images: A folder that holds the pictures by `file_name`. It is needed for a source without
            pictures, and takes precedence over the pictures of a source.
        transform: Maps an item to a mapping. It need not pass `index` on, and must not change it.
        indices: Row numbers of the examples to take, in this order; None takes all. Repeated ones
            are refused, because they would count twice in a score.
        subset: Take this many examples that stand for all, as `RefCOCOMMetric(…, subset=…)` expects.
        seed: Seed of the subset.

    Attributes:
        dataset: As given.
        indices: int64 [len], the row number of the example at each position.

    Raises:
        UsageError: There are no pictures, `indices` are not different row numbers, or both `indices`
            and `subset` are given.
        DatasetError: The source no longer holds what was loaded.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from refcocom_gpu.dataset.table import load_dataset
        >>> examples = ExpressionDataset(load_dataset("sample"), indices=range(5))
        >>> examples[-1]["sentence"], examples[-1]["index"]
        ('the orange shape below the orange oval', 4)
        >>> [batch["index"].tolist() for batch in DataLoader(examples, 2, collate_fn=collate)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        images: str | Path | None = None,
        transform: Callable[[Item], Mapping[str, Any]] | None = None,
        indices: Sequence[int] | NDArray[np.integer[Any]] | torch.Tensor | None = None,
        subset: int | None = None,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        if subset is not None:
            if indices is not None:
                raise UsageError("indices and subset both say which examples to take; pass one")
            indices = draw_subset(dataset, subset, seed).indices
        self.indices = _row_numbers(indices, dataset.n_examples)
        self._rows = dataset.sample_image[dataset.example_sample[self.indices]]
        self._images = Images(dataset, images)
        self._picture = lru_cache(KEPT_PICTURES)(self._images.__getitem__)

    def __getstate__(self) -> dict[str, Any]:
        # Every process keeps its own decoded pictures.
        return {name: value for name, value in vars(self).items() if name != "_picture"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._picture = lru_cache(KEPT_PICTURES)(self._images.__getitem__)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item:
        """Make an item.

        Args:
            position: 0 … len - 1; negative from the end.

        Raises:
            IndexError: There is no such position.
            DatasetError: The picture is missing, cannot be decoded, or differs in size from its masks.
            UsageError: `transform` returned no mapping, or changed `index`.
        """
        position = range(len(self))[operator.index(position)]
        index = int(self.indices[position])
        item = Item(
            image=self._picture(int(self._rows[position])).copy(),
            sentence=self.dataset.examples["sentence"][index].as_py(),
            index=index,
        )
        if self.transform is None:
            return item
        result = self.transform(item)
        if not isinstance(result, Mapping):
            raise UsageError(
                f"transform returned {type(result).__name__} for example {index}; it should return a dict"
            )
        if "index" in result and not _equals(result["index"], index):
            raise UsageError(
                f"transform returned index {result['index']!r} for example {index}; "
                "it should leave index unchanged, or leave it out"
            )
        return Item(result, index=index)

    def __getitems__(self, positions: Sequence[int]) -> list[Item]:
        """Make the items of a batch, which the loader asks for together.

        Args:
            positions: B positions.

        Returns:
            B items, in the order of `positions`.
        """
        # Examples of one picture are made together; pictures come in the order in which they first appear.
        picture_order: dict[int, int] = {}
        pictures = [
            picture_order.setdefault(int(self._rows[p]), len(picture_order)) for p in positions
        ]
        items = [Item()] * len(positions)
        for place in sorted(range(len(positions)), key=pictures.__getitem__):
            items[place] = self[positions[place]]
        return items


def collate(
    items: Sequence[Mapping[str, Any]],
    collate_fn: Callable[[list[dict[str, Any]]], Mapping[str, Any]] | None = None,
) -> MutableMapping[str, Any]:
    """Make a batch of B items, for `DataLoader(..., collate_fn=collate)`.

    Without `collate_fn`, tensors and numeric arrays of one shape are stacked to [B, …], and numbers
    become a tensor [B]. Everything else, such as pictures, strings or tensors of several shapes,
    becomes a list of B.

    Args:
        items: At least one, each with `index`.
        collate_fn: Makes the batch from all but `index`, for example a data collator of Transformers:
            `functools.partial(collate, collate_fn=mine)`.

    Returns:
        The batch, with `index` an int64 tensor [B].

    Raises:
        UsageError: The items lack `index` or differ in their keys, or `collate_fn` made no mapping.

    Example:
        >>> batch = collate([{"x": 0.5, "sentence": "a", "index": 7}, {"x": 2, "sentence": "b", "index": 3}])
        >>> batch["x"], batch["sentence"], batch["index"]
        (tensor([0.5000, 2.0000], dtype=torch.float64), ['a', 'b'], tensor([7, 3]))
    """
    if not items:
        raise UsageError("a batch needs at least one item")
    for item in items:
        if "index" not in item:
            raise UsageError(
                f"an item has no index, only {', '.join(item)}; take items from ExpressionDataset"
            )
    index = torch.tensor([_whole(item["index"]) for item in items], dtype=torch.int64)
    rest = [{name: value for name, value in item.items() if name != "index"} for item in items]
    if collate_fn is None:
        return {**_columns(rest), "index": index}
    batch = collate_fn(rest)
    if not isinstance(batch, Mapping):
        raise UsageError(
            f"collate_fn returned {type(batch).__name__}; it should return a dict, to which index is added"
        )
    if not isinstance(batch, MutableMapping):
        batch = dict(batch)
    # Into the same object: a BatchEncoding then moves index to a device together with the rest.
    batch["index"] = index
    return batch


def _whole(index: Any) -> int:
    """Return an item's index as an int; it may be an array or tensor of one, but neither float nor bool."""
    if str(getattr(index, "dtype", type(index).__name__)).removeprefix("torch.") != "bool":
        try:
            return operator.index(index)
        except TypeError:
            pass
    raise UsageError(f"the index of an item must be a whole number, not {index!r}")


def _by_default(batch: list[Item], *, collate_fn_map: Any = None) -> Any:
    """Collate as torch does by default; where it cannot, raise `UsageError`, which names `collate`."""
    try:
        return torch_collate([dict(item) for item in batch], collate_fn_map=collate_fn_map)
    except (TypeError, RuntimeError) as error:
        raise UsageError(
            "torch's default collation cannot make a batch of these pictures and sentences; "
            f"pass DataLoader(…, collate_fn=rc.collate). It says: {first_line(error)}"
        ) from error


# The documented way to extend torch's default collation by a type.
default_collate_fn_map[Item] = _by_default


def _columns(items: list[dict[str, Any]]) -> dict[str, Any]:
    for item in items:
        differ = item.keys() ^ items[0].keys()
        if differ:
            raise UsageError(f"some items of the batch lack {', '.join(sorted(differ))}")
    return {name: _column([item[name] for item in items]) for name in items[0]}


def _column(values: list[Any]) -> Any:
    if all(isinstance(value, torch.Tensor) for value in values):
        return values if len({value.shape for value in values}) > 1 else torch.stack(values)
    if all(isinstance(value, np.ndarray | np.generic | int | float) for value in values):
        arrays = [np.asarray(value) for value in values]
        if len({array.shape for array in arrays}) == 1 and all(
            array.dtype.kind in "biuf" for array in arrays
        ):
            return torch.from_numpy(np.stack(arrays))
    return values


def _row_numbers(indices: Any, n_examples: int) -> NDArray[np.int64]:
    if indices is None:
        return np.arange(n_examples)
    rows = np.asarray(indices)
    if rows.size == 0:
        return np.empty(0, np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise UsageError(
            f"indices should be a sequence of row numbers, not {rows.dtype} of shape {rows.shape}"
        )
    outside = (rows < 0) | (rows >= n_examples)
    if outside.any():
        raise UsageError(
            f"indices: {rows[outside][0]} is no row number of the {n_examples:,} examples "
            f"(0…{n_examples - 1}); {int(outside.sum()):,} such"
        )
    values, times = np.unique(rows, return_counts=True)
    if len(values) < len(rows):
        repeated = values[times > 1]
        raise UsageError(f"indices: {repeated[0]} is repeated; {len(repeated):,} such")
    return rows.astype(np.int64)


def _equals(value: Any, index: int) -> bool:
    """Return whether a transform's value, an int or such as a tensor of one, is this index."""
    try:
        return operator.index(value) == index
    except TypeError:
        return False
