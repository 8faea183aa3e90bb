"""What people call an example in, its index out: an image or a sample, and the sentence where it is unique.

Sentences are compared after Unicode normalisation (NFC) and without spaces at their ends, because a round
trip through a file system, a form or a language model changes these. A file name is found by its last part.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from refcocom_gpu.dataset.facts import SAMPLE_IDS
from refcocom_gpu.errors import AbsentError, NotFoundError
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.text import base_name

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
        self._images, self._samples, self._examples_table = images, samples, examples
        self._describe = describe
        self._texts: list[str] = examples["sentence"].to_pylist()
        self._sample_of: list[int] = examples["sample"].to_pylist()
        self._first = np.searchsorted(self._sample_of, np.arange(samples.num_rows + 1))
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
            raise self._several(f"{sentence!r}", f"of {holder} {value}", found)
        holders = self._sample_of if of_sample else self._image_of
        texts = [text for text, row in zip(self._texts, holders, strict=True) if row in rows]
        more = "" if len(texts) <= SHOWN else " …"
        raise AbsentError(
            f"{sentence!r} is no sentence of {holder} {value}; "
            f"its sentences are {', '.join(map(repr, texts[:SHOWN]))}{more}"
        )

    def of_sample(
        self, holder: str, value: int, sentence_idx: int | None, sentence: str | None
    ) -> int:
        """Return the index of the example of a sample that fits what is given of its sentence.

        Args:
            holder: One of `SAMPLE_IDS`.
            value: The id. Several samples may have it.
            sentence_idx: The number of the sentence in its sample; None where it is not given.
            sentence: The text; None where it is not given.

        Raises:
            AbsentError: There is no such id, or none of its examples has this text.
            NotFoundError: No example fits, or several do.
        """
        rows = self._rows_of(holder).get(value, ())
        if not rows:
            raise AbsentError(f"{holder} {value} is not in the dataset")
        all_of_id = [k for row in rows for k in range(self._first[row], self._first[row + 1])]
        found = all_of_id
        given, error = [], NotFoundError
        if sentence_idx is not None:
            given.append(f"sentence_idx {sentence_idx}")
            found = [k for k in found if k - self._first[self._sample_of[k]] == sentence_idx]
        if sentence is not None:
            given.append(repr(sentence))
            text = normal_text(sentence)
            found = [k for k in found if normal_text(self._texts[k]) == text]
            if all(normal_text(self._texts[k]) != text for k in all_of_id):
                error = AbsentError
        if len(found) == 1:
            return found[0]
        name = " and ".join(given)
        if found:
            raise self._several(name, f"of {holder} {value}", found)
        shown = "; ".join(f"{self._describe(k)} {self._texts[k]!r}" for k in all_of_id[:SHOWN])
        raise error(
            f"{name} fits no example of {holder} {value}; it has {shown}"
            f"{'' if len(all_of_id) <= SHOWN else '; …'}"
        )

    def by_sentence_id(self, sent_id: int) -> int:
        """Return the index of the example with a `sent_id`.

        Raises:
            AbsentError: None has it.
            NotFoundError: Several have it.
        """
        found = self._rows_of("sent_id").get(sent_id, ())
        if not found:
            raise AbsentError(f"sent_id {sent_id} is not in the dataset")
        if len(found) > 1:
            raise self._several(f"sent_id {sent_id}", "", found)
        return found[0]

    def _several(self, name: str, of: str, found: Sequence[int]) -> NotFoundError:
        shown = "; ".join(map(self._describe, found[:SHOWN])) + (
            "; …" if len(found) > SHOWN else ""
        )
        return NotFoundError(f"{name} names {len(found)} examples{of and ' '}{of}: {shown}")

    def _rows_of(self, holder: str) -> Mapping[Any, Sequence[int]]:
        """Return the rows of examples, samples or images of each value."""
        if holder not in self._holders:
            table = self._images
            if holder in SAMPLE_IDS:
                table = self._samples
            elif holder == "sent_id":
                table = self._examples_table
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
