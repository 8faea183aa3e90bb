"""A dataset in, its examples out, each with its true mask and its picture on request."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refcocom_gpu.dataset.images import Images, Pictured
from refcocom_gpu.masks import rle
from refcocom_gpu.utils.html import table_html

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

BLOCK = 1024
"""Examples whose descriptions are made at a time while iterating."""


class Exemplified(Pictured, Protocol):
    """What examples need to know of their dataset."""

    @property
    def n_samples(self) -> int:
        """M."""

    @property
    def n_examples(self) -> int:
        """N."""

    @property
    def described(self) -> pa.Table:
        """A row per example that describes it."""

    @property
    def example_sample(self) -> NDArray[np.int64]:
        """[N] the sample of each example."""

    @property
    def counts(self) -> rle.Column:
        """M compressed RLE strings."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    @property
    def pictures(self) -> Images:
        """The pictures."""

    def key_of(self, index: int) -> tuple[int, ...]:
        """Return the key of an example."""


@dataclass(frozen=True)
class Example:
    """One (image, sentence) pair.

    Attributes:
        index: Its row number in the dataset and in its store.
        key: As predictions name it: one number per field of `dataset.example_key_fields`.
        sentence: The expression.
        image_id: Of its image.
        category: Of the object; empty where the dataset does not say.
        height: H of the image and the mask, pixels.
        width: W, pixels.
    """

    index: int
    key: tuple[int, ...]
    sentence: str
    image_id: int
    category: str
    height: int
    width: int
    _dataset: Exemplified = field(repr=False, compare=False)

    def mask(self) -> NDArray[np.bool_]:
        """Decode the true mask.

        Returns:
            [H, W] bool.

        Raises:
            RLEError: The dataset's mask is not valid, which `MaskStore.build` would say of the whole dataset.
        """
        sample = int(self._dataset.example_sample[self.index])
        counts = bytes(self._dataset.counts.row(sample))
        return rle.decode({"size": [self.height, self.width], "counts": counts})

    def image(self) -> Picture:
        """Decode the picture, RGB, H × W.

        Raises:
            UsageError: The dataset's source holds no pictures, or Pillow is not installed.
            DatasetError: The picture is absent or does not decode.
        """
        sample = int(self._dataset.example_sample[self.index])
        return self._dataset.pictures[int(self._dataset.sample_image[sample])]


class Examples:
    """Makes a dataset a sequence of its examples, in the order of their indices.

    >>> import refcocom_gpu as rc
    >>> dataset = rc.load_dataset("sample")
    >>> len(dataset), dataset[17]
    (297, Example(index=17, key=(20016, 1), sentence='...', image_id=1004, category='oval', height=..., width=...))
    >>> dataset[17].mask().shape == (dataset[17].height, dataset[17].width)
    True
    """

    def __len__(self: Exemplified) -> int:
        return self.n_examples

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self: Any, index: int | slice) -> Example | list[Example]:
        """Return the example of an index, which may count from the end, or a list for a slice.

        Raises:
            IndexError: There is no such example.
        """
        if isinstance(index, slice):
            return [self[k] for k in range(self.n_examples)[index]]
        try:
            place = range(self.n_examples)[operator.index(index)]
        except IndexError:
            raise IndexError(
                f"example {index} of {self.n_examples:,}: indices are 0…{self.n_examples - 1}, or −1… from the end"
            ) from None
        return _examples(self, place, 1)[0]

    def __iter__(self: Exemplified) -> Iterator[Example]:
        for start in range(0, self.n_examples, BLOCK):
            yield from _examples(self, start, BLOCK)

    @cached_property
    def pictures(self: Any) -> Images:
        """The pictures of the dataset, by row of `images`; opened at first use, decoded on request.

        Raises:
            UsageError: The source holds no pictures, or Pillow is not installed.
            DatasetError: The source cannot be read, or has changed.
        """
        return Images(self)

    def __repr__(self: Exemplified) -> str:
        return (
            f"Dataset({self.source!r}, {self.n_images:,} images, {self.n_samples:,} samples, "
            f"{self.n_examples:,} examples, {self.fingerprint})"
        )

    def _repr_html_(self: Exemplified) -> str:
        rows = [
            ("images", f"{self.n_images:,}"),
            ("samples", f"{self.n_samples:,}"),
            ("examples", f"{self.n_examples:,}"),
            ("split", self.split),
            *([("revision", self.revision)] if self.revision else []),
            ("fingerprint", self.fingerprint),
        ]
        return table_html(f"Dataset {self.source}", rows)


def _examples(dataset: Exemplified, start: int, number: int) -> list[Example]:
    names = ("index", "sentence", "image_id", "category", "height", "width")
    rows = dataset.described.select(names).slice(start, number).to_pylist()
    return [Example(key=dataset.key_of(row["index"]), _dataset=dataset, **row) for row in rows]
