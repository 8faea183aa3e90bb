"""How the rows of a table name their examples: `keys=`. A row in, the index of its example out, or why there is none.

| `keys=` | a row carries |
|---|---|
| `sample` | `sample_id` and `sentence_idx` |
| `position` | `image_id`, `position` and `sentence_idx` |
| `sentence` | the `sentence`, and `sample_id`, `image_id` or `file_name` |
| `order` | nothing: the rows are those of the dataset, in its order |
| `refer` | `sent_id`; or `ref_id` or `ann_id` with `sentence_idx` or the `sentence`: the ids of the original sets |

The first two are columns of numbers, which `Keys.resolve` looks up at once. The others are looked up row by row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from refcocom_gpu.dataset.facts import HOLDERS, REFER_IDS
from refcocom_gpu.errors import NotFoundError, Problems, UsageError
from refcocom_gpu.utils.text import base_name

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
        named: Sets of placeholders of `name=`, one of which finds an example; empty where names cannot.
    """

    fields: tuple[str, ...]
    named: tuple[tuple[str, ...], ...] = ()

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
        # The sentence is compared when the batch is finished, as in all forms.
        if differing := difference(self.dataset, index, row, self.fields[:-1]):
            raise NotFoundError(
                f"{differing}, the example at this place: the rows are in another order than the dataset"
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


class ByRefer(RowForm):
    """Rows of `keys=refer`: the most exact id finds the example, and the others are compared with it.

    Raises:
        UsageError: The examples of the dataset carry none of these ids.
    """

    NOT_CARRIED = (
        "the dataset carries no sent_id, ref_id or ann_id; refcocom convert RUN OUT from_dataset=… dataset=… finds "
        "its examples by those of an original set, such as the REFER release"
    )

    fields = (*REFER_IDS, "sentence_idx", "sentence")
    named = (("sent_id",), ("ref_id", "sentence_idx"), ("ann_id", "sentence_idx"))

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        if not dataset.refer_ids:
            raise UsageError(f"keys=refer: {self.NOT_CARRIED}")

    def index_of(self, row: Mapping[str, Any]) -> int:
        """As `RowForm.index_of`."""
        numbers = {}
        for name in (*REFER_IDS, "sentence_idx"):
            if row.get(name) is not None:
                numbers[name] = whole_number(row[name])
                if numbers[name] is None:
                    raise NotFoundError(f"{name} is {row[name]!r:.60}, not a whole number")
        holder = next((name for name in self.dataset.refer_ids if name in numbers), None)
        sentence = row.get("sentence")
        sentence = sentence if isinstance(sentence, str) else None
        sentence_idx = numbers.get("sentence_idx")
        is_named = holder == "sent_id" or sentence_idx is not None or sentence is not None
        if holder is None or not is_named:
            raise NotFoundError(
                f"keys=refer needs sent_id, or ref_id or ann_id with sentence_idx or the sentence; the dataset "
                f"carries {', '.join(self.dataset.refer_ids)}, the row has {_named(row)}"
            )
        value = numbers[holder]
        assert value is not None
        lookup = self.dataset.lookup
        if holder == "sent_id":
            index = lookup.by_sentence_id(value)
        else:
            index = lookup.of_sample(holder, value, sentence_idx, sentence)
        if differing := difference(self.dataset, index, row, self.fields[:-1]):
            raise NotFoundError(f"{differing}, the example with {holder} {value}")
        return index

    def finish(self, source: str, problems: Problems) -> None:
        """As `RowForm.finish`: nothing, since each row stands for itself."""


ROW_FORMS: dict[str, type[RowForm]] = {
    "sentence": BySentence,
    "order": ByOrder,
    "refer": ByRefer,
}
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
        raise UsageError(f"keys={keys} needs a dataset with key={ID_FORMS[keys]!r}")
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


def difference(
    dataset: Dataset, index: int, row: Mapping[str, Any], names: Iterable[str]
) -> str | None:
    """Say which of some facts of an example differs in a row that names it; None where none does.

    What the row or the dataset does not state is not compared. A file is compared by its last part, with or without
    its ending.
    """
    for name in names:
        given, true = row.get(name), None
        if given is not None:
            true = dataset.fact(index, name)
        # An image without a file has an empty name.
        if true in (None, "") or given == true or whole_number(given) == true:
            continue
        if name == "file_name":
            true = base_name(true)
            if base_name(str(given)) in (true, true.rpartition(".")[0]):
                continue
        return f"{name} is {given!r:.60}, not {true!r}, that of {dataset.describe(index)}"
    return None


def _named(row: Mapping[str, Any]) -> str:
    return ", ".join(name for name, value in row.items() if value is not None) or "nothing"
