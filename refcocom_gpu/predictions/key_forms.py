"""How the rows of a table name their examples: `keys=`. A row in, the index of its example out, or why there is none.

| `keys=` | a row carries |
|---|---|
| `sample` | `sample_id` and `sentence_idx` |
| `position` | `image_id`, `position` and `sentence_idx` |
| `sentence` | the `sentence`, and `sample_id`, `image_id` or `file_name` |
| `order` | nothing: the rows are those of the dataset, in its order |

The first two are columns of numbers, which `Keys.resolve` looks up at once. The others are looked up row by row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from refcocom_gpu.dataset.lookup import HOLDERS
from refcocom_gpu.errors import NotFoundError, Problems, UsageError

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

EXACT = 2**53
"""Whole numbers below this are exact as float64; an id that is this or more as a float may have been another."""


class RowForm(ABC):
    """Finds the example of a row by what the row holds.

    Args:
        dataset: What the predictions are for.

    Attributes:
        fields: What a row may carry to be found.
    """

    fields: tuple[str, ...]

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @abstractmethod
    def index_of(self, row: Mapping[str, Any]) -> int:
        """Return the index of a row's example.

        Raises:
            NotFoundError: The row names none, or several.
        """

    @abstractmethod
    def finish(self, source: str, problems: Problems) -> None:
        """Record what is wrong with the rows of the whole set."""


class BySentence(RowForm):
    """Rows of `keys=sentence`."""

    fields = (*HOLDERS, "sentence")

    def index_of(self, row: Mapping[str, Any]) -> int:
        """As `RowForm.index_of`."""
        holder = next((name for name in HOLDERS if row.get(name) is not None), None)
        sentence = row.get("sentence")
        if holder is None or not isinstance(sentence, str):
            raise NotFoundError(
                f"keys=sentence needs a sentence and one of {', '.join(HOLDERS)}; "
                f"the row has {_named(row)}"
            )
        value = row[holder] if holder == "file_name" else whole_number(row[holder])
        if value is None:
            raise NotFoundError(f"{holder} is {row[holder]!r:.60}, not a whole number")
        return self.dataset.lookup.index(holder, value, sentence)

    def finish(self, source: str, problems: Problems) -> None:
        """As `RowForm.finish`: nothing, since each row stands for itself."""


class ByOrder(RowForm):
    """Rows of `keys=order`; what they name all the same is compared with the example of their place."""

    fields = ("sample_id", "image_id", "file_name", "sentence_idx", "sentence")

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._n_rows = 0

    def index_of(self, row: Mapping[str, Any]) -> int:
        """As `RowForm.index_of`."""
        index, self._n_rows = self._n_rows, self._n_rows + 1
        n = self.dataset.n_examples
        if index >= n:
            raise NotFoundError(
                f"keys=order takes one row for each of {n:,} examples; this is row {index + 1:,}"
            )
        for name, true in self._truth(index).items():
            given = row.get(name)
            if given is not None and given != true and whole_number(given) != true:
                raise NotFoundError(
                    f"{name} is {given!r:.60}, that of the example at this place is {true!r}: "
                    "the rows are in another order than the dataset"
                )
        return index

    def finish(self, source: str, problems: Problems) -> None:
        """As `RowForm.finish`: fewer rows than examples cannot be told apart from shifted ones."""
        if 0 < self._n_rows < self.dataset.n_examples:
            problems.add(
                "bad key",
                source,
                f"keys=order takes one row for each of {self.dataset.n_examples:,} examples; "
                f"there are {self._n_rows:,}",
            )

    def _truth(self, index: int) -> dict[str, Any]:
        dataset = self.dataset
        sample = int(dataset.example_sample[index])
        image = int(dataset.sample_image[sample])
        return {
            "sample_id": int(dataset.sample_ids[sample]),
            "image_id": int(dataset.image_ids[image]),
            "sentence_idx": int(dataset.example_sentence_idx[index]),
        }


ROW_FORMS: dict[str, type[RowForm]] = {"sentence": BySentence, "order": ByOrder}
ID_FORMS = {"sample": "sample_id", "position": "image_position"}
"""Forms that are columns of numbers, each with the `key` that the dataset must have."""


def row_form(keys: str | None, dataset: Dataset) -> RowForm | None:
    """Return how rows are found; None for columns of numbers.

    Args:
        keys: One of `options.KEYS`; None follows the dataset.
        dataset: What the predictions are for.

    Raises:
        UsageError: The dataset is keyed otherwise.
    """
    if keys in ROW_FORMS:
        return ROW_FORMS[keys](dataset)
    if keys is not None and ID_FORMS[keys] != dataset.key:
        raise UsageError(f"keys={keys} needs a dataset with dataset.key={ID_FORMS[keys]}")
    return None


def whole_number(value: Any) -> int | None:
    """Return an id that may have become text or a float on its way; None for what is no whole number, or not exact.

    >>> whole_number("598548"), whole_number(598548.0), whole_number("1e3"), whole_number(12.5), whole_number(2.0**60)
    (598548, 598548, None, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        value = int(value) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() and abs(value) < EXACT else None
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def suggestion(names: Collection[str]) -> str:
    """Return what may help a table that lacks the key, given its names; empty if nothing does."""
    if "sentence" in names and any(name in names for name in HOLDERS):
        return "; keys=sentence finds examples by the sentence and the image or sample"
    return "; keys=order takes one row for each example, in the order of the dataset"


def _named(row: Mapping[str, Any]) -> str:
    return ", ".join(name for name, value in row.items() if value is not None) or "nothing"
