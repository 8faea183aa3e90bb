"""What people call an example in, its index out: an image or a sample, and the sentence where it is unique.

Sentences are compared after Unicode normalisation (NFC) and without spaces at their ends, because a round
trip through a file system, a form or a language model changes these. A file name is found by its last part.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from refcocom_gpu.errors import AbsentError, NotFoundError
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.text import base_name

HOLDERS = ("sample_id", "image_id", "file_name")
"""What may stand beside a sentence, the most exact first."""

SHOWN = 5
"""Examples that a message lists."""


class Lookup:
    """Finds examples by their sentence.

    Args:
        images: As of a `Dataset`.
        samples: As of a `Dataset`.
        examples: As of a `Dataset`.
        describe: Gives the key of an index as text.
    """

    def __init__(
        self,
        images: pa.Table,
        samples: pa.Table,
        examples: pa.Table,
        describe: Callable[[int], str],
    ) -> None:
        self._images, self._samples, self._describe = images, samples, describe
        self._texts: list[str] = examples["sentence"].to_pylist()
        self._sample_of: list[int] = examples["sample"].to_pylist()
        self._image_of: list[int] = to_numpy(samples["image"])[self._sample_of].tolist()
        self._examples: dict[tuple[int, str], list[int]] = defaultdict(list)
        for index, (image, text) in enumerate(zip(self._image_of, self._texts, strict=True)):
            self._examples[image, normal_text(text)].append(index)
        self._holders: dict[str, Mapping[Any, Sequence[int]]] = {}

    def index(self, holder: str, value: Any, sentence: str) -> int:
        """Return the index of one example.

        Args:
            holder: One of `HOLDERS`.
            value: The sample id, the image id, or the name of the image's file.
            sentence: The text.

        Raises:
            AbsentError: No example fits.
            NotFoundError: Several fit.
        """
        if holder == "file_name":
            value = base_name(str(value))
        rows = self._rows_of(holder).get(value, ())
        if not rows:
            raise AbsentError(f"{holder} {value} is not in the dataset")
        text, of_sample = normal_text(sentence), holder == "sample_id"
        images = {self._samples["image"][row].as_py() for row in rows} if of_sample else set(rows)
        found = [
            index
            for image in sorted(images)
            for index in self._examples.get((image, text), ())
            if not of_sample or self._sample_of[index] in rows
        ]
        if len(found) == 1:
            return found[0]
        if found:
            shown = "; ".join(map(self._describe, found[:SHOWN]))
            raise NotFoundError(
                f"{sentence!r} names {len(found)} examples of {holder} {value}: {shown}"
            )
        holders = self._sample_of if of_sample else self._image_of
        texts = [text for text, row in zip(self._texts, holders, strict=True) if row in rows]
        more = "" if len(texts) <= SHOWN else " …"
        raise AbsentError(
            f"{sentence!r} is no sentence of {holder} {value}; "
            f"its sentences are {', '.join(map(repr, texts[:SHOWN]))}{more}"
        )

    def _rows_of(self, holder: str) -> Mapping[Any, Sequence[int]]:
        """Return the rows of samples or images of each value."""
        if holder not in self._holders:
            table = self._samples if holder == "sample_id" else self._images
            values: list[Any] = table[holder].to_pylist()
            if holder == "file_name":
                values = [base_name(name or "") for name in values]
            rows: dict[Any, list[int]] = defaultdict(list)
            for row, value in enumerate(values):
                rows[value].append(row)
            self._holders[holder] = rows
        return self._holders[holder]


def normal_text(text: str) -> str:
    r"""Return a sentence as it is compared.

    >>> normal_text(" cafe\u0301 ") == normal_text("caf\xe9")
    True
    """
    return unicodedata.normalize("NFC", text).strip()
